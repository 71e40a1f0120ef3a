import type { WebSocketMessage } from "../protocol.ts";
import { encode } from "./encode.ts";
import { ClientError, errorOf } from "./error.ts";
import { checkMs } from "./options.ts";
import type { Outbox, Waiting } from "./outbox.ts";
import type { ClientClock } from "./platform.ts";

/** Options of {@link BareClient.request}. */
export interface RequestOptions {
  /** How long the answer may take, in ms; `0` waits for ever. @default the client's `requestTimeout` */
  timeout?: number;
  /** Gives the request up. The server may handle it all the same. */
  signal?: AbortSignal;
  /** That it may be handled twice: it is sent again, with the same `uid`, when the connection is lost before the answer. @default {false} */
  idempotent?: boolean;
}

interface Pending extends Waiting {
  readonly idempotent: boolean | undefined;
  settle(message: WebSocketMessage): void;
}

/** What was asked and is not answered yet, by `uid`. */
export class Requests {
  readonly #clock: ClientClock;
  readonly #outbox: Outbox;
  readonly #pending = new Map<unknown, Pending>();

  constructor(clock: ClientClock, outbox: Outbox) {
    this.#clock = clock;
    this.#outbox = outbox;
  }

  /** @param transmit hands the message to the connection, or to the outbox. */
  add(
    message: WebSocketMessage,
    options: RequestOptions & { timeout: number },
    transmit: (item: Waiting) => void,
  ): Promise<WebSocketMessage> {
    const { timeout, signal, idempotent } = options;
    checkMs('Cannot request: option "timeout"', timeout);
    return new Promise((resolve, reject) => {
      const text = encode(message);
      const done = () => {
        this.#pending.delete(message.uid);
        this.#outbox.delete(item);
        this.#clock.clearTimeout(timer);
        signal?.removeEventListener("abort", abort);
      };
      const failed = (error: unknown) => {
        done();
        reject(error);
      };
      // The signals of a polyfill, such as that of React Native, have no reason.
      const abort = () => failed(signal?.reason ?? new ClientError("ABORTED", "Aborted"));
      const late = () => failed(this.#outbox.unsent(item) ?? new ClientError("TIMEOUT", `No answer within ${timeout} ms`));
      const timer = timeout && this.#clock.setTimeout(late, timeout);
      const item: Pending = {
        text,
        idempotent,
        failed,
        settle(answer) {
          if (answer["status"] !== "ok") return failed(errorOf(answer));
          done();
          resolve(answer);
        },
      };
      if (signal?.aborted) return abort();
      signal?.addEventListener("abort", abort);
      this.#pending.set(message.uid, item);
      transmit(item);
    });
  }

  /** Whether the message is the answer to one of them. */
  settle(message: WebSocketMessage): boolean {
    const pending = this.#pending.get(message.uid);
    if (!pending || message["status"] === undefined) return false;
    pending.settle(message);
    return true;
  }

  /** One that the server has not looked at, since the credentials had run out: it is sent again. */
  retry(uid: unknown): boolean {
    const pending = this.#pending.get(uid);
    if (pending) this.#outbox.restore([pending]);
    return !!pending;
  }

  /** The connection is lost, and whether what was sent has been handled is not known. */
  lost(error: ClientError, mayRetry: boolean): void {
    const again: Pending[] = [];
    for (const item of [...this.#pending.values()]) {
      if (this.#outbox.has(item)) continue;
      item.wasSent = true;
      if (item.idempotent && mayRetry) again.push(item);
      else item.failed(error);
    }
    this.#outbox.restore(again);
  }
}
