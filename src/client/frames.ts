import type { WebSocketMessage } from "../protocol.ts";
import { ClientError } from "./error.ts";

/** Far more than the 32 levels a message may have, and far less than what makes a runtime slow or `JSON.stringify` throw. */
const MAX_DEPTH = 100;

/**
 * Reads a frame: one message, or an array of them (`noroshi.v1`). What is no message is told to `report`, and is otherwise as if it had
 * not come: a server is not trusted to be one.
 */
export function readFrame(data: unknown, report: (error: ClientError) => void): WebSocketMessage[] {
  const bad = (why: unknown) => report(new ClientError("INVALID_MESSAGE", `Cannot read a message: ${why}`));
  let value: unknown = [];
  try {
    if (typeof data !== "string") throw "binary";
    if (isDeep(data)) throw "nested too deep";
    value = JSON.parse(data, /__proto__|\\u/.test(data) ? withoutProto : undefined);
  } catch (why) {
    bad(why);
  }
  // What is no message is left out.
  return ([value].flat() as WebSocketMessage[]).filter((item) => typeof item?.type === "string" || bad("no type"));
}

// JSON.parse makes `__proto__` an own key, which Object.assign in an application turns into a prototype.
const withoutProto = (key: string, value: unknown): unknown => key === "__proto__" ? undefined : value;

function isDeep(text: string): boolean {
  let depth = 0;
  let quoted = false;
  for (let i = 0; i < text.length; i++) {
    const char = text.charCodeAt(i);
    if (char === 0x22 /* " */) quoted = !quoted;
    else if (quoted) {
      if (char === 0x5c /* \ */) i++;
    } else if ((char | 0x20) === 0x7b /* { and [ */) {
      if (++depth > MAX_DEPTH) return true;
    } else if ((char | 0x20) === 0x7d /* } and ] */) depth--;
  }
  return false;
}
