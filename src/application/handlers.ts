import * as v from "valibot";
import type { RequestDeclaration } from "./contract.ts";
import type { Contract } from "../protocol/contract-types.ts";
import { Downstream, type LostFailure } from "./downstream.ts";
import { isOnce, type Once, type OnceHost } from "./once.ts";
import { type MessageUid, WebSocketError } from "../protocol/errors.ts";
import { isThenable } from "../base/guard.ts";
import type { Observed } from "./observer.ts";
import type { OutboundChecks } from "./outbound.ts";
import { issuePath, type ReplyMessage, type WebSocketMessage } from "../protocol/protocol.ts";
import { Running } from "./running.ts";
import { type CheckedSchema, checkSchema, parse, type Parsed, type PayloadSchema, SCHEMA } from "./schema.ts";
import { connectionOf, type WebSocketClient } from "./websocket-client.ts";

/** The argument of a handler. `C` is the contract of the controller. */
export interface HandlerContext<Payload, C = Contract> {
  /** The client that sent the message. */
  readonly client: WebSocketClient<C>;
  /** The output of the schema, with `type` and `uid` of the message. */
  readonly message: Payload & { type: string; uid?: MessageUid };
}

/** Answers one message type. The value it returns or resolves with is sent as `data` of the answer. */
export type Handler<Payload, Reply = unknown, C = Contract> = (
  context: HandlerContext<Payload, C>,
) => Reply | Promise<Reply>;

/** Declares a message type: the schema of its payload, or a request of a contract, which also declares the reply. */
export type Declared<Payload extends object, Reply = unknown> =
  | PayloadSchema<unknown, Payload>
  | RequestDeclaration<Payload, Reply>;

/** The argument of a middleware. */
export interface MiddlewareContext {
  /** The client that sent the message. */
  readonly client: WebSocketClient;
  /** The message as received, or as the previous middleware passed it to `next`. */
  readonly message: WebSocketMessage;
}

/**
 * Runs around every inbound message except `auth`, `ping` and `pong`. Call `next()` to pass the message on, or `next(other)` to
 * pass on another one; without the call the message goes no further. `next` resolves when the handler is done and rejects with
 * the error of a later middleware.
 *
 * Return or await its promise. An unhandled rejection of it, or of its `then`, `catch` and `finally`, is answered and reported as
 * if the middleware had thrown. Any other promise, of an async function that is not awaited or of `Promise.all`, is not covered:
 * its rejection ends a Node or Deno process.
 */
export type Middleware = (context: MiddlewareContext, next: (message?: WebSocketMessage) => Promise<void>) => unknown;

/** What the handlers need from their controller. */
export interface HandlersHost {
  /** Emits `message`; returns whether there are listeners. */
  emit(client: WebSocketClient, message: WebSocketMessage): boolean;
  /** Reports an error of a handler or a middleware. */
  report(error: unknown, client: WebSocketClient): void;
  readonly observed: Observed;
  /** Answers repeats of idempotent requests. Absent: each is handled. */
  readonly once?: Once | undefined;
  /** Called for an idempotent request only. */
  readonly onceHost?: () => OnceHost;
  /** Absent: replies are not checked against a contract. */
  readonly outbound?: OutboundChecks | undefined;
}

/** Handles messages of an extension, including invalid ones, and answers them itself. */
type Taker = (client: WebSocketClient, message: WebSocketMessage) => void;

interface Registered {
  readonly schema: CheckedSchema;
  readonly handler: Handler<unknown>;
  /** See {@link isPlainSchema}: the schema may read the whole message, and its output is a new object that needs no copy. */
  readonly isPlain: boolean;
}

/** A handler, and the validated message that it is called with. */
interface Call {
  readonly handler: Handler<unknown>;
  readonly context: HandlerContext<object>;
  /** The message as received. */
  readonly request: WebSocketMessage;
}

/** Types that the controller handles itself. */
const RESERVED = new Set(["auth", "ping", "pong"]);

/** Dispatches messages through the application's middleware to its listeners and handlers. */
export class Handlers {
  readonly #handlers = new Map<string, Registered>();
  readonly #takers = new Map<string, Taker>();
  readonly #middleware: Middleware[] = [];
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
    if (this.#handlers.has(type) || this.#takers.has(type)) {
      throw new TypeError(`Cannot handle "${type}": it has a handler already`);
    }
    const schema = isRequest(declared) ? declared.payload ?? NOTHING : declared;
    const checked = checkSchema(schema);
    if (!checked) {
      throw new TypeError(
        `Cannot handle "${type}": pass ${SCHEMA}, such as v.object({ … }), whose functions are not async unless it is`,
      );
    }
    if (typeof handler !== "function") throw new TypeError(`Cannot handle "${type}": the handler must be a function`);
    // The map loses the type Output, but `handler` is only called with the output of `schema`.
    this.#handlers.set(type, { schema: checked, handler: handler as Handler<unknown>, isPlain: isPlainSchema(checked.schema) });
    this.#host.observed.types.add(type);
  }

  /** Passes messages of these types to an extension, unvalidated and after the listeners. The taker must not throw. */
  reserve(types: readonly string[], taker: Taker): void {
    for (const type of types) {
      if (this.#handlers.has(type)) throw new TypeError(`Cannot take "${type}": it has a handler already`);
    }
    for (const type of types) this.#takers.set(type, taker);
  }

  use(middleware: Middleware): void {
    if (typeof middleware !== "function") throw new TypeError("Cannot use the middleware: it must be a function");
    this.#middleware.push(middleware);
  }

  /**
   * Runs one message through the middleware to its listeners and handler. The promise, if any, resolves when the next message of
   * the client may be dispatched, so that none overtakes one whose middleware or schema awaits. It never rejects.
   */
  dispatch(client: WebSocketClient, message: WebSocketMessage): Promise<void> | undefined {
    if (this.#middleware.length === 0) {
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
    void this.#run(0, client, message, enter, fail).catch(fail).then(enter);
    if (entered) return undefined;
    return new Promise((done) => resolve = done);
  }

  async #run(
    index: number,
    client: WebSocketClient,
    message: WebSocketMessage,
    enter: () => void,
    fail: (error: unknown) => void,
  ): Promise<void> {
    if (index > 0) {
      // While the previous middleware awaited, the client may have left or its credentials may have expired.
      const connection = connectionOf(client);
      while (connection.revalidating) await connection.revalidating;
      if (connection.isSuspended) return connection.refuseMessage(message.uid);
    }
    const middleware = this.#middleware[index];
    if (!middleware) {
      const call = this.#validate(client, message);
      const done = this.#call(isThenable(call) ? await call : call);
      const entered = this.#takeEntered();
      if (entered) void entered.then(enter);
      else enter();
      return done;
    }
    let rest: Downstream | undefined;
    let done = false;
    const lost: LostFailure[] = [];
    const lose = (failure: LostFailure) => {
      // Until the middleware is done it may still handle the rejection.
      if (!done) lost.push(failure);
      else if (!failure.promise.observed) fail(failure.error);
    };
    try {
      await middleware({ client, message }, (replacement = message) => {
        if (rest) throw new Error("Cannot call next() twice in one middleware");
        if (typeof replacement?.type !== "string") {
          throw new TypeError("Cannot hand the message on: it must be an object with a type");
        }
        return rest = Downstream.of(this.#run(index + 1, client, replacement, enter, fail), lose);
      });
    } finally {
      done = true;
      lost.forEach(lose);
    }
    // A middleware that ignored the promise of next() must not hide its error.
    if (rest && !rest.observed) await rest;
  }

  /** Calls the listeners and validates the payload for the handler. A promise only of an asynchronous schema; it never rejects. */
  #validate(client: WebSocketClient, message: WebSocketMessage): Call | undefined | Promise<Call | undefined> {
    const hasListener = this.#host.emit(client, message);
    // Everything below may throw: a listener may have defined a getter on the message.
    try {
      const registered = this.#handlers.get(message.type);
      const taker = registered ? undefined : this.#takers.get(message.type);
      // A listener may have closed the client.
      if (hasListener && (registered || taker) && connectionOf(client).isSuspended) return undefined;
      if (!registered) {
        if (taker) taker(client, message);
        else if (!hasListener) {
          client.send(errorFor(message, "UNSUPPORTED_TYPE", `Nothing here takes "${message.type}"`).toMessage());
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

  /** Answers a message that did not pass its schema. */
  #callOf(
    { handler, isPlain }: Registered,
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
    const output = parsed.output as object; // The type of `handle` demands it.
    const message = isPlain ? intoEnvelope(output, request) : withEnvelope(output, request);
    return { handler, context: { client, message }, request };
  }

  #takeEntered(): Promise<void> | undefined {
    const entered = this.#entered;
    this.#entered = undefined;
    return entered;
  }

  /** Calls the handler. The promise of an async handler resolves when its answer was sent. */
  #call(call: Call | undefined): Promise<void> | undefined {
    if (!call) return undefined;
    const { handler, context, request } = call;
    const { client } = context;
    try {
      const { observed: { observer }, once, onceHost } = this.#host;
      const run = observer ? () => observer.handle(request, () => handler(context)) : () => handler(context);
      const answer = once && onceHost && isOnce(request) ? once.answer(client, request, run, onceHost()) : undefined;
      this.#entered = answer?.entered;
      const result = answer ? answer.result : run();
      // A synchronous result is answered at once: awaiting it would let the answer of a later message overtake it.
      if (!isThenable(result)) {
        this.#reply(client, request, result);
        return undefined;
      }
      const ended = this.running.begin(client);
      return Promise.resolve(result).then((data) => this.#reply(client, request, data))
        .catch((error) => this.#answerError(error, client, request)).then(ended);
    } catch (error) {
      this.#answerError(error, client, request);
      return undefined;
    }
  }

  #reply(client: WebSocketClient, { type, uid }: WebSocketMessage, data: unknown): void {
    const message: ReplyMessage = { type, status: "ok" };
    if (uid !== undefined) message.uid = uid;
    if (data !== undefined) message.data = data;
    client.send(message as ReplyMessage & WebSocketMessage); // A reply only lacks the index signature.
    this.#host.outbound?.reply(type, data, client);
  }

  /** Never throws. */
  #answerError(error: unknown, client: WebSocketClient, message: WebSocketMessage): void {
    const request = envelopeOf(message);
    const shown = WebSocketError.from(error);
    if (shown) return client.send(shown.withUid(request.uid).toMessage());
    // The error itself may hold internals: it goes to the log only.
    client.send(errorFor(request, "INTERNAL_ERROR", "Something went wrong").toMessage());
    this.#host.report(error, client);
  }
}

/** Whether it is a request of a contract: a plain object, of `payload` and `reply` only. */
const isRequest = <Output extends object, Reply>(
  declared: Declared<Output, Reply>,
): declared is RequestDeclaration<Output, Reply> =>
  typeof declared === "object" && declared !== null && Object.getPrototypeOf(declared) === Object.prototype &&
  Object.keys(declared).every((key) => key === "payload" || key === "reply");

/** The schema of a request that declares no payload: it outputs an empty object. */
const NOTHING = v.object({});

/**
 * Whether the schema is a bare `v.object` without `type` and `uid`: it outputs a new object of the declared fields. A pipe,
 * fallback or cache, recognised by its additional fields, may output anything, even the same object each time.
 */
function isPlainSchema(schema: object): boolean {
  if (!("reference" in schema) || schema.reference !== v.object || Object.keys(schema).some((key) => !(key in NOTHING))) {
    return false;
  }
  const entries = "entries" in schema ? schema.entries : undefined;
  return typeof entries === "object" && entries !== null && !("type" in entries || "uid" in entries);
}

/**
 * The message without its envelope, so that a `strictObject` need not list `type` and `uid`. Copied in a loop: a rest pattern
 * took 11 % of the time of an echo on Node.
 */
function payloadOf(message: WebSocketMessage): Record<string, unknown> {
  const payload: Record<string, unknown> = {};
  for (const key of Object.keys(message)) {
    if (key !== "type" && key !== "uid" && key !== "__proto__") payload[key] = message[key];
  }
  return payload;
}

/** Adds `type` and `uid` to the output of a plain schema, which nothing else refers to. */
function intoEnvelope(output: object, { type, uid }: WebSocketMessage): HandlerContext<object>["message"] {
  const message = output as HandlerContext<object>["message"]; // Complete after the next line.
  message.type = type;
  if (uid !== undefined) message.uid = uid;
  return message;
}

/**
 * A copy of the schema's output with `type` and `uid` of the message. Spreading last and assigning again took 30 ns on Node,
 * spreading first 1.4 µs.
 */
function withEnvelope(output: object, { type, uid }: WebSocketMessage): HandlerContext<object>["message"] {
  if (uid === undefined) {
    const message = { type, ...output };
    message.type = type;
    return message;
  }
  const message = { type, uid, ...output };
  message.type = type;
  message.uid = uid;
  return message;
}

/**
 * `type` and `uid` to answer an error with. A listener or middleware may have added a getter that throws, or changed the `type`.
 */
function envelopeOf(message: WebSocketMessage): Pick<WebSocketMessage, "type" | "uid"> {
  try {
    const { type, uid } = message;
    return { type: typeof type === "string" ? type : "server", ...(uid === undefined ? {} : { uid }) };
  } catch {
    return { type: "server" };
  }
}

function errorFor(
  { type, uid }: Pick<WebSocketMessage, "type" | "uid">,
  code: string,
  text: string,
  details?: Record<string, unknown>,
): WebSocketError {
  return new WebSocketError(type, code, text, {
    ...(uid === undefined ? {} : { uid }),
    ...(details && { details }),
  });
}
