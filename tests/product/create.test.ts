/** `npm create noroshi`, as it is packed: each runtime and client gives a project that type-checks, passes its test, and serves a chat. */
import assert from "node:assert/strict";
import { type ChildProcess, execFile, spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { copyFile, mkdir, mkdtemp, readdir, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import process from "node:process";
import { createInterface } from "node:readline";
import { after, before, describe, it } from "node:test";
import { fileURLToPath } from "node:url";
import { WebSocket } from "ws";
import { createClient } from "../../src/client/client.ts";
import { packPackage } from "../support/packed.ts";
import { PATIENT } from "../support/patient.ts";

const root = join(dirname(fileURLToPath(import.meta.url)), "../..");
const modules = join(root, "node_modules");
const bin = join(modules, ".bin");

/** What `noroshi` depends on: npm is kept from fetching it. */
const DEPENDENCIES = ["valibot", "mitt"];

/** What the projects have beside it, linked from here: npm cannot copy tools with programs for this platform, and takes long for the others. */
const LINKED = [
  "hono",
  "ws",
  "@hono/node-server",
  "react",
  "react-dom",
  "esbuild",
  "typescript",
  "tsx",
  "miniflare",
  "@types/node",
  "@types/ws",
  "@types/bun",
  "@types/react",
  "@types/react-dom",
];

const RUNTIMES = ["node", "bun", "deno", "cloudflare"] as const;
const CLIENTS = ["plain", "react"] as const;

/** How a script of a project is run. */
const SCRIPTS: Record<typeof RUNTIMES[number], string[]> = {
  node: ["npm", "run"],
  bun: [join(bin, "bun"), "run"],
  deno: [join(bin, "deno"), "task"],
  cloudflare: ["npm", "run"],
};

describe("npm create noroshi", () => {
  let folder: string;
  let program: string;

  before(async () => {
    folder = await mkdtemp(join(tmpdir(), "noroshi-create-"));
    await npm(join(root, "create"), "pack", "--pack-destination", folder);
    const [name = ""] = await readdir(folder);
    assert.match(name, /^create-noroshi-.*tgz$/);
    const create = join(folder, name);
    const noroshi = await packPackage(folder);

    // Installed once: each project links to it, and its own lists are compared with what is there.
    await writeFile(
      join(folder, "package.json"),
      '{ "private": true, "type": "module" }',
    );
    await writeFile(join(folder, ".npmrc"), "install-links=true\n");
    const beside = DEPENDENCIES.map((name) => join(modules, name));
    await npm(
      folder,
      "install",
      "--prefer-offline",
      "--ignore-scripts",
      "--legacy-peer-deps",
      create,
      noroshi,
      ...beside,
    );
    await Promise.all(
      ["@types", "@hono", ".bin"].map((name) => mkdir(join(folder, "node_modules", name), { recursive: true })),
    );
    for (const name of LINKED) {
      await symlink(
        join(modules, name),
        join(folder, "node_modules", name),
        "junction",
      );
    }
    for (const name of ["esbuild", "tsc", "tsx"]) {
      await symlink(join(bin, name), join(folder, "node_modules/.bin", name));
    }
    program = join(folder, "node_modules/create-noroshi/index.js");
  }, { timeout: 300_000 });
  after(() => rm(folder, { recursive: true, force: true }));

  it(
    "asks again for what it does not know, and takes the default for an empty line",
    { timeout: 300_000 },
    async () => {
      const output = await run(
        folder,
        [process.execPath, program],
        "asked\nrust\nbun\n\n",
      );
      assert.match(
        output,
        /Created a chat on bun[^]*cd asked\n {2}bun install\n {2}bun run start/,
      );
      assert.match(
        await readFile(join(folder, "asked/client/main.ts"), "utf8"),
        /document/,
      );
      assert.match(
        await readFile(join(folder, "asked/.gitignore"), "utf8"),
        /node_modules/,
      );
    },
  );

  it(
    "refuses a folder with files, a file, and an unknown runtime, and writes nothing",
    { timeout: 300_000 },
    async () => {
      await mkdir(join(folder, "full"));
      await writeFile(join(folder, "full/mine.txt"), "mine");
      const refused: [args: string[], message: RegExp][] = [
        [["full"], /the folder ".*full" is not empty, choose another/],
        [["full/mine.txt"], /is a file, choose another name/],
        [
          ["new", "--runtime", "rust"],
          /--runtime is one of node, bun, deno, cloudflare, not "rust"/,
        ],
      ];
      for (const [args, message] of refused) {
        await assert.rejects(
          run(folder, [process.execPath, program, ...args, "--yes"]),
          message,
        );
      }
      assert.deepEqual(await readdir(join(folder, "full")), ["mine.txt"]);
      assert.equal(existsSync(join(folder, "new")), false);
    },
  );

  for (const runtime of RUNTIMES) {
    for (const client of CLIENTS) {
      it(`gives a chat on ${runtime} with the client ${client}`, {
        timeout: 300_000,
      }, async (t) => {
        const project = join(folder, `${runtime}-${client}`);
        await run(folder, [
          process.execPath,
          program,
          project,
          "--runtime",
          runtime,
          "--client",
          client,
          "--yes",
        ]);
        await checkVersions(project);
        await symlink(
          join(folder, "node_modules"),
          join(project, "node_modules"),
          "junction",
        );
        const manifest = join(project, "deno.json");
        if (runtime === "deno") {
          // Otherwise Deno fetches the packages.
          await writeFile(
            manifest,
            (await readFile(manifest, "utf8")).replace('"auto"', '"manual"'),
          );
        }
        const script = (name: string) => [...SCRIPTS[runtime], name];
        if (runtime !== "deno") await run(project, script("check"));
        // Deno compiles all types for seconds, and does it once: with the page of the other project, whose other programs are the same.
        else if (client === "react") {
          await addPage(join(folder, "deno-plain"), project);
          await run(project, script("check"));
        }
        // Bun's own limit of a test is 5 s.
        await run(project, [...script("test"), ...(runtime === "bun" ? ["--timeout=60000"] : [])]);
        await run(project, script("build"));
        assert.match(
          await readFile(join(project, "public/client.js"), "utf8"),
          /\/websocket/,
        );
        // Its test starts the Worker under Miniflare; wrangler, which its start script runs, needs Node 22.
        if (runtime === "cloudflare") {
          return t.diagnostic(
            "not started by wrangler, which is not among the packages here",
          );
        }
        await serves(await start(project, script("start"), t.after.bind(t)));
      });
    }
  }
});

/** Copies the program of the page from a project without React to one with it. All other programs must be those that are there. */
async function addPage(from: string, to: string): Promise<void> {
  const page = join("client", "main.ts");
  for (const part of ["client", "src", "tests"]) {
    for (const name of (await readdir(join(from, part))).map((name) => join(part, name)).filter((name) => name !== page)) {
      assert.equal(await readFile(join(to, name), "utf8"), await readFile(join(from, name), "utf8"), name);
    }
  }
  await copyFile(join(from, page), join(to, page));
}

/** Each package that the project lists is here, in a version that satisfies its range: a caret above an exact version. */
async function checkVersions(project: string): Promise<void> {
  const isDeno = existsSync(join(project, "deno.json"));
  const { dependencies = {}, devDependencies = {}, imports = {} } = JSON.parse(
    await readFile(
      join(project, isDeno ? "deno.json" : "package.json"),
      "utf8",
    ),
  ) as Record<string, Record<string, string>>;
  for (
    const [name, range] of Object.entries({
      ...dependencies,
      ...devDependencies,
      ...imports,
    })
  ) {
    if (name === "wrangler") continue; // Not among the packages here.
    const manifest = name === "noroshi" ? join(root, "package.json") : join(modules, name, "package.json");
    const { version } = JSON.parse(await readFile(manifest, "utf8")) as {
      version: string;
    };
    const [major, minor, patch] = range.replace(/^npm:.*@/, "").slice(1).split(
      ".",
    ).map(Number);
    const [ours, our, latest] = version.split(".").map(Number);
    const isSatisfied = major === ours &&
      (our! > minor! || our === minor && latest! >= patch!);
    assert.ok(
      isSatisfied,
      `${name} ${range} of ${project}, and ${version} here`,
    );
  }
}

/** Starts a project and resolves with the address that it prints. */
async function start(
  project: string,
  [command = "", ...args]: string[],
  after: (end: () => unknown) => void,
): Promise<string> {
  const child = spawn(command, args, {
    cwd: project,
    env: { ...process.env, PORT: "0", NO_COLOR: "1" },
    stdio: ["ignore", "pipe", "pipe"],
    detached: true, // A group of its own: the program is a child of npm's shell.
  });
  const exited = new Promise((resolve) => child.on("exit", resolve));
  after(() => {
    endGroup(child);
    return exited;
  });
  const printed: string[] = [];
  return await new Promise((resolve, reject) => {
    for (const input of [child.stdout, child.stderr]) {
      createInterface({ input }).on("line", (line) => {
        printed.push(line);
        const [url] = line.match(/http:\/\/127\.0\.0\.1:\d+/) ?? [];
        if (url) resolve(url);
      });
    }
    void exited.then((code) => reject(new Error(`It exited with ${code}: ${printed.join("\n")}`)));
  });
}

function endGroup({ pid, exitCode }: ChildProcess): void {
  if (pid !== undefined && exitCode === null) process.kill(-pid, "SIGTERM");
}

/** It has its page, its script, its login and its chat. */
async function serves(url: string): Promise<void> {
  assert.match(await (await fetch(url)).text(), /<title>Chat<\/title>/);
  assert.match(
    (await fetch(`${url}/client.js`)).headers.get("content-type") ?? "",
    /javascript/,
  );
  const token = async () => {
    const body = JSON.stringify({ name: "Ann" });
    return (await (await fetch(`${url}/login`, { method: "POST", body }))
      .json()).token as string;
  };
  const client = createClient(`${url}/websocket`, { token, WebSocket, ...PATIENT });
  await client.request("say", { text: "Hello" });
  for await (const item of client.subscribe("chat")) {
    assert.deepEqual(
      (item.data as { text: string }[]).map(({ text }) => text),
      ["Hello"],
    );
    break;
  }
  await client.close();
}

/** Resolves with what it printed to stdout; rejects with all it printed when it does not exit with 0. */
function run(
  cwd: string,
  [command = "", ...args]: string[],
  input = "",
): Promise<string> {
  return new Promise((resolve, reject) => {
    const child = execFile(command, args, {
      cwd,
      // Under NODE_TEST_CONTEXT `node --test` skips all files, and exits with 0.
      env: { ...process.env, NO_COLOR: "1", NODE_TEST_CONTEXT: undefined },
    }, (error, stdout, stderr) => {
      if (error) {
        reject(
          new Error(
            `Cannot run ${command} ${args.join(" ")}: ${error.code}\n${stdout}\n${stderr}`,
          ),
        );
      } else resolve(stdout);
    });
    child.stdin?.end(input);
  });
}

function npm(cwd: string, ...args: string[]): Promise<string> {
  return run(cwd, ["npm", ...args, "--loglevel=error"]);
}
