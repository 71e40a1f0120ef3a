/**
 * The tutorial, followed to the letter: the files and commands of its pages, one page after the other, make examples/chat, and each page leaves a
 * project that type-checks.
 *
 * Replaced: the package itself, the port, the address of Redis, Bun's limit of 5 s for a test, and in the project's tests what the hash of a
 * password costs. Passwords are typed.
 */
import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import process from "node:process";
import { after, before, describe, it } from "node:test";
import { fileURLToPath } from "node:url";
import { WebSocket } from "ws";
import { listSections } from "../../scripts/docs/pages.ts";
import { createClient } from "../../src/client/client.ts";
import { BrokerProcess, freePort, lacks } from "../support/brokers.ts";
import { useCheapHashes } from "../support/cheap-hashes.ts";
import { packPackage } from "../support/packed.ts";
import { PATIENT } from "../support/patient.ts";
import { endAll, findNode, start, type Tools } from "./projects.ts";
import { readSnippets } from "./snippets.ts";

const root = join(dirname(fileURLToPath(import.meta.url)), "../..");
const example = join(root, "examples/chat");
const pages = listSections().find(({ title }) => title === "Tutorial")!.pages
  .map(({ path }) => `docs/${path}.md`);

const noShell = process.platform === "win32" &&
  "the commands of the pages are those of a POSIX shell";
const noRedis = lacks("redis-server");

/** What is made of the files of the example. */
const MADE = ["accounts.json", "public/main.js"];

/** A test runner that was started by a test would run nothing, and report success. */
const OUTSIDE = "unset NODE_TEST_CONTEXT";

const CHECK = "npm run check";
const PASSWORD = "correct horse";

/** The files of a page, and those that it includes. */
function filesOf(page: string): [name: string, text: string][] {
  const blocks = readSnippets(root, page).flatMap((
    { file, code },
  ): [string, string][] => file === undefined ? [] : [[file, code]]);
  const included = readFileSync(join(root, page), "utf8").matchAll(
    /^<<< @\/\.\.\/examples\/chat\/(\S+)$/gm,
  );
  return [
    ...blocks,
    ...[...included].map(([, name]): [string, string] => [name!, read(name!)]),
  ];
}

function commandsOf(page: string): string[] {
  const blocks = readSnippets(root, page).filter(({ language, words }) => language === "sh" && words.includes("run"));
  return blocks.flatMap(({ code }) => code.trim().split("\n"));
}

/** A file of the example. */
function read(name: string): string {
  return readFileSync(join(example, name), "utf8").replaceAll("\r\n", "\n");
}

describe("The tutorial", () => {
  it("makes examples/chat, and nothing else", () => {
    const made = new Map(pages.flatMap(filesOf));
    const names = readdirSync(example, { recursive: true, withFileTypes: true })
      .filter((entry) => entry.isFile()).map((entry) =>
        join(entry.parentPath, entry.name).slice(example.length + 1).replaceAll(
          "\\",
          "/",
        )
      );
    assert.deepEqual(
      [...made.keys()].sort(),
      names.filter((name) => !MADE.includes(name)).sort(),
    );
    for (const [name, text] of made) {
      assert.equal(
        text,
        read(name),
        `The pages and examples/chat/${name} differ`,
      );
    }
  });

  it("asks for the versions that the package is tested with", () => {
    const { version, dependencies, devDependencies, peerDependencies } = JSON
      .parse(readFileSync(join(root, "package.json"), "utf8"));
    const asked = JSON.parse(read("package.json"));
    const ranges: Record<string, string> = {
      ...asked.dependencies,
      ...asked.devDependencies,
    };
    const expected = Object.keys(ranges).map((name) => [
      name,
      name === "noroshi" ? `^${version}` : peerDependencies[name] ?? dependencies[name] ??
        `^${devDependencies[name]}`,
    ]);
    assert.deepEqual(ranges, Object.fromEntries(expected));
  });
});

describe("The tutorial, followed to the letter", { skip: noShell }, () => {
  let place: string;
  let folder: string;
  let tools: Pick<Tools, "path">;
  let tarball: string;
  let redis: BrokerProcess | undefined;
  let skips: string | false = false;

  before(async () => {
    place = await mkdtemp(join(tmpdir(), "noroshi-tutorial-"));
    skips = await start(
      "npm view valibot version --prefer-online --fetch-retries=0",
      place,
      { path: [] },
    ).ended
      .then(() => false as const, () => "no npm registry");
    if (skips) return;
    const node = await findNode(place);
    if (!node) {
      return skips = "no Node 22.18 or newer, and the npm package node@24 cannot be had";
    }
    tools = { path: [node, join(root, "node_modules/.bin")] };
    // The programs of the pages load the same files again and again.
    process.env["NODE_COMPILE_CACHE"] = join(place, "compiled");
    tarball = await packPackage(place);
    folder = join(place, "chat");
    if (!noRedis) redis = await BrokerProcess.redis();
  }, { timeout: 300_000 });
  after(async () => {
    endAll();
    await redis?.close();
    await rm(place, { recursive: true, force: true });
  });

  for (const page of pages) {
    it(page, { timeout: 300_000 }, async (t) => {
      if (skips) return t.skip(skips);
      const files = filesOf(page);
      for (const [name, text] of files) {
        await mkdir(dirname(join(folder, name)), { recursive: true });
        await writeFile(
          join(folder, name),
          text.replace(/(?<="noroshi": ")[^"]+/, `file:${tarball}`),
        );
      }
      const commands = commandsOf(page);
      for (const command of commands) {
        if (/redis/i.test(command) && !redis) {
          t.diagnostic(`not run without redis-server: ${command}`);
        } else if (command.endsWith("npm test")) await runTests(asTyped(command));
        else await start(asTyped(command), folder, tools).ended;
      }
      // Unless the page says so, or adds nothing that is checked.
      if (commands.includes(CHECK) || !files.some(([name]) => /\.(?:ts|json)$/.test(name))) return;
      await start(CHECK, folder, tools).ended;
    });
  }

  /** Runs the tests of the project, with cheap hashes. The chat and `add-account` run with those of the page. */
  async function runTests(command: string): Promise<void> {
    const undo = useCheapHashes(folder);
    await start(`${OUTSIDE}; ${command}`, folder, tools).ended;
    undo();
  }

  /** The words are those of the page. */
  function asTyped(command: string): string {
    const moved = command.replace(
      "redis://127.0.0.1:6379",
      `redis://127.0.0.1:${redis?.port}`,
    );
    return moved.includes("add-account") ? `echo "${PASSWORD}" | ${moved}` : moved;
  }

  // As the first page says.
  const RUNTIMES = {
    Node: { serve: "node --env-file=.env main.ts", test: "npm test" },
    Bun: { serve: "bun --env-file=.env main.ts", test: "bun test --timeout=60000" },
    Deno: {
      serve: "deno run -A --env-file=.env main.ts",
      test: "deno test -A --no-check",
    },
  };
  for (const [runtime, { serve, test }] of Object.entries(RUNTIMES)) {
    it(`leaves a chat that runs and passes its tests on ${runtime}`, {
      timeout: 300_000,
    }, async (t) => {
      if (skips || noRedis) return t.skip(skips || String(noRedis));
      const port = await freePort();
      const server = start(`PORT=${port} ${serve}`, folder, tools);
      try {
        await Promise.race([
          server.listens,
          server.ended.then((output) => assert.fail(output)),
        ]);
        await talk(`http://127.0.0.1:${port}`);
      } finally {
        server.kill();
      }
      await runTests(test);
    });
  }
});

/** Loads the page, logs in with an account of the second page, and says something. */
async function talk(url: string): Promise<void> {
  for (
    const [path, pattern] of [["/", /<title>Chat/], ["/chat.css", /--accent/], [
      "/main.js",
      /WebSocket/,
    ]] as const
  ) {
    assert.match(await (await fetch(url + path)).text(), pattern);
  }
  const response = await fetch(`${url}/login`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ user: "ann", password: PASSWORD }),
  });
  const [, token] = response.headers.get("set-cookie")?.match(/^session=([^;]+)/) ?? [];
  const client = createClient(`${url}/websocket`, {
    token,
    tokenIn: "protocol",
    ...PATIENT,
    WebSocket: WebSocket as unknown as typeof globalThis.WebSocket, // Node 20 has none of its own.
  });
  const room = client.subscribe("room:lobby")[Symbol.asyncIterator]();
  await room.next(); // What was said before.
  await client.request("say", { room: "lobby", text: "Hello" });
  const { from, text } = (await room.next()).value?.data as { from: string; text: string }; // As the contract of the chat says.
  assert.deepEqual([from, text], ["ann", "Hello"]);
  await client.close();
}
