/** A home object and its relays in one process: what workerd does with them, and what it may do to them. */
import { HomeEngine } from "../../src/engines/shards/home-engine.ts";
import { RelayEngine } from "../../src/engines/shards/relay-engine.ts";
import { openSqlite } from "./sqlite.ts";
import { TestHost, type TestNode } from "./test-host.ts";

interface Running {
  readonly engine: HomeEngine | RelayEngine;
  readonly host: TestHost;
}

export const HOME = "main";

/** Objects by name. One that is called starts. */
export class ShardedObjects {
  readonly #storages = new Map<string, ReturnType<typeof openSqlite>>();
  readonly #running = new Map<string, Running>();
  readonly #connected = new Set<string>();
  #relays = 0;
  #isOver = false;
  /** Called before an object is called, and before it answers. */
  onCall: (name: string, phase: "before" | "after") => void = () => {};
  /** Called in the turn in which an object starts: what its clients do that return from hibernation. */
  onStart: (name: string, engine: HomeEngine | RelayEngine, host: TestHost) => void = () => {};

  /** The running object, with connections. @param name of a new relay, unless it is given. */
  start(name = `${HOME}#${this.#relays++}`): TestNode & { readonly name: string } {
    this.#connected.add(name);
    const { engine, host } = this.#of(name);
    return { engine, host, name, kill: () => this.restart(name) };
  }

  /** Ends the object without a word, and starts it again: its connections are gone. */
  restart(name: string): void {
    this.evict(name);
    this.#connected.delete(name);
    this.#of(name);
  }

  /** The storage of an object that has been started. */
  sqlOf(name: string): ReturnType<typeof openSqlite> {
    return this.#storages.get(name)!;
  }

  /** The object has no connections from now on, or some again. */
  connect(name: string, isConnected: boolean): void {
    if (isConnected) this.#connected.add(name);
    else this.#connected.delete(name);
  }

  /** Ends the object without a word. The next call starts it again. */
  evict(name: string): void {
    this.#running.get(name)?.host.stop();
    this.#running.delete(name);
  }

  /** Whether this is what runs under the name. */
  isRunning(name: string, engine: HomeEngine | RelayEngine): boolean {
    return this.#running.get(name)?.engine === engine;
  }

  /** What is still under way never ends. */
  stop(): void {
    this.#isOver = true;
    for (const name of [...this.#running.keys()]) this.evict(name);
    for (const storage of this.#storages.values()) storage.close();
  }

  #of(name: string): Running {
    let running = this.#running.get(name);
    if (running) return running;
    let sql = this.#storages.get(name);
    if (!sql) this.#storages.set(name, sql = openSqlite());
    const stored = sql;
    const callRelay: ConstructorParameters<typeof HomeEngine>[0]["callRelay"] = (relay, call) =>
      this.#call(relay, (engine) => (engine as RelayEngine).receive(structuredClone(call)));
    const own: { running?: Running } = {};
    const options = {
      sql: {
        exec: (...statement: Parameters<typeof stored.exec>) => {
          if (this.#isOver) return [];
          if (own.running && this.#running.get(name) !== own.running) throw new Error(`"${name}" has stopped`);
          return stored.exec(...statement);
        },
      },
      prefix: "noroshi",
      callRelay,
      hasConnections: () => this.#connected.has(name),
    };
    const engine = name === HOME ? new HomeEngine(options) : new RelayEngine({
      ...options,
      relay: name,
      callHome: (call) => this.#call(HOME, (engine) => (engine as HomeEngine).receive(structuredClone(call))),
    });
    const host = new TestHost();
    this.#running.set(name, running = own.running = { engine, host });
    engine.start(host);
    this.onStart(name, engine, host);
    return running;
  }

  /** A call fails if the object stops before it has answered. */
  async #call<Answer>(name: string, call: (engine: HomeEngine | RelayEngine) => Promise<Answer>): Promise<Answer> {
    await new Promise((resolve) => setTimeout(resolve, 0));
    if (this.#isOver) return await new Promise(() => {});
    this.onCall(name, "before");
    const { engine } = this.#of(name);
    const answer = structuredClone(await call(engine));
    this.onCall(name, "after");
    await new Promise((resolve) => setTimeout(resolve, 0));
    if (this.#isOver) return await new Promise(() => {});
    if (this.#running.get(name)?.engine !== engine) throw new Error(`"${name}" has stopped`);
    return answer;
  }
}
