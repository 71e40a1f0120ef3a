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
  // The algorithm is ours to choose, never the token's: that is how a public key becomes an HMAC secret (RFC 8725 §3.1).
  const { algorithm = "HS256", algorithms = ["RS256", "ES256", "EdDSA"] } = options;
  const claims = { ...(issuer === undefined ? {} : { iss: issuer }), ...(audience === undefined ? {} : { aud: audience }) };

  const remote = jwksUri === undefined ? undefined : new RemoteKeys(jwksUri);
  const verifyToken = async (token: string): Promise<Record<string, unknown>> => {
    if (secret !== undefined) return await verify(token, secret, { alg: algorithm, ...claims });
    return await verifyWithJwks(token, {
      keys: remote ? await remote.with(decode(token).header.kid) : keys ?? [],
      allowedAlgorithms: algorithms,
      verification: claims,
    });
  };

  return async (credentials): Promise<AuthenticationState | null> => {
    if (!("access_token" in credentials)) return null;
    let payload: Record<string, unknown>;
    try {
      payload = await verifyToken(credentials.access_token);
    } catch (error) {
      // hono names every refusal of a token Jwt…; a key server that cannot be reached is our fault, not the client's.
      if (error instanceof Error && error.name.startsWith("Jwt")) return null;
      throw error;
    }
    const user = idOf(payload[userClaim]);
    if (user === null) return null;
    const { exp } = payload;
    return {
      accountability: { user, role: idOf(payload[roleClaim]) },
      expires_at: typeof exp === "number" ? exp : null,
    };
  };
}

function idOf(claim: unknown): string | null {
  if (typeof claim === "string" && claim !== "") return claim;
  return typeof claim === "number" && Number.isSafeInteger(claim) ? String(claim) : null;
}
