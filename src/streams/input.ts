import { type Call, reasonOf, requestOf } from "../application/call.ts";
import { codeOf } from "../application/questions.ts";
import { type CheckedSchema, parse } from "../application/schema.ts";
import { type ClientConnection, connectionOf } from "../application/websocket-client.ts";
import { OPEN } from "../delivery/transport.ts";
import { type MessageUid, WebSocketError } from "../protocol/errors.ts";
import { Frame } from "../protocol/frame.ts";
import { issuePath, type WebSocketMessage } from "../protocol/protocol.ts";
import { gone } from "./client-calls.ts";

/** Items that a client may be ahead of the handler: half of the messages that may queue behind one that waits (PROTOCOL.md §2.8). */
const MAX_ITEMS = 32;

/** A number of items, counted since the start, with their bytes. */
interface Total {
  readonly item: number;
  readonly bytes: number;
}

const NONE: Total = { item: 0, bytes: 0 };

interface Item {
  readonly data: unknown;
  readonly bytes: number;
}

/** What a client sends after the message of a request. It may be as far ahead of the handler as its credit allows (PROTOCOL.md §3.13). */
export class Input {
  readonly call: Call;
  /** What the handler reads, once. */
  readonly items: AsyncIterableIterator<unknown>;
  readonly #connection: ClientConnection;
  readonly #schema: CheckedSchema;
  readonly #maxBytes: () => number;
  #queue: Item[] = [];
  #received = NONE;
  #taken = NONE;
  #granted = NONE;
  #end: { readonly error?: WebSocketError } | undefined;
  /** Whether the handler reads no more. */
  #isClosed = false;
  /** Whether the connection has ended. */
  #isGone = false;
  #wake = (): void => {};

  /** @param maxBytes bytes that may wait for the handler now. */
  constructor(call: Call, schema: CheckedSchema, maxBytes: () => number) {
    this.call = call;
    this.#connection = connectionOf(call.client);
    this.#schema = schema;
    this.#maxBytes = maxBytes;
    call.signal.addEventListener("abort", () => this.#wake());
    const items = this.#read();
    this.items = {
      next() {
        const next = items.next();
        next.catch(() => {}); // A handler may ask ahead, and await it later or never.
        return next;
      },
      return: () => items.return(undefined),
      [Symbol.asyncIterator]() {
        return this;
      },
    };
  }

  /** Takes a message of the client. Returns the error to end the stream with, if any. */
  receive({ type, item, data, error }: WebSocketMessage, bytes: number): WebSocketError | undefined {
    // Sent before the client knows that the handler reads no more.
    if (this.#end || this.#isClosed) return undefined;
    const last = this.#received;
    // The rate limit may have refused one.
    if (item !== last.item + 1) {
      return this.#error("INVALID_PAYLOAD", `Item ${last.item + 1} of the input is missing`, { path: "item" });
    }
    if (type === "stream.end") {
      const failed = error === undefined ? undefined : this.#error(codeOf(error), "The input of the client has failed", { item });
      this.#end = failed ? { error: failed } : {};
    } else if (last.item >= this.#granted.item || last.bytes >= this.#granted.bytes) {
      return this.#error("LIMIT_EXCEEDED", "More input than the credit allows");
    } else {
      this.#received = { item, bytes: last.bytes + bytes };
      this.#queue.push({ data, bytes });
    }
    this.#wake();
    return undefined;
  }

  /** The client was admitted or suspended, or is gone. */
  changed(): void {
    this.#isGone ||= this.#connection.readyState !== OPEN;
    this.#wake();
  }

  /** The call is answered. */
  close(): void {
    this.#isClosed = true;
    this.#queue = [];
    this.#wake();
  }

  async *#read(): AsyncGenerator<unknown, undefined> {
    try {
      for (let item = await this.#take(); item; item = await this.#take()) yield await this.#parse(item);
    } finally {
      if (!this.#end && !this.#isClosed && this.#reason === undefined) this.#send({ type: "stream.cancel", uid: this.#uid });
      this.close();
    }
    return undefined;
  }

  /** Waits for the next item; `undefined`: the end. */
  async #take(): Promise<Item | undefined> {
    for (;;) {
      if (this.#reason !== undefined) throw this.#reason;
      // A message of a client with expired credentials must not take effect.
      if (!this.#connection.isSuspended) {
        this.#grant();
        const item = this.#queue.shift();
        if (item) {
          this.#taken = { item: this.#taken.item + 1, bytes: this.#taken.bytes + item.bytes };
          return item;
        }
        if (this.#end?.error) throw this.#end.error;
        if (this.#end) return undefined;
      }
      await new Promise<void>((resolve) => this.#wake = resolve);
    }
  }

  async #parse({ data }: Item): Promise<unknown> {
    const parsed = await parse(this.#schema, data);
    if (parsed.success) return parsed.output;
    const path = issuePath(parsed.issues[0]!); // A failure has an issue.
    const { item } = this.#taken;
    throw this.#error("INVALID_PAYLOAD", `Invalid item ${item} of the input`, { item, ...(path !== "" && { path }) });
  }

  /** Lets the client send more, once it has used half of its credit. */
  #grant(): void {
    const [maxBytes, taken, { item, bytes }] = [this.#maxBytes(), this.#taken, this.#granted];
    if (this.#end || item - taken.item > MAX_ITEMS / 2 && bytes - taken.bytes > maxBytes / 2) return;
    const granted = { item: taken.item + MAX_ITEMS, bytes: Math.max(bytes, taken.bytes + maxBytes) };
    if (this.#send({ type: "stream.credit", uid: this.#uid, ...granted })) this.#granted = granted;
  }

  /** Why there is no input any more; `undefined`: there is. */
  get #reason(): unknown {
    if (this.#isClosed) return this.#error("CANCELLED", "Cannot read the input: the request is answered");
    return reasonOf(this.call) ?? (this.#isGone ? gone(this.call) : undefined);
  }

  get #uid(): MessageUid {
    return requestOf(this.call).uid!; // A request with input has one.
  }

  /** Returns whether it was handed to the socket. */
  #send(message: WebSocketMessage): boolean {
    return this.#connection.send(Frame.of(message));
  }

  #error(code: string, text: string, details?: Record<string, unknown>): WebSocketError {
    return new WebSocketError(requestOf(this.call).type, code, text, details && { details });
  }
}
