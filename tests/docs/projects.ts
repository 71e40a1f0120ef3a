/** Runs the projects of a page in folders of their own, as a reader would type them. */
import { type ChildProcess, spawn } from "node:child_process";
import { copyFile, mkdir, mkdtemp, readdir, readFile, rename, writeFile } from "node:fs/promises";
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
  /** Where the install commands run, if not in the folder of the project. */
  readonly installations?: Installations;
}

/** Runs the project in `folder`, and resolves with the lines that its client prints. */
export async function runProject(
  project: Project,
  folder: string,
  tools: Tools,
  { change = (command) => command, deploys = false, installations }: RunOptions = {},
): Promise<string[]> {
  // The tests run beside each other and beside other servers.
  const port = String(await freePort());
  await mkdir(folder, { recursive: true });
  const commands = [...project.commands];
  const last = commands.pop()!;
  if (installations) await installations.copy(commands.map(change), folder);
  else for (const command of commands) await install(command, folder, tools, change);
  for (const [name, { code }] of project.files) await writeFile(join(folder, name), code.replace(PORT, port));
  const isWorker = last.includes("wrangler dev");
  if (!isWorker && project.files.has("client.ts") === false) return lines(await start(last, folder, tools).ended);

  // Beside the server, because both take seconds to start.
  const deployed = isWorker && deploys
    ? start(last.replace(/wrangler dev.*/, "wrangler deploy --dry-run"), folder, tools).ended
    : undefined;
  // Two that start at the same time would take the same port for it: wrangler binds it some time after it has found it free.
  const inspector = isWorker ? ` --inspector-port ${await freePort()}` : "";
  const server = start(last + inspector, folder, tools);
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

/**
 * Runs the same install commands once, however many projects begin with them: npm takes 5 s of CPU to unpack four packages. Each project gets a
 * folder that looks as if they had run there.
 */
export class Installations {
  readonly #parent: string;
  readonly #tools: Tools;
  /** The folders in which commands have run, by these commands. */
  readonly #folders = new Map<string, Promise<string>>();

  /** @param parent of the folders that it makes. */
  constructor(parent: string, tools: Tools) {
    this.#parent = parent;
    this.#tools = tools;
  }

  /** Makes the files in `folder` that the commands leave in an empty one. */
  async copy(commands: readonly string[], folder: string): Promise<void> {
    if (commands.length > 0) await this.#copyFolder(await this.#installed(commands), folder);
  }

  #installed(commands: readonly string[]): Promise<string> {
    const key = commands.join("\n");
    const folder = this.#folders.get(key) ?? this.#install(commands);
    this.#folders.set(key, folder);
    return folder;
  }

  async #install(commands: readonly string[]): Promise<string> {
    const folder = await mkdtemp(join(this.#parent, "installed-"));
    await this.copy(commands.slice(0, -1), folder);
    await install(commands.at(-1)!, folder, this.#tools); // There is one.
    return folder;
  }

  /** Packages are linked: no command changes their files in place. The files beside them may change, and are copied. */
  async #copyFolder(from: string, to: string): Promise<void> {
    await mkdir(to, { recursive: true });
    const packages: string[] = [];
    for (const entry of await readdir(from, { withFileTypes: true })) {
      const [source, target] = [join(from, entry.name), join(to, entry.name)];
      if (entry.isFile()) await copyFile(source, target);
      else if (entry.name === "node_modules") await this.#copyFolder(source, target);
      else packages.push(`"${source}"`);
    }
    if (packages.length > 0) await start(`cp -RPl ${packages.join(" ")} "${to}"`, from, { path: [] }).ended;
  }
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

/** Removes a folder of projects, which have ten thousands of files: Node takes several times the CPU of `rm`. */
export async function removeFolder(folder: string): Promise<void> {
  await start(`rm -rf "${folder}"`, root, { path: [] }).ended;
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
