/**
 * Runs the test files that `TEST_FILES` names, a line each, in this process, and on Bun and Deno with one set of globals and modules: to start
 * a process for each, or to load the source anew, takes as much CPU as most of them.
 */
import process from "node:process";
import { it } from "node:test";
import { pathToFileURL } from "node:url";

for (const file of process.env["TEST_FILES"]!.split("\n")) {
  try {
    await import(pathToFileURL(file).href);
  } catch (error) {
    it(file, () => {
      throw error;
    });
  }
}
