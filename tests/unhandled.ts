import process from "node:process";
import { turn } from "./waiting.ts";

/**
 * What nobody took while the callback ran and for some turns after: rejections that would have ended the process. On Bun and
 * Deno the test runner sees them first and fails the test.
 */
export async function unhandledIn(run: () => unknown): Promise<unknown[]> {
  const seen: unknown[] = [];
  const listener = (reason: unknown) => void seen.push(reason);
  // The test runners listen too, and would fail the test before it can tell what it saw.
  const others = process.listeners("unhandledRejection");
  process.removeAllListeners("unhandledRejection");
  process.on("unhandledRejection", listener);
  try {
    await run();
    for (let n = 0; n < 3; n++) await turn();
  } finally {
    process.off("unhandledRejection", listener);
    for (const other of others) process.on("unhandledRejection", other);
  }
  return seen;
}
