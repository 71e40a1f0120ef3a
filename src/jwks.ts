import { type AsymmetricAlgorithm, VerificationKey } from "./jwk.ts";

/** Options of {@link RemoteKeys}. */
export interface RemoteKeysOptions {
  /** Age in ms beyond which keys are not used any more. @default {3_600_000} */
  maxAge?: number;
  /** ms after which a fetch is given up. @default {5_000} */
  timeout?: number;
}

/** ms for which fetched keys are used without asking again. */
const FRESH = 600_000;
/** ms between two fetches, successful or not: made-up key ids must not become a flood at the key server. */
const COOLDOWN = 30_000;
/** ms beyond the timeout after which a fetch without an end is taken to be dead. */
const GRACE = 1_000;
/** Bytes of an answer, and keys in it. */
const MAX_BYTES = 1_048_576;
const MAX_KEYS = 100;

/** The keys of a JWKS endpoint: fetched when first needed, fetched again after ten minutes, used for an hour at most. */
export class RemoteKeys {
  readonly #uri: string;
  readonly #algorithms: readonly AsymmetricAlgorithm[];
  readonly #maxAge: number;
  readonly #timeout: number;
  #keys: VerificationKey[] = [];
  #fetchedAt = -Infinity;
  #triedAt = -Infinity;
  #failure: unknown;
  #pending: Promise<void> | undefined;

  constructor(
    uri: string,
    algorithms: readonly AsymmetricAlgorithm[],
    { maxAge = 3_600_000, timeout = 5_000 }: RemoteKeysOptions = {},
  ) {
    this.#uri = uri;
    this.#algorithms = algorithms;
    this.#maxAge = maxAge;
    this.#timeout = timeout;
  }

  /**
   * The keys with this id, which are none or one unless they are of different types. Rejects when the endpoint could not be read
   * and no keys are held that are young enough.
   */
  async find(kid: string): Promise<VerificationKey[]> {
    const isHeld = this.#keys.some((key) => key.kid === kid);
    if (!isHeld || this.#age > Math.min(FRESH, this.#maxAge)) await this.#refresh();
    if (this.#age > this.#maxAge) throw this.#failure ?? new Error("Cannot fetch the keys: no answer");
    return this.#keys.filter((key) => key.kid === kid);
  }

  get #age(): number {
    return performance.now() - this.#fetchedAt;
  }

  /** Fetches the keys, unless that was tried a moment ago, and waits for it. Never rejects. */
  async #refresh(): Promise<void> {
    const pending = this.#pending;
    if (pending) {
      if (await settlesWithin(this.#timeout + GRACE, pending)) return;
      // On Workers a fetch dies with the request, or the object, that began it, and its promise never settles.
      if (this.#pending === pending) {
        this.#pending = undefined;
        this.#triedAt = -Infinity;
      }
      return this.#refresh();
    }
    const now = performance.now();
    if (now - this.#triedAt <= COOLDOWN) return;
    this.#triedAt = now;
    const fetching: Promise<void> = this.#fetch().then((keys) => ({ keys }), (failure) => ({ failure })).then((result) => {
      if (this.#pending !== fetching) return; // Given up, and newer keys may be here.
      this.#pending = undefined;
      if ("keys" in result) {
        this.#keys = result.keys;
        this.#fetchedAt = now;
      } else this.#failure = result.failure;
    });
    this.#pending = fetching;
    await fetching;
  }

  async #fetch(): Promise<VerificationKey[]> {
    const signal = AbortSignal.timeout(this.#timeout);
    let text: string;
    try {
      // Its answer could send us to any other address. "error" is unknown to Workers.
      const response = await fetch(this.#uri, { headers: { accept: "application/json" }, redirect: "manual", signal });
      text = await readText(response);
    } catch (cause) {
      if (!signal.aborted) throw cause;
      throw new Error(`Cannot fetch the keys: no answer within ${this.#timeout} ms`, { cause });
    }
    const keys = parseKeys(text);
    if (!Array.isArray(keys)) throw new Error("Cannot fetch the keys: the answer has no array `keys`");
    if (keys.length > MAX_KEYS) throw new Error(`Cannot fetch the keys: the answer has ${keys.length}, more than ${MAX_KEYS}`);
    // RFC 7517 §5: keys of unknown types and uses are ignored.
    return keys.map((key) => VerificationKey.read(key, this.#algorithms)).filter((key) => typeof key !== "string");
  }
}

function parseKeys(text: string): unknown {
  try {
    return (JSON.parse(text) as { keys?: unknown } | null)?.keys;
  } catch {
    throw new Error("Cannot fetch the keys: the answer is not JSON"); // Its own error quotes the answer.
  }
}

/** The body of a successful answer. It is read as it comes, and not beyond its bound. */
async function readText({ ok, status, type, body }: Response): Promise<string> {
  const reader = body?.getReader();
  try {
    if (type === "opaqueredirect" || (status >= 300 && status < 400)) {
      throw new Error("Cannot fetch the keys: the endpoint redirects, pass the address it redirects to");
    }
    if (!ok) throw new Error(`Cannot fetch the keys: the endpoint answered ${status}`);
    const decoder = new TextDecoder();
    let text = "";
    let bytes = 0;
    for (;;) {
      const chunk = await reader?.read();
      if (!chunk || chunk.done) return text + decoder.decode();
      bytes += chunk.value.byteLength;
      if (bytes > MAX_BYTES) throw new Error(`Cannot fetch the keys: the answer has more than ${MAX_BYTES} bytes`);
      text += decoder.decode(chunk.value, { stream: true });
    }
  } finally {
    // Whatever is left would keep the connection. A body that has failed rejects once more.
    reader?.cancel().catch(() => {});
  }
}

/** Whether a promise that never rejects settles within so many ms. */
function settlesWithin(ms: number, promise: Promise<void>): Promise<boolean> {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, ms, false);
    void promise.then(() => {
      clearTimeout(timer);
      resolve(true);
    });
  });
}
