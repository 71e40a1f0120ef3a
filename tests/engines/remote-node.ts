/**
 * A node whose engine runs in a process of its own, on another runtime, for who holds it as if it were here. Both sides are in this file: as a
 * program it has done what its standard input says, and writes what its engine tells; a line of JSON each.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { dirname, join } from "node:path";
import process from "node:process";
import type { Readable } from "node:stream";
import { fileURLToPath } from "node:url";
import pg from "pg";
import { createClient } from "redis";
import { Deadlines, systemClock } from "../../src/base/clock.ts";
import type { Engine, EngineHost, EngineStatus } from "../../src/engines/engine.ts";
import type { BrokerEngine } from "../../src/engines/broker/broker-engine.ts";
import { natsEngine } from "../../src/engines/nats/nats.ts";
import { postgresEngine } from "../../src/engines/postgres/postgres.ts";
import { redisEngine } from "../../src/engines/redis/redis.ts";
import { type ErrorCode, WebSocketError } from "../../src/protocol/errors.ts";
import { TYPESCRIPT } from "../support/typescript.ts";
import { TestHost, type TestNode } from "./test-host.ts";

export type BrokerName = "redis" | "nats" | "postgres";
export type Runtime = "bun" | "deno" | "node";

const here = dirname(fileURLToPath(import.meta.url));
const bin = (name: string) => join(here, "../../node_modules/.bin", name);

const COMMANDS: Record<Runtime, [command: string, ...args: string[]]> = {
  bun: [bin("bun"), "run"],
  deno: [bin("deno"), "run", "-A", "--no-lock"],
  node: ["node", ...TYPESCRIPT],
};

/** What the engine may tell. */
const TOLD = ["published", "gap", "present", "received", "status"] as const;

/** A line that the process is sent. */
interface Call {
  id: number;
  method: string;
  args: unknown[];
}

/** A line that it writes: what its engine told, or the end of a call. */
type Line =
  | { told: (typeof TOLD)[number]; args: unknown[] }
  | { report: ErrorText }
  | { id: number; result?: unknown; error?: ErrorText; status: EngineStatus; channels: number };

interface ErrorText {
  code?: ErrorCode;
  message: string;
}

/** An engine over that broker, quick to notice all but that it hangs, whose histories are lost when the broker is restarted. */
export function createEngine(broker: BrokerName, port: number): BrokerEngine {
  const fast = { lease: 8_000, checkInterval: 300, linger: 300, timeout: 10_000, secret: "a secret of the tests" };
  if (broker === "postgres") {
    return postgresEngine({
      client: new pg.Pool({ connectionString: `postgres://noroshi@127.0.0.1:${port}/postgres` }),
      ...fast,
    });
  }
  return broker === "redis"
    ? redisEngine({ client: createClient({ url: `redis://127.0.0.1:${port}` }), ...fast })
    : natsEngine({ servers: `nats://127.0.0.1:${port}`, history: { storage: "memory" }, ...fast });
}

/** The engine of another process. */
class RemoteEngine implements Engine {
  status: EngineStatus = "connecting";
  readonly #child: ChildProcess;
  readonly #calls = new Map<number, { resolve(result: unknown): void; reject(error: unknown): void }>();
  #lastCall = 0;
  #channels = 0;

  constructor(child: ChildProcess, host: TestHost) {
    this.#child = child;
    readLines(child.stdout!, (line) => this.#take(line as Line, host)); // Piped, and written by `run`.
    child.on("exit", () => {
      for (const { reject } of this.#calls.values()) reject(new Error("The process has ended"));
    });
  }

  start(): void {
    throw new TypeError("It was started by its process");
  }

  send = (...args: unknown[]) => this.#call<void>("send", args);
  nodes = () => this.#call<string[]>("nodes", []);
  subscribe: Engine["subscribe"] = (...args) => this.#call("subscribe", args);
  unsubscribe: Engine["unsubscribe"] = (...args) => void this.#call("unsubscribe", args);
  publish: Engine["publish"] = (...args) => this.#call("publish", args);
  answers: NonNullable<Engine["answers"]> = {
    claim: (...args) => this.#call("answers.claim", args),
    settle: (...args) => this.#call("answers.settle", args),
  };
  read: Engine["read"] = (...args) => this.#call("read", args);
  join: Engine["join"] = (...args) => this.#call("join", args);
  leave: Engine["leave"] = (...args) => this.#call("leave", args);
  members: Engine["members"] = (...args) => this.#call("members", args);
  close = () => this.#call<void>("close", []);

  /** Channels that it holds anything of. */
  async channels(): Promise<number> {
    await this.#call("nodes", []);
    return this.#channels;
  }

  #call<Result>(method: string, args: unknown[]): Promise<Result> {
    const id = ++this.#lastCall;
    const call: Call = { id, method, args };
    // JSON has no Infinity, which is a limit that may be asked for.
    const text = JSON.stringify(call, (_key, value) => value === Infinity ? INFINITY : value);
    this.#child.stdin!.write(`${text}\n`); // Piped.
    return new Promise<unknown>((resolve, reject) => this.#calls.set(id, { resolve, reject })) as Promise<Result>; // As the other side's engine says.
  }

  #take(line: Line, host: TestHost): void {
    if ("report" in line) return host.report(errorOf(line.report));
    if ("told" in line) {
      if (line.told === "status") this.status = line.args[0] as EngineStatus; // Told by an engine.
      return (host[line.told] as (...args: unknown[]) => void)(...line.args);
    }
    const { id, result, error, status, channels } = line;
    this.status = status;
    this.#channels = channels;
    const call = this.#calls.get(id);
    this.#calls.delete(id);
    if (error) call?.reject(errorOf(error));
    else call?.resolve(result);
  }
}

/** In place of what JSON has not. */
const INFINITY = "\u0000Infinity";

/** Not by node:readline, to which U+2028 ends a line too. */
function readLines(stream: Readable, take: (line: unknown) => void): void {
  let rest = "";
  stream.setEncoding("utf8").on("data", (text: string) => {
    const lines = `${rest}${text}`.split("\n");
    rest = lines.pop()!; // There is always one.
    for (const line of lines) take(JSON.parse(line, (_key, value) => value === INFINITY ? Infinity : value));
  });
}

function errorOf({ code, message }: ErrorText): Error {
  return code ? new WebSocketError("engine", code, message) : new Error(message);
}

/** A node in another process. */
export interface RemoteNode extends TestNode {
  channels(): Promise<number>;
  /** Ends the process. */
  end(): Promise<void>;
}

/** Resolves when the engine is ready. */
export async function startRemoteNode(runtime: Runtime, broker: BrokerName, port: number): Promise<RemoteNode> {
  const host = new TestHost();
  const [command, ...args] = COMMANDS[runtime];
  const child = spawn(command, [...args, fileURLToPath(import.meta.url), broker, `${port}`, host.node], {
    stdio: ["pipe", "pipe", "inherit"],
  });
  const exit = once(child, "exit");
  const engine = new RemoteEngine(child, host);
  const end = async () => {
    child.kill("SIGKILL");
    await exit;
  };
  const kill = () => {
    host.stop();
    child.kill("SIGKILL");
  };
  const failed = exit.then(([code]) => {
    throw new Error(`Cannot start a node on ${runtime}: it exited with ${code}`);
  });
  failed.catch(() => {}); // Once it is ready, its end is ours.
  await Promise.race([host.until(() => host.statuses.includes("ready")), failed]);
  return { engine, host, kill, end, channels: () => engine.channels() };
}

/** What runs in the process. */
function run(broker: BrokerName, port: number, node: string): void {
  const engine = createEngine(broker, port);
  const write = (line: Line) => void process.stdout.write(`${JSON.stringify(line)}\n`);
  const textOf = (error: unknown): ErrorText => ({
    message: String(error),
    ...(error instanceof WebSocketError && { code: error.code, message: error.message }),
  });
  const report = (error: unknown) => write({ report: textOf(error) });
  const tell = Object.fromEntries(TOLD.map((told) => [told, (...args: unknown[]) => write({ told, args })]));
  const host = { node, now: Date.now, deadlines: new Deadlines(systemClock, report), report, ...tell } as EngineHost; // With all of TOLD.
  engine.start(host);

  const call = async ({ id, method, args }: Call) => {
    const ended: { result?: unknown; error?: ErrorText } = {};
    try {
      const [name = "", of] = method.split(".").reverse();
      const owner = of === "answers" ? engine.answers : engine;
      ended.result = await (owner as unknown as Record<string, (...args: unknown[]) => unknown>)[name]!(...args); // By RemoteEngine.
    } catch (error) {
      ended.error = textOf(error);
    }
    write({ id, ...ended, status: engine.status, channels: engine.channels });
  };
  readLines(process.stdin, (line) => void call(line as Call)); // By RemoteEngine.
  // Who holds it is gone.
  process.stdin.on("close", () => process.exit(0));
}

if (process.argv[1] === fileURLToPath(import.meta.url) && process.argv.length === 5) {
  const [, , broker, port, node] = process.argv;
  run(broker as BrokerName, Number(port), node!); // As startRemoteNode says.
}
