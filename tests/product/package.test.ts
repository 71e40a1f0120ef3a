/** The npm package as its users get it: packed, installed into an empty folder, and run, type-checked and linted from there. */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdir, mkdtemp, readFile, rename, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import process from "node:process";
import { after, before, describe, it } from "node:test";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";
import { packPackage } from "../support/packed.ts";

const root = join(dirname(fileURLToPath(import.meta.url)), "../..");
const modules = join(root, "node_modules");

/** What the consumer has installed beside `noroshi`; `mitt` only because npm is kept from fetching it. */
const BESIDE = ["hono", "ws", "@hono/node-server", "valibot", "mitt"];

const RUNTIMES: Record<string, [command: string, ...args: string[]]> = {
  Node: [process.execPath],
  Bun: [join(modules, ".bin/bun"), "run"],
  Deno: [join(modules, ".bin/deno"), "run", "-A", "--node-modules-dir=manual"],
};

/** Ends by itself: no timer or socket of the service may hold the process once its server is closed. */
const PROGRAM = `
import { once } from "node:events";
import { Hono } from "hono";
import { createWebSocketController, WebSocketService } from "noroshi";
import { createClient } from "noroshi/client";
import { serve } from "noroshi/serve";
import * as v from "valibot";
import { WebSocket } from "ws";

const controller = createWebSocketController();
controller.handle("add", v.object({ a: v.number(), b: v.number() }), ({ message }) => message.a + message.b);
const app = new Hono().get("/websocket", controller.upgrade);
const server = await serve(app, { port: 0, hostname: "127.0.0.1", onListen: false });

const socket = new WebSocket("ws://127.0.0.1:" + server.port + "/websocket");
await once(socket, "open");
const next = async () => String((await once(socket, "message"))[0]);
const reply = next();
socket.send(JSON.stringify({ type: "add", uid: 1, a: 2, b: 3 }));
const { uid, status, data } = JSON.parse(await reply);
console.log(uid, status, data);
const broadcast = next();
new WebSocketService().broadcast("to all");
console.log(await broadcast);
const client = createClient(server.url + "websocket", { WebSocket });
console.log(await client.request("add", { a: 3, b: 4 }));
await client.close();
const closed = once(socket, "close");
await server.close();
console.log("closed " + (await closed)[0]);
`;

/** Attaches to a server that listens already, so that the first upgrade may come before `ws` is loaded. */
const ATTACHED = `
import { createServer } from "node:http";
import { Hono } from "hono";
import { createWebSocketController } from "noroshi";
import { attachWebSocket } from "noroshi/node";
import { WebSocket } from "ws";

const controller = createWebSocketController();
const app = new Hono().get("/websocket", controller.upgrade);
const server = createServer().listen(0, "127.0.0.1", () => {
  attachWebSocket(server, app);
  const socket = new WebSocket("ws://127.0.0.1:" + server.address().port + "/websocket");
  socket.on("open", () => controller.close());
  socket.on("close", (code) => {
    console.log("closed " + code);
    server.close();
  });
});
`;

/** Every `@ts-expect-error` stands over a use that must not compile. */
const TYPES = `
import { Hono } from "hono";
import { hc } from "hono/client";
import { defineContract, type WebSocketClient, WebSocketController, WebSocketService } from "noroshi";
import { websocket } from "noroshi/bun";
import { Channels } from "noroshi/channels";
import { createClient } from "noroshi/client";
import { createWebSocketObject, forward } from "noroshi/cloudflare";
import { serve } from "noroshi/serve";
import { testkit } from "noroshi/testing";
import * as v from "valibot";
// @ts-expect-error -- the files of the package are its own
import { Connection } from "noroshi/dist/src/connection.js";

const controller = new WebSocketController();
const app = new Hono().get("/websocket", controller.upgrade).get("/about", (c) => c.text("about"));

controller.handle("add", v.object({ a: v.number(), note: v.optional(v.string()) }), ({ client, message }) => {
  const a: number = message.a;
  const note: string | undefined = message.note;
  const type: string = message.type;
  const from: WebSocketClient = client;
  // @ts-expect-error -- a number, as the schema says
  const wrong: string = message.a;
  // @ts-expect-error -- not in the schema
  message.b;
  return { a, note, type, from: from.uid, wrong };
});
// @ts-expect-error -- the schema is no valibot schema
controller.handle("other", { a: "number" }, () => null);

const service = new WebSocketService(controller);
service.on("close", ({ client, code, reason }) => client.accountability.user === reason && code === 1000);
// @ts-expect-error -- there is no such event
service.on("open", () => {});
// @ts-expect-error -- off removes one callback, never everybody's
service.off("message");
service.broadcast({ type: "news", text: "for editors" }, { role: "editor" });
// @ts-expect-error -- a message has a type
service.broadcast({ text: "for nobody" });
// @ts-expect-error -- the key is "user"
service.broadcast("for Mika", { users: "mika" });

const client = hc<typeof app>("http://localhost:3000");
const socket: WebSocket = client.websocket.$ws();
// @ts-expect-error -- no WebSocket route
client.about.$ws();

const contract = defineContract({
  requests: {
    double: { payload: v.object({ n: v.number() }), reply: v.number() },
    parse: { payload: v.object({ text: v.pipe(v.string(), v.transform(Number)) }) },
  },
  channels: { "room:*": { events: { said: v.object({ text: v.string() }) } } },
});
controller.handle("double", contract.requests.double, ({ message }) => 2 * message.n);
// @ts-expect-error -- a number, as the contract says
controller.handle("double", contract.requests.double, ({ message }) => String(message.n));
controller.handle("parse", contract.requests.parse, ({ message }) => message.text.toFixed());
controller.handle("pipe", v.pipe(v.object({ n: v.number() }), v.transform(({ n }) => ({ twice: 2 * n }))), ({ message }) => {
  const twice: number = message.twice;
  // @ts-expect-error -- the schema puts out another
  return message.n;
});
controller.handle("union", v.variant("kind", [v.object({ kind: v.literal("a"), a: v.number() }), v.object({ kind: v.literal("b") })]),
  ({ message }) => message.kind === "a" ? message.a : 0);
// @ts-expect-error -- a payload is an object
controller.handle("text", v.string(), () => null);
// A schema may be asynchronous.
controller.handle("later", v.objectAsync({ n: v.number() }), () => null);

const channels = new Channels(controller, {
  "room:*": { authorize: () => true, schema: { said: v.object({ text: v.string() }) } },
});
export const published = channels.publish("room:1", "said", { text: "hello" });
// @ts-expect-error -- a text, as the schema says
channels.publish("room:1", "said", { text: 1 });

export async function start(): Promise<void> {
  const server = await serve(app, { port: 0 });
  const url: string = server.url;
  // @ts-expect-error -- the option is "port"
  await serve(app, { ports: 3000 });
  const typed = createClient<typeof contract>(url);
  const doubled: number = await typed.request("double", { n: 1 });
  // @ts-expect-error -- a number, as the contract says
  typed.request("double", { n: "1" });
  typed.on("close", ({ code, isFinal }) => code + doubled > 0 && isFinal);
}

export async function test(): Promise<void> {
  const t = testkit(() => ({ app, controller }), { nodes: 2 });
  const tested = await t.connect<typeof contract>({ token: "ann", node: 1 });
  const doubled: number = await tested.request("double", { n: 1 });
  // @ts-expect-error -- a number, as the contract says
  tested.request("double", { n: "1" });
  // @ts-expect-error -- the clock is the kit's
  t.client({ clock: t.clock });
  // @ts-expect-error -- the option is "nodes"
  testkit(app, { node: doubled });
  await t.close();
}

export class Newsroom extends createWebSocketObject(() => ({ app, controller })) {}
export default { fetch: app.fetch, websocket };
export { Connection, forward, socket };
`;

describe("The npm package", () => {
  let folder: string;
  let consumer: string;
  let tarball: string;

  before(async () => {
    folder = await mkdtemp(join(tmpdir(), "noroshi-package-"));
    tarball = await packPackage(folder);

    consumer = join(folder, "consumer");
    await mkdir(consumer);
    await writeFile(join(consumer, "package.json"), JSON.stringify({ name: "consumer", private: true, type: "module" }));
    // The others come from what `npm ci` installed here, copied as if from the registry: nothing is fetched.
    const beside = BESIDE.map((name) => join(modules, name));
    await writeFile(join(consumer, ".npmrc"), "install-links=true\n");
    await npm(consumer, "install", "--offline", "--ignore-scripts", tarball, ...beside);
    await writeFile(join(consumer, "program.js"), PROGRAM);
    // The same as an ES module and as CommonJS, which Node 20.19 lets require one: valibot's types are then those of another file.
    for (const extension of ["ts", "cts"]) await writeFile(join(consumer, `types.${extension}`), TYPES);
  }, { timeout: 300_000 });
  after(() => rm(folder, { recursive: true, force: true }));

  it("declares what it needs", async () => {
    // Exits with 1 when a dependency or peer dependency is missing or out of range.
    await npm(consumer, "ls", "--all");
  });

  // Of those below, none is tested.
  it("takes no @hono/node-server below the one that it is tested with", async () => {
    const { peerDependencies, devDependencies } = JSON.parse(await readFile(join(root, "package.json"), "utf8"));
    const { imports } = JSON.parse(await readFile(join(root, "deno.json"), "utf8"));
    const floor = `^${devDependencies["@hono/node-server"]}`;
    assert.equal(peerDependencies["@hono/node-server"], floor);
    assert.equal(imports["@hono/node-server"], `npm:@hono/node-server@${floor}`);
  });

  for (const [runtime, [command, ...args]] of Object.entries(RUNTIMES)) {
    it(`serves, answers, broadcasts and ends on ${runtime}`, { timeout: 300_000 }, async () => {
      const output = await run(consumer, command, ...args, "program.js");
      assert.deepEqual(output.trim().split("\n"), ["1 ok 5", "to all", "7", "closed 1001"]);
    });
  }

  /** Resolves when the compiler has nothing to say; rejects with what it says. */
  async function compile(name: string, compilerOptions: Record<string, unknown>, files: string[]): Promise<void> {
    const config = join(consumer, `tsconfig.${name}.json`);
    const common = { target: "es2022", lib: ["es2022", "dom"], module: "nodenext", strict: true, noEmit: true, types: [] };
    await writeFile(config, JSON.stringify({ compilerOptions: { ...common, ...compilerOptions }, files }));
    await run(consumer, process.execPath, join(modules, "typescript/bin/tsc"), "-p", config);
  }

  it(
    "type-checks with moduleResolution nodenext, as an ES module and as CommonJS",
    { timeout: 300_000 },
    () => compile("nodenext", {}, ["types.ts", "types.cts"]),
  );

  it(
    "type-checks with moduleResolution bundler",
    { timeout: 300_000 },
    () => compile("bundler", { module: "esnext", moduleResolution: "bundler" }, ["types.ts"]),
  );

  it("type-checks without the DOM library, its declarations too", { timeout: 300_000 }, async () => {
    const entries = [
      "",
      "/channels",
      "/serve",
      "/bun",
      "/node",
      "/cloudflare",
      "/schedules",
      "/client",
      "/testing",
      "/once",
      "/broadcast-channel",
      "/redis",
      "/postgres",
      "/publisher",
      "/asyncapi",
      "/inspector",
    ];
    await writeFile(join(consumer, "entries.ts"), entries.map((entry) => `export type {} from "noroshi${entry}";`).join("\n"));
    await compile("server", {
      lib: ["es2023"],
      types: ["node"],
      typeRoots: [join(modules, "@types")],
      skipLibCheck: false,
      exactOptionalPropertyTypes: true,
    }, ["entries.ts"]);
  });

  it("type-checks with Deno", { timeout: 300_000 }, async () => {
    await run(consumer, join(modules, ".bin/deno"), "check", "--node-modules-dir=manual", "types.ts");
  });

  it("satisfies publint", { timeout: 300_000 }, async () => {
    await run(root, process.execPath, join(modules, "publint/src/cli.js"), tarball, "--strict");
  });

  it("satisfies attw", { timeout: 300_000 }, async () => {
    const attw = join(modules, "@arethetypeswrong/cli/dist/index.js");
    await run(root, process.execPath, attw, tarball, "--profile", "esm-only", "--no-color");
  });

  it("is bundled with ws for a machine that has no packages", { timeout: 300_000 }, async () => {
    const { build } = await import("esbuild");
    const alone = join(folder, "alone");
    for (const [name, format] of [["program.mjs", "esm"], ["attached.cjs", "cjs"]] as const) {
      await build({
        ...(format === "esm"
          ? { entryPoints: [join(consumer, "program.js")] }
          : { stdin: { contents: ATTACHED, resolveDir: consumer } }),
        bundle: true,
        format,
        platform: "node",
        target: "es2022",
        outfile: join(alone, name),
        // What ws requires of Node, in an ES module.
        banner: {
          js: format === "esm"
            ? 'import { createRequire } from "node:module"; const require = createRequire(import.meta.url);'
            : "",
        },
        logLevel: "error",
      });
      const output = await run(alone, process.execPath, name);
      assert.deepEqual(output.trim().split("\n"), ["1 ok 5", "to all", "7", "closed 1001"].slice(format === "esm" ? 0 : 3));
    }
  });

  it("brings a client of at most 8.7 kB, or 9.8 kB with streams", async (t) => {
    const { build } = await import("esbuild");
    const client = 'export * from "noroshi/client";';
    const sizes = { client, "client with streams": `${client} export { streams } from "noroshi/client/streams";` };
    const limits: number[] = [8_700, 9_800];
    for (const [index, [what, contents]] of Object.entries(sizes).entries()) {
      const { outputFiles: [bundle] } = await build({
        stdin: { contents, resolveDir: consumer },
        bundle: true,
        minify: true,
        format: "esm",
        target: "es2022",
        write: false,
        logLevel: "warning",
      });
      const { byteLength } = gzipSync(bundle!.contents, { level: 9 });
      t.diagnostic(`${what}: ${bundle!.contents.byteLength} bytes minified, ${byteLength} gzipped`);
      assert.ok(byteLength <= limits[index]!, `${what}: ${byteLength} bytes`);
    }
  });

  it("has a command that compares two contracts, for people and for CI", { timeout: 300_000 }, async () => {
    const documents = {
      old: "{ requests: { say: { payload: v.object({ text: v.string() }) } } }",
      new: "{ requests: { say: { payload: v.object({ text: v.string(), mood: v.optional(v.string()) }) } } }",
      short: "{ requests: { say: { payload: v.object({ text: v.pipe(v.string(), v.maxLength(3)) }) } } }",
    };
    const written = Object.entries(documents).map(([name, contract]) =>
      `writeFileSync("${name}.json", JSON.stringify(asyncapi(${contract}, { info: { title: "Test", version: "1" }, toJsonSchema })));`
    );
    await writeFile(
      join(consumer, "write.js"),
      [
        'import { writeFileSync } from "node:fs";',
        `import { toJsonSchema } from ${JSON.stringify(import.meta.resolve("@valibot/to-json-schema"))};`,
        'import { asyncapi } from "noroshi/asyncapi";',
        'import * as v from "valibot";',
        ...written,
      ].join("\n"),
    );
    await run(consumer, process.execPath, "write.js");
    await writeFile(join(consumer, "no.json"), "{}");
    // What npm has made of `bin`.
    const noroshi = join(consumer, "node_modules/.bin/noroshi");
    const compare = (...files: string[]) => exitOf(consumer, noroshi, "contract", "diff", ...files);

    assert.deepEqual(await compare("old.json", "old.json"), [0, "No changes\n", ""]);
    assert.deepEqual(await compare("old.json", "new.json"), [
      0,
      "compatible  Request “say”, mood: added\n1 change, 0 breaking\n",
      "",
    ]);
    assert.deepEqual(await compare("new.json", "short.json"), [
      1,
      "breaking    Request “say”, text: maxLength none → 3\ncompatible  Request “say”, mood: removed, now ignored\n2 changes, 1 breaking\n",
      "",
    ]);
    assert.deepEqual(await compare("old.json", "no.json"), [
      2,
      "",
      "Cannot compare: no.json is no document of noroshi/asyncapi\n",
    ]);
    assert.deepEqual(await compare("old.json", "write.js"), [2, "", "Cannot compare: write.js is not JSON\n"]);
    const [missing, , why] = await compare("old.json", "missing.json");
    assert.equal(missing, 2);
    assert.match(why, /^Cannot compare: ENOENT/);
    const [unclear, , usage] = await compare("old.json");
    assert.equal(unclear, 2);
    assert.match(usage, /^Usage: noroshi contract diff <old\.json> <new\.json>\n/);
    assert.equal((await exitOf(consumer, noroshi, "--help"))[0], 0);
  });

  it("loads without ws, @hono/node-server and the packages of NATS", { timeout: 300_000 }, async () => {
    await rename(join(consumer, "node_modules/ws"), join(folder, "ws"));
    await rename(join(consumer, "node_modules/@hono"), join(folder, "@hono"));
    const entries = [
      "",
      "/serve",
      "/bun",
      "/node",
      "/cloudflare",
      "/schedules",
      "/client",
      "/client/sse",
      "/client/streams",
      "/once",
      "/http",
      "/testing",
      "/broadcast-channel",
      "/redis",
      "/nats",
      "/asyncapi",
      "/inspector",
      "/ai",
    ];
    const imports = entries.map((entry) => `import "noroshi${entry}";`).join(" ");
    await run(consumer, process.execPath, "--input-type=module", "--eval", imports);
  });

  describe("when an optional package is missing", () => {
    const commands = {
      Node: { serve: "npm install ws @hono/node-server", attach: "npm install ws" },
      Deno: { serve: "deno add npm:ws npm:@hono/node-server", attach: "deno add npm:ws" },
    };

    before(async () => {
      await writeFile(
        join(consumer, "serve.js"),
        'import { serve } from "noroshi/serve"; await serve({}).catch(({ message }) => console.log(message));',
      );
      process.env["npm_config_user_agent"] = "npm/11.0.0"; // As if npm had started the programs: it names the command.
      const attach = 'attachWebSocket(createServer().listen(0, "127.0.0.1"));';
      await writeFile(
        join(consumer, "attach.js"),
        `import { createServer } from "node:http"; import { attachWebSocket } from "noroshi/node"; ${attach}`,
      );
      await writeFile(
        join(consumer, "attach.cjs"),
        `const { createServer } = require("node:http"); const { attachWebSocket } = require("noroshi/node"); ${attach}`,
      );
    });

    async function rejects(runtime: keyof typeof commands, name: string, state = "is not installed"): Promise<void> {
      const [command, ...args] = RUNTIMES[runtime]!;
      const line = await run(consumer, command, ...args, "serve.js");
      assert.equal(line.trim(), `Cannot serve: the package ${name} ${state}, run ${commands[runtime].serve}`);
    }

    async function ends(runtime: keyof typeof commands, file: string, state = "is not installed"): Promise<void> {
      const [command, ...args] = RUNTIMES[runtime]!;
      const [code, , errors] = await exitOf(consumer, command, ...args, file);
      assert.equal(code, 1, errors);
      const line = errors.split("\n").find((line) => line.includes("Cannot attach"));
      assert.equal(
        line?.replace(/^.*(?=Cannot attach)/, ""),
        `Cannot attach: the package ws ${state}, run ${commands[runtime].attach}`,
      );
    }

    it("serve rejects with what to install", { timeout: 300_000 }, async () => {
      for (const runtime of ["Node", "Deno"] as const) await rejects(runtime, "@hono/node-server");
      await rename(join(folder, "@hono"), join(consumer, "node_modules/@hono"));
      for (const runtime of ["Node", "Deno"] as const) await rejects(runtime, "ws");
    });

    it("attachWebSocket ends the process with what to install", { timeout: 300_000 }, async () => {
      for (const runtime of ["Node", "Deno"] as const) await ends(runtime, "attach.js");
      await ends("Node", "attach.cjs");
    });

    it("natsEngine reports what to install", { timeout: 300_000 }, async () => {
      await writeFile(
        join(consumer, "nats.js"),
        `import { WebSocketController } from "noroshi";
        import { natsEngine } from "noroshi/nats";
        for (const servers of ["nats://127.0.0.1:1", "ws://127.0.0.1:1"]) {
          const controller = new WebSocketController({ engine: natsEngine({ servers }) });
          await new Promise((resolve) => {
            controller.on("error", ({ error }) => resolve(console.log(error.cause.message)));
            controller.start();
          });
          await controller.close();
        }`,
      );
      const packages = "@nats-io/nats-core @nats-io/transport-node";
      const line = `Cannot connect: the package @nats-io/nats-core is not installed, run npm install ${packages}\n`;
      assert.equal(await run(consumer, process.execPath, "nats.js"), line.repeat(2));
    });

    it("serve and attachWebSocket say when ws is older than they need", { timeout: 300_000 }, async () => {
      const old = join(consumer, "node_modules/ws");
      await mkdir(old);
      await writeFile(join(old, "package.json"), JSON.stringify({ name: "ws", version: "7.5.10", main: "index.js" }));
      await writeFile(join(old, "index.js"), "module.exports = class WebSocket {};"); // It has no WebSocketServer.
      for (const runtime of ["Node", "Deno"] as const) {
        await rejects(runtime, "ws", "has another version than Noroshi needs");
        await ends(runtime, "attach.js", "has another version than Noroshi needs");
      }
      await rm(old, { recursive: true });
    });
  });
});

/** Resolves with what it printed to stdout; rejects with all it printed when it does not exit with 0. */
function run(cwd: string, command: string, ...args: string[]): Promise<string> {
  return new Promise((resolve, reject) => {
    // npm is a script, which Windows starts through a shell only.
    const shell = process.platform === "win32" && command === "npm";
    execFile(command, args, { cwd, shell, env: { ...process.env, NO_COLOR: "1" } }, (error, stdout, stderr) => {
      if (error) reject(new Error(`Cannot run ${command} ${args.join(" ")}: ${error.code}\n${stdout}\n${stderr}`));
      else resolve(stdout);
    });
  });
}

/** Resolves with the exit code, and what it printed to stdout and stderr. */
function exitOf(cwd: string, command: string, ...args: string[]): Promise<[code: number, stdout: string, stderr: string]> {
  return new Promise((resolve) => {
    const shell = process.platform === "win32"; // There `bin` is a script.
    execFile(command, args, { cwd, shell }, (error, stdout, stderr) => resolve([error ? Number(error.code) : 0, stdout, stderr]));
  });
}

function npm(cwd: string, ...args: string[]): Promise<string> {
  // Said outright: under `npm test --silent` it would hide its errors too.
  return run(cwd, "npm", ...args, "--loglevel=error");
}
