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

/** A public JSON Web Key (RFC 7517). WebCrypto's `JsonWebKey` fits, but this type needs no DOM library. */
export interface PublicJwk {
  /** Key type: `RSA`, `EC` or `OKP`. */
  kty?: string | undefined;
  /** Key id, which the `kid` of a token refers to. Required. */
  kid?: string | undefined;
  /** The only algorithm of the key. Absent: every accepted algorithm that fits its type. */
  alg?: string | undefined;
  /** Intended use. Must be `sig` if present. */
  use?: string | undefined;
  /** Permitted operations. Must include `verify` if present. */
  key_ops?: string[] | undefined;
  /** Curve of an `EC` or `OKP` key. */
  crv?: string | undefined;
  /** The x coordinate of an `EC` key, or the public key of type `OKP`. */
  x?: string | undefined;
  /** The y coordinate of an `EC` key. */
  y?: string | undefined;
  /** Modulus of an `RSA` key. */
  n?: string | undefined;
  /** Exponent of an `RSA` key. */
  e?: string | undefined;
  /** Ignored. */
  ext?: boolean | undefined;
  /** Ignored. */
  x5c?: string[] | undefined;
  /** Ignored. */
  x5t?: string | undefined;
  /** Ignored. */
  "x5t#S256"?: string | undefined;
  /** Ignored. */
  x5u?: string | undefined;
}

/** Key type, curve and WebCrypto parameters of an algorithm. */
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

/** Every {@link AsymmetricAlgorithm}, for checks at run time. */
export const ASYMMETRIC_ALGORITHMS: ReadonlySet<string> = new Set(Object.keys(ALGORITHMS));

/** Minimum size of an RSA modulus, in bits (RFC 7518 §3.3). */
const MIN_MODULUS_BITS = 2048;

/** Maps `Ed25519`, the name in RFC 9864 and in keys that Bun exports, to `EdDSA` of RFC 8037. */
export const canonicalAlgorithm = (alg: unknown): unknown => alg === "Ed25519" ? "EdDSA" : alg;

/** A public key that verifies tokens. */
export class VerificationKey {
  /** Key id. */
  readonly kid: string;
  /** One per algorithm: WebCrypto binds an imported key to a single algorithm. */
  readonly #keys: ReadonlyMap<AsymmetricAlgorithm, SignatureKey>;

  private constructor(kid: string, keys: ReadonlyMap<AsymmetricAlgorithm, SignatureKey>) {
    this.kid = kid;
    this.#keys = keys;
  }

  /** Parses a JSON Web Key. Returns a string with the reason if the key is unusable with these algorithms. */
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
        (alg === undefined || canonicalAlgorithm(alg) === name);
    });
    if (algorithms.length === 0) return `none of ${accepted.join(", ")} fits it`;
    if (kty === "RSA" && modulusBits(n) < MIN_MODULUS_BITS) return `its modulus has fewer than ${MIN_MODULUS_BITS} bits`;
    // Key parameters only: WebCrypto rejects an `alg` or `key_ops` that it names differently.
    const members = Object.fromEntries(
      Object.entries({ kty, crv, x, y, n, e }).filter(([, member]) => typeof member === "string"),
    );
    return new VerificationKey(
      kid,
      new Map(algorithms.map((name) => [name, new SignatureKey(members, ALGORITHMS[name].parameters)])),
    );
  }

  /** The key for an algorithm; `undefined` if the key does not support it. */
  for(algorithm: AsymmetricAlgorithm): SignatureKey | undefined {
    return this.#keys.get(algorithm);
  }
}

/** Decodes base64url without padding (RFC 7515 §2); `null` if the text is invalid. */
export function decodeBase64Url(text: string): Uint8Array | null {
  if (text.length % 4 === 1 || !/^[\w-]*$/.test(text)) return null;
  return Uint8Array.from(atob(text.replaceAll("-", "+").replaceAll("_", "/")), (char) => char.charCodeAt(0));
}

/** Size of an RSA modulus in bits, without leading zeros; 0 if `n` is invalid. */
function modulusBits(n: unknown): number {
  const bytes = typeof n === "string" ? decodeBase64Url(n) : null;
  const first = bytes?.findIndex((byte) => byte !== 0) ?? -1;
  return bytes && first !== -1 ? 8 * (bytes.length - first) - Math.clz32(bytes[first]!) + 24 : 0;
}
