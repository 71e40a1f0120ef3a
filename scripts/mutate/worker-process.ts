/** Starts the process of a test file, gives it orders and receives its answers. */
import { type ChildProcess, fork } from "node:child_process";
import { fileURLToPath } from "node:url";
import type { Loaded, Order, Outcome } from "./worker.ts";

/** Most that a process takes to end, in ms. */
const CLEANING = 5_000;

/** Answers that a worker gives. */
type Answer = Loaded | Outcome;

export class WorkerProcess {
  readonly loaded: Loaded;
  readonly #child: ChildProcess;

  private constructor(child: ChildProcess, loaded: Loaded) {
    this.#child = child;
    this.loaded = loaded;
  }

  /**
   * @param change that is active while the file is loaded.
   * @param limit ms after which it is taken to hang.
   * @returns nothing if the process has ended instead.
   */
  static async load(bundle: string, change: number, limit: number): Promise<WorkerProcess | undefined> {
    const child = fork(fileURLToPath(new URL("worker.ts", import.meta.url)), [bundle, String(change)], {
      stdio: ["ignore", "ignore", "ignore", "ipc"],
      execArgv: ["--import", new URL("../typescript.mjs", import.meta.url).href],
    });
    const loaded = await answerOf<Loaded>(child, limit);
    return loaded && new WorkerProcess(child, loaded);
  }

  /** @returns nothing if the process has ended, or was ended because the test took longer than the limit. */
  async run(order: Order, limit: number): Promise<Outcome | undefined> {
    const answer = answerOf<Outcome>(this.#child, limit);
    this.#child.send(order);
    return await answer;
  }

  /** Lets it clean up, and end. */
  end(): void {
    if (!this.#child.connected) return;
    this.#child.disconnect();
    setTimeout(() => this.#child.kill("SIGKILL"), CLEANING).unref();
  }
}

/** The next answer, or nothing if the child ends before. One that is late is ended. */
async function answerOf<Expected extends Answer>(child: ChildProcess, limit: number): Promise<Expected | undefined> {
  if (child.exitCode !== null || child.signalCode !== null) return undefined;
  const timer = setTimeout(() => child.kill("SIGKILL"), limit);
  return await new Promise<Expected | undefined>((resolve) => {
    const settle = (answer: unknown) => {
      clearTimeout(timer);
      child.off("message", settle).off("exit", gone);
      resolve(answer as Expected | undefined); // The worker sends what it was asked for.
    };
    const gone = () => settle(undefined);
    child.on("message", settle).on("exit", gone);
  });
}
