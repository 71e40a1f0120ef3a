import type { WebSocketMessage } from "../protocol/protocol.ts";
import { ClientError } from "./error.ts";

/** Far above the 32 levels of a valid message, far below the depth that slows a runtime or makes `JSON.stringify` throw. */
const MAX_DEPTH = 100;

/**
 * Decodes a frame: one message, or an array of them (`noroshi.v1`). Invalid messages are reported and skipped, since the peer may not
 * be a Noroshi server.
 */
export function readFrame(data: unknown, report: (error: ClientError) => void): WebSocketMessage[] {
  const invalid = (why: unknown) => report(new ClientError("INVALID_MESSAGE", `Cannot read a message: ${why}`));
  let value: unknown = [];
  try {
    if (typeof data !== "string") throw "binary";
    if (isDeep(data)) throw "nested too deep";
    value = JSON.parse(data, /__proto__|\\u/.test(data) ? withoutProto : undefined);
  } catch (why) {
    invalid(why);
  }
  return ([value].flat() as WebSocketMessage[]).filter((item) => typeof item?.type === "string" || invalid("no type"));
}

// `JSON.parse` creates `__proto__` as an own key, which `Object.assign` in an application would turn into a prototype.
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
