import { type Call, requestOf } from "../application/call.ts";
import { connectionOf, type WebSocketClient } from "../application/websocket-client.ts";
import { OPEN, type Transport } from "../delivery/transport.ts";
import type { Engine, SubscriptionKeeper } from "../engines/engine.ts";
import { WebSocketError } from "../protocol/errors.ts";

/** Time between two signs of life, in ms: a pending timer keeps a Durable Object from hibernating. */
const AWAKE = 1_000;

/**
 * The streams of clients that may hibernate. They are stored, so that a client whose object was evicted learns that its streams have
 * ended. Of other clients nothing is stored.
 */
export class StreamMarks {
  readonly #engine: () => Engine;
  readonly #unattended: () => number;
  readonly #marked = new Map<Call, string>();
  #timer: unknown;

  /**
   * @param engine starts it, if it was not.
   * @param unattended returns the number of generators without a client.
   */
  constructor(engine: () => Engine, unattended: () => number) {
    this.#engine = engine;
    this.#unattended = unattended;
  }

  add(call: Call): void {
    const keeper = this.#keeperOf(call.client);
    if (!keeper) return;
    const { type, uid } = requestOf(call);
    const name = crypto.randomUUID();
    this.#marked.set(call, name);
    keeper.save(keyOf(call.client), name, JSON.stringify({ type, uid }));
    this.#stayAwake();
  }

  delete(call: Call): void {
    const name = this.#marked.get(call);
    if (!name) return;
    this.#marked.delete(call);
    this.#keeperOf(call.client)?.delete(keyOf(call.client), name);
    if (this.#isNeeded) return;
    clearTimeout(this.#timer as number | undefined); // The handle is what `setTimeout` returned, whose type differs.
    this.#timer = undefined;
  }

  /** Tells a client that was restored which of its streams have ended. Those that are resumable can be resumed. */
  restored(client: WebSocketClient): void {
    const keeper = this.#keeperOf(client);
    if (!keeper) return;
    const key = keyOf(client);
    const marks = keeper.load(key);
    if (marks.length > 0) keeper.delete(key);
    if (connectionOf(client).readyState !== OPEN) return;
    for (const mark of marks) {
      const { type, uid } = JSON.parse(mark); // Written by `add`.
      client.send(new WebSocketError(type, "DISCONNECTED", "The server has lost the stream", { uid }).toMessage());
    }
  }

  #keeperOf(client: WebSocketClient): SubscriptionKeeper | undefined {
    const { transport } = connectionOf(client) as { transport: Partial<Transport> }; // A connection has one.
    return transport.save && this.#engine().keeper;
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
