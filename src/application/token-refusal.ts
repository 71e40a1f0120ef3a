/**
 * Why a token was refused.
 *
 * - `credentials`: a refresh token or a password instead of an access token
 * - `malformed`: not a JWT
 * - `typ`: not the required `typ` header
 * - `critical`: a `crit` header, whose extensions are not supported
 * - `algorithm`: not an accepted algorithm, or not one of the key
 * - `key`: no `kid`, or no usable key with that id
 * - `signature`: signed with another key or secret, or altered
 * - `expiry`: no `exp`
 * - `claim`: `exp`, `nbf` or `iat` is not a number
 * - `expired`: `exp` is in the past
 * - `not-yet-valid`: `nbf` or `iat` is in the future
 * - `issuer`, `audience`: missing, or not the required one
 * - `user`: no user claim
 */
export type TokenRefusalReason =
  | "credentials"
  | "malformed"
  | "typ"
  | "critical"
  | "algorithm"
  | "key"
  | "signature"
  | "expiry"
  | "claim"
  | "expired"
  | "not-yet-valid"
  | "issuer"
  | "audience"
  | "user";

/** `Symbol.for`, because several copies of the package may share a process. */
const BRAND = Symbol.for("noroshi.TokenRefusal");

/** The reason `jwtAuthenticator` refused a token: the `cause` of `auth.failure`, never sent to a client. */
export class TokenRefusal extends Error {
  /** Set by hand, because a bundler may rename the class. */
  override readonly name = "TokenRefusal";
  /** Stable code of the reason. */
  readonly reason: TokenRefusalReason;

  /** Creates a refusal. The message quotes only the token's header, times, `iss` and `aud`, cut and escaped. */
  constructor(reason: TokenRefusalReason, message: string) {
    super(message);
    this.reason = reason;
    Object.defineProperty(this, BRAND, { value: true });
  }
}

/**
 * Whether the error is a {@link TokenRefusal} of any copy of the package. It quotes no credentials.
 *
 * @throws what the `has` trap of a Proxy throws.
 */
export function isTokenRefusal(error: unknown): boolean {
  return typeof error === "object" && error !== null && BRAND in error;
}
