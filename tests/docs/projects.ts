/** Runs the projects of a page in folders of their own, as a reader would type them. */
import { type ChildProcess, spawn } from "node:child_process";
import { copyFile, mkdir, readFile, rename, writeFile } from "node:fs/promises";
import { delimiter, dirname, join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { freePort } from "../support/brokers.ts";
import { packPackage } from "../support/packed.ts";
import type { Project } from "./snippets.ts";

/** What the machine has. */
export interface Tools {
  /** The packed package: npm, pnpm and Bun install it in place of `noroshi`. */
  readonly tarball: string;
  /** The same, unpacked, with the `deno.json` that JSR would serve: Deno uses it in place of `jsr:@noroshi/noroshi`. */
  readonly unpacked: string;
  /** Folders of programs that come before those of the machine. */
  readonly path: readonly string[];
  /** The environment of the commands, but for the settings of `start`. @default that of this process, with `path` */
  readonly env?: Readonly<Record<string, string>>;
}

const root = join(dirname(fileURLToPath(import.meta.url)), "../..");

/** Unpacks the packed package into `folder` as JSR would serve it. */
export async function unpackPackage(folder: string): Promise<Pick<Tools, "tarball" | "unpacked">> {
  const tarball = await packPackage(folder);
  await start(`tar -xzf "${tarball}"`, folder, { path: [] }).ended;
  const unpacked = join(folder, "jsr");
  await rename(join(folder, "package"), unpacked);
  await copyFile(join(root, "deno.json"), join(unpacked, "deno.json"));
  return { tarball, unpacked };
}

/** Replaces the words of a command before it runs. */
export type Change = (command: string) => string;

/** Port of the snippets. */
const PORT = /\b3000\b/g;

/** A server prints one of these when it listens. */
const LISTENS = /Listening on|Started development server|Ready on/;

/** How {@link runProject} differs from what a reader would type. */
export interface RunOptions {
  readonly change?: Change | undefined;
  /** Whether what `wrangler dev` serves is bundled for a deployment, too. */
  readonly deploys?: boolean;
}

/** Runs the project in `folder`, and resolves with the lines that its client prints. */
export async function runProject(
  project: Project,
  folder: string,
  tools: Tools,
  { change = (command) => command, deploys = false }: RunOptions = {},
): Promise<string[]> {
  // The tests run beside each other and beside other servers.
  const port = String(await freePort());
  await mkdir(folder, { recursive: true });
  for (const [name, { code }] of project.files) await writeFile(join(folder, name), code.replace(PORT, port));

  const commands = [...project.commands];
  const last = commands.pop()!;
  for (const command of commands) await install(command, folder, tools, change);
  const isWorker = last.includes("wrangler dev");
  if (!isWorker && project.files.has("client.ts") === false) return lines(await start(last, folder, tools).ended);

  // Beside the server, because both take seconds to start.
  const deployed = isWorker && deploys
    ? start(last.replace(/wrangler dev.*/, "wrangler deploy --dry-run"), folder, tools).ended
    : undefined;
  const server = start(last, folder, tools);
  try {
    await Promise.race([server.listens, server.ended]);
    await deployed;
    return lines(await start(clientCommand(last), folder, tools).ended);
  } finally {
    server.kill();
  }
}

/** The command of the README for a client on the runtime of a server. */
function clientCommand(server: string): string {
  if (server.startsWith("bun ")) return "bun client.ts";
  return server.startsWith("deno ") ? "deno run -NE client.ts" : "node client.ts";
}

/** Runs a command of a page that installs packages. */
export async function install(
  command: string,
  folder: string,
  tools: Tools,
  change: Change = (command) => command,
): Promise<void> {
  const jsr = /\s(\S+)@jsr:@noroshi\/noroshi(?=\s|$)/;
  const [, name] = command.match(jsr) ?? [];
  if (name !== undefined) {
    // What `deno add` would write. The package is not in the registry yet.
    await writeFile(
      join(folder, "deno.json"),
      JSON.stringify({
        imports: { [name]: `jsr:@noroshi/noroshi@^${await versionOf(tools.unpacked)}` },
        links: [tools.unpacked],
      }),
    );
  }
  await start(change(command.replace(jsr, "").replace(/(?<=\s)noroshi(?=\s|$)/, tools.tarball)), folder, tools).ended;
}

async function versionOf(folder: string): Promise<string> {
  return JSON.parse(await readFile(join(folder, "deno.json"), "utf8")).version;
}

/** A running command. */
export interface Running {
  readonly listens: Promise<void>;
  /** Resolves with what it printed to stdout; rejects with all it printed if it fails. */
  readonly ended: Promise<string>;
  kill(): void;
}

const running = new Set<ChildProcess>();

/** Starts a command in a process group of its own. */
export function start(command: string, cwd: string, { path, env }: Pick<Tools, "path" | "env">): Running {
  const child = spawn("sh", ["-c", command], {
    cwd,
    detached: true,
    env: {
      ...(env ?? { ...process.env, PATH: [...path, process.env["PATH"]].join(delimiter) }),
      // Under it `node --test` skips all files, and exits with 0.
      NODE_TEST_CONTEXT: undefined,
      NO_COLOR: "1",
      CI: "true",
      WRANGLER_SEND_METRICS: "false",
      npm_config_prefer_offline: "true",
      npm_config_loglevel: "error",
    },
    stdio: ["ignore", "pipe", "pipe"],
  });
  running.add(child);
  let [stdout, output] = ["", ""];
  let onListen = () => {};
  const listens = new Promise<void>((resolve) => onListen = resolve);
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding("utf8").on("data", (text: string) => {
      output += text;
      if (stream === child.stdout) stdout += text;
      if (LISTENS.test(output)) onListen();
    });
  }
  const ended = new Promise<string>((resolve, reject) => {
    child.on("error", reject);
    child.on("close", (code, signal) => {
      running.delete(child);
      if (code === 0 || signal === "SIGKILL") resolve(stdout);
      else reject(new Error(`${command}\nexited with ${code}:\n${output}`));
    });
  });
  // The caller of a server looks at `listens`, and at this only while it waits.
  ended.catch(() => {});
  return { listens, ended, kill: () => kill(child) };
}

/** Ends what still runs. */
export function endAll(): void {
  for (const child of running) kill(child);
}

function kill(child: ChildProcess): void {
  if (child.exitCode === null && child.signalCode === null && child.pid !== undefined) process.kill(-child.pid, "SIGKILL");
}

function lines(output: string): string[] {
  return output.split("\n").filter((line) => line !== "");
}

/** Folder of a Node that runs TypeScript: this one or, if it is older than 22.18, the npm package `node@24`. */
export async function findNode(cwd: string): Promise<string | undefined> {
  const [major = 0, minor = 0] = process.versions.node.split(".").map(Number);
  if (major > 22 || (major === 22 && minor >= 18)) return dirname(process.execPath);
  try {
    const found = await start(`npm exec --yes --package=node@24 -- node -p process.execPath`, cwd, { path: [] }).ended;
    return dirname(found.trim());
  } catch {
    return undefined; // The tests that need it skip, and say so.
  }
}
