/** Answers in parts, sent as fast as each client reads, and the signals that stop handlers. */
import { abortCall, type Call, type CallHost, type Streamable } from "../application/call.ts";
import { type Declared, type Handler, isRequest } from "../application/handlers.ts";
import { WebSocketError } from "../protocol/errors.ts";
import type { CheckedSchema } from "../application/schema.ts";
import type { JsonOf } from "../protocol/json-of.ts";
import type { WebSocketMessage } from "../protocol/protocol.ts";
import { OPEN } from "../delivery/transport.ts";
import { connectionOf, sendAnswer, type WebSocketClient } from "../application/websocket-client.ts";
import { ClientCalls, gone, type StreamsHost } from "./client-calls.ts";
import { Inputs } from "./inputs.ts";
import type { ResumableOptions } from "./resumable-options.ts";
import { type AnyHandler, type ResumableHost, ResumableStreams } from "./resumable.ts";
import { StreamMarks } from "./stream-marks.ts";
import { Turn } from "./turn.ts";

/** Options of {@link WebSocketController.handle}. */
export interface HandleOptions<Payload = unknown, Item = unknown> {
  /** Whether a stream goes on without its connection, so that its client can resume it. @default {false} */
  readonly resumable?: boolean | ResumableOptions<Payload, JsonOf<Item>>;
}

/** What resumable streams need from their controller. */
export interface StreamsNode extends Pick<ResumableHost, "keyOf" | "rateGate"> {
  readonly backplane: Pick<ResumableHost, "engine" | "maxHistory" | "checkHistory"> & { streams: Streams | undefined };
  readonly handlers: Pick<ResumableHost, "handle">;
}

/** The calls of handlers on one node that can be aborted, and the streams among them. */
export class Streams implements CallHost {
  /** Streams that outlive their connections. Absent: no handler is resumable. */
  resumable: ResumableStreams | undefined;
  readonly #host: StreamsHost;
  readonly #clients = new Map<WebSocketClient, ClientCalls>();
  readonly #inputs: Inputs;
  readonly #turn = new Turn();
  /** Set by `connect`, as the next. */
  #marks!: StreamMarks;
  #resumable!: () => ResumableStreams;

  constructor(host: StreamsHost) {
    this.#host = host;
    this.#inputs = new Inputs(host.options);
  }

  /** Makes resumable streams possible. */
  connect({ backplane, keyOf, handlers, rateGate }: StreamsNode): void {
    const { deadlines, observed, outbound, options: { maxStreams, timeout }, report } = this.#host;
    const streamsOf = (client: WebSocketClient) => this.#clients.get(client)?.streams ?? 0;
    this.#resumable = () =>
      this.resumable ??= new ResumableStreams({
        get engine() {
          return backplane.engine;
        },
        get maxHistory() {
          return backplane.maxHistory;
        },
        deadlines,
        observed,
        outbound,
        timeout,
        maxStreams,
        turn: this.#turn,
        rateGate,
        keyOf,
        report,
        streamsOf,
        checkHistory: (history) => backplane.checkHistory(history),
        handle: (type, schema, handler) => handlers.handle(type, schema, handler),
      });
    this.#marks = new StreamMarks(() => backplane.engine, () => this.resumable?.unattended ?? 0, report);
    backplane.streams = this;
  }

  /** Number of streams that have not ended. */
  get size(): number {
    let size = 0;
    for (const { streams } of this.#clients.values()) size += streams;
    return size + (this.resumable?.unattended ?? 0);
  }

  /** The handler, with streams that outlive their connections if the options say so. @throws {TypeError} for invalid options. */
  handlerOf<Payload>(type: string, declared: Declared<object>, handler: Handler<Payload>, options: object): Handler<Payload> {
    const { resumable } = checkOptions(type, options);
    if (resumable && isRequest(declared) && declared.stream?.input) {
      throw new TypeError(`Cannot handle "${type}": a stream with input cannot be resumed, leave out resumable`);
    }
    if (!resumable || typeof handler !== "function") return handler; // `Handlers.handle` refuses what is no function.
    return this.#resumable().add(type, handler as AnyHandler, resumable); // Called with its own payload.
  }

  /** Number of items sent since the start. */
  get items(): number {
    return this.#turn.items;
  }

  register(call: Call): void {
    const { client } = call;
    if (connectionOf(client).readyState === OPEN) this.#of(client).add(call);
    else abortCall(call, gone(call));
  }

  open(call: Call, schema: CheckedSchema): AsyncIterable<unknown> {
    const input = this.#inputs.open(call, schema);
    this.#marks.add(call);
    return input;
  }

  unregister(call: Call): void {
    if (this.#inputs.release(call)) this.#marks.delete(call);
    const { client } = call;
    if (this.#clients.get(client)?.delete(call)) this.#clients.delete(client);
  }

  async stream(call: Call, source: Streamable): Promise<unknown> {
    // Not registered if the client has gone: then it is refused.
    const calls = this.#clients.get(call.client) ?? new ClientCalls(call.client, this.#host, this.#turn, this.#marks);
    return await calls.stream(call, source);
  }

  control(client: WebSocketClient, message: WebSocketMessage, bytes: number): boolean {
    const { type, uid, credit, id } = message;
    if (type === "stream.cancel" && uid === undefined && typeof id === "string") {
      this.resumable?.cancel(client, id);
      return false;
    }
    const path = uid === undefined ? "uid" : type === "stream.credit" && !isCredit(credit) ? "credit" : undefined;
    if (path) {
      const details = { details: { path }, ...(uid !== undefined && { uid }) };
      sendAnswer(client, new WebSocketError(type, "INVALID_PAYLOAD", `Invalid payload at "${path}"`, details).toMessage());
      return false;
    }
    const calls = this.#clients.get(client);
    if (type === "stream.credit") return calls?.credit(uid, credit as number) ?? false; // Checked above.
    if (type === "stream.cancel") {
      return calls?.abort((call) => new WebSocketError(call.message.type, "CANCELLED", "The client has cancelled it"), uid) ??
        false;
    }
    const input = this.#inputs.get(client, uid!); // Checked above.
    const error = input?.receive(message, bytes);
    if (input && !error) return false;
    calls?.abort(
      (call) => error ?? new WebSocketError(call.message.type, "INVALID_PAYLOAD", "The request takes no input"),
      uid,
    );
    return false;
  }

  /** The client was admitted or suspended, has other rights, or has gone. */
  changed(client: WebSocketClient): void {
    const calls = this.#clients.get(client);
    if (calls) calls.changed();
    else this.#marks.restored(client);
    this.#inputs.changed(client);
  }

  /** Number of streams that the client reads, and of those that it can continue on another node. */
  of(client: WebSocketClient): { readonly all: number; readonly portable: number } {
    const calls = this.#clients.get(client);
    return { all: calls?.streams ?? 0, portable: calls?.portable ?? 0 };
  }

  /** Ends the streams of the client with SERVICE_UNAVAILABLE, because the node ends. */
  end(client: WebSocketClient): void {
    this.#clients.get(client)?.endStreams(({ message: { type } }) =>
      new WebSocketError(type, "SERVICE_UNAVAILABLE", "The server is going away")
    );
  }

  /** Whether a generator runs here that clients of other nodes can read. */
  get isShared(): boolean {
    return this.resumable?.isShared ?? false;
  }

  #of(client: WebSocketClient): ClientCalls {
    let calls = this.#clients.get(client);
    if (!calls) this.#clients.set(client, calls = new ClientCalls(client, this.#host, this.#turn, this.#marks));
    return calls;
  }
}

/** Validates the options of `handle`. @throws {TypeError} for an unknown option. */
function checkOptions(type: string, options: object): HandleOptions {
  const isObject = typeof options === "object" && options !== null;
  const unknown = isObject && Object.keys(options).find((name) => name !== "resumable");
  if (isObject && !unknown) return options; // Its names are checked.
  throw new TypeError(
    `Cannot handle "${type}": ${unknown ? `unknown option "${unknown}", use resumable` : "options must be an object"}`,
  );
}

const isCredit = (credit: unknown): boolean => Number.isSafeInteger(credit) && (credit as number) > 0;
