import type {
  Attributes,
  BatchObservableCallback,
  BatchObservableResult,
  Counter,
  Histogram,
  Meter,
  Observable,
} from "@opentelemetry/api";
import type { AuthenticationOutcome, Observer, Publishing } from "../application/observer.ts";
import type { WebSocketClient } from "../application/websocket-client.ts";
import { isThenable } from "../base/guard.ts";
import { isStream } from "./outcome.ts";
import type { ConnectionHost } from "../connection/connection-host.ts";
import type { WebSocketController } from "../controller/controller.ts";
import type { EngineStatus } from "../engines/engine.ts";
import type { CloseCause } from "../protocol/close.ts";
import type { WebSocketMessage } from "../protocol/protocol.ts";
import { measureDelay } from "./event-loop.ts";
import { errorTypeOf } from "./outcome.ts";
import { activeOf, Transports } from "./transports.ts";

/** Message types of the protocol itself. */
const PROTOCOL_TYPES: ReadonlySet<string> = new Set([
  ...["auth", "ping", "pong", "subscribe", "unsubscribe", "publish"],
  ...["stream.credit", "stream.cancel", "stream.input", "stream.end"],
]);

/** Label of types that are not declared. Clients can send any type, and each distinct label costs memory in every collector. */
const OTHER = "_other";

const STATUSES: readonly EngineStatus[] = ["connecting", "ready", "unavailable", "closed"];

/** Maximum number of clients whose buffers are read in one collection. With 1,000 of 50,000 it takes 1 ms. */
const MAX_SAMPLED = 1_000;

/**
 * Maximum number of durations of handlers and publications in one window: the SDK takes as long to record one as a small message
 * takes to be handled.
 */
const MAX_MEASURED = 100;

/** Length of a window, in ms. */
const WINDOW = 100;

/** Bounds that the semantic conventions recommend for calls and for messaging, in seconds. */
const CALL_BOUNDS = [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10];

/** Bounds of the age of a connection, in seconds: SignalR's, and up to a day. */
const AGE_BOUNDS = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 120, 300, 1_800, 3_600, 14_400, 86_400];

const DELAY_BOUNDS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5];

const BYTE_BOUNDS = [0, 1_024, 4_096, 16_384, 65_536, 262_144, 1_048_576, 4_194_304, 16_777_216];

/** Records the metrics of one controller. Counters that the controller has anyway are read when metrics are collected. */
export class Metrics implements Observer {
  readonly #controller: WebSocketController<unknown>;
  readonly #node: ConnectionHost;
  /** Attributes of every measurement, which tell apart the controllers of one process. */
  readonly #common: Attributes;
  readonly #transports: Transports;
  readonly #publishing: Attributes;
  readonly #age: Histogram;
  readonly #authentications: Counter;
  readonly #calls: Histogram;
  readonly #publications: Histogram;
  readonly #recoveries: Counter;
  readonly #streams: Record<"started" | "ended", Counter>;
  /** When the handlers of streams were called, if their duration is recorded. */
  readonly #streaming = new WeakMap<WebSocketMessage, number>();
  readonly #openedAt = new Map<WebSocketClient, number>();
  /** Messages by declared type. Plain counters: an instrument takes as long to count a small message as its handling. */
  readonly #received = new Map<string, { count: number }>();
  readonly #callAttributes = new Map<string, Attributes>();
  /** How many more durations are recorded in this window. */
  #left = 0;
  #nextWindowAt = -Infinity;
  readonly #end: () => void;

  constructor(controller: WebSocketController<unknown>, node: ConnectionHost, meter: Meter) {
    this.#controller = controller;
    this.#node = node;
    this.#common = { "noroshi.controller": controller.name };
    this.#transports = new Transports(this.#common);
    this.#publishing = { ...this.#common, "messaging.system.name": "noroshi", "messaging.operation.name": "publish" };
    const histogram = (name: string, unit: string, explicitBucketBoundaries: number[], description: string) =>
      meter.createHistogram(name, { unit, description, advice: { explicitBucketBoundaries } });
    this.#age = histogram("noroshi.server.connection.duration", "s", AGE_BOUNDS, "Time from the open socket to its close.");
    this.#calls = histogram(
      "rpc.server.call.duration",
      "s",
      CALL_BOUNDS,
      "Duration of a handler, including the stream that it returns.",
    );
    this.#publications = histogram(
      "messaging.client.operation.duration",
      "s",
      CALL_BOUNDS,
      "Time until the engine has accepted a publication.",
    );
    this.#authentications = meter.createCounter("noroshi.server.authentications", {
      unit: "{authentication}",
      description: "Credentials that were verified, or refused unread because too many of the address have failed.",
    });
    this.#recoveries = meter.createCounter("noroshi.server.recoveries", {
      unit: "{recovery}",
      description: "Subscriptions that asked to recover from a position.",
    });
    this.#streams = {
      started: meter.createCounter("noroshi.server.streams.started", {
        unit: "{stream}",
        description: "Streams begun.",
      }),
      ended: meter.createCounter("noroshi.server.streams.ended", {
        unit: "{stream}",
        description: "Streams ended, by outcome.",
      }),
    };
    const buffered = histogram(
      "noroshi.server.connection.buffered",
      "By",
      BYTE_BOUNDS,
      "Bytes buffered for a client, sampled at each collection.",
    );
    const delay = histogram("noroshi.event_loop.delay", "s", DELAY_BOUNDS, "Delay of a timer.");
    const endDelay = measureDelay((seconds) => delay.record(seconds, this.#common));
    const endPolls = this.#poll(meter, () => this.#sample(buffered));
    this.#end = () => {
      endDelay();
      endPolls();
    };
  }

  /** Stops the measurements. */
  end(): void {
    this.#end();
  }

  opened(client: WebSocketClient): void {
    this.#openedAt.set(client, this.#node.monotonic());
  }

  closed(client: WebSocketClient, cause: CloseCause): void {
    const openedAt = this.#openedAt.get(client);
    if (openedAt === undefined) return; // It was opened before `observe`.
    this.#openedAt.delete(client);
    this.#age.record(this.#secondsSince(openedAt), { ...this.#transports.of(client), "noroshi.close.cause": cause });
  }

  authenticated(outcome: AuthenticationOutcome): void {
    this.#authentications.add(1, { ...this.#common, "noroshi.authentication.outcome": outcome });
  }

  received(type: string | null): void {
    const counter = type === null ? undefined : this.#received.get(type);
    (counter ?? this.#counterOf(type)).count++;
  }

  #counterOf(type: string | null): { count: number } {
    const label = type !== null && (PROTOCOL_TYPES.has(type) || this.#node.observed.types.has(type)) ? type : OTHER;
    let counter = this.#received.get(label);
    if (!counter) this.#received.set(label, counter = { count: 0 });
    return counter;
  }

  handle(request: WebSocketMessage, _client: WebSocketClient, call: () => unknown): unknown {
    const startedAt = this.#begin();
    if (startedAt === undefined) return call(); // Most calls are not measured, and must cost nothing more.
    const method = this.#methodOf(request);
    return measure(call, (error, result) => {
      if (isStream(result)) this.#streaming.set(request, startedAt);
      else this.#calls.record(this.#secondsSince(startedAt), this.#attributesOf(method, error));
    });
  }

  async stream(request: WebSocketMessage, _client: WebSocketClient, send: () => Promise<unknown>): Promise<unknown> {
    const { started, ended } = this.#streams;
    started.add(1, this.#common);
    let error: Attributes = {};
    try {
      return await send();
    } catch (reason) {
      error = { "error.type": errorTypeOf(reason) };
      throw reason;
    } finally {
      ended.add(1, { ...this.#common, ...error });
      const startedAt = this.#streaming.get(request);
      if (startedAt !== undefined) {
        this.#calls.record(this.#secondsSince(startedAt), this.#attributesOf(this.#methodOf(request), error));
      }
    }
  }

  publish<Result>(_publishing: Publishing, call: () => Result): Result {
    const startedAt = this.#begin();
    if (startedAt === undefined) return call();
    return measure(call, (error) => {
      this.#publications.record(this.#secondsSince(startedAt), error ? { ...this.#publishing, ...error } : this.#publishing);
    });
  }

  recovered(isComplete: boolean): void {
    this.#recoveries.add(1, { ...this.#common, "noroshi.recovery.outcome": isComplete ? "complete" : "incomplete" });
  }

  /** Returns the current time if the duration that begins now is recorded, else `undefined`. */
  #begin(): number | undefined {
    const now = this.#node.monotonic();
    if (now >= this.#nextWindowAt) {
      this.#nextWindowAt = now + WINDOW;
      this.#left = MAX_MEASURED;
    }
    return this.#left > 0 && this.#left-- > 0 ? now : undefined;
  }

  #secondsSince(at: number): number {
    return (this.#node.monotonic() - at) / 1000;
  }

  /** Label of the type, which a listener may have changed. */
  #methodOf({ type }: WebSocketMessage): string {
    return this.#node.observed.types.has(type) ? type : OTHER;
  }

  /** Cached by type and code, whose numbers are bounded. */
  #attributesOf(method: string, error: Attributes = {}): Attributes {
    const key = `${String(error["error.type"])} ${method}`;
    let attributes = this.#callAttributes.get(key);
    if (!attributes) {
      attributes = { ...this.#common, "rpc.system.name": "noroshi", "rpc.method": method, ...error };
      this.#callAttributes.set(key, attributes);
    }
    return attributes;
  }

  /** Reads the controller's own counters at each collection. Returns a function that stops it. */
  #poll(meter: Meter, sample: () => void): () => void {
    const polls: { instrument: Observable; read: (observe: (value: number, attributes?: Attributes) => void) => void }[] = [];
    const poll = (
      kind: "createObservableCounter" | "createObservableUpDownCounter" | "createObservableGauge",
      name: string,
      unit: string,
      description: string,
      read: (observe: (value: number, attributes?: Attributes) => void) => void,
    ) => polls.push({ instrument: meter[kind](`noroshi.server.${name}`, { unit, description }), read });
    const { delivery, sender, streams } = this.#node;
    const stats = () => this.#controller.stats();
    const byTransport = (read: Parameters<Transports["by"]>[1]) =>
      this.#transports.by(() => ({ all: stats(), overHttp: this.#node.overHttp }), read);
    const byLabel =
      (label: string, counts: () => Iterable<readonly [string, number]>) =>
      (observe: (value: number, attributes?: Attributes) => void) => {
        for (const [value, count] of counts()) observe(count, { [label]: value });
      };
    poll(
      "createObservableUpDownCounter",
      "active_connections",
      "{connection}",
      "Open connections.",
      byTransport((counted) => [[activeOf(counted)]]),
    );
    poll("createObservableUpDownCounter", "clients", "{client}", "Admitted clients.", (observe) => observe(stats().clients));
    poll(
      "createObservableCounter",
      "connections.opened",
      "{connection}",
      "Connections opened.",
      byTransport(({ opened }) => [[opened]]),
    );
    poll(
      "createObservableCounter",
      "connections.closed",
      "{connection}",
      "Connections closed, by cause.",
      byTransport(({ closedBy }) => Object.entries(closedBy).map(([cause, count]) => [count, { "noroshi.close.cause": cause }])),
    );
    poll(
      "createObservableCounter",
      "refusals",
      "{refusal}",
      "Upgrades and auth messages refused, by reason.",
      byLabel("noroshi.refusal.reason", () => Object.entries(stats().refused)),
    );
    poll(
      "createObservableCounter",
      "messages.received",
      "{message}",
      "Messages of clients, by type; types that are not declared are _other.",
      byLabel("noroshi.message.type", () => Array.from(this.#received, ([type, { count }]) => [type, count] as const)),
    );
    poll(
      "createObservableCounter",
      "messages.limited",
      "{message}",
      "Messages of clients that the rate limit has refused.",
      (observe) => observe(stats().limited),
    );
    poll(
      "createObservableCounter",
      "messages.sent",
      "{message}",
      "Messages handed to sockets: one for each client.",
      (observe) => observe(sender.sent + delivery.published),
    );
    poll(
      "createObservableCounter",
      "messages.dropped",
      "{message}",
      "Messages dropped because a client read too slowly.",
      (observe) => observe(sender.dropped),
    );
    poll(
      "createObservableCounter",
      "slow_consumers",
      "{client}",
      "Clients that were closed, or fell behind, because they read too slowly.",
      (observe) => observe(stats().closedBy.slow + sender.lagged),
    );
    poll(
      "createObservableUpDownCounter",
      "channels",
      "{channel}",
      "Open channels.",
      (observe) => observe(this.#node.extension?.stats().channels ?? 0),
    );
    poll(
      "createObservableUpDownCounter",
      "subscriptions",
      "{subscription}",
      "Subscriptions of clients.",
      (observe) => observe(this.#node.extension?.stats().subscriptions ?? 0),
    );
    poll(
      "createObservableUpDownCounter",
      "streams.active",
      "{stream}",
      "Streams that have not ended.",
      (observe) => observe(stats().streams),
    );
    poll(
      "createObservableCounter",
      "streams.items",
      "{item}",
      "Items of streams handed to sockets.",
      (observe) => observe(streams.items),
    );
    poll(
      "createObservableGauge",
      "engine.status",
      "{status}", // Collectors append _ratio to the name of a "1".
      "1 for the current status of the engine, 0 for the others.",
      byLabel("noroshi.engine.status", () => {
        const { status } = this.#controller.engine;
        return STATUSES.map((each) => [each, each === status ? 1 : 0] as const);
      }),
    );
    const instruments = polls.map(({ instrument }) => instrument);
    const callback: BatchObservableCallback = (result: BatchObservableResult) => {
      for (const { instrument, read } of polls) {
        read((value, attributes) => result.observe(instrument, value, { ...this.#common, ...attributes }));
      }
      sample();
    };
    meter.addBatchObservableCallback(callback, instruments);
    return () => meter.removeBatchObservableCallback(callback, instruments);
  }

  /** Records the buffers of a sample of clients, a different one each time. */
  #sample(buffered: Histogram): void {
    const clients = this.#controller.clients();
    const step = Math.ceil(clients.size / MAX_SAMPLED);
    let index = Math.floor(Math.random() * step);
    for (const client of clients) {
      if (index++ % step === 0) buffered.record(client.bufferedAmount, this.#common);
    }
  }
}

/** Calls the function, and `record` when its result has settled. */
function measure<Result>(call: () => Result, record: (error?: Attributes, result?: unknown) => void): Result {
  const fail = (error: unknown) => {
    record({ "error.type": errorTypeOf(error) });
    throw error;
  };
  let result: Result;
  try {
    result = call();
  } catch (error) {
    return fail(error);
  }
  if (!isThenable(result)) {
    record(undefined, result);
    return result;
  }
  return Promise.resolve(result).then((value) => (record(undefined, value), value), fail) as Result; // Settles as `result` does.
}
