/** Answers in parts, sent as fast as each client reads, and the signals that tell handlers to stop. */
import { abortCall, type Call, type CallKeeper, type Streamable } from "../application/call.ts";
import { WebSocketError } from "../protocol/errors.ts";
import type { WebSocketMessage } from "../protocol/protocol.ts";
import { OPEN } from "../delivery/transport.ts";
import { connectionOf, type WebSocketClient } from "../application/websocket-client.ts";
import { ClientCalls, gone, type StreamsHost } from "./client-calls.ts";
import { Turn } from "./turn.ts";

/** The calls of handlers on one node that can be aborted, and the streams among them. */
export class Streams implements CallKeeper {
  readonly #host: StreamsHost;
  readonly #clients = new Map<WebSocketClient, ClientCalls>();
  readonly #turn = new Turn();

  constructor(host: StreamsHost) {
    this.#host = host;
  }

  /** Number of streams that have not ended. */
  get size(): number {
    let size = 0;
    for (const { streams } of this.#clients.values()) size += streams;
    return size;
  }

  /** Number of items sent since the start. */
  get items(): number {
    return this.#turn.items;
  }

  keep(call: Call): void {
    const { client } = call;
    if (connectionOf(client).readyState === OPEN) this.#of(client).add(call);
    else abortCall(call, gone(call));
  }

  release(call: Call): void {
    const { client } = call;
    if (this.#clients.get(client)?.delete(call)) this.#clients.delete(client);
  }

  async stream(call: Call, source: Streamable): Promise<unknown> {
    // Not kept if the client has gone: then it is refused.
    const calls = this.#clients.get(call.client) ?? new ClientCalls(call.client, this.#host, this.#turn);
    return await calls.stream(call, source);
  }

  control(client: WebSocketClient, { type, uid, credit }: WebSocketMessage): boolean {
    const path = uid === undefined ? "uid" : type === "stream.credit" && !isCredit(credit) ? "credit" : undefined;
    if (path) {
      const details = { details: { path }, ...(uid !== undefined && { uid }) };
      client.send(new WebSocketError(type, "INVALID_PAYLOAD", `Invalid payload at "${path}"`, details).toMessage());
      return false;
    }
    const calls = this.#clients.get(client);
    if (type === "stream.credit") return calls?.credit(uid, credit as number) ?? false; // Checked above.
    calls?.abort((call) => new WebSocketError(call.message.type, "CANCELLED", "The client has cancelled it"), uid);
    return false;
  }

  /** The client was admitted or suspended, has other rights, or is gone. */
  changed(client: WebSocketClient): void {
    this.#clients.get(client)?.changed();
  }

  /** Aborts all calls on this node, as a drain does. Each stream ends with the error. */
  abortAll(reasonFor: (call: Call) => WebSocketError): void {
    for (const calls of this.#clients.values()) calls.abort(reasonFor);
  }

  #of(client: WebSocketClient): ClientCalls {
    let calls = this.#clients.get(client);
    if (!calls) this.#clients.set(client, calls = new ClientCalls(client, this.#host, this.#turn));
    return calls;
  }
}

const isCredit = (credit: unknown): boolean => Number.isSafeInteger(credit) && (credit as number) > 0;
