import process from "node:process";
import { turn } from "./waiting.ts";

const EVENTS = ["unhandledRejection", "uncaughtException"] as const;

/**
 * What nobody took while the callback ran and for some turns after: rejections and exceptions that would have ended the process. On Bun and
 * Deno the test runner sees them first and fails the test.
 */
export async function unhandledIn(run: () => unknown): Promise<unknown[]> {
  const seen: unknown[] = [];
  const listener = (reason: unknown) => void seen.push(reason);
  // The test runners listen too, and would fail the test before it can tell what it saw.
  const others = EVENTS.map((event) => process.listeners(event as "uncaughtException"));
  for (const event of EVENTS) {
    process.removeAllListeners(event);
    process.on(event as "uncaughtException", listener);
  }
  try {
    await run();
    for (let n = 0; n < 3; n++) await turn();
  } finally {
    EVENTS.forEach((event, at) => {
      process.off(event, listener);
      for (const other of others[at]!) process.on(event as "uncaughtException", other);
    });
  }
  return seen;
}
