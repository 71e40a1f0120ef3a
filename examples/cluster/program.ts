import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import process from "node:process";
import { createInterface } from "node:readline";

/** How long one that has ended by itself is left so, for all to see, in ms. */
const PAUSE = 3_000;

/** How long one may take to end, in ms. */
const PATIENCE = 15_000;

/** What is started, and how. */
export interface ProgramOptions {
  readonly name: string;
  readonly command: readonly string[];
  /** Beside those of this process. */
  readonly env?: Record<string, string>;
  /** A line of its output that says that it runs. */
  readonly ready: RegExp;
  /** Lines that nobody has to see. @default {ready} */
  readonly hidden?: RegExp;
}

/** A program that is started again when it ends by itself. */
export class Program {
  readonly #options: ProgramOptions;
  #child: ChildProcess | undefined;
  #restart: ReturnType<typeof setTimeout> | undefined;
  #isStopped = false;

  constructor(options: ProgramOptions) {
    this.#options = options;
    // However this process ends, short of its own SIGKILL, nothing that it started outlives it.
    process.on("exit", () => this.#child?.kill("SIGKILL"));
  }

  /** Resolves when it runs; rejects when it ends before. */
  async start(): Promise<void> {
    const { name, command: [command = "", ...args], env, ready, hidden = ready } = this.#options;
    // In a group of its own, so that Ctrl-C in a terminal reaches this process alone, which ends the others one after the other.
    const child = spawn(command, args, { env: { ...process.env, ...env }, stdio: ["ignore", "pipe", "pipe"], detached: true });
    this.#child = child;
    console.log(`${name.padEnd(12)} pid ${child.pid}`);
    let isReady = false;
    await new Promise<void>((resolve, reject) => {
      for (const input of [child.stdout, child.stderr]) {
        createInterface({ input }).on("line", (line) => {
          if (ready.test(line)) {
            isReady = true;
            resolve();
          }
          if (!hidden.test(line)) console.log(`${name.padEnd(12)} ${line}`);
        });
      }
      child.on("error", reject);
      child.on("exit", (code, signal) => {
        const how = signal ?? code;
        reject(new Error(`Cannot start ${name}: it ended with ${how}`));
        if (isReady) this.#startAgain(`it ended with ${how}`);
      });
    });
  }

  /** Resolves when it has ended. */
  async stop(): Promise<void> {
    this.#isStopped = true;
    clearTimeout(this.#restart);
    const child = this.#child;
    if (!child || child.exitCode !== null || child.signalCode !== null) return;
    const ended = once(child, "exit");
    child.kill("SIGTERM");
    const late = setTimeout(() => child.kill("SIGKILL"), PATIENCE);
    await ended;
    clearTimeout(late);
  }

  #startAgain(why: string): void {
    if (this.#isStopped) return;
    console.log(`${this.#options.name.padEnd(12)} ${why}, and is started again in ${PAUSE / 1_000} s`);
    this.#restart = setTimeout(() => this.start().catch(() => this.#startAgain("it could not be started")), PAUSE);
  }
}
