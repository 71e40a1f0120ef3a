import type { AsymmetricAlgorithm, PublicJwk } from "../../src/application/jwk.ts";

interface SigningKey {
  publicJwk: PublicJwk;
  /** What must never be published. */
  privateJwk: PublicJwk;
  /** A token by this key; `header` replaces parts of its header. */
  signToken(claims: object, header?: object): Promise<string>;
}

const ALGORITHMS = {
  ES256: { generate: { name: "ECDSA", namedCurve: "P-256" }, sign: { name: "ECDSA", hash: "SHA-256" } },
  RS256: {
    generate: { name: "RSASSA-PKCS1-v1_5", modulusLength: 2048, publicExponent: Uint8Array.of(1, 0, 1), hash: "SHA-256" },
    sign: { name: "RSASSA-PKCS1-v1_5" },
  },
  EdDSA: { generate: { name: "Ed25519" }, sign: { name: "Ed25519" } },
  ES384: { generate: { name: "ECDSA", namedCurve: "P-384" }, sign: { name: "ECDSA", hash: "SHA-384" } },
  PS256: {
    generate: { name: "RSA-PSS", modulusLength: 2048, publicExponent: Uint8Array.of(1, 0, 1), hash: "SHA-256" },
    sign: { name: "RSA-PSS", saltLength: 32 },
  },
} satisfies Partial<Record<AsymmetricAlgorithm, unknown>>;

/** A key pair made for one test; `parameters` replaces parts of how it is made. */
export async function createKey(alg: keyof typeof ALGORITHMS, kid: string, parameters: object = {}): Promise<SigningKey> {
  const { generate, sign } = ALGORITHMS[alg];
  // A pair: none of these algorithms has a single, secret key.
  const { privateKey, publicKey } = await crypto.subtle.generateKey({ ...generate, ...parameters }, true, [
    "sign",
    "verify",
  ]) as CryptoKeyPair;
  return {
    // `alg` as a key server has it: for Ed25519 some runtimes export the name of RFC 9864, others none.
    publicJwk: { ...await crypto.subtle.exportKey("jwk", publicKey), alg, kid },
    privateJwk: { ...await crypto.subtle.exportKey("jwk", privateKey), alg, kid },
    async signToken(claims, header) {
      const signed = `${encodePart({ alg, typ: "JWT", kid, ...header })}.${encodePart(claims)}`;
      const signature = await crypto.subtle.sign(sign, privateKey, new TextEncoder().encode(signed));
      return `${signed}.${base64Url(new Uint8Array(signature))}`;
    },
  };
}

/** A part of a token: JSON in base64url. */
export const encodePart = (part: unknown): string => base64Url(new TextEncoder().encode(JSON.stringify(part)));

/** A token by a shared secret, of whatever its payload says. */
export async function signText(payload: string, secret: string, header: unknown = { alg: "HS256", typ: "JWT" }): Promise<string> {
  const encoder = new TextEncoder();
  const algorithm = { name: "HMAC", hash: "SHA-256" };
  const key = await crypto.subtle.importKey("raw", encoder.encode(secret), algorithm, false, ["sign"]);
  const signed = `${encodePart(header)}.${base64Url(encoder.encode(payload))}`;
  return `${signed}.${base64Url(new Uint8Array(await crypto.subtle.sign(algorithm, key, encoder.encode(signed))))}`;
}

const base64Url = (bytes: Uint8Array): string =>
  btoa(String.fromCharCode(...bytes)).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");
