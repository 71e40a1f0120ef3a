/** A public key as a JSON Web Key (RFC 7517). */
export interface PublicJwk extends JsonWebKey {
  /** Tells keys apart (RFC 7517 §4.5). */
  kid?: string;
}

/** ms for which fetched keys are used without asking again. */
const FRESH = 600_000;
/** ms between two fetches, successful or not: made-up key ids must not become a flood at the key server. */
const COOLDOWN = 30_000;
/** ms after which a fetch is given up. */
const FETCH_TIMEOUT = 5_000;

/** The keys of a JWKS endpoint, fetched when first asked for and kept for ten minutes. */
export class RemoteKeys {
  readonly #uri: string;
  #keys: PublicJwk[] = [];
  #fetchedAt = -Infinity;
  #triedAt = -Infinity;
  #failure: unknown;
  #pending: Promise<void> | undefined;

  constructor(uri: string) {
    this.#uri = uri;
  }

  /**
   * All keys, the one with this id among them if the endpoint has it. Rejects when the endpoint could not be read and none is held.
   * A key that is held goes on verifying while newer ones are fetched, or the endpoint is away.
   */
  async with(kid: string | undefined): Promise<PublicJwk[]> {
    const now = performance.now();
    const known = this.#keys.some((key) => key.kid === kid);
    if (!this.#pending && now - this.#triedAt > COOLDOWN && (!known || now - this.#fetchedAt > FRESH)) {
      this.#triedAt = now;
      this.#pending = this.#fetch()
        .then(() => this.#failure = undefined, (error) => this.#failure = error)
        .then(() => this.#pending = undefined);
    }
    if (!known) await this.#pending;
    if (this.#keys.length === 0 && this.#failure !== undefined) throw this.#failure;
    return this.#keys;
  }

  async #fetch(): Promise<void> {
    const response = await fetch(this.#uri, {
      headers: { accept: "application/json" },
      signal: AbortSignal.timeout(FETCH_TIMEOUT),
    });
    if (!response.ok) throw new Error(`Cannot fetch the keys: the endpoint answered ${response.status}`);
    const { keys } = await response.json() as { keys?: unknown };
    if (!Array.isArray(keys)) throw new Error("Cannot fetch the keys: the answer has no array `keys`");
    this.#keys = keys.filter((key) => typeof key === "object" && key !== null);
    this.#fetchedAt = performance.now();
  }
}
