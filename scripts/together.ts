/** Runs test files in this process: to start one for each takes as much CPU as most of them. */
import process from "node:process";
import { it } from "node:test";
import { pathToFileURL } from "node:url";

for (const file of process.argv.slice(2)) {
  try {
    await import(pathToFileURL(file).href);
  } catch (error) {
    it(file, () => {
      throw error;
    });
  }
}
