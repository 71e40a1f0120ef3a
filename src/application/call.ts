import type { Contract } from "../protocol/contract-types.ts";
import type { MessageUid } from "../protocol/errors.ts";
import type { WebSocketMessage } from "../protocol/protocol.ts";
import type { CheckedSchema } from "./schema.ts";
import type { WebSocketClient } from "./websocket-client.ts";

/**
 * The argument of a handler. `C` is the contract of the controller, `Input` an item of the input, if the request declares one.
 */
export interface HandlerContext<Payload, C = Contract, Input = never> {
  /** The client that sent the message. */
  readonly client: WebSocketClient<C>;
  /** The output of the schema, with `type` and `uid` of the message. */
  readonly message: Payload & { type: string; uid?: MessageUid };
  /**
   * Aborts when the answer is no longer wanted: the client cancels the request or disconnects, its user or role changes, it does
   * not read the stream, or the node drains and ends the stream. Pass it on to `fetch` and the like.
   */
  readonly signal: AbortSignal;
  /**
   * The items that the client sends after the message, as the schema `stream.input` of the request outputs them. The client sends
   * more as you read, and stops after a `break`. Absent if the request declares no input.
   *
   * @throws {WebSocketError} INVALID_PAYLOAD for an item that the schema refuses; the client's code if its input fails; the
   * reason of `signal` once that aborts.
   */
  readonly input: [Input] extends [never] ? undefined : AsyncIterable<Input>;
}

/** A `ReadableStream` of any runtime. */
export interface ReadableStreamOf<Item> {
  /** Locks the stream, and returns its reader. */
  getReader(): {
    /** Reads the next item. */
    read(): Promise<{ done: boolean; value?: Item | undefined }>;
    /** Ends the stream. */
    cancel(reason?: unknown): Promise<void>;
  };
}

/**
 * The stream that a handler may return. Each item is sent as one message; the value that a generator returns is sent at the end.
 */
export type Streamed<Item, Reply = unknown> =
  | AsyncGenerator<Item, Reply>
  | (undefined extends Reply ? AsyncIterable<Item> | ReadableStreamOf<Item> : never);

/** What a handler returns: the reply, or a stream if the request declares items. Without a contract, anything. */
export type Answer<Reply, Item> = [Item] extends [never] ? Reply | Promise<Reply>
  : unknown extends Reply & Item ? unknown
  :
    | Streamed<Item, Reply>
    | Promise<Streamed<Item, Reply>>
    | (unknown extends Reply ? never : Reply | Promise<Reply>);

/** A value that is sent as a stream, with items of any type. */
export type Streamable = AsyncIterable<unknown> | ReadableStreamOf<unknown>;

/** What a call needs from its controller, which aborts calls, opens their input, and sends streams. */
export interface CallHost {
  /** Watches the call until {@link unregister}, and aborts it when its answer is no longer wanted. */
  register(call: Call): void;
  /** Opens the input of the call, until {@link unregister}. @throws {WebSocketError} if the client may not send it. */
  open(call: Call, schema: CheckedSchema): AsyncIterable<unknown>;
  /** Stops watching a call that is answered. */
  unregister(call: Call): void;
  /** Sends the items. Settles with the result when all are sent, or with the error to answer. */
  stream(call: Call, source: Streamable): Promise<unknown>;
  /**
   * Handles a message that controls a stream, with its size. Returns whether it is a credit that the server asked for, or the
   * first cancellation.
   */
  control(client: WebSocketClient, message: WebSocketMessage, bytes: number): boolean;
}

// Functions and not methods, because the application receives the call as the context of its handler.

/** Returns the message of the call, as received. */
export let requestOf: (call: Call) => WebSocketMessage;
/** Returns why the call was aborted; `undefined`: it was not. */
export let reasonOf: (call: Call) => unknown;
/** Opens the input, and calls the handler. */
export let runCall: (call: Call) => unknown;
/** Registers the call, so that it is aborted when its answer is no longer wanted. */
export let registerCall: (call: Call) => void;
/** Unregisters an answered call: nothing aborts it any more. */
export let unregisterCall: (call: Call) => void;
/** Aborts the signal, with the error that the call then ends with. Only the first reason counts. */
export let abortCall: (call: Call, reason: unknown) => void;

/** One call of a handler, and the argument that it is called with. */
export class Call implements HandlerContext<object> {
  readonly client: WebSocketClient;
  readonly message: HandlerContext<object>["message"];
  readonly #handler: (context: HandlerContext<object>) => unknown;
  readonly #request: WebSocketMessage;
  readonly #host: CallHost;
  readonly #schema: CheckedSchema | undefined;
  #input: AsyncIterable<unknown> | undefined;
  #abort: AbortController | undefined;
  #state: "new" | "registered" | "done" = "new";
  #reason: unknown;

  static {
    requestOf = (call) => call.#request;
    reasonOf = (call) => call.#reason;
    runCall = (call) => call.#run();
    registerCall = (call) => call.#register();
    unregisterCall = (call) => call.#unregister();
    abortCall = (call, reason) => call.#abortWith(reason);
  }

  constructor(
    handler: (context: HandlerContext<object>) => unknown,
    client: WebSocketClient,
    message: HandlerContext<object>["message"],
    request: WebSocketMessage,
    host: CallHost,
    /** Schema of an item of the input. Absent: the request has no input. */
    schema?: CheckedSchema,
  ) {
    this.client = client;
    this.message = message;
    this.#handler = handler;
    this.#request = request;
    this.#host = host;
    this.#schema = schema;
  }

  get input(): undefined {
    return this.#input as undefined; // `HandlerContext` has the type of an input.
  }

  // Created when it is read: an AbortController takes 1 µs, and most handlers need none.
  get signal(): AbortSignal {
    if (!this.#abort) {
      this.#abort = new AbortController();
      if (this.#reason !== undefined) this.#abort.abort(this.#reason);
      else this.#register();
    }
    return this.#abort.signal;
  }

  #run(): unknown {
    if (this.#schema) this.#input = this.#host.open(this, this.#schema);
    return this.#handler(this);
  }

  #register(): void {
    if (this.#state !== "new") return;
    this.#state = "registered";
    this.#host.register(this);
  }

  #unregister(): void {
    if (this.#state === "registered") this.#host.unregister(this);
    this.#state = "done";
  }

  #abortWith(reason: unknown): void {
    if (this.#reason !== undefined) return;
    this.#reason = reason;
    this.#abort?.abort(reason);
  }
}

/** Whether the handler failed because its signal was aborted: with the reason of the signal, or with an `AbortError`. */
export function isAbort(call: Call, error: unknown): boolean {
  const reason = reasonOf(call);
  if (reason === undefined) return false;
  try {
    return error === reason || error instanceof Error && error.name === "AbortError";
  } catch {
    return false; // A trap of a Proxy threw.
  }
}

/** Whether the value is sent as a stream. @throws what a trap of a Proxy throws. */
export function isStreamable(value: unknown): value is Streamable {
  return typeof value === "object" && value !== null && Symbol.asyncIterator in value;
}
