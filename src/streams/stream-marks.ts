import { type Call, requestOf } from "../application/call.ts";
import { connectionOf, sendAnswer, type WebSocketClient } from "../application/websocket-client.ts";
import { OPEN, type Transport } from "../delivery/transport.ts";
import type { Engine, SubscriptionKeeper } from "../engines/engine.ts";
import { CloseCode } from "../protocol/close.ts";
import { WebSocketError } from "../protocol/errors.ts";

/** Time between two signs of life, in ms: a pending timer keeps a Durable Object from hibernating. */
const AWAKE = 1_000;

/**
 * Stores the streams of clients that may hibernate, and their requests with input: after an eviction of the object, a client is
 * notified that they have ended. Of other clients nothing is stored.
 */
export class StreamMarks {
  readonly #engine: () => Engine;
  readonly #unattended: () => number;
  readonly #report: (error: unknown, client: WebSocketClient) => void;
  readonly #marked = new Map<Call, string>();
  #timer: unknown;

  /**
   * @param engine starts it, if it was not.
   * @param unattended returns the number of generators without a client.
   * @param report called with an error of the storage.
   */
  constructor(
    engine: () => Engine,
    unattended: () => number,
    report: (error: unknown, client: WebSocketClient) => void,
  ) {
    this.#engine = engine;
    this.#unattended = unattended;
    this.#report = report;
  }

  /** A call with input that answers in parts is added twice. */
  add(call: Call): void {
    if (this.#marked.has(call)) return;
    const { client } = call;
    const { type, uid } = requestOf(call);
    this.#withKeeper(client, (keeper) => {
      const name = crypto.randomUUID();
      this.#marked.set(call, name);
      keeper.save(keyOf(client), name, JSON.stringify({ type, uid }));
      this.#stayAwake();
    });
  }

  delete(call: Call): void {
    const name = this.#marked.get(call);
    if (!name) return;
    this.#marked.delete(call);
    this.#withKeeper(call.client, (keeper) => keeper.delete(keyOf(call.client), name));
    if (this.#isNeeded) return;
    clearTimeout(this.#timer as number | undefined); // The handle is what `setTimeout` returned, whose type differs.
    this.#timer = undefined;
  }

  /** Notifies a restored client of its streams that have ended. It may resume those that are resumable. */
  restored(client: WebSocketClient): void {
    if (!mayHibernate(client)) return;
    let marks: readonly string[] = [];
    this.#withKeeper(client, (keeper) => {
      const key = keyOf(client);
      marks = keeper.load(key);
      if (marks.length > 0) keeper.delete(key);
    });
    if (connectionOf(client).readyState !== OPEN) return;
    for (const mark of marks) {
      const { type, uid } = JSON.parse(mark); // Written by `add`.
      sendAnswer(client, new WebSocketError(type, "DISCONNECTED", "The server has lost the stream", { uid }).toMessage());
    }
  }

  /** Calls back if the client may hibernate. A client whose streams cannot be stored would wait for ever: it is closed. */
  #withKeeper(client: WebSocketClient, call: (keeper: SubscriptionKeeper) => void): void {
    if (!mayHibernate(client)) return;
    try {
      const { keeper } = this.#engine();
      if (keeper) call(keeper);
    } catch (error) {
      this.#report(error, client);
      client.close(CloseCode.INTERNAL_ERROR, "Cannot keep the streams");
    }
  }

  get #isNeeded(): boolean {
    return this.#marked.size + this.#unattended() > 0;
  }

  #stayAwake(): void {
    this.#timer ??= setTimeout(() => {
      this.#timer = undefined;
      if (this.#isNeeded) this.#stayAwake();
    }, AWAKE);
  }
}

const keyOf = ({ uid }: WebSocketClient): string => `stream ${uid}`;

function mayHibernate(client: WebSocketClient): boolean {
  const { transport } = connectionOf(client) as { transport: Partial<Transport> }; // A connection has one.
  return transport.save !== undefined;
}
