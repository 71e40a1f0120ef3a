/** A public key as a JSON Web Key (RFC 7517). */
export interface PublicJwk extends JsonWebKey {
  kid?: string;
}

/** ms for which fetched keys are used without asking again. */
const FRESH = 600_000;
/** ms between two fetches for a key id that is not there: made-up ids must not become a flood at the key server. */
const COOLDOWN = 30_000;
/** ms after which a fetch is given up. */
const FETCH_TIMEOUT = 5_000;

/** The keys of a JWKS endpoint, fetched when first asked for and kept for ten minutes. */
export class RemoteKeys {
  readonly #uri: string;
  #keys: PublicJwk[] = [];
  #fetchedAt = -Infinity;
  #pending: Promise<void> | undefined;

  constructor(uri: string) {
    this.#uri = uri;
  }

  /** All keys, the one with this id among them if the endpoint has it. Rejects when the endpoint cannot be read and nothing is kept. */
  async with(kid: string | undefined): Promise<PublicJwk[]> {
    const age = performance.now() - this.#fetchedAt;
    const known = this.#keys.some((key) => key.kid === kid);
    if (age > FRESH || (!known && age > COOLDOWN)) {
      this.#pending ??= this.#fetch().finally(() => this.#pending = undefined);
      // A key we hold goes on verifying while the endpoint is away.
      await this.#pending.catch((error) => {
        if (!known) throw error;
      });
    }
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
    this.#keys = keys;
    this.#fetchedAt = performance.now();
  }
}
