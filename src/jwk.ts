import { SignatureKey, type SignatureParameters } from "./signature-key.ts";

/** Signature algorithms with a key pair (RFC 7518 §3.1, RFC 8037). */
export type AsymmetricAlgorithm =
  | "RS256"
  | "RS384"
  | "RS512"
  | "PS256"
  | "PS384"
  | "PS512"
  | "ES256"
  | "ES384"
  | "ES512"
  | "EdDSA";

/** A public key as a JSON Web Key (RFC 7517). A `JsonWebKey` of WebCrypto is one; this type needs no DOM library. */
export interface PublicJwk {
  /** The type: `RSA`, `EC` or `OKP`. */
  kty?: string | undefined;
  /** Tells keys apart; a key without one verifies nothing. */
  kid?: string | undefined;
  /** The one algorithm it is for. Absent: each that fits its type. */
  alg?: string | undefined;
  /** What it is for: `sig`, or the key is not used. */
  use?: string | undefined;
  /** What it may be used for: `verify` among them, or the key is not used. */
  key_ops?: string[] | undefined;
  /** The curve of an `EC` or `OKP` key. */
  crv?: string | undefined;
  /** The x coordinate, or the whole public key of type `OKP`. */
  x?: string | undefined;
  /** The y coordinate. */
  y?: string | undefined;
  /** The modulus of an `RSA` key. */
  n?: string | undefined;
  /** The exponent of an `RSA` key. */
  e?: string | undefined;
  /** Not read. */
  ext?: boolean | undefined;
  /** Not read. */
  x5c?: string[] | undefined;
  /** Not read. */
  x5t?: string | undefined;
  /** Not read. */
  "x5t#S256"?: string | undefined;
  /** Not read. */
  x5u?: string | undefined;
}

/** An algorithm and the keys that fit it. */
interface Algorithm {
  readonly kty: string;
  readonly crv?: string;
  readonly parameters: SignatureParameters;
}

const rsa = (name: string, bits: number): Algorithm => ({
  kty: "RSA",
  parameters: { name, hash: `SHA-${bits}`, saltLength: bits / 8 },
});

const ec = (crv: string, bits: number): Algorithm => ({
  kty: "EC",
  crv,
  parameters: { name: "ECDSA", namedCurve: crv, hash: `SHA-${bits}` },
});

const ALGORITHMS: Readonly<Record<AsymmetricAlgorithm, Algorithm>> = {
  RS256: rsa("RSASSA-PKCS1-v1_5", 256),
  RS384: rsa("RSASSA-PKCS1-v1_5", 384),
  RS512: rsa("RSASSA-PKCS1-v1_5", 512),
  PS256: rsa("RSA-PSS", 256),
  PS384: rsa("RSA-PSS", 384),
  PS512: rsa("RSA-PSS", 512),
  ES256: ec("P-256", 256),
  ES384: ec("P-384", 384),
  ES512: ec("P-521", 512),
  EdDSA: { kty: "OKP", crv: "Ed25519", parameters: { name: "Ed25519" } },
};

/** The names of the algorithms. */
export const ASYMMETRIC_ALGORITHMS: ReadonlySet<string> = new Set(Object.keys(ALGORITHMS));

/** Bits of an RSA modulus below which a key is not used (RFC 7518 §3.3). */
const MIN_MODULUS_BITS = 2048;

/** RFC 9864 names the algorithm Ed25519, and Bun exports keys so; RFC 8037 calls it EdDSA. */
export const withOneName = (alg: unknown): unknown => alg === "Ed25519" ? "EdDSA" : alg;

/** A public key that verifies tokens. */
export class VerificationKey {
  /** The key's id. */
  readonly kid: string;
  /** By algorithm, for WebCrypto ties a key to one. */
  readonly #keys: ReadonlyMap<AsymmetricAlgorithm, SignatureKey>;

  private constructor(kid: string, keys: ReadonlyMap<AsymmetricAlgorithm, SignatureKey>) {
    this.kid = kid;
    this.#keys = keys;
  }

  /** Reads a JSON Web Key, or says why it must not be used with these algorithms. */
  static read(jwk: unknown, accepted: readonly AsymmetricAlgorithm[]): VerificationKey | string {
    if (typeof jwk !== "object" || jwk === null || Array.isArray(jwk)) return "it is no JSON Web Key";
    const { kty, kid, alg, use, key_ops, crv, x, y, n, e, d, k } = jwk as Record<string, unknown>;
    if (d !== undefined || k !== undefined) return "it is private or secret: list its public members only";
    if (typeof kid !== "string" || kid === "") return "it has no kid";
    if (use !== undefined && use !== "sig") return 'its use is not "sig"';
    if (key_ops !== undefined && !(Array.isArray(key_ops) && key_ops.includes("verify"))) {
      return 'its key_ops do not name "verify"';
    }
    const algorithms = accepted.filter((name) => {
      const algorithm = ALGORITHMS[name];
      return algorithm.kty === kty && algorithm.crv === (kty === "RSA" ? undefined : crv) &&
        (alg === undefined || withOneName(alg) === name);
    });
    if (algorithms.length === 0) return `none of ${accepted.join(", ")} fits it`;
    if (kty === "RSA" && modulusBits(n) < MIN_MODULUS_BITS) return `its modulus has fewer than ${MIN_MODULUS_BITS} bits`;
    // Only what makes the key: WebCrypto refuses an `alg` or `key_ops` that it knows under another name.
    const members = Object.fromEntries(
      Object.entries({ kty, crv, x, y, n, e }).filter(([, member]) => typeof member === "string"),
    );
    return new VerificationKey(
      kid,
      new Map(algorithms.map((name) => [name, new SignatureKey(members, ALGORITHMS[name].parameters)])),
    );
  }

  /** The key as one of an algorithm; `undefined` when it is not for that. */
  for(algorithm: AsymmetricAlgorithm): SignatureKey | undefined {
    return this.#keys.get(algorithm);
  }
}

/** The bytes of a text in base64url without padding (RFC 7515 §2), `null` when it is none. */
export function decodeBase64Url(text: string): Uint8Array | null {
  if (text.length % 4 === 1 || !/^[\w-]*$/.test(text)) return null;
  return Uint8Array.from(atob(text.replaceAll("-", "+").replaceAll("_", "/")), (char) => char.charCodeAt(0));
}

/** Bits of the number, the zeros in front not counted; 0 when it cannot be read. */
function modulusBits(n: unknown): number {
  const bytes = typeof n === "string" ? decodeBase64Url(n) : null;
  const first = bytes?.findIndex((byte) => byte !== 0) ?? -1;
  return bytes && first !== -1 ? 8 * (bytes.length - first) - Math.clz32(bytes[first]!) + 24 : 0;
}
