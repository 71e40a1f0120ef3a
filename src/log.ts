import type { WebSocketClient } from "./websocket-client.ts";

// C0 and C1 controls, DEL, and the separators that end a line for some readers: they would forge records.
// deno-lint-ignore no-control-regex -- they are what is looked for.
const CONTROL = /[\u0000-\u001f\u007f-\u009f\u2028\u2029]/g;

/** The text on one line, whoever wrote it. */
export const escapeControls = (text: string): string =>
  text.replace(CONTROL, (char) => `\\u${char.charCodeAt(0).toString(16).padStart(4, "0")}`);

/** One line about an error that nobody listened for: what it says, its stack and the client it happened to. */
export function logRecord(error: unknown, client?: WebSocketClient): string {
  const who = client ? ` client=${client.uid}` : "";
  return `[noroshi]${who} ${escapeControls(describe(error)).slice(0, 2048)}`;
}

function describe(error: unknown): string {
  try {
    if (error instanceof Error) {
      const cause = error.cause === undefined ? "" : ` caused by ${String(error.cause)}`;
      return `${error.stack ?? String(error)}${cause}`;
    }
    return `Thrown: ${String(error)}`;
  } catch {
    return "Thrown: a value that cannot be shown"; // Its own toString or stack throws.
  }
}

/** Why somebody was refused, in one sentence: the cause, or the answer where the application gave none. */
export function describeCause(cause: unknown, answer: Error): string {
  if (cause === undefined) return answer.message;
  return cause instanceof Error ? cause.message : String(cause);
}
