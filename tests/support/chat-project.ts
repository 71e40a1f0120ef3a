/** examples/chat, as a program: in a copy with accounts of its own, and cheap hashes. The source of this repository is in place of the package. */
import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { cpSync, mkdtempSync, rmSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import process from "node:process";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { freePort } from "./brokers.ts";
import { useCheapHashes } from "./cheap-hashes.ts";

const root = join(dirname(fileURLToPath(import.meta.url)), "../..");

/** Of each account. */
export const PASSWORD = "correct horse";

/** The project, with two accounts and a built page. */
export class ChatProject {
  readonly folder: string = mkdtempSync(join(tmpdir(), "noroshi-chat-"));

  /** Builds the page, and makes the accounts. */
  async make(...users: string[]): Promise<void> {
    cpSync(join(root, "examples/chat"), this.folder, { recursive: true });
    rmSync(join(this.folder, "accounts.json"), { force: true });
    useCheapHashes(this.folder); // The test of the tutorial runs the chat with the hashes that it has.
    symlinkSync(join(root, "node_modules"), join(this.folder, "node_modules"), "junction");
    const { build, stop } = await import("esbuild");
    // The source of this repository, which it names, is in place of the package.
    const options = { bundle: true, format: "esm", tsconfig: join(root, "tsconfig.json") } as const;
    await build({ ...options, entryPoints: [join(this.folder, "page/main.ts")], outfile: join(this.folder, "public/main.js") });
    // Compiled once: tsx takes each process of a node as much CPU as all that the node does.
    await build({
      ...options,
      entryPoints: ["main.ts", "add-account.ts"].map((name) => join(this.folder, name)),
      outdir: this.folder,
      splitting: true,
      platform: "node",
      packages: "external",
    });
    await stop();
    for (const user of users) {
      const child = this.spawn(["add-account.js", user], {});
      child.stdin!.end(`${PASSWORD}\n`); // Piped.
      assert.deepEqual(await once(child, "exit"), [0, null]);
    }
  }

  /** Runs a program of the project. */
  spawn(args: string[], env: Record<string, string>): ChildProcess {
    return spawn(process.execPath, args, {
      cwd: this.folder,
      env: { ...process.env, ...env },
      stdio: ["pipe", "pipe", "inherit"],
    });
  }

  remove(): void {
    rmSync(this.folder, { recursive: true, force: true });
  }
}

/** A node that listens. */
export class ChatNode {
  readonly #child: ChildProcess;
  readonly #exited: Promise<unknown>;
  readonly url: string;

  private constructor(child: ChildProcess, url: string) {
    this.#child = child;
    this.#exited = new Promise((resolve) => child.on("exit", resolve));
    this.url = url;
  }

  static async start(project: ChatProject, env: Record<string, string>): Promise<ChatNode> {
    // One of its own, on which it can be started again.
    const child = project.spawn(["main.js"], { PORT: `${await freePort()}`, ...env });
    for await (const line of createInterface({ input: child.stdout! })) { // Piped.
      const [url] = line.match(/http:\/\/127\.0\.0\.1:\d+/) ?? [];
      if (url) return new ChatNode(child, url);
    }
    throw new Error("The chat did not start");
  }

  get port(): number {
    return Number(new URL(this.url).port);
  }

  stop(signal: "SIGTERM" | "SIGKILL" = "SIGTERM"): Promise<unknown> {
    if (this.#child.exitCode === null && this.#child.signalCode === null) this.#child.kill(signal);
    return this.#exited;
  }
}

/** Logs in, and returns the token of the cookie. */
export async function logIn(
  url: string,
  user: string,
  password = PASSWORD,
): Promise<{ token: string | undefined; cookie: string }> {
  const response = await fetch(`${url}/login`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ user, password }),
  });
  const cookie = response.headers.get("set-cookie") ?? "";
  return { token: cookie.match(/^session=([^;]+)/)?.[1], cookie };
}
