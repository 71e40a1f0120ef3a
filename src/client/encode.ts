import type { Token } from "./options.ts";

/**
 * A message as the text of a frame.
 *
 * @throws {TypeError} for what is no object, and for what JSON cannot hold: a BigInt, a cycle, a `toJSON` that throws, and a field that is a
 * function or a symbol, which JSON would leave out in silence.
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

/** @throws {TypeError} for a token that is no string. */
export function checkToken(token: unknown): Token {
  if (typeof (token ?? "") !== "string") throw new TypeError("Cannot send: the token is no string");
  return token as Token; // It is one, or absent.
}
