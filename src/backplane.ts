import type { Deadlines } from "./clock.ts";
import { Cluster, type ClusterHost } from "./cluster.ts";
import type { Engine } from "./engine.ts";
import type { Extension } from "./extension.ts";
import { MemoryEngine } from "./memory-engine.ts";
import type { ResolvedOptions } from "./options.ts";

/** What the others have done on this node. */
export interface LocalNode extends Pick<ClusterHost, "broadcast" | "disconnect" | "refresh" | "clients" | "stats" | "report"> {
  readonly deadlines: Deadlines;
  /** The wall clock, in ms. */
  now(): number;
}

/** What this node has in common with others: its engine, which starts when it is first needed, and what comes in by it. */
export class Backplane {
  /** What follows publications and members. */
  extension: Extension | undefined;
  readonly cluster: Cluster;
  readonly #local: LocalNode;
  readonly #name: string | undefined;
  #engine: Engine | undefined;
  #node: string | undefined;
  #host: ClusterHost | undefined;

  constructor(local: LocalNode, { engine, node }: Pick<ResolvedOptions, "engine" | "node">) {
    this.#local = local;
    this.#engine = engine;
    this.#name = node;
    this.cluster = new Cluster(() => this.#clusterHost());
  }

  /** The other nodes, where there may be some. */
  get shared(): Cluster | undefined {
    return this.#engine !== undefined && !this.#engine.isAlone ? this.cluster : undefined;
  }

  /** The engine, started. */
  get engine(): Engine {
    const engine = this.#engine ??= new MemoryEngine();
    if (this.#node !== undefined) return engine;
    // Not in the constructor: the module scope of a Worker forbids randomness.
    const random = crypto.randomUUID();
    this.#node = this.#name === undefined ? random : `${this.#name}-${random.slice(-12)}`;
    const { now, deadlines, report } = this.#local;
    engine.start({
      node: this.#node,
      now,
      deadlines,
      published: (channel, publication) => this.extension?.published(channel, publication),
      gap: (channel, position) => this.extension?.gap(channel, position),
      present: (channel, joined, left) => this.extension?.present(channel, joined, left),
      received: (message, age) => this.cluster.received(message, age),
      // Whoever wants to know looks at the engine's own; what went wrong is reported.
      status: () => {},
      report,
    });
    return engine;
  }

  /** Uses the engine unless there is one. Where there are channels it is started: clients may come back from hibernation next. */
  use(engine: Engine): void {
    this.#engine ??= engine;
    if (this.extension) void this.engine;
  }

  /**
   * Asked before something follows.
   *
   * @throws {TypeError} where something does already, or it wants kept what the engine cannot keep.
   */
  check({ histories }: Extension): void {
    if (this.extension) throw new TypeError("Cannot extend the controller: it has channels already, declare them together");
    for (const history of histories) this.#engine?.check?.(history);
  }

  /** Somebody is here to hear of what the others do. */
  start(): void {
    if (this.shared && this.#node === undefined) void this.engine;
  }

  async close(): Promise<void> {
    if (this.#node !== undefined) await this.#engine?.close();
  }

  #clusterHost(): ClusterHost {
    if (this.#host) return this.#host;
    const { engine } = this;
    return this.#host = { ...this.#local, engine, node: this.#node! }; // Started by the line above.
  }
}
