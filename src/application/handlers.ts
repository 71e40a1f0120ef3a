import {
  type Answer,
  Call,
  type CallHost,
  type HandlerContext,
  isAbort,
  isStreamable,
  reasonOf,
  registerCall,
  requestOf,
  runCall,
  type Streamable,
  unregisterCall,
} from "./call.ts";
import type { RequestDeclaration } from "./contract.ts";
import type { Contract } from "../protocol/contract-types.ts";
import { envelopeOf, errorFor, intoEnvelope, isPlainSchema, NO_PAYLOAD, payloadOf, withEnvelope } from "./envelope.ts";
import { type Middleware, MiddlewareChain } from "./middleware.ts";
import { isOnce, type Once, type OnceHost } from "./once.ts";
import { WebSocketError } from "../protocol/errors.ts";
import { guard, isThenable } from "../base/guard.ts";
import type { Observed, Observer } from "./observer.ts";
import type { OutboundChecks } from "./outbound.ts";
import { issuePath, type ReplyMessage, type WebSocketMessage } from "../protocol/protocol.ts";
import { Running } from "./running.ts";
import { type CheckedSchema, checkSchema, parse, type Parsed, type PayloadSchema, SCHEMA } from "./schema.ts";
import { connectionOf, sendAnswer, type WebSocketClient } from "./websocket-client.ts";

/**
 * Answers one message type. The value it returns or resolves with is sent as `data` of the answer. An async generator, an
 * `AsyncIterable` or a `ReadableStream` is sent as a stream.
 */
export type Handler<Payload, Reply = unknown, C = Contract, Item = unknown, Input = never> = (
  context: HandlerContext<Payload, C, NoInfer<Input>>,
) => Answer<NoInfer<Reply>, NoInfer<Item>>;

/**
 * Declares a message type: the schema of its payload, or a request of a contract, which also declares the reply, the items and
 * the input.
 */
export type Declared<Payload extends object, Reply = unknown, Item = unknown, Input = unknown> =
  | PayloadSchema<unknown, Payload>
  | RequestDeclaration<Payload, Reply, Item, Input>;

/** What the handlers need from their controller. */
export interface HandlersHost {
  /** Emits `message`; returns whether there are listeners. */
  emit(client: WebSocketClient, message: WebSocketMessage): boolean;
  /** Reports an error of a handler or a middleware. */
  report(error: unknown, client: WebSocketClient): void;
  readonly observed: Observed;
  /** Aborts calls, and sends streams. */
  readonly calls: CallHost;
  /** Answers repeats of idempotent requests. Absent: each is handled. */
  readonly once?: Once | undefined;
  /** Called for an idempotent request only. */
  readonly onceHost?: () => OnceHost;
  /** Absent: replies are not checked against a contract. */
  readonly outbound?: OutboundChecks | undefined;
}

/** Handles messages of an extension, including invalid ones, and answers them itself. */
type ExtensionHandler = (client: WebSocketClient, message: WebSocketMessage) => void;

interface Registered {
  readonly schema: CheckedSchema;
  readonly handler: Handler<unknown>;
  /** Schema of an item of the input. Absent: the request has no input. */
  readonly input: CheckedSchema | undefined;
  /** See {@link isPlainSchema}: the schema may read the whole message, and its output is a new object that needs no copy. */
  readonly isPlain: boolean;
}

/** Message types that control streams. Neither middleware nor listeners receive them. */
export const STREAM_TYPES: ReadonlySet<string> = new Set(["stream.credit", "stream.cancel", "stream.input", "stream.end"]);

/** Types that the controller handles itself. */
const RESERVED = new Set(["auth", "ping", "pong", ...STREAM_TYPES]);

/** Dispatches messages through the application's middleware to its listeners and handlers. */
export class Handlers {
  readonly #handlers = new Map<string, Registered>();
  readonly #extensions = new Map<string, ExtensionHandler>();
  readonly #middleware = new MiddlewareChain();
  readonly running: Running = new Running();
  /** Set by `#call` while an idempotent request is looked up, before its handler starts. */
  #entered: Promise<void> | undefined;
  readonly #host: HandlersHost;

  constructor(host: HandlersHost) {
    this.#host = host;
  }

  handle<Output extends object, Reply>(type: string, declared: Declared<Output, Reply>, handler: Handler<Output>): void {
    if (typeof type !== "string" || type === "" || type.length > 64) {
      throw new TypeError("Cannot handle: the type must be a string of 1 to 64 characters");
    }
    if (RESERVED.has(type)) throw new TypeError(`Cannot handle "${type}": the controller answers it itself`);
    if (this.#handlers.has(type) || this.#extensions.has(type)) {
      throw new TypeError(`Cannot handle "${type}": it has a handler already`);
    }
    const schema = isRequest(declared) ? declared.payload ?? NO_PAYLOAD : declared;
    const checked = checkSchema(schema);
    if (!checked) {
      throw new TypeError(
        `Cannot handle "${type}": pass ${SCHEMA}, such as v.object({ … }), whose functions are not async unless it is`,
      );
    }
    if (typeof handler !== "function") throw new TypeError(`Cannot handle "${type}": the handler must be a function`);
    // The map loses the type Output, but `handler` is only called with the output of `schema`.
    this.#handlers.set(type, {
      schema: checked,
      input: inputOf(type, declared),
      handler: handler as Handler<unknown>,
      isPlain: isPlainSchema(checked.schema),
    });
    this.#host.observed.types.add(type);
  }

  /** Passes messages of these types to an extension, unvalidated and after the listeners. The handler must not throw. */
  reserve(types: readonly string[], handler: ExtensionHandler): void {
    for (const type of types) {
      if (this.#handlers.has(type)) throw new TypeError(`Cannot reserve "${type}": it has a handler already`);
    }
    for (const type of types) this.#extensions.set(type, handler);
  }

  use(middleware: Middleware): void {
    this.#middleware.add(middleware);
  }

  /**
   * Handles a message of {@link STREAM_TYPES}. Returns whether it is a credit that the server asked for, or the first
   * cancellation.
   */
  control(client: WebSocketClient, message: WebSocketMessage, bytes: number): boolean {
    return this.#host.calls.control(client, message, bytes);
  }

  /**
   * Runs one message through the middleware to its listeners and handler. The promise, if any, resolves when the next message of
   * the client may be dispatched, so that none overtakes one whose middleware or schema awaits. It never rejects.
   */
  dispatch(client: WebSocketClient, message: WebSocketMessage): Promise<void> | undefined {
    if (this.running.refuses(client, message)) return undefined;
    if (this.#middleware.isEmpty) {
      const call = this.#validate(client, message);
      if (isThenable(call)) return call.then((validated) => (void this.#call(validated), this.#takeEntered()));
      void this.#call(call);
      return this.#takeEntered();
    }
    let entered = false;
    let resolve: (() => void) | undefined;
    const enter = () => {
      entered = true;
      resolve?.();
    };
    // One error may reject both the chain and a promise that a middleware derived from it; it is answered once.
    let failures: Set<unknown> | undefined;
    const fail = (error: unknown) => {
      if (failures?.has(error)) return;
      (failures ??= new Set()).add(error);
      this.#answerError(error, client, message);
    };
    const start = (call: Call | undefined) => {
      const done = this.#call(call);
      const entered = this.#takeEntered();
      if (entered) void entered.then(enter);
      else enter();
      return done;
    };
    const handle = (message: WebSocketMessage) => {
      const call = this.#validate(client, message);
      return isThenable(call) ? call.then(start) : start(call);
    };
    void this.#middleware.run(client, message, { handle, fail }).catch(fail).then(enter);
    if (entered) return undefined;
    return new Promise((done) => resolve = done);
  }

  /**
   * Calls the listeners and validates the payload. Returns a promise only for an asynchronous schema. Never throws or rejects.
   */
  #validate(client: WebSocketClient, message: WebSocketMessage): Call | undefined | Promise<Call | undefined> {
    const hasListener = this.#host.emit(client, message);
    // Everything below may throw: a listener may have defined a getter on the message.
    try {
      const registered = this.#handlers.get(message.type);
      const extension = registered ? undefined : this.#extensions.get(message.type);
      // A listener may have closed the client.
      if (hasListener && (registered || extension) && connectionOf(client).isSuspended) return undefined;
      if (!registered) {
        if (extension) extension(client, message);
        else if (!hasListener) {
          client.send(errorFor(message, "UNSUPPORTED_TYPE", `Nothing handles the type "${message.type}"`).toMessage());
        }
        return undefined;
      }
      const parsed = parse(registered.schema, registered.isPlain ? message : payloadOf(message));
      return isThenable(parsed)
        ? this.#awaited(registered, client, message, parsed)
        : this.#callOf(registered, client, message, parsed);
    } catch (error) {
      this.#answerError(error, client, message);
      return undefined;
    }
  }

  async #awaited(
    registered: Registered,
    client: WebSocketClient,
    message: WebSocketMessage,
    parsing: Promise<Parsed>,
  ): Promise<Call | undefined> {
    try {
      const parsed = await parsing;
      const connection = connectionOf(client);
      while (connection.revalidating) await connection.revalidating;
      if (!connection.isSuspended) return this.#callOf(registered, client, message, parsed);
      connection.refuseMessage(message.uid);
    } catch (error) {
      this.#answerError(error, client, message);
    }
    return undefined;
  }

  /** Creates the call of the handler, or answers a message that did not pass its schema. */
  #callOf(
    { handler, isPlain, input }: Registered,
    client: WebSocketClient,
    request: WebSocketMessage,
    parsed: Parsed,
  ): Call | undefined {
    if (!parsed.success) {
      const path = issuePath(parsed.issues[0]!); // A failure has an issue.
      const where = path === "" ? "Invalid payload" : `Invalid payload at "${path}"`;
      client.send(errorFor(request, "INVALID_PAYLOAD", where, path === "" ? undefined : { path }).toMessage());
      return undefined;
    }
    const output = parsed.output as object; // By the type of `handle`.
    const message = isPlain ? intoEnvelope(output, request) : withEnvelope(output, request);
    return new Call(handler, client, message, request, this.#host.calls, input);
  }

  #takeEntered(): Promise<void> | undefined {
    const entered = this.#entered;
    this.#entered = undefined;
    return entered;
  }

  /** Calls the handler. The promise of an async handler resolves when its answer was sent. */
  #call(call: Call | undefined): Promise<void> | undefined {
    if (!call) return undefined;
    try {
      const { observed: { observer }, once, onceHost } = this.#host;
      const request = requestOf(call);
      const answer = once && onceHost && isOnce(request)
        ? once.answer(call.client, request, () => observed(observer, call, runWhole), onceHost())
        : undefined;
      this.#entered = answer?.entered;
      const result = answer ? answer.result : observed(observer, call, runCall);
      // A synchronous result is answered at once: awaiting it would let the answer of a later message overtake it.
      if (!isThenable(result)) return this.#answer(call, result)?.then(this.running.begin(call.client));
      const ended = this.running.begin(call.client);
      // The handler may still return a stream, and the client may cancel the request before that.
      if (request.uid !== undefined) registerCall(call);
      return Promise.resolve(result).then((data) => this.#answer(call, data)).catch((error) => this.#fail(call, error))
        .then(ended);
    } catch (error) {
      this.#fail(call, error);
      return undefined;
    }
  }

  /** Sends what the handler returned: a reply, or a stream. */
  #answer(call: Call, data: unknown): Promise<void> | undefined {
    if (isStreamable(data)) {
      registerCall(call);
      return this.#stream(call, data).then((result) => this.#reply(call, result))
        .catch((error) => this.#fail(call, error));
    }
    this.#reply(call, data);
    return undefined;
  }

  #stream(call: Call, data: Streamable): Promise<unknown> {
    const { calls, observed: { observer } } = this.#host;
    const send = () => calls.stream(call, data);
    return observer?.stream ? observer.stream(requestOf(call), call.client, send) : send();
  }

  #reply(call: Call, data: unknown): void {
    unregisterCall(call);
    const { client } = call;
    const { type, uid } = requestOf(call);
    const message: ReplyMessage = { type, status: "ok" };
    if (uid !== undefined) message.uid = uid;
    if (data !== undefined) message.data = data;
    sendAnswer(client, message as ReplyMessage & WebSocketMessage); // A reply only lacks the index signature.
    this.#host.outbound?.reply(type, data, client);
  }

  /** Answers a failed call. Never throws. */
  #fail(call: Call, error: unknown): void {
    unregisterCall(call);
    this.#answerError(isAbort(call, error) ? reasonOf(call) : error, call.client, requestOf(call));
  }

  /** Answers with a `WebSocketError` as it is, with any other error as `INTERNAL_ERROR`. Never throws. */
  #answerError(error: unknown, client: WebSocketClient, message: WebSocketMessage): void {
    const request = envelopeOf(message);
    const shown = WebSocketError.from(error);
    if (shown) return sendAnswer(client, shown.withUid(request.uid).toMessage());
    // The error itself may contain internals, so it goes to the log only.
    sendAnswer(client, errorFor(request, "INTERNAL_ERROR", "Something went wrong").toMessage());
    this.#host.report(error, client);
  }
}

/** Calls the handler, through the observer if there is one. */
function observed(observer: Observer | undefined, call: Call, run: (call: Call) => unknown): unknown {
  return observer?.handle ? observer.handle(requestOf(call), call.client, () => run(call)) : run(call);
}

/** Calls the handler of an idempotent request, whose answer must be a single reply. */
async function runWhole(call: Call): Promise<unknown> {
  const result = await runCall(call);
  if (!isStreamable(result)) return result;
  const { type } = requestOf(call);
  // Closes the source of the stream.
  guard(() => "getReader" in result ? result.getReader().cancel() : result[Symbol.asyncIterator]().return?.(), () => {});
  throw new WebSocketError(type, "INVALID_PAYLOAD", "Cannot stream the answer to an idempotent request: send it without .once", {
    details: { path: "uid" },
  });
}

/** The schema of an item of the input, if the request declares one. @throws {TypeError} for anything but a schema. */
function inputOf(type: string, declared: Declared<object>): CheckedSchema | undefined {
  const input = isRequest(declared) ? declared.stream?.input : undefined;
  if (input === undefined) return undefined;
  const checked = checkSchema(input);
  if (!checked) throw new TypeError(`Cannot handle "${type}": stream.input must be ${SCHEMA}`);
  return checked;
}

/** @internal Whether the value is a request of a contract: a plain object with no key but `payload`, `reply` and `stream`. */
export const isRequest = <Output extends object, Reply>(
  declared: Declared<Output, Reply>,
): declared is RequestDeclaration<Output, Reply> =>
  typeof declared === "object" && declared !== null && Object.getPrototypeOf(declared) === Object.prototype &&
  Object.keys(declared).every((key) => key === "payload" || key === "reply" || key === "stream");
