import type { Awaitable } from "../engine.ts";

/** A key of HMAC-SHA256. Signatures are 64 hexadecimal digits. */
export interface SigningKey {
  sign(text: string): Awaitable<string>;
  verify(signature: string, text: string): Awaitable<boolean>;
}

/** The parts of `node:crypto` that are used. */
export interface NodeCrypto {
  createHmac(algorithm: "sha256", key: string): { update(text: string): { digest(encoding: "hex"): string } };
  timingSafeEqual(one: Uint8Array, other: Uint8Array): boolean;
}

/** Creates a key from a secret. Uses `node:crypto` if available, else WebCrypto, which every runtime has. */
export function signingKey(secret: string, node: NodeCrypto | undefined = findNodeCrypto()): SigningKey {
  return node ? nodeKey(secret, node) : webKey(secret);
}

/**
 * Signs synchronously, because WebCrypto answers from another thread in a later turn, which takes 10 to 70 µs per signature. A publication
 * takes three: the sender signs it, and each receiver verifies it, including the sender.
 */
function nodeKey(secret: string, node: NodeCrypto): SigningKey {
  const sign = (text: string) => node.createHmac("sha256", secret).update(text).digest("hex");
  return {
    sign,
    verify: (signature, text) => {
      const [given, own] = [utf8.encode(signature), utf8.encode(sign(text))];
      return given.length === own.length && node.timingSafeEqual(given, own);
    },
  };
}

function webKey(secret: string): SigningKey {
  const key = crypto.subtle.importKey("raw", utf8.encode(secret), ALGORITHM, false, ["sign", "verify"]);
  key.catch(() => {}); // `sign` and `verify` await it and reject.
  return {
    sign: async (text) => toHex(await crypto.subtle.sign(ALGORITHM, await key, utf8.encode(text))),
    verify: async (signature, text) => {
      const bytes = Uint8Array.from(signature.match(/../g) ?? [], (pair) => parseInt(pair, 16));
      return await crypto.subtle.verify(ALGORITHM, await key, bytes, utf8.encode(text));
    },
  };
}

/** Looked up at run time instead of imported, because not every runtime has it. */
function findNodeCrypto(): NodeCrypto | undefined {
  const { process } = globalThis as { process?: { getBuiltinModule?(name: string): unknown } };
  return process?.getBuiltinModule?.("node:crypto") as NodeCrypto | undefined; // Node's documented return type.
}

function toHex(bytes: ArrayBuffer): string {
  return Array.from(new Uint8Array(bytes), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

const ALGORITHM = { name: "HMAC", hash: "SHA-256" };
const utf8 = new TextEncoder();
