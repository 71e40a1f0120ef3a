import { guard } from "./guard.ts";
import type { Logger } from "./options.ts";
import type { WebSocketClient } from "./websocket-client.ts";

// C0 and C1 controls, DEL, and the separators that end a line for some readers: they would forge records.
// deno-lint-ignore no-control-regex -- they are what is looked for.
const CONTROL = /[\u0000-\u001f\u007f-\u009f\u2028\u2029]/g;

const escaped = (text: string): string =>
  text.replace(CONTROL, (char) => `\\u${char.charCodeAt(0).toString(16).padStart(4, "0")}`);

/** One line about an error that nobody listened for: what it says, its stack and the client it happened to. */
export function logRecord(error: unknown, client?: WebSocketClient): string {
  const who = client ? ` client=${client.uid}` : "";
  return `[noroshi]${who} ${escaped(describe(error)).slice(0, 2048)}`;
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

const LIMIT_NAMES: Record<string, string> = {
  connections: "maxConnections",
  pending: "maxPending",
  ip: "maxConnectionsPerIp",
};

/** Warns that upgrades are refused for a limit, once a minute each: whoever reaches it tries again, and a log must not be what fills the disk. */
export function limitWarner(logger: Logger | false, monotonic: () => number): (limit: string) => void {
  const warned = new Map<string, number>();
  return (limit) => {
    const now = monotonic();
    if (!logger || now - (warned.get(limit) ?? -Infinity) < 60_000) return;
    warned.set(limit, now);
    guard(() => logger.warn(`[noroshi] Upgrades are refused: the limit of ${LIMIT_NAMES[limit]} is reached`), () => {});
  };
}
