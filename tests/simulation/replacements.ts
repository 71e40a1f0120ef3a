import { Buffer } from "node:buffer";
import process from "node:process";

/** Errors have no stacks until the returned function is called: an outage makes many. */
export function withoutStacks(): () => void {
  const errors = Error as { stackTraceLimit?: number | undefined }; // Of V8 and JavaScriptCore.
  const { stackTraceLimit } = errors;
  errors.stackTraceLimit = 0;
  return () => void (errors.stackTraceLimit = stackTraceLimit);
}

/** Of a text, {@link hash} reads all of the scope and the header, and one of so many characters of the rest. */
const [HEAD, STRIDE] = [160, 8];

/**
 * Nodes sign with a short hash of the key and of some of the text, until the returned function is called. A node without the key still makes no
 * valid signature by accident, and the hash costs a fiftieth of HMAC-SHA256.
 */
export function replaceHmac(): () => void {
  const original = process.getBuiltinModule;
  const crypto = {
    createHmac: (_algorithm: string, key: string) => ({ update: (text: string) => ({ digest: () => hash(text, key) }) }),
    timingSafeEqual: (one: Uint8Array, other: Uint8Array) => Buffer.compare(one, other) === 0,
  };
  const replaced = (id: string) => id === "node:crypto" ? crypto : original?.(id);
  Object.defineProperty(process, "getBuiltinModule", { value: replaced, configurable: true, writable: true });
  return () => Object.defineProperty(process, "getBuiltinModule", { value: original, configurable: true, writable: true });
}

/** 64 hexadecimal digits. */
export function hash(text: string, key: string): string {
  let [one, other] = [0x811c9dc5 ^ text.length, 0x9e3779b1];
  for (let index = 0; index < key.length; index++) one = Math.imul(one ^ key.charCodeAt(index), 0x01000193);
  for (let index = 0; index < text.length; index += index < HEAD ? 1 : STRIDE) {
    one = Math.imul(one ^ text.charCodeAt(index), 0x01000193);
    other = Math.imul(other ^ one, 0x85ebca6b);
  }
  const digits = (one >>> 0).toString(16).padStart(8, "0") + ((other ^ (other >>> 15)) >>> 0).toString(16).padStart(8, "0");
  return digits.repeat(4);
}
