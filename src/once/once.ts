/**
 * Idempotent requests, handled at most once: a repeat of `client.request(…, { idempotent: true })` gets the answer of the first.
 *
 * @example
 * ```ts
 * import { WebSocketController } from "noroshi";
 * import { answerOnce } from "noroshi/once";
 *
 * new WebSocketController({ once: answerOnce() });
 * ```
 *
 * @module
 */
import type { Once, OnceAnswer, OnceHost } from "../application/once.ts";
import type { WebSocketClient } from "../application/websocket-client.ts";
import { checkMs } from "../base/clock.ts";
import { IdQuota } from "../channels/id-quota.ts";
import { WebSocketError } from "../protocol/errors.ts";
import type { WebSocketMessage } from "../protocol/protocol.ts";
import { LOST, MemoryAnswerStore } from "./memory-answer-store.ts";

export type { Once, OnceAnswer, OnceHost } from "../application/once.ts";

/** Options of {@link answerOnce}. */
export interface AnswerOnceOptions {
  /** Time in ms that an answer is kept, at least. @default {300_000} */
  window?: number;
  /**
   * Maximum number of idempotent requests of one user on this node per `window`; more fail with `REQUESTS_EXCEEDED`. Repeats do not
   * count.
   *
   * @default {1_000}
   */
  maxPerUser?: number;
  /** Maximum length of an answer that is kept, in characters of JSON. @default {65_536} */
  maxLength?: number;
  /**
   * Maximum length of all answers of one user that this node keeps per `window`, in characters of JSON. A repeat of a request whose answer
   * was not kept gets `OUTCOME_UNKNOWN`.
   *
   * @default {2_097_152}
   */
  maxLengthPerUser?: number;
  /** How long a repeat waits for the first on another node, in ms. @default {10_000} */
  patience?: number;
}

/**
 * Creates the option `once` of one controller: within the window a request is handled at most once, on any node of the engine, and its
 * repeats are answered with its answer. Answers are stored by the engine where it stores any, and else in the memory of this node.
 *
 * @throws {TypeError} for an option out of range.
 */
export function answerOnce(options: AnswerOnceOptions = {}): Once {
  return new AnswerOnce(options);
}

/** What is stored: that the request runs, or its answer. Without an answer it was too long to be kept. */
interface Stored {
  readonly runner?: string;
  readonly data?: unknown;
  readonly error?: { readonly code: string; readonly message: string; readonly details?: Record<string, unknown> };
  readonly isLost?: boolean;
}

/** An idempotent request. */
interface OnceRequest {
  /** Its key in the store. */
  readonly key: string;
  readonly type: string;
  /** The user, or the address of a client without one. */
  readonly account: string;
}

/** Pause between two checks of a request that another node runs, in ms: the first, and the longest. */
const [FIRST_PAUSE, LONGEST_PAUSE] = [50, 1_000];

/** Maximum number of failed claims that are remembered. A forgotten one is answered OUTCOME_UNKNOWN. */
const MAX_FAILED = 10_000;

class AnswerOnce implements Once {
  readonly #options: Required<AnswerOnceOptions>;
  readonly #memory = new MemoryAnswerStore();
  /** The requests that run on this node. */
  readonly #running = new Map<string, Promise<Stored>>();
  /** Claims that rejected, so that they may be stored although nothing has run. */
  readonly #failed = new Set<string>();
  #requests: IdQuota | undefined;
  #lengths: IdQuota | undefined;
  #runner = "";

  constructor(options: AnswerOnceOptions) {
    const { window = 300_000, maxPerUser = 1_000, maxLength = 65_536, maxLengthPerUser = 2 ** 21, patience = 10_000, ...rest } =
      options;
    const [unknown] = Object.keys(rest);
    if (unknown !== undefined) {
      throw new TypeError(
        `Cannot answer once: unknown option "${unknown}", use window, maxPerUser, maxLength, maxLengthPerUser or patience`,
      );
    }
    for (const [name, value] of Object.entries({ window, patience })) checkMs(`Cannot answer once: option "${name}"`, value);
    for (const [name, value] of Object.entries({ maxPerUser, maxLength, maxLengthPerUser })) {
      if (value !== Infinity && !(Number.isSafeInteger(value) && value > 0)) {
        throw new TypeError(`Cannot answer once: option "${name}" must be a whole number from 1, or Infinity`);
      }
    }
    this.#options = { window, maxPerUser, maxLength, maxLengthPerUser, patience };
  }

  answer(client: WebSocketClient, message: WebSocketMessage, run: () => unknown, host: OnceHost): OnceAnswer {
    const { user } = client.accountability;
    const { type, uid } = message;
    const key = JSON.stringify([user, type, uid]);
    const running = this.#running.get(key);
    if (running) return { result: running.then((stored) => resultOf(type, stored)) };
    const { window, maxPerUser } = this.#options;
    const account = user ?? `ip ${client.handshake.ip}`;
    this.#requests ??= new IdQuota(maxPerUser, window, () => host.now());
    const wait = this.#requests.takeId(account, key);
    if (wait > 0) {
      const error = new WebSocketError(type, "REQUESTS_EXCEEDED", "Too many idempotent requests", {
        details: { retry_after: wait },
      });
      return { result: Promise.reject(error) };
    }
    let enter = () => {};
    const entered = new Promise<void>((resolve) => enter = resolve);
    let settle!: (stored: Stored) => void;
    // From here on a repeat joins, also while the claim is under way.
    this.#running.set(key, new Promise((resolve) => settle = resolve));
    const result = this.#handle({ key, type, account }, run, host, enter, settle).finally(() => {
      enter();
      settle({ isLost: true }); // Does nothing where it has settled.
    });
    return { entered, result };
  }

  async #handle(
    request: OnceRequest,
    run: () => unknown,
    host: OnceHost,
    enter: () => void,
    settle: (stored: Stored) => void,
  ): Promise<unknown> {
    const { key, type } = request;
    try {
      const known = await this.#claim(key, host);
      if (known) {
        enter();
        const stored = known.runner === undefined ? known : await this.#wait(key, host);
        settle(stored);
        this.#running.delete(key);
        return resultOf(type, stored);
      }
    } catch (error) {
      const shown = WebSocketError.from(error);
      settle({ error: { code: shown?.code ?? "INTERNAL_ERROR", message: shown?.message ?? "Something went wrong" } });
      this.#running.delete(key);
      // The store does not know the type.
      throw shown ? new WebSocketError(type, shown.code, shown.message, shown.details && { details: shown.details }) : error;
    }
    let stored: Stored;
    let failure: { readonly error: unknown } | undefined;
    try {
      const running = run();
      enter(); // The handler has started, in the order of the messages.
      const data = await running;
      stored = data === undefined ? {} : { data };
    } catch (error) {
      failure = { error };
      const shown = WebSocketError.from(error);
      const { code = "INTERNAL_ERROR", message = "Something went wrong", details } = shown ?? {};
      stored = { error: { code, message, ...(details && { details }) } };
    }
    settle(stored);
    this.#storeAnswer(request, stored, host);
    if (failure) throw failure.error;
    return stored.data;
  }

  /** `null`: this call has claimed the request, so that it runs. */
  async #claim(key: string, host: OnceHost): Promise<Stored | null> {
    this.#runner ||= crypto.randomUUID();
    let known: string | null;
    try {
      known = await this.#store(host).claim(key, JSON.stringify({ runner: this.#runner }), this.#options.window);
    } catch (error) {
      this.#failed.add(key);
      for (const oldest of this.#failed) if (this.#failed.size > MAX_FAILED) this.#failed.delete(oldest);
      throw error;
    }
    if (known === null) return null;
    const stored = read(known);
    // Our own claim, whose call rejected: nothing has run.
    return stored.runner === this.#runner && this.#failed.delete(key) ? null : stored;
  }

  /** Waits for the answer of another node. */
  async #wait(key: string, host: OnceHost): Promise<Stored> {
    const { patience, window } = this.#options;
    for (let waited = 0, pause = FIRST_PAUSE; waited < patience; waited += pause, pause = Math.min(2 * pause, LONGEST_PAUSE)) {
      await new Promise<void>((resolve) => host.deadlines.set({ deadline: 0, heapIndex: -1, due: resolve }, pause));
      const known = await this.#store(host).claim(key, LOST, window);
      if (known === null) break; // It has expired.
      const stored = read(known);
      if (stored.runner === undefined) return stored;
    }
    return { isLost: true };
  }

  #storeAnswer({ key, account }: OnceRequest, stored: Stored, host: OnceHost): void {
    const { maxLength, maxLengthPerUser, window } = this.#options;
    this.#lengths ??= new IdQuota(maxLengthPerUser, window, () => host.now());
    const text = textOf(stored);
    const isKept = text.length <= maxLength && this.#lengths.take(account, text.length) === 0;
    const storing = (async () => await this.#store(host).settle(key, isKept ? text : LOST, window))();
    void storing.catch((error) => host.report(error)).then(() => this.#running.delete(key));
  }

  #store(host: OnceHost) {
    return host.engine.answers ?? this.#memory.at(() => host.now());
  }
}

/** The answer as JSON; where JSON cannot represent it, the error that the client received in its place. */
function textOf(stored: Stored): string {
  try {
    return JSON.stringify(stored);
  } catch {
    const { code = "INTERNAL_ERROR", message = "Something went wrong" } = stored.error ?? {};
    return JSON.stringify({ error: { code, message } });
  }
}

function read(text: string): Stored {
  try {
    return JSON.parse(text) as Stored; // Written by a node, and sealed where nodes sign.
  } catch {
    return { isLost: true }; // Written by somebody else.
  }
}

/** @throws {WebSocketError} the error that the request was answered with, or OUTCOME_UNKNOWN. */
function resultOf(type: string, { data, error, isLost }: Stored): unknown {
  if (isLost) throw new WebSocketError(type, "OUTCOME_UNKNOWN", "The request may have been handled, and its answer is not known");
  if (error) throw new WebSocketError(type, error.code, error.message, error.details && { details: error.details });
  return data;
}
