import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import process from "node:process";

/** A real broker, on a port that was free, in a folder of its own. */
export class BrokerProcess {
  readonly port: number;
  /** Where it keeps what it keeps. */
  readonly folder: string = mkdtempSync(join(tmpdir(), "noroshi-broker-"));
  readonly #command: string;
  readonly #args: (port: number, folder: string) => string[];
  readonly #ready: RegExp;
  #child: ChildProcess | undefined;

  protected constructor(port: number, command: string, args: (port: number, folder: string) => string[], ready: RegExp) {
    this.port = port;
    this.#command = command;
    this.#args = args;
    this.#ready = ready;
  }

  /** @param flags as of its command line. */
  static async redis(...flags: string[]): Promise<BrokerProcess> {
    const args = (
      port: number,
      folder: string,
    ) => ["--port", `${port}`, "--bind", "127.0.0.1", "--dir", folder, "--save", "", ...flags];
    const broker = new BrokerProcess(await freePort(), findProgram("redis-server")!, args, /Ready to accept connections/); // Checked by the caller.
    await broker.start();
    return broker;
  }

  /**
   * @param flagsOf more flags, of the folder that is its own.
   * @param storage what it keeps streams by.
   */
  static async nats(
    flagsOf: (folder: string) => Promise<string[]> = () => Promise.resolve([]),
    storage: "jetstream" | "none" = "jetstream",
  ): Promise<BrokerProcess> {
    let flags: string[] = [];
    const args = (port: number, folder: string) => [
      ...["-a", "127.0.0.1", "-p", `${port}`],
      ...(storage === "jetstream" ? ["-js", "-sd", folder] : []),
      ...flags,
    ];
    const broker = new BrokerProcess(await freePort(), findProgram("nats-server")!, args, /Server is ready/); // Checked by the caller.
    flags = await flagsOf(broker.folder);
    await broker.start();
    return broker;
  }

  /** @param config as of a file of its own. */
  static natsWith(config: string, storage?: "jetstream" | "none"): Promise<BrokerProcess> {
    return BrokerProcess.nats(async (folder) => {
      const path = join(folder, "nats.conf");
      await writeFile(path, config);
      return ["-c", path];
    }, storage);
  }

  /** Prometheus, which stores what it scrapes in its folder. @param config as of a file of its own. */
  static async prometheus(config: string): Promise<BrokerProcess> {
    const args = (port: number, folder: string) => [
      `--config.file=${join(folder, "prometheus.yml")}`,
      `--storage.tsdb.path=${folder}`,
      `--web.listen-address=127.0.0.1:${port}`,
    ];
    const program = findProgram("prometheus")!; // Checked by the caller.
    const broker = new BrokerProcess(await freePort(), program, args, /Server is ready to receive web requests/);
    await writeFile(join(broker.folder, "prometheus.yml"), config);
    await broker.start();
    return broker;
  }

  /** Of its process, while it runs. */
  get pid(): number | undefined {
    return this.#child?.pid;
  }

  /** Whether its process runs. It may have ended by itself. */
  get isRunning(): boolean {
    return this.#child !== undefined && this.#child.exitCode === null && this.#child.signalCode === null;
  }

  /** Resolves when it can be connected to. */
  async start(): Promise<void> {
    const child = this.#child = spawn(this.#command, this.#args(this.port, this.folder), { stdio: ["ignore", "pipe", "pipe"] });
    await new Promise<void>((resolve, reject) => {
      let output = "";
      const read = (text: unknown) => {
        output += String(text);
        if (this.#ready.test(output)) resolve();
      };
      child.stdout!.on("data", read); // Piped above.
      child.stderr!.on("data", read);
      child.on("error", reject);
      child.on("exit", () => reject(new Error(`Cannot start ${this.#command}: ${output}`)));
    });
  }

  signal(signal: NodeJS.Signals): void {
    if (this.#child) send(this.#child, signal);
  }

  /** Ends it, at once unless told how; resolves when it is gone. */
  async stop(signal: NodeJS.Signals = "SIGKILL"): Promise<void> {
    const child = this.#child;
    this.#child = undefined;
    if (!child || child.exitCode !== null || child.signalCode !== null) return;
    const gone = once(child, "exit");
    send(child, signal);
    await gone;
  }

  async restart(signal?: NodeJS.Signals): Promise<void> {
    await this.stop(signal);
    await this.start();
  }

  async close(): Promise<void> {
    await this.stop();
    rmSync(this.folder, { recursive: true, force: true });
  }
}

/** By its process id: the child's own `kill()` sends nothing after the first signal, on Deno. */
function send({ pid }: ChildProcess, signal: NodeJS.Signals): void {
  if (pid !== undefined) process.kill(pid, signal);
}

/** Why a test that needs the program is skipped; `false` when it is there. */
export function lacks(program: string): string | false {
  return findProgram(program) === undefined && `${program} is not installed: on Debian, apt-get install ${program}`;
}

/** Where the program is. */
export function findProgram(name: string): string | undefined {
  const folders = [...(process.env["PATH"] ?? "").split(delimiter), "/usr/sbin", "/usr/local/sbin"];
  return folders.map((folder) => join(folder, name)).find((path) => existsSync(path));
}

/** Ports that no system gives to a connection by itself, from the first on. */
const [FIRST_PORT, PORTS] = [10_000, 22_000];

/** So many processes that run at the same time have ports of their own. */
const PROCESSES = 220;

/** Where this process goes on. */
let nextPort = Math.floor((process.pid % PROCESSES + Math.random()) * PORTS / PROCESSES);

/**
 * A port of this machine that nobody listens to, and that nobody gets while a server restarts on it: a connection that another process opens
 * has one of a range above.
 */
export async function freePort(): Promise<number> {
  for (let tries = 0;; tries++) {
    const port = FIRST_PORT + nextPort++ % PORTS;
    const server = createServer();
    const fault = await new Promise<Error | undefined>((resolve) => {
      server.once("error", resolve);
      server.listen(port, "127.0.0.1", () => resolve(undefined));
    });
    if (fault && tries < PORTS) continue;
    if (fault) throw fault;
    server.close();
    await once(server, "close");
    return port;
  }
}
