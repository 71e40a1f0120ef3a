import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { readFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { freePort } from "../support/brokers.ts";
import { Proxy } from "../support/proxy.ts";
import { COMMANDS } from "./server.ts";

const here = dirname(fileURLToPath(import.meta.url));

/** What a node is told. */
export interface NodeProcessOptions {
  readonly runtime: string;
  readonly broker: string;
  readonly brokerPort: number;
  /** How far its clock is off, in ms. */
  readonly skew: number;
  /** Whether what it sends to others is signed. */
  readonly isSigned: boolean;
}

/** A node in a process of its own, on a port that it keeps, with a proxy before itself and one before its broker. */
export class NodeProcess {
  readonly runtime: string;
  readonly port: number;
  readonly front: Proxy;
  readonly back: Proxy;
  /** Resident memory in MB, as it was looked at. */
  readonly memory: number[] = [];
  readonly #options: NodeProcessOptions;
  #child: ChildProcess | undefined;

  private constructor(options: NodeProcessOptions, port: number, front: Proxy, back: Proxy) {
    this.runtime = options.runtime;
    this.#options = options;
    this.port = port;
    this.front = front;
    this.back = back;
  }

  /** Resolves when it listens. */
  static async start(options: NodeProcessOptions): Promise<NodeProcess> {
    const port = await freePort();
    const node = new NodeProcess(options, port, await Proxy.open(port), await Proxy.open(options.brokerPort));
    await node.start();
    return node;
  }

  async start(): Promise<void> {
    const { runtime, broker, skew, isSigned } = this.#options;
    const [command = "", ...args] = COMMANDS[runtime] ?? [];
    const env = {
      ...process.env,
      BROKER: `${broker}:${this.back.port}`,
      PORT: `${this.port}`,
      CLOCK_SKEW: `${skew}`,
      SIGNED: `${isSigned}`,
    };
    const child = this.#child = spawn(command, [...args, join(here, "fixture/node-serve.ts")], {
      cwd: join(here, "../.."),
      env,
      stdio: ["ignore", "pipe", "inherit"],
    });
    await new Promise<void>((resolve, reject) => {
      child.stdout!.on("data", (text) => String(text).includes("PORT ") && resolve()); // Piped.
      child.on("exit", (code) => reject(new Error(`Cannot start a node on ${runtime}: it exited with ${code}`)));
    });
  }

  /** The members that it tells of; what it answers instead if it cannot. */
  async members(): Promise<string[] | string> {
    const response = await fetch(`http://127.0.0.1:${this.port}/members`, { headers: { connection: "close" } });
    return response.ok ? await response.json() as string[] : `${response.status} ${await response.text()}`;
  }

  /** Looks at its memory, where there is a process. */
  async weigh(): Promise<void> {
    const status = await readFile(`/proc/${this.#child?.pid}/status`, "utf8").catch(() => "");
    const [, kilobytes] = status.match(/^VmRSS:\s+(\d+)/m) ?? [];
    if (kilobytes) this.memory.push(Math.round(Number(kilobytes) / 1_000));
  }

  signal(signal: NodeJS.Signals): void {
    this.#child?.kill(signal);
  }

  /** Whether its process is there: one that has ended by itself has crashed. */
  get isRunning(): boolean {
    return this.#child?.exitCode === null && this.#child.signalCode === null;
  }

  async kill(): Promise<void> {
    const child = this.#child;
    if (!child || child.exitCode !== null || child.signalCode !== null) return;
    const gone = once(child, "exit");
    child.kill("SIGKILL");
    await gone;
  }

  async close(): Promise<void> {
    await this.kill();
    await Promise.all([this.front.close(), this.back.close()]);
  }
}
