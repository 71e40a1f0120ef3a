import { decode, verify, verifyWithJwks } from "hono/jwt";
import type { Authenticate, AuthenticationState } from "./authentication.ts";
import { type PublicJwk, RemoteKeys } from "./jwks.ts";

/** Signature algorithms of `hono/jwt` with a shared secret. */
export type SymmetricAlgorithm = "HS256" | "HS384" | "HS512";
/** Signature algorithms of `hono/jwt` with a key pair. */
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

/** Options of {@link jwtAuthenticator}. */
export interface JwtAuthenticatorOptions {
  /** The shared secret of HS256, HS384 or HS512. Either this, `keys` or `jwksUri`. */
  secret?: string;
  /** The one algorithm accepted with `secret`: a token that names another is refused. @default {"HS256"} */
  algorithm?: SymmetricAlgorithm;
  /** Public keys (RFC 7517) that a token's `kid` chooses from. */
  keys?: PublicJwk[];
  /** Where the public keys are fetched from: kept for ten minutes, asked again for an unknown `kid` at most every 30 s. */
  jwksUri?: string;
  /** The algorithms accepted with `keys` or `jwksUri`. @default {["RS256", "ES256", "EdDSA"]} */
  algorithms?: AsymmetricAlgorithm[];
  /** The required `iss` claim; absent: any. */
  issuer?: string;
  /** The required `aud` claim; absent: any. */
  audience?: string;
  /** The claim that is the user's id. A number becomes its decimal string. @default {"sub"} */
  userClaim?: string;
  /** The claim that is the role. @default {"role"} */
  roleClaim?: string;
}

/**
 * An `authenticate` for JSON Web Tokens, verified by `hono/jwt`. `exp` becomes `expires_at`; a token without the user claim
 * is refused, for it says nothing about who came.
 *
 * @throws {TypeError} when the options name no key or more than one.
 *
 * @example
 * ```ts
 * createWebSocketController({ authenticate: jwtAuthenticator({ secret: env.SECRET }) });
 * ```
 */
export function jwtAuthenticator(options: JwtAuthenticatorOptions): Authenticate {
  const { secret, keys, jwksUri, issuer, audience, userClaim = "sub", roleClaim = "role" } = options;
  if ([secret, keys, jwksUri].filter((key) => key !== undefined && key !== "").length !== 1) {
    throw new TypeError("Cannot verify tokens: pass exactly one of secret, keys and jwksUri, and not an empty one");
  }
  if (issuer === "" || audience === "") {
    throw new TypeError("Cannot verify tokens: issuer and audience must not be empty, leave them out to accept any");
  }
  // The algorithm is ours to choose, never the token's: that is how a public key becomes an HMAC secret (RFC 8725 §3.1).
  const { algorithm = "HS256", algorithms = ["RS256", "ES256", "EdDSA"] } = options;
  const claims = { ...(issuer === undefined ? {} : { iss: issuer }), ...(audience === undefined ? {} : { aud: audience }) };

  const remote = jwksUri === undefined ? undefined : new RemoteKeys(jwksUri);
  const verifyToken = (token: string, keys: PublicJwk[]): Promise<Record<string, unknown>> =>
    secret !== undefined
      ? verify(token, secret, { alg: algorithm, ...claims })
      : verifyWithJwks(token, { keys: keys.map(withHonoName), allowedAlgorithms: algorithms, verification: claims });

  return async (credentials): Promise<AuthenticationState | null> => {
    if (!("access_token" in credentials)) return null;
    const token = credentials.access_token;
    const kid = kidOf(token);
    if (kid === null) return null;
    // Outside of the try: a key server that cannot be reached is our fault, not the client's.
    const held = remote ? await remote.with(kid) : keys ?? [];
    let payload: Record<string, unknown>;
    try {
      payload = await verifyToken(token, held);
    } catch {
      // Whatever is wrong with an unsigned or oddly signed token is the client's: some of it hono throws as a TypeError.
      return null;
    }
    if (typeof payload !== "object" || payload === null) return null;
    const user = idOf(payload[userClaim]);
    if (user === null) return null;
    const { exp } = payload;
    return {
      accountability: { user, role: idOf(payload[roleClaim]) },
      expires_at: typeof exp === "number" ? exp : null,
    };
  };
}

/** The key id a token names, `undefined` when it names none, `null` when it is no token. */
function kidOf(token: string): string | undefined | null {
  try {
    const { header, payload } = decode(token);
    if (typeof header !== "object" || header === null || typeof payload !== "object" || payload === null) return null;
    return typeof header.kid === "string" ? header.kid : undefined;
  } catch {
    return null; // Not three parts, or not JSON in base64.
  }
}

/** RFC 9864 names the algorithm Ed25519, and Bun exports keys so; hono knows it as EdDSA (RFC 8037). */
const withHonoName = (key: PublicJwk): PublicJwk => key.alg === "Ed25519" ? { ...key, alg: "EdDSA" } : key;

function idOf(claim: unknown): string | null {
  if (typeof claim === "string" && claim !== "") return claim;
  return typeof claim === "number" && Number.isSafeInteger(claim) ? String(claim) : null;
}
