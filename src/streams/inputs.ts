import { type Call, requestOf } from "../application/call.ts";
import type { CheckedSchema } from "../application/schema.ts";
import type { WebSocketClient } from "../application/websocket-client.ts";
import { type MessageUid, WebSocketError } from "../protocol/errors.ts";
import { Input } from "./input.ts";

/** The inputs of the clients of one node. */
export class Inputs {
  readonly #options: { readonly maxBufferedBytes: number; readonly maxStreams: number };
  readonly #clients = new Map<WebSocketClient, Map<MessageUid, Input>>();

  constructor(options: { readonly maxBufferedBytes: number; readonly maxStreams: number }) {
    this.#options = options;
  }

  /** @throws {WebSocketError} INVALID_PAYLOAD without a `uid` of its own, LIMIT_EXCEEDED beyond `maxStreams`. */
  open(call: Call, schema: CheckedSchema): AsyncIterable<unknown> {
    const { type, uid } = requestOf(call);
    const inputs = this.#clients.get(call.client) ?? new Map<MessageUid, Input>();
    if (uid === undefined || inputs.has(uid)) {
      const why = uid === undefined ? "A request with input has a uid" : "A stream with this uid has not ended";
      throw new WebSocketError(type, "INVALID_PAYLOAD", why, { details: { path: "uid" } });
    }
    if (inputs.size >= this.#options.maxStreams) throw new WebSocketError(type, "LIMIT_EXCEEDED", "Too many streams at once");
    // Each gets a share of what is open then: the shares of 32 add up to four times the first, which is `maxBufferedBytes`.
    const input = new Input(call, schema, () => Math.ceil(this.#options.maxBufferedBytes / 4 / inputs.size));
    this.#clients.set(call.client, inputs.set(uid, input));
    return input.items;
  }

  /** The call is answered. Returns whether it had input. */
  release(call: Call): boolean {
    const inputs = this.#clients.get(call.client);
    const { uid } = requestOf(call);
    const input = inputs?.get(uid!); // Without a `uid` there is none.
    if (!inputs || input?.call !== call) return false;
    input.close();
    inputs.delete(uid!); // As above.
    if (inputs.size === 0) this.#clients.delete(call.client);
    return true;
  }

  get(client: WebSocketClient, uid: MessageUid): Input | undefined {
    return this.#clients.get(client)?.get(uid);
  }

  /** The client was admitted or suspended, or is gone. */
  changed(client: WebSocketClient): void {
    for (const input of this.#clients.get(client)?.values() ?? []) input.changed();
  }
}
