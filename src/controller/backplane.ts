import type { Deadlines } from "../base/clock.ts";
import { Cluster, type ClusterHost } from "./cluster.ts";
import type { Engine, EngineHost, HistoryOptions } from "../engines/engine.ts";
import type { Extension } from "../application/extension.ts";
import type { Log } from "../application/log.ts";
import { MemoryEngine } from "../engines/memory-engine.ts";
import { guard } from "../base/guard.ts";
import type { ResolvedOptions } from "../application/options.ts";
import { ResumableStreams } from "../streams/resumable.ts";
import type { Streams } from "../streams/streams.ts";
import { WebSocketError } from "../protocol/errors.ts";
import type { WebSocketClient } from "../application/websocket-client.ts";

/** Operations of this node that other nodes request. */
export interface LocalNode
  extends Pick<ClusterHost, "receiveBroadcast" | "disconnect" | "refresh" | "clients" | "stats" | "report"> {
  readonly deadlines: Deadlines;
  readonly log: Pick<Log, "warn">;
  /** The wall clock, in ms. */
  now(): number;
}

const IN_MEMORY = "Channels are lost in hibernation: the class of the Durable Object has no SQLite storage. " +
  "Write new_sqlite_classes instead of new_classes in the migrations of wrangler.jsonc";

let hasWarned = false;

/** Connects this node to the others: starts the engine on first use and routes what it delivers. */
export class Backplane {
  /** Receives publications and presence changes. */
  extension: Extension | undefined;
  /** Receives publications and presence changes of the channels that carry resumable streams. */
  streams: Streams | undefined;
  readonly cluster: Cluster;
  readonly #local: LocalNode;
  readonly #name: string | undefined;
  #engine: Engine | undefined;
  #node: string | undefined;
  #host: ClusterHost | undefined;
  #closed: Promise<void> | undefined;

  constructor(local: LocalNode, { engine, node }: Pick<ResolvedOptions, "engine" | "node">) {
    this.#local = local;
    this.#engine = engine;
    this.#name = node;
    this.cluster = new Cluster(() => this.#clusterHost());
  }

  /** The cluster, if the engine can have other nodes. */
  get shared(): Cluster | undefined {
    return this.#engine !== undefined && !this.#engine.isAlone ? this.cluster : undefined;
  }

  /** The engine; reading it starts it. */
  get engine(): Engine {
    const engine = this.#engine ??= new MemoryEngine();
    if (this.#node !== undefined) return engine;
    // Not in the constructor: Workers forbid random numbers in module scope.
    const random = crypto.randomUUID();
    this.#node = this.#name === undefined ? random : `${this.#name}-${random.slice(-12)}`;
    const { now, deadlines, refresh, report } = this.#local;
    engine.start({
      node: this.#node,
      now,
      deadlines,
      published: (channel, publication) => this.#ownerOf(channel)?.published(channel, publication),
      gap: (channel, position) => this.#ownerOf(channel)?.gap(channel, position),
      present: (channel, joined, left) => this.#ownerOf(channel)?.present(channel, joined, left),
      received: (message, age) => this.cluster.received(message, age),
      // Not forwarded: applications read `engine.status`, and the engine reports its failures.
      status: () => {},
      report: (error) => {
        report(error);
        // The lost orders may have revoked rights of any client.
        if (WebSocketError.from(error)?.code === "ORDERS_LOST") refresh({});
      },
    });
    if (this.#closed) guard(() => engine.close(), report); // `close` was called before the engine started.
    return engine;
  }

  /**
   * Sets the engine, unless there is one. With channels it starts at once: clients may be restored from hibernation next. Without
   * an engine it warns: channels are in memory.
   */
  use(engine: Engine | undefined): void {
    this.#engine ??= engine;
    if (!this.extension) return;
    if (!this.#engine) this.#warn();
    void this.engine;
  }

  #warn(): void {
    if (hasWarned) return;
    hasWarned = true; // Once, because an object is built again after each hibernation.
    this.#local.log.warn("unsaved", () => [{ event: "noroshi.history.unsaved" }, IN_MEMORY]);
  }

  /**
   * Checks that the extension can be installed.
   *
   * @throws {TypeError} if there is one already, or the engine cannot keep its histories.
   */
  check({ histories }: Extension): void {
    if (this.extension) throw new TypeError("Cannot extend the controller: it has channels already, declare them together");
    for (const history of histories) this.checkHistory(history);
  }

  /** Starts the engine if it can have other nodes: clients here must receive their broadcasts and orders. */
  start(): void {
    if (this.shared && this.#node === undefined) void this.engine;
  }

  /** The client was admitted, or its rights have changed. */
  admitted(client: WebSocketClient): void {
    this.extension?.admitted(client);
    this.streams?.changed(client);
  }

  /** Nothing may be sent to the client. */
  suspended(client: WebSocketClient): void {
    this.extension?.suspended(client);
    this.streams?.changed(client);
  }

  /** @param mayReturn whether the client may reconnect. */
  closed(client: WebSocketClient, mayReturn: boolean): void {
    this.extension?.closed(client, mayReturn);
    this.streams?.changed(client);
  }

  /** The largest history that the engine keeps; `undefined`: it has no limit. */
  get maxHistory(): HistoryOptions | undefined {
    return this.#engine?.maxHistory;
  }

  /** @throws {TypeError} if the engine cannot keep such a history. */
  checkHistory(history: HistoryOptions): void {
    this.#engine?.check?.(history);
  }

  /** Closes the engine. Further calls return the same promise. */
  close(): Promise<void> {
    const isStarted = this.#node !== undefined; // The getter closes an engine that starts later.
    // Asynchronously, so that `#closed` is set when the end of a stream calls this again.
    return this.#closed ??= Promise.resolve().then(() => this.#close(isStarted));
  }

  async #close(isStarted: boolean): Promise<void> {
    try {
      await this.streams?.resumable?.close();
      if (isStarted) await this.#engine?.close();
    } finally {
      this.#local.deadlines.end();
    }
  }

  /** The part of the controller that a channel of the engine belongs to. */
  #ownerOf(channel: string): Pick<EngineHost, "published" | "gap" | "present"> | undefined {
    return ResumableStreams.has(channel) ? this.streams?.resumable : this.extension;
  }

  #clusterHost(): ClusterHost {
    if (this.#host) return this.#host;
    const { engine } = this;
    return this.#host = { ...this.#local, engine, node: this.#node! }; // Set by reading `engine`.
  }
}
