import { WebSocketError } from "../../protocol/errors.ts";
import {
  type CallHome,
  type HomeAnswer,
  type HomeCall,
  lengthOf,
  type Operation,
  type Outcome,
  pause,
  takeCall,
} from "./shards.ts";

/** What {@link HomeCalls} needs from its engine. */
export interface HomeCallsHost {
  readonly call: CallHome;
  /** Returns the current state of the relay, which each call carries beside its operations. */
  sender(): Omit<HomeCall, "operations">;
  /** Called with each answer, and with what {@link sender} returned for its call. */
  answered(answer: HomeAnswer, sender: Omit<HomeCall, "operations">): void;
}

interface Waiting {
  readonly operation: () => Operation;
  readonly isRepeatable: boolean;
  attempts: number;
  resolve(value: unknown): void;
  reject(error: unknown): void;
}

/** Maximum number of operations that wait for a call. */
const MAX_WAITING = 10_000;

/** Attempts for an operation that may be repeated, and the pause before the third and later ones, in ms. */
const [MAX_ATTEMPTS, RETRY_PAUSE] = [4, 200];

/**
 * The calls of a relay to its home object, one at a time. Operations that are requested during a call go together in the next, so a busy
 * relay makes larger calls, not more of them.
 */
export class HomeCalls {
  readonly #host: HomeCallsHost;
  readonly #waiting: Waiting[] = [];
  #isCalling = false;

  constructor(host: HomeCallsHost) {
    this.#host = host;
  }

  /**
   * Resolves with the result of the operation. Operations are carried out in the order of these calls.
   *
   * @param operation called when the operation is sent.
   * @param isRepeatable whether to send it again when a call fails, although the home object may have carried it out.
   * @throws {WebSocketError} ENGINE_UNAVAILABLE if the home object cannot be reached; else the error of the operation.
   */
  run(operation: () => Operation, isRepeatable: boolean): Promise<unknown> {
    if (this.#waiting.length >= MAX_WAITING) return Promise.reject(unavailable("call the home object", "it is overloaded"));
    return new Promise((resolve, reject) => {
      this.#waiting.push({ operation, isRepeatable, attempts: 0, resolve, reject });
      // Deferred, so that operations requested in one go share a call.
      if (!this.#isCalling) {
        this.#isCalling = true;
        queueMicrotask(() => void this.#callAll());
      }
    });
  }

  /**
   * Like {@link run}, in a call of its own: for operations that take longer because the home object queries other relays.
   *
   * @param check called before the operation is repeated. It throws if the engine was closed meanwhile.
   */
  async runAlone(operation: Operation, check: () => void): Promise<unknown> {
    for (let attempt = 1;; attempt++) {
      try {
        const { outcomes: [outcome] } = await this.#call([operation]);
        return valueOf(outcome);
      } catch (error) {
        if (error instanceof WebSocketError || attempt >= MAX_ATTEMPTS) {
          throw WebSocketError.from(error) ?? unreachable(error);
        }
        if (attempt > 1) await pause(RETRY_PAUSE);
        check();
      }
    }
  }

  async #callAll(): Promise<void> {
    while (this.#waiting.length > 0) {
      const made = new Map<Waiting, Operation>();
      const taken = takeCall(this.#waiting, (each) => {
        const operation = each.operation();
        made.set(each, operation);
        return lengthOf(operation);
      });
      await this.#settle(taken, taken.map((each) => made.get(each)!)); // Made above.
    }
    this.#isCalling = false;
  }

  async #settle(taken: readonly Waiting[], operations: readonly Operation[]): Promise<void> {
    let outcomes: readonly Outcome[];
    try {
      ({ outcomes } = await this.#call(operations));
    } catch (error) {
      const again: Waiting[] = [];
      for (const each of taken) {
        if (each.isRepeatable && ++each.attempts < MAX_ATTEMPTS) again.push(each);
        else each.reject(unreachable(error));
      }
      this.#waiting.unshift(...again);
      if (again.some(({ attempts }) => attempts > 1)) await pause(RETRY_PAUSE);
      return;
    }
    // Operations without an outcome were not carried out, because the answer would have been too large: they go again.
    if (outcomes.length > 0) this.#waiting.unshift(...taken.slice(outcomes.length));
    for (const [number, each] of taken.slice(0, outcomes.length || taken.length).entries()) {
      try {
        each.resolve(valueOf(outcomes[number]));
      } catch (error) {
        each.reject(error);
      }
    }
  }

  async #call(operations: readonly Operation[]): Promise<HomeAnswer> {
    const sender = this.#host.sender();
    const answer = await this.#host.call({ ...sender, operations });
    this.#host.answered(answer, sender);
    return answer;
  }
}

function valueOf(outcome: Outcome | undefined): unknown {
  if (!outcome) throw unavailable("call the home object", "it runs another version");
  if ("value" in outcome) return outcome.value;
  throw new WebSocketError("engine", outcome.code, outcome.message);
}

/** Makes an ENGINE_UNAVAILABLE error. */
export function unavailable(action: string, state: string, cause?: unknown): WebSocketError {
  const text = `Cannot ${action}: ${state}, try again later`;
  return new WebSocketError("engine", "ENGINE_UNAVAILABLE", text, cause === undefined ? {} : { cause });
}

const unreachable = (cause: unknown): WebSocketError => unavailable("call the home object", "it cannot be reached", cause);
