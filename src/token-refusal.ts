/**
 * Why a token was refused.
 *
 * - `credentials`: no access token was shown, but a refresh token or a password
 * - `malformed`: not a JWT
 * - `typ`: the header has another `typ` than the option asks for
 * - `critical`: the header has `crit`, whose extensions are unknown
 * - `algorithm`: not among the accepted algorithms, or not one of the key that `kid` names
 * - `key`: no `kid`, or no usable key with that one
 * - `signature`: by another secret or key, or the token was changed
 * - `expiry`: no `exp`
 * - `claim`: `exp`, `nbf` or `iat` is not a number
 * - `expired`: `exp` is over
 * - `not-yet-valid`: `nbf` or `iat` is still to come
 * - `issuer`, `audience`: another one, or none
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

/** Two copies of the package may meet in one process. */
const BRAND = Symbol.for("noroshi.TokenRefusal");

/** Why `jwtAuthenticator` refused a token: the `cause` of `auth.failure`, which no client is shown. */
export class TokenRefusal extends Error {
  /** As the class is called, also where a bundler has renamed it. */
  override readonly name = "TokenRefusal";
  /** The reason, as a stable name. */
  readonly reason: TokenRefusalReason;

  /** The message is for people. It has nothing of the token but its header, `iss` and `aud`, cut and escaped. */
  constructor(reason: TokenRefusalReason, message: string) {
    super(message);
    this.reason = reason;
    Object.defineProperty(this, BRAND, { value: true });
  }
}

/** Whether it is a {@link TokenRefusal}, of whatever copy of the package: it quotes no credentials. @throws what a Proxy's `has` trap throws. */
export function isTokenRefusal(error: unknown): boolean {
  return typeof error === "object" && error !== null && BRAND in error;
}
