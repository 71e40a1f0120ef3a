import type { AuthenticationState, Credentials, Refuse } from "./authentication.ts";
import {
  ASYMMETRIC_ALGORITHMS,
  type AsymmetricAlgorithm,
  canonicalAlgorithm,
  decodeBase64Url,
  type PublicJwk,
  VerificationKey,
} from "./jwk.ts";
import { RemoteKeys } from "./jwks.ts";
import { SignatureKey } from "./signature-key.ts";
import { TokenRefusal } from "./token-refusal.ts";
import type { Handshake } from "./websocket-client.ts";

/** Signature algorithms with a shared secret (RFC 7518 §3.2). */
export type SymmetricAlgorithm = "HS256" | "HS384" | "HS512";

/** Options of {@link jwtAuthenticator}. */
export interface JwtAuthenticatorOptions {
  /**
   * Shared secret: at least 32, 48 or 64 bytes for HS256, HS384 or HS512 (RFC 7518 §3.2). Pass several during rotation: a token
   * signed with any of them is accepted. Pass exactly one of `secret`, `keys` and `jwksUri`.
   */
  secret?: string | string[];
  /** The only algorithm accepted with `secret`. @default {"HS256"} */
  algorithm?: SymmetricAlgorithm;
  /** Public keys (RFC 7517). The `kid` of a token selects one. */
  keys?: PublicJwk[];
  /**
   * URL of a JWK Set (RFC 7517 §5). Keys are cached for ten minutes; an unknown `kid` fetches them again, at most every 30 s. A
   * response has at most 1 MiB and 100 keys, and redirects are not followed. Unusable keys are skipped, such as RSA below 2048
   * bits.
   */
  jwksUri?: string;
  /**
   * Maximum age of fetched keys while the endpoint is unavailable, in ms, at least 60,000; `Infinity` sets no limit. Beyond it
   * authentication is unavailable until a fetch succeeds. @default {3_600_000}
   */
  jwksMaxAge?: number;
  /** Algorithms accepted with `keys` or `jwksUri`. @default {["RS256", "ES256", "EdDSA"]} */
  algorithms?: AsymmetricAlgorithm[];
  /** Required `iss` claim. Absent: any issuer. */
  issuer?: string;
  /** Required `aud` claim. Absent: any audience. */
  audience?: string;
  /** Required `typ` header, such as `"at+jwt"` (RFC 9068). Absent: `JWT` or no `typ`. */
  typ?: string;
  /** Whether a token must have `exp`. `false` also accepts tokens that never expire. @default {true} */
  requireExpiry?: boolean;
  /** Tolerated clock difference for `exp`, `nbf` and `iat`, in seconds, 0 to 600. @default {5} */
  clockTolerance?: number;
  /** Claim with the user's id. A number becomes its decimal string. @default {"sub"} */
  userClaim?: string;
  /** Claim with the user's role. @default {"role"} */
  roleClaim?: string;
}

/** An `authenticate` option that another one may call. Without `refuse`, a refusal is `null` and has no reason. */
export type JwtAuthenticator = (
  credentials: Credentials,
  handshake?: Handshake,
  refuse?: Refuse,
) => Promise<AuthenticationState | null>;

/**
 * Creates an `authenticate` option for JSON Web Tokens (RFC 7519).
 *
 * `exp` is required and becomes `expires_at`. A token without the user claim is refused, because it identifies no one. The reason
 * of a refusal is the `cause` of `auth.failure`.
 *
 * @throws {TypeError} if the options have no key or several kinds of keys, or if one is unknown or invalid.
 *
 * @example
 * ```ts
 * createWebSocketController({ authenticate: jwtAuthenticator({ secret: env.SECRET }) });
 * ```
 */
export function jwtAuthenticator(options: JwtAuthenticatorOptions): JwtAuthenticator {
  checkOptions(options);
  const settled = { ...options }; // Copied: later changes would be unchecked.
  const verifySignature = signatureVerifier(settled);
  return async (credentials, _handshake, refuse = () => null) => {
    const state = "access_token" in credentials
      ? await authenticate(credentials.access_token)
      : new TokenRefusal("credentials", "An access token is required");
    return state instanceof TokenRefusal ? refuse(state) : state;
  };

  async function authenticate(text: string): Promise<AuthenticationState | TokenRefusal> {
    const token = readToken(text);
    if (token instanceof TokenRefusal) return token;
    // The signature is verified before the claims are read, so a reported claim is the issuer's own.
    return checkHeader(token.header, settled) ?? await verifySignature(token) ?? stateOf(token.payload, settled);
  }
}

const SYMMETRIC_ALGORITHMS = ["HS256", "HS384", "HS512"] as const satisfies SymmetricAlgorithm[];

const OPTIONS: Readonly<Record<keyof JwtAuthenticatorOptions, "key" | "text" | "other">> = {
  secret: "key",
  keys: "key",
  jwksUri: "key",
  issuer: "text",
  audience: "text",
  typ: "text",
  userClaim: "text",
  roleClaim: "text",
  algorithm: "other",
  algorithms: "other",
  jwksMaxAge: "other",
  requireExpiry: "other",
  clockTolerance: "other",
};

function checkOptions(options: JwtAuthenticatorOptions): void {
  const refuse = (fault: string) => {
    throw new TypeError(`Cannot verify tokens: ${fault}`);
  };
  const given = Object.entries(options).filter(([, value]) => value !== undefined);
  // A misspelt `issuer` would accept every issuer.
  const unknown = Object.keys(options).find((name) => !Object.hasOwn(OPTIONS, name));
  if (unknown !== undefined) refuse(`unknown option "${unknown}", use ${Object.keys(OPTIONS).join(", ")}`);
  const kinds = (kind: string) => given.filter(([name]) => OPTIONS[name as keyof JwtAuthenticatorOptions] === kind); // Just checked.
  if (kinds("key").filter(([, value]) => value !== "").length !== 1) {
    refuse("pass exactly one of secret, keys and jwksUri, and not an empty one");
  }
  for (const [name, value] of kinds("text")) {
    if (typeof value !== "string" || value === "") refuse(`${name} must be a string and not empty, or left out`);
  }
  const { secret, keys, jwksUri, algorithm, algorithms, jwksMaxAge, requireExpiry = true, clockTolerance = 0 } = options;
  if (secret !== undefined) {
    if (algorithms !== undefined) refuse("algorithms are those of keys and jwksUri, pass algorithm beside secret");
    if (algorithm !== undefined && !SYMMETRIC_ALGORITHMS.includes(algorithm)) {
      refuse(`algorithm must be one of ${SYMMETRIC_ALGORITHMS.join(", ")}`);
    }
    checkSecrets([secret].flat(), algorithm ?? "HS256", refuse);
  } else {
    if (algorithm !== undefined) refuse("algorithm is that of secret, pass algorithms beside keys and jwksUri");
    const names = [...ASYMMETRIC_ALGORITHMS].join(", ");
    if (algorithms !== undefined && !(Array.isArray(algorithms) && algorithms.length > 0)) {
      refuse(`algorithms must be a list of ${names}`);
    }
    if (!(algorithms ?? []).every((name) => ASYMMETRIC_ALGORITHMS.has(name))) refuse(`algorithms may contain only ${names}`);
  }
  if (keys !== undefined && !(Array.isArray(keys) && keys.length > 0)) refuse("keys must be a list of JSON Web Keys");
  if (jwksUri !== undefined && !isHttpUrl(jwksUri)) {
    refuse("jwksUri must be a URL of http or https, without a user or password in it");
  }
  if (jwksMaxAge !== undefined && (jwksUri === undefined || typeof jwksMaxAge !== "number" || !(jwksMaxAge >= 60_000))) {
    refuse("jwksMaxAge goes with jwksUri and must be at least 60,000 ms");
  }
  if (typeof requireExpiry !== "boolean") refuse("requireExpiry must be true or false");
  if (typeof clockTolerance !== "number" || !(clockTolerance >= 0 && clockTolerance <= 600)) {
    refuse("clockTolerance must be 0 to 600 seconds");
  }
}

function checkSecrets(secrets: readonly string[], algorithm: SymmetricAlgorithm, refuse: (fault: string) => void): void {
  if (secrets.length === 0) refuse("secret must be a string, or a list of them that is not empty");
  const bytes = Number(algorithm.slice(2)) / 8;
  for (const secret of secrets) {
    if (typeof secret !== "string") refuse("secret must be a string, or a list of them that is not empty");
    if (secret.includes("-----BEGIN ")) refuse("secret is a PEM file, pass a public key as a JSON Web Key in keys");
    // A shorter secret can be found offline from a single token (RFC 7518 §3.2).
    if (encoder.encode(secret).length < bytes) {
      refuse(`a secret of ${algorithm} needs at least ${bytes} bytes, make one with: openssl rand -base64 ${bytes}`);
    }
  }
}

function isHttpUrl(uri: unknown): boolean {
  if (typeof uri !== "string" || !URL.canParse(uri)) return false;
  const { protocol, username, password } = new URL(uri);
  return (protocol === "https:" || protocol === "http:") && username === "" && password === "";
}

/** A parsed token, not yet verified. */
interface Token {
  readonly header: Readonly<Record<string, unknown>>;
  readonly payload: Readonly<Record<string, unknown>>;
  readonly signature: Uint8Array;
  /** The bytes that the signature covers. */
  readonly signed: Uint8Array;
}

function readToken(text: string): Token | TokenRefusal {
  const parts = text.split(".", 4);
  const [header, payload] = parts.slice(0, 2).map(parseObject);
  const signature = parts.length === 3 ? decodeBase64Url(parts[2]!) : null;
  if (!header || !payload || !signature) return new TokenRefusal("malformed", "The token is not a JWT");
  return { header, payload, signature, signed: encoder.encode(text.slice(0, text.lastIndexOf("."))) };
}

const encoder = new TextEncoder();
const decoder = new TextDecoder("utf-8", { fatal: true });

/** Parses the JSON object in one part of a token; `null` if there is none. */
function parseObject(part: string): Record<string, unknown> | null {
  const bytes = decodeBase64Url(part);
  if (!bytes) return null;
  try {
    const value: unknown = JSON.parse(decoder.decode(bytes));
    return typeof value === "object" && !Array.isArray(value) ? value as Record<string, unknown> | null : null;
  } catch {
    return null; // Not UTF-8, or not JSON.
  }
}

function checkHeader({ typ, crit }: Token["header"], options: JwtAuthenticatorOptions): TokenRefusal | null {
  // RFC 7515 §4.1.11: a token with an unknown critical extension must be refused.
  if (crit !== undefined) return new TokenRefusal("critical", "The token has critical extensions, of which none is known");
  if (options.typ === undefined ? typ === undefined || isTyp(typ, "JWT") : isTyp(typ, options.typ)) return null;
  return new TokenRefusal("typ", `The token's typ is ${quote(typ)}, not ${quote(options.typ ?? "JWT")}`);
}

/** Compares media types without case and without `application/` (RFC 7515 §4.1.9). */
function isTyp(typ: unknown, expected: string): boolean {
  const normalize = (name: string) => name.toLowerCase().replace(/^application\//, "");
  return typeof typ === "string" && normalize(typ) === normalize(expected);
}

/** Verifies a signature: `null` if it is valid, otherwise the refusal. Rejects if the keys cannot be fetched. */
type SignatureVerifier = (token: Token) => Promise<TokenRefusal | null>;

function signatureVerifier(options: JwtAuthenticatorOptions): SignatureVerifier {
  const { secret, keys, jwksUri, jwksMaxAge, algorithm = "HS256", algorithms = ["RS256", "ES256", "EdDSA"] } = options;
  if (secret !== undefined) return secretVerifier([secret].flat(), algorithm);
  if (jwksUri !== undefined) {
    const remote = new RemoteKeys(jwksUri, algorithms, jwksMaxAge === undefined ? {} : { maxAge: jwksMaxAge });
    return keyVerifier((kid) => remote.find(kid), algorithms);
  }
  const listed = (keys ?? []).map((jwk, index) => {
    const key = VerificationKey.read(jwk, algorithms);
    if (typeof key === "string") throw new TypeError(`Cannot verify tokens: keys[${index}] must not be used, ${key}`);
    return key;
  });
  return keyVerifier((kid) => listed.filter((key) => key.kid === kid), algorithms);
}

function secretVerifier(secrets: readonly string[], algorithm: SymmetricAlgorithm): SignatureVerifier {
  const keys = secrets.map((secret) =>
    new SignatureKey(encoder.encode(secret), { name: "HMAC", hash: `SHA-${algorithm.slice(2)}` })
  );
  return async ({ header, signature, signed }) => {
    if (header.alg !== algorithm) return wrongAlgorithm(header.alg, [algorithm]);
    for (const key of keys) if (await key.verify(signature, signed)) return null;
    return new TokenRefusal("signature", "The token was signed with another secret, or changed since");
  };
}

function keyVerifier(
  find: (kid: string) => VerificationKey[] | Promise<VerificationKey[]>,
  algorithms: readonly AsymmetricAlgorithm[],
): SignatureVerifier {
  return async ({ header, signature, signed }) => {
    const { kid } = header;
    // The algorithm comes from our list, not from the token, or a public key could serve as an HMAC secret (RFC 8725 §3.1).
    const algorithm = algorithms.find((name) => name === canonicalAlgorithm(header.alg));
    if (algorithm === undefined) return wrongAlgorithm(header.alg, algorithms);
    if (typeof kid !== "string" || kid === "") return new TokenRefusal("key", "The token names no key: its header has no kid");
    const found = await find(kid);
    if (found.length === 0) return new TokenRefusal("key", `There is no key with the kid ${quote(kid)}`);
    const keys = found.map((key) => key.for(algorithm)).filter((key) => key !== undefined);
    if (keys.length === 0) return new TokenRefusal("algorithm", `The key ${quote(kid)} is not for ${algorithm}`);
    let isUsable = false;
    for (const key of keys) {
      const isSigned = await key.verify(signature, signed);
      if (isSigned) return null;
      isUsable ||= isSigned !== null;
    }
    if (!isUsable) return new TokenRefusal("key", `The key ${quote(kid)} cannot be imported`);
    return new TokenRefusal("signature", `The token was not signed by the key ${quote(kid)}, or changed since`);
  };
}

function wrongAlgorithm(alg: unknown, accepted: readonly string[]): TokenRefusal {
  return new TokenRefusal("algorithm", `The token's alg is ${quote(alg)}, not ${accepted.join(" or ")}`);
}

/** Checks the claims of a verified token and converts them to an identity. */
function stateOf(payload: Token["payload"], options: JwtAuthenticatorOptions): AuthenticationState | TokenRefusal {
  const { issuer, audience, requireExpiry = true, clockTolerance = 5, userClaim = "sub", roleClaim = "role" } = options;
  const times: { exp?: number; nbf?: number; iat?: number } = {};
  for (const name of ["exp", "nbf", "iat"] as const) {
    const time = payload[name];
    if (time === undefined) continue;
    // JSON numbers may exceed a double: 1e999 parses as Infinity, which would never expire.
    if (typeof time !== "number" || !Number.isFinite(time)) {
      return new TokenRefusal("claim", `The token's ${name} is not a number`);
    }
    times[name] = time;
  }
  const { exp, nbf = -Infinity, iat = -Infinity } = times;
  const now = Date.now() / 1000;
  if (exp === undefined && requireExpiry) return new TokenRefusal("expiry", "The token has no exp, so it would never expire");
  if (exp !== undefined && exp + clockTolerance <= now) return new TokenRefusal("expired", `The token expired at ${time(exp)}`);
  const start = Math.max(nbf, iat);
  if (start - clockTolerance > now) return new TokenRefusal("not-yet-valid", `The token is not valid before ${time(start)}`);
  if (issuer !== undefined && payload.iss !== issuer) {
    return new TokenRefusal("issuer", `The token's iss is ${quote(payload.iss)}, not ${quote(issuer)}`);
  }
  if (audience !== undefined && ![payload.aud].flat().includes(audience)) {
    return new TokenRefusal("audience", `The token's aud is ${quote(payload.aud)}, not ${quote(audience)}`);
  }
  const user = idOf(payload[userClaim]);
  if (user === null) return new TokenRefusal("user", `The token has no user: its claim ${quote(userClaim)} is not an id`);
  return {
    accountability: { user, role: idOf(payload[roleClaim]) },
    expires_at: exp === undefined ? null : exp + clockTolerance,
  };
}

function idOf(claim: unknown): string | null {
  if (typeof claim === "string" && claim !== "") return claim;
  return typeof claim === "number" && Number.isSafeInteger(claim) ? String(claim) : null;
}

/** Quotes a value of a token: at most 64 characters a string, and in ASCII, so that it cannot forge a log line. */
function quote(value: unknown): string {
  if (Array.isArray(value)) {
    return value.slice(0, 4).map((item) => typeof item === "string" ? quote(item) : typeof item).join(", ");
  }
  if (typeof value !== "string") return value === undefined ? "absent" : `of type ${typeof value}`;
  return JSON.stringify(value.slice(0, 64)).replace(
    /[^ -~]/g,
    (char) => `\\u${char.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
}

/** Formats a NumericDate. */
function time(seconds: number): string {
  const date = new Date(seconds * 1000);
  return Number.isNaN(date.getTime()) ? `${seconds} s` : date.toISOString();
}
