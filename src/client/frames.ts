import type { WebSocketMessage } from "../protocol/protocol.ts";
import { ClientError } from "./error.ts";

/** Maximum depth of a message: far above the 32 levels that are valid, far below what makes `JSON.stringify` slow or throw. */
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

// `JSON.parse` creates an own key `__proto__`, which `Object.assign` in an application would turn into a prototype.
const withoutProto = (key: string, value: unknown): unknown => key === "__proto__" ? undefined : value;

function isDeep(text: string): boolean {
  let depth = 0;
  let isQuoted = false;
  for (let i = 0; i < text.length && depth <= MAX_DEPTH; i++) {
    const char = text.charCodeAt(i);
    if (char === 0x22 /* " */) isQuoted = !isQuoted;
    else if (char === 0x5c /* \, in JSON only within quotes */) i++;
    else if (!isQuoted && (char === 0x5b /* [ */ || char === 0x7b /* { */)) depth++;
    else if (!isQuoted && (char === 0x5d /* ] */ || char === 0x7d /* } */)) depth--;
  }
  return depth > MAX_DEPTH;
}
