/**
 * A publisher publishes, broadcasts and disconnects clients from a process without connections, such as a cron job, a queue worker or a
 * command.
 *
 * @example
 * ```ts
 * import { createPublisher } from "noroshi/publisher";
 * import { natsEngine } from "noroshi/nats";
 *
 * await using publisher = createPublisher({ engine: natsEngine({ servers: "nats://localhost:4222" }) });
 * await publisher.publish("orders", "created", { id: 7 });
 * ```
 *
 * @module
 */
import { Deadlines, isMs, MS, systemClock } from "../base/clock.ts";
import { guard } from "../base/guard.ts";
import { disposeBy, type DisposesAsync } from "../client/dispose.ts";
import { ChannelPattern } from "../channels/channel-pattern.ts";
import type { PublishOptions } from "../channels/channels.ts";
import { historyFault } from "../channels/history-fault.ts";
import { publicationOf, transactionOf } from "../channels/publication-content.ts";
import { checkDisconnectFilter, type DisconnectFilter } from "../connection/revocations.ts";
import { Cluster, type OrderResult } from "../controller/cluster.ts";
import { read } from "../controller/cluster-message.ts";
import type { ControllerStats } from "../controller/stats.ts";
import { type BroadcastFilter, checkFilter } from "../delivery/broadcast.ts";
import type { Engine, HistoryOptions, Position } from "../engines/engine.ts";
import { checkCloseCode, CloseCode } from "../protocol/close.ts";
import type { ChannelName, ChannelOf, Contract, DataOf, EventOf, MatchingName, MessageFrom } from "../protocol/contract-types.ts";
import { WebSocketError } from "../protocol/errors.ts";
import { Frame } from "../protocol/frame.ts";
import { CHANNEL_NAME, type WebSocketMessage } from "../protocol/protocol.ts";

export type { PublishOptions } from "../channels/channels.ts";
export type { DisconnectFilter } from "../connection/revocations.ts";
export type { OrderResult } from "../controller/cluster.ts";
export type { BroadcastFilter } from "../delivery/broadcast.ts";
export type { Engine, HistoryOptions, Position } from "../engines/engine.ts";
export type * from "../protocol/contract-types.ts";
export type { JsonItemOf, JsonOf } from "../protocol/json-of.ts";

/** What a publisher reads of a channel's declaration. The declarations of `new Channels` can be passed, too. */
export interface PublishedChannel {
  /** The history, as the nodes declare it. Without it, a publication ends the history that the nodes keep. @default none */
  readonly history?: HistoryOptions;
  /** Ignored, because a publisher may publish to all channels. */
  readonly authorize?: unknown;
}

/** By declared name: the channels of the contract, or any. */
export type PublishedChannels<C = Contract> = C extends { readonly channels: infer H }
  ? { readonly [Name in keyof H]?: PublishedChannel }
  : { readonly [name: string]: PublishedChannel };

/** Options of {@link createPublisher}. */
export interface PublisherOptions<C = Contract> {
  /** An engine with the same options as that of the nodes: `natsEngine`, `redisEngine` or `postgresEngine`. */
  engine: Engine;
  /**
   * The channels, declared as for `new Channels`. Publications to others are refused.
   *
   * @default any channel, without a history
   */
  channels?: PublishedChannels<C>;
  /** The contract of the nodes, for the types of channels, events, data and messages. @default none */
  contract?: C;
  /** Prefix of this process's name among the nodes: 1 to 51 letters, digits, `_` and `-`. @default {"publisher"} */
  node?: string;
  /** Minimum time in ms for which repeated ids of publications are recognized, like `idWindow` of the nodes. @default {300_000} */
  idWindow?: number;
  /**
   * Called with errors outside of calls, such as a lost connection to the broker, and with those that a call rejects with. What it throws
   * is logged.
   *
   * @default console.error
   */
  onError?: (error: unknown) => void;
}

/**
 * Creates a publisher. It connects at its first call, and then keeps the process alive until {@link Publisher.close}.
 *
 * @throws {TypeError} for an invalid option.
 */
export function createPublisher<C = Contract>(options: PublisherOptions<C>): Publisher<C> & DisposesAsync {
  return new Publisher(options) as Publisher<C> & DisposesAsync; // Added by `disposeBy`.
}

/** Publishes without serving connections. */
export class Publisher<C = Contract> {
  readonly #engine: Engine;
  readonly #channels: readonly (readonly [ChannelPattern, PublishedChannel])[] | undefined;
  readonly #idWindow: number;
  /** The option `onError`, guarded so that it never throws. */
  readonly #onError: (error: unknown) => void;
  readonly #node: string;
  readonly #cluster: Cluster;
  /** The calls under way. */
  readonly #calls = new Set<Promise<unknown>>();
  #deadlines: Deadlines | undefined;
  #host: ConstructorParameters<typeof Cluster>[0] | undefined;
  #closing: Promise<void> | undefined;
  #alive: ReturnType<typeof setInterval> | undefined;

  /** Created by {@link createPublisher}. */
  constructor(
    { engine, channels, contract: _types, node = "publisher", idWindow = 300_000, onError = console.error, ...rest }:
      PublisherOptions<C>,
  ) {
    const [unknown] = Object.keys(rest);
    if (unknown !== undefined) {
      throw fail(`unknown option "${unknown}", use engine, channels, contract, node, idWindow or onError`);
    }
    if (typeof engine?.start !== "function") throw fail("pass engine, such as natsEngine({ servers })");
    if (engine.isAlone) throw fail("the engine has no other nodes: pass that of the nodes, such as natsEngine({ servers })");
    if (!/^[A-Za-z0-9_-]{1,51}$/.test(node)) throw fail('node must be 1 to 51 letters, digits, "_" or "-"');
    if (!isMs(idWindow)) throw fail(`idWindow must be ${MS}, such as 300_000`);
    if (typeof onError !== "function") throw fail("onError must be a function (error) => {}");
    this.#engine = engine;
    this.#node = node;
    this.#idWindow = idWindow;
    this.#onError = (error) => guard(() => onError(error), console.error);
    this.#channels = channels === undefined ? undefined : declared(channels);
    for (const [, { history }] of this.#channels ?? []) if (history) engine.check?.(history);
    this.#cluster = new Cluster(() => this.#host!()); // Set by `#start`.
    disposeBy(this, () => this.close());
  }

  /**
   * Publishes to all subscribers on all nodes. Resolves when the broker has the publication, with its position, or with `null` without a
   * history.
   *
   * @throws {TypeError} for a channel that is not one of `channels`, an invalid event name or id, data that JSON cannot represent, or a
   * transaction that the engine cannot publish in.
   * @throws {WebSocketError} ENGINE_UNAVAILABLE, as a rejection: the publication may or may not have been published.
   */
  publish<const Name extends ChannelName<C>, const Event extends EventOf<ChannelOf<C, Name>>>(
    channel: MatchingName<C, Name>,
    event: Event,
    data: DataOf<ChannelOf<C, Name>, Event>,
    options: PublishOptions = {},
  ): Promise<Position | null> {
    const { history = null } = this.#declared(channel);
    const { data: json, once } = publicationOf(channel, event, data, options.id, this.#idWindow);
    const transaction = transactionOf(channel, options, this.#engine, "use an engine of noroshi/postgres");
    return this.#call("publish", (engine) => engine.publish(channel, { event, data: json }, history, once, transaction));
  }

  /**
   * Sends a message to the clients of all nodes that match the filter. Resolves when it was sent to the nodes.
   *
   * @throws {TypeError} for a message that JSON cannot represent, or an invalid filter.
   * @throws {WebSocketError} ENGINE_UNAVAILABLE, as a rejection.
   */
  broadcast(message: string | MessageFrom<C>, filter?: BroadcastFilter): Promise<void> {
    const checked = checkFilter(filter);
    const { text, isJson } = Frame.of(message as string | WebSocketMessage); // Messages of a contract are WebSocket messages.
    const sent = JSON.stringify({ type: "broadcast", text, isJson, filter: checked });
    return this.#call("broadcast", (engine) => engine.send(sent));
  }

  /**
   * Closes the clients of all nodes that match the filter. Resolves when the nodes have answered, or after 2 s. If the engine has no
   * `secret`, nothing is sent: it resolves with `isSent: false`, and `onError` is called with a `TypeError` once.
   *
   * @param filter a user, a role, both, or the `uid` of one client.
   * @param code the close code. @default {4403} forbidden, after which the client does not reconnect by itself
   * @throws {TypeError} for an empty filter, an unknown key, an empty or non-string value, or a code that must not be sent.
   */
  disconnect(filter: DisconnectFilter, code: number = CloseCode.FORBIDDEN, reason = "Disconnected"): Promise<OrderResult> {
    checkDisconnectFilter(filter);
    checkCloseCode(code);
    return this.#call("disconnect", async () => await this.#cluster.disconnect(filter, code, reason));
  }

  /** Waits for the calls under way, and closes the engine. Later calls reject. */
  close(): Promise<void> {
    return this.#closing ??= this.#close();
  }

  async #close(): Promise<void> {
    await Promise.allSettled(this.#calls);
    try {
      if (this.#deadlines) await this.#engine.close();
    } finally {
      clearInterval(this.#alive);
      this.#deadlines?.end();
    }
  }

  #call<Answer>(action: string, call: (engine: Engine) => Answer | Promise<Answer>): Promise<Answer> {
    if (this.#closing) {
      return Promise.reject(new WebSocketError("engine", "ENGINE_UNAVAILABLE", `Cannot ${action}: the publisher is closed`));
    }
    this.#start();
    const answer = (async () => await call(this.#engine))();
    this.#calls.add(answer);
    // Also prevents an unhandled rejection if the caller ignores the promise.
    answer.catch(this.#onError).finally(() => this.#calls.delete(answer));
    return answer;
  }

  #start(): void {
    if (this.#deadlines) return;
    const report = this.#onError;
    const deadlines = this.#deadlines = new Deadlines(systemClock, report);
    // Keeps the process alive while the broker is away, because the timers of engines do not.
    this.#alive = setInterval(() => {}, 2 ** 31 - 1);
    const node = `${this.#node}-${crypto.randomUUID().slice(-12)}`;
    const engine = this.#engine;
    const none = (): void => {};
    this.#host = () => ({
      deadlines,
      engine,
      node,
      report,
      receiveBroadcast: none,
      disconnect: none,
      refresh: none,
      clients: () => [],
      stats: () => ({}) as ControllerStats, // Not used: `#received` answers questions for it.
    });
    engine.start({
      node,
      now: Date.now,
      deadlines,
      onlySends: true,
      published: none,
      gap: none,
      present: none,
      received: (message, age) => this.#received(node, message, age),
      status: none,
      report,
    });
  }

  /** Handles a message of another node. A question for stats is answered without any, because nodes wait for the answers of all. */
  #received(node: string, text: string, age: number | undefined): void {
    const message = read(text);
    if (message?.type !== "ask" || message.about !== "stats") return this.#cluster.received(text, age);
    const answer = { type: "answer", question: message.question, node, isLast: true };
    (async () => await this.#engine.send(JSON.stringify(answer)))().catch(this.#onError);
  }

  #declared(channel: string): PublishedChannel {
    if (typeof channel !== "string" || !CHANNEL_NAME.test(channel)) {
      throw new TypeError(`Cannot publish to "${channel}": a channel name is 1 to 255 of A–Z a–z 0–9 _ - . : / @ = + ~`);
    }
    if (!this.#channels) return {};
    const declared = this.#channels.find(([pattern]) => pattern.matches(channel));
    if (declared) return declared[1];
    throw new TypeError(`Cannot publish to "${channel}": no such channel is declared, add it to the option channels`);
  }
}

/** Checks the option `channels`. @throws {TypeError} for a name or history that `new Channels` would refuse. */
function declared(channels: Readonly<Record<string, PublishedChannel>>): (readonly [ChannelPattern, PublishedChannel])[] {
  if (typeof channels !== "object" || channels === null || Array.isArray(channels)) {
    throw fail("channels must be an object by name, such as { news: { history } }");
  }
  const names = new Map<string, string>();
  // Sorted by precedence: the first match counts.
  return Object.entries(channels).map(([name, channel]) => {
    const pattern = new ChannelPattern(name);
    const same = names.get(pattern.shape);
    if (same !== undefined) throw fail(`channels "${same}" and "${name}" have the same names, remove one`);
    names.set(pattern.shape, name);
    if (typeof channel !== "object" || channel === null) throw fail(`channel "${name}" must be an object, such as {}`);
    const fault = historyFault(channel.history);
    if (fault) throw fail(`channel "${name}": ${fault}`);
    return [pattern, channel] as const;
  }).sort(([one], [other]) => Number(other.isExact) - Number(one.isExact) || ChannelPattern.compare(one, other));
}

const fail = (remedy: string): TypeError => new TypeError(`Cannot create the publisher: ${remedy}`);
