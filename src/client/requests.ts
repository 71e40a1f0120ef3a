import type { WebSocketMessage } from "../protocol.ts";
import { ClientError, errorOf } from "./error.ts";
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
  readonly isIdempotent: boolean;
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
    const { timeout, signal, idempotent = false } = options;
    return new Promise((resolve, reject) => {
      if (signal?.aborted) return reject(signal.reason);
      const text = JSON.stringify(message);
      const done = () => {
        this.#pending.delete(message.uid);
        this.#outbox.delete(item);
        this.#clock.clearTimeout(timer);
        signal?.removeEventListener("abort", abort);
      };
      const fail = (error: unknown) => {
        done();
        reject(error);
      };
      const abort = () => fail(signal?.reason);
      const timer = timeout &&
        this.#clock.setTimeout(() => fail(new ClientError("TIMEOUT", `No answer came within ${timeout} ms`)), timeout);
      const item: Pending = {
        text,
        isIdempotent: idempotent,
        sent: () => void (item.wasSent = true),
        failed: fail,
        settle(answer) {
          done();
          if (answer["status"] === "ok") resolve(answer);
          else reject(errorOf(answer["error"]));
        },
      };
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
      if (!item.wasSent) continue;
      if (item.isIdempotent && mayRetry) again.push(item);
      else item.failed(error);
    }
    this.#outbox.restore(again);
  }

  fail(error: ClientError): void {
    for (const item of [...this.#pending.values()]) item.failed(error);
  }
}
