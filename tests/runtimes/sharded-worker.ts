import assert from "node:assert/strict";
import { fileURLToPath } from "node:url";
import { startWorker, type Worker } from "../../scripts/worker.ts";
import { evict } from "./server.ts";
import { Wire } from "./wire.ts";

const file = fileURLToPath(new URL("fixture/shards-worker.ts", import.meta.url));

/** The outcome of a call to an object. */
export interface Outcome {
  readonly result?: unknown;
  readonly error?: string;
}

/** The Worker of `fixture/shards-worker.ts`, from outside. */
export class ShardedWorker {
  readonly #worker: Worker;
  #homes = 0;

  private constructor(worker: Worker) {
    this.#worker = worker;
  }

  static async start(): Promise<ShardedWorker> {
    return new ShardedWorker(await startWorker(file, "Fixture"));
  }

  get port(): number {
    return this.#worker.port;
  }

  async stop(): Promise<void> {
    Wire.resetAll();
    await this.#worker.miniflare.dispose();
  }

  /** The name of a home object of a test's own. */
  newHome(): string {
    return `home-${++this.#homes}`;
  }

  /** Calls an object by its name. */
  async outcome(name: string, method: string, ...args: unknown[]): Promise<Outcome> {
    const answer = await fetch(`http://127.0.0.1:${this.port}/call/${encodeURIComponent(name)}/${method}`, {
      method: "POST",
      body: JSON.stringify(args),
    });
    return await answer.json() as Outcome;
  }

  /** Resolves with the result of the call. */
  // deno-lint-ignore no-explicit-any -- a test reads what it expects and fails on the rest
  async call(name: string, method: string, ...args: unknown[]): Promise<any> {
    const { result, error } = await this.outcome(name, method, ...args);
    assert.equal(error, undefined);
    return result;
  }

  /** Spreads clients over so many relays from now on, and moves those that there are. */
  // deno-lint-ignore no-explicit-any -- as above
  async rebalance(home: string, shards: number, window: number): Promise<any> {
    return await (await fetch(`http://127.0.0.1:${this.port}/rebalance?home=${home}&shards=${shards}&window=${window}`)).json();
  }

  /** The path to one object. */
  pathTo(name: string, user = "ann"): string {
    return `/websocket?object=${encodeURIComponent(name)}&access_token=${user}`;
  }

  /** Connects to one object. */
  open(name: string, user?: string): Promise<Wire> {
    return Wire.open(this.port, this.pathTo(name, user));
  }

  /** Evicts an object, if it is running. */
  async evict(name: string): Promise<void> {
    await evict(this.#worker.miniflare, name);
  }
}
