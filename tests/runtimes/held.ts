import { type ChildProcess, spawn } from "node:child_process";
import { dirname, join } from "node:path";
import process from "node:process";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { inTime } from "../support/waiting.ts";
import { COMMANDS } from "./server.ts";

const here = dirname(fileURLToPath(import.meta.url));
const root = join(here, "../..");

/** The process of `fixture/serve-held.ts`: three servers, and requests that wait for {@link release}. */
export class HeldServers {
  readonly exited: Promise<number | null>;
  readonly #child: ChildProcess;
  readonly #lines: string[] = [];
  #waiting: { line: RegExp; resolve: (match: RegExpMatchArray) => void }[] = [];

  /** @param drain the option of its servers. */
  constructor(runtime: string, otherCopy = "", drain: object = { timeout: 600_000 }) {
    const [command = "", ...args] = COMMANDS[runtime] ?? [];
    const child = spawn(command, [...args, join(here, "fixture/serve-held.ts"), otherCopy], {
      cwd: root,
      stdio: ["pipe", "pipe", "inherit"],
      env: { ...process.env, HELD_DRAIN: JSON.stringify(drain) },
    });
    this.#child = child;
    this.exited = new Promise((resolve) => child.on("exit", resolve));
    createInterface({ input: child.stdout! }).on("line", (line) => {
      this.#lines.push(line);
      this.#look();
    });
  }

  /** The port of a server: FIRST, SECOND or THIRD. */
  async port(name: string): Promise<number> {
    const [, port] = await this.#said(new RegExp(`^${name} (\\d+)$`));
    return Number(port);
  }

  /** Resolves when the request of that name is under way. */
  async held(name: string): Promise<void> {
    await this.#said(new RegExp(`^HELD ${name}$`));
  }

  /** Resolves when the engine has left. */
  async saidGoodbye(): Promise<void> {
    await this.#said(/^GOODBYE$/);
  }

  /** Ends the request of that name. */
  release(name: string): void {
    this.#child.stdin!.write(`${name}\n`);
  }

  signal(signal: NodeJS.Signals): void {
    this.#child.kill(signal);
  }

  /** Ends it, whatever is under way. */
  async kill(): Promise<void> {
    this.#child.kill("SIGKILL");
    await this.exited;
  }

  #said(line: RegExp): Promise<RegExpMatchArray> {
    const said = new Promise<RegExpMatchArray>((resolve) => {
      this.#waiting.push({ line, resolve });
      this.#look();
    });
    return inTime(line, () => ({ exitCode: this.#child.exitCode, lines: this.#lines }), said);
  }

  #look(): void {
    this.#waiting = this.#waiting.filter(({ line, resolve }) => {
      const match = this.#lines.map((each) => each.match(line)).find((match) => match);
      if (match) resolve(match);
      return !match;
    });
  }
}
