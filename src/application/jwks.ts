import { type AsymmetricAlgorithm, VerificationKey } from "./jwk.ts";

/** Options of {@link RemoteKeys}. */
export interface RemoteKeysOptions {
  /** Maximum age of the keys, in ms. Older keys are not used. @default {3_600_000} */
  maxAge?: number;
  /** Timeout of a fetch, in ms. @default {5_000} */
  timeout?: number;
}

/** Age up to which keys are used without another fetch, in ms. */
const FRESH = 600_000;
/** Minimum time between two fetches, including failed ones, in ms: tokens with made-up key ids must not flood the key server. */
const COOLDOWN = 30_000;
/** Extra time after the timeout before a pending fetch counts as dead, in ms. */
const GRACE = 1_000;
/** Limits of a response: bytes, and number of keys. */
const MAX_BYTES = 1_048_576;
const MAX_KEYS = 100;

/** Keys of a JWKS endpoint: fetched on first use, refreshed after ten minutes, and used for `maxAge` at most. */
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
   * Finds the keys with this id: at most one, unless keys of different types share it. Rejects if the endpoint is unavailable and
   * the cached keys are older than `maxAge`.
   */
  async find(kid: string): Promise<VerificationKey[]> {
    const isCached = this.#keys.some((key) => key.kid === kid);
    if (!isCached || this.#age > Math.min(FRESH, this.#maxAge)) await this.#refresh();
    if (this.#age > this.#maxAge) throw this.#failure ?? new Error("Cannot fetch the keys: no answer");
    return this.#keys.filter((key) => key.kid === kid);
  }

  get #age(): number {
    return performance.now() - this.#fetchedAt;
  }

  /** Fetches the keys, unless a fetch was started in the last 30 s, and waits for the pending fetch. Never rejects. */
  async #refresh(): Promise<void> {
    const pending = this.#pending;
    if (pending) {
      if (await settlesWithin(this.#timeout + GRACE, pending)) return;
      // On Workers a fetch ends with the request or object that started it, and its promise never settles.
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
      if (this.#pending !== fetching) return; // Superseded: newer keys may be cached.
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
    const late = new AbortController();
    // Not `AbortSignal.timeout`, which goes on after the answer: it keeps a process of Deno alive.
    const timer = setTimeout(() => late.abort(), this.#timeout);
    let text: string;
    try {
      // A redirect could lead to any address. Workers do not support `redirect: "error"`.
      const response = await fetch(this.#uri, {
        headers: { accept: "application/json" },
        redirect: "manual",
        signal: late.signal,
      });
      text = await readText(response);
    } catch (cause) {
      if (!late.signal.aborted) throw cause;
      throw new Error(`Cannot fetch the keys: no answer within ${this.#timeout} ms`, { cause });
    } finally {
      clearTimeout(timer);
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
    throw new Error("Cannot fetch the keys: the answer is not JSON"); // The parser's own error quotes the response.
  }
}

/** Reads the body of a successful response, up to {@link MAX_BYTES}. */
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
    // An unread body would keep the connection open. Cancelling a failed body rejects again.
    reader?.cancel().catch(() => {});
  }
}

/** Whether a promise that never rejects settles within this time, in ms. */
function settlesWithin(ms: number, promise: Promise<void>): Promise<boolean> {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, ms, false);
    void promise.then(() => {
      clearTimeout(timer);
      resolve(true);
    });
  });
}
