import type { Token } from "./options.ts";

/**
 * Encodes a message as JSON.
 *
 * @throws {TypeError} for a value that is not an object, for what JSON cannot encode (BigInt, cycles, a throwing `toJSON`), and for a
 * top-level field that is a function or symbol, which JSON would omit.
 */
export function encode(message: object): string {
  let cause: unknown;
  try {
    const text = JSON.stringify(message);
    if (text[0] === "{" && !Object.values(message).some((value) => /^(fu|sy)/.test(typeof value))) return text;
  } catch (error) {
    cause = error;
  }
  throw new TypeError("Cannot send: pass an object that JSON can hold", { cause });
}

/** @throws {TypeError} for a token that is not a string. */
export function checkToken(token: unknown): Token {
  if (typeof (token ?? "") !== "string") throw new TypeError("Cannot send: the token is no string");
  return token as Token; // Checked: a string, `null` or `undefined`.
}

/** UTF-8 length. The text comes from `JSON.stringify`, which escapes lone surrogates, at which `encodeURI` would throw. */
export const bytesOf = (text: string): number => encodeURI(text).replace(/%../g, "_").length;
