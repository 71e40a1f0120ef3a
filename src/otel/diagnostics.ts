/**
 * `noroshi/diagnostics`: publishes the events of a controller to `node:diagnostics_channel`, without any package. It does nothing
 * if the runtime has no such module. Without subscribers, each event costs one check.
 *
 * @example
 * ```ts
 * import { subscribe } from "node:diagnostics_channel";
 * import { createWebSocketController } from "noroshi";
 * import { type ClosedConnection, publishDiagnostics } from "noroshi/diagnostics";
 *
 * publishDiagnostics(createWebSocketController());
 * subscribe("noroshi:connection:close", (message) => {
 *   const { client, cause } = message as ClosedConnection;
 *   console.log(client.uid, cause);
 * });
 * ```
 *
 * @module
 */
import type { LogLevel, LogRecord } from "../application/log.ts";
import type { AuthenticationOutcome, Observer } from "../application/observer.ts";
import type { WebSocketClient } from "../application/websocket-client.ts";
import { describeCopies } from "../base/copies.ts";
import { isThenable } from "../base/guard.ts";
import { WebSocketController } from "../controller/controller.ts";
import type { CloseCause } from "../protocol/close.ts";
import type { WebSocketMessage } from "../protocol/protocol.ts";

export type { AuthenticationOutcome };

/** The fields of every message on these channels. */
export interface Diagnosed {
  /** The option `name` of the controller. */
  readonly controller: string;
}

/** The message on `noroshi:connection:open`. The client is not admitted yet. */
export interface OpenedConnection extends Diagnosed {
  /** The client of the connection. */
  readonly client: WebSocketClient;
}

/** The message on `noroshi:connection:close`. */
export interface ClosedConnection extends OpenedConnection {
  /** Why, as in `controller.stats().closedBy`. */
  readonly cause: CloseCause;
}

/** The message on `noroshi:authentication`. */
export interface Authenticated extends Diagnosed {
  /** The outcome; `limited`: refused unread, because too many attempts of the address have failed. */
  readonly outcome: AuthenticationOutcome;
}

/** The message on `noroshi:message`, for each message of a client that the rate limit accepts. */
export interface ReceivedMessage extends OpenedConnection {
  /** The message's type; `null`: the message could not be decoded. */
  readonly type: string | null;
}

/** The message on `noroshi:recovery`. */
export interface Recovered extends Diagnosed {
  /** Whether the subscription received every publication since its position. */
  readonly isComplete: boolean;
}

/** The message on `noroshi:log`. */
export interface Logged extends Diagnosed {
  /** The severity. */
  readonly level: LogLevel;
  /** The fields. */
  readonly record: LogRecord;
  /** The human-readable text. */
  readonly message: string;
}

/** The message on the tracing channels `noroshi:handle` and `noroshi:stream`. */
export interface Handled extends OpenedConnection, Settled {
  /** The message as received. */
  readonly request: WebSocketMessage;
}

/** The message on the tracing channel `noroshi:publish`. */
export interface Published extends Diagnosed, Settled {
  /** The channel. */
  readonly channel: string;
  /** The event of the publication. */
  readonly event: string;
}

/** Outcome of a call. */
export interface Settled {
  /** The result. Set before `end`, or before `asyncEnd` if the call returned a promise. */
  result?: unknown;
  /** The error. Set before `error`. */
  error?: unknown;
}

/** A channel of `node:diagnostics_channel`. */
interface Channel {
  readonly hasSubscribers: boolean;
  publish(message: object): void;
  runStores<Result>(message: object, call: () => Result): Result;
}

/** The channels of one kind of call, as {@link Channels.tracingChannel} returns them. */
interface Tracing {
  readonly start: Channel;
  readonly end: Channel;
  readonly asyncStart: Channel;
  readonly asyncEnd: Channel;
  readonly error: Channel;
}

interface Channels {
  channel(name: string): Channel;
  tracingChannel(name: string): Tracing;
}

/**
 * Publishes the controller's events to `node:diagnostics_channel`. Returns a function that stops it.
 *
 * @throws {TypeError} for a controller whose events are published already, or one of another copy of the package.
 */
export function publishDiagnostics(controller: WebSocketController<unknown>): () => void {
  if (!(controller instanceof WebSocketController)) {
    throw new TypeError(
      `Cannot publish diagnostics: pass a WebSocketController, such as createWebSocketController()${describeCopies()}`,
    );
  }
  return controller.observe("noroshi/diagnostics", () => {
    const channels = findChannels();
    return channels ? observerOf(controller.name, channels) : {};
  });
}

/** Looked up instead of imported, so that this file loads on runtimes without the module. */
function findChannels(): Channels | undefined {
  const { process } = globalThis as { process?: { getBuiltinModule?(name: string): Channels | undefined } }; // Of Node, or absent.
  return process?.getBuiltinModule?.("node:diagnostics_channel");
}

function observerOf(controller: string, channels: Channels): Observer {
  const [open, close, authentication, message, recovery, log] = [
    "connection:open",
    "connection:close",
    "authentication",
    "message",
    "recovery",
    "log",
  ].map((name) => channels.channel(`noroshi:${name}`)) as [Channel, Channel, Channel, Channel, Channel, Channel]; // One for each.
  const [handle, stream, publish] = ["handle", "stream", "publish"].map((name) => channels.tracingChannel(`noroshi:${name}`)) as [
    Tracing,
    Tracing,
    Tracing,
  ]; // As above.
  return {
    opened(client) {
      if (open.hasSubscribers) open.publish({ controller, client } satisfies OpenedConnection);
    },
    closed(client, cause) {
      if (close.hasSubscribers) close.publish({ controller, client, cause } satisfies ClosedConnection);
    },
    authenticated(outcome) {
      if (authentication.hasSubscribers) authentication.publish({ controller, outcome } satisfies Authenticated);
    },
    received(type, client) {
      if (message.hasSubscribers) message.publish({ controller, client, type } satisfies ReceivedMessage);
    },
    recovered(isComplete) {
      if (recovery.hasSubscribers) recovery.publish({ controller, isComplete } satisfies Recovered);
    },
    logged(level, record, text) {
      if (log.hasSubscribers) log.publish({ controller, level, record, message: text } satisfies Logged);
    },
    handle: (request, client, call) => hasSubscribers(handle) ? traced(handle, { controller, client, request }, call) : call(),
    stream: (request, client, send) => hasSubscribers(stream) ? traced(stream, { controller, client, request }, send) : send(),
    publish: ({ channel, event }, call) =>
      hasSubscribers(publish) ? traced(publish, { controller, channel, event }, call) : call(),
  };
}

// Bun's tracing channels do not say whether they have subscribers.
const hasSubscribers = ({ start, end, asyncStart, asyncEnd, error }: Tracing): boolean =>
  start.hasSubscribers || end.hasSubscribers || asyncStart.hasSubscribers || asyncEnd.hasSubscribers || error.hasSubscribers;

/** Like `tracePromise`, which however turns a synchronous result into a promise. */
function traced<Result>(
  { start, end, asyncStart, asyncEnd, error }: Tracing,
  about: Handled | Published,
  call: () => Result,
): Result {
  const fail = (reason: unknown) => {
    about.error = reason;
    error.publish(about);
  };
  return start.runStores(about, () => {
    try {
      const result = call();
      if (!isThenable(result)) {
        about.result = result;
        return result;
      }
      const settled = (settle: () => void) => {
        settle();
        asyncStart.publish(about);
        asyncEnd.publish(about);
      };
      return Promise.resolve(result).then((value) => {
        settled(() => about.result = value);
        return value;
      }, (reason) => {
        settled(() => fail(reason));
        throw reason;
      }) as Result; // Settles as `result` does.
    } catch (reason) {
      fail(reason);
      throw reason;
    } finally {
      end.publish(about);
    }
  });
}
