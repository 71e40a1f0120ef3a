/**
 * The client with no more than React Native offers, which does not run here: compiled to what its presets compile to, with its globals
 * alone, and over a WebSocket that behaves as its own does.
 */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import process from "node:process";
import { after, before, describe, it } from "node:test";
import { fileURLToPath } from "node:url";
import { Hono } from "hono";
import { WebSocket } from "ws";
import { WebSocketController } from "../../mod.ts";
import { Channels } from "../../src/channels/channels.ts";
import type * as Client from "../../src/client/client.ts";
import { serve } from "../../src/serve/serve.ts";
import { PATIENT } from "../support/patient.ts";
import { Proxy } from "../support/proxy.ts";

const elsewhere = "Bun" in globalThis || "Deno" in globalThis ? "it is bundled and evaluated on Node" : false;
const here = dirname(fileURLToPath(import.meta.url));

/** The globals of the language that Hermes has; others of the process are undefined to the client. */
const LANGUAGE =
  "Array ArrayBuffer Boolean DataView Date Error EvalError Float32Array Float64Array Function Infinity Int16Array " +
  "Int32Array Int8Array JSON Map Math NaN Number Object Promise Proxy RangeError ReferenceError Reflect RegExp Set String Symbol " +
  "SyntaxError TypeError URIError Uint16Array Uint32Array Uint8Array Uint8ClampedArray WeakMap WeakSet decodeURI decodeURIComponent " +
  "encodeURI encodeURIComponent isFinite isNaN parseFloat parseInt undefined globalThis";

/** Those that React Native adds, as far as a client could want them. There is no event, no page, no crypto and no structuredClone. */
const PLATFORM = "AbortController AbortSignal Blob URL URLSearchParams clearInterval clearTimeout console fetch queueMicrotask " +
  "setInterval setTimeout";

/** Makes the client in a file, whose globals are those of React Native. */
const EVALUATE = `
const allowed = new Set(ALLOWED);
// \`Symbol\` with what Hermes has: its \`for await\` is compiled, to something that goes by a polyfilled symbol.
const own = new Set(["iterator", "hasInstance", "toPrimitive", "toStringTag", "species", "for", "keyFor"].concat(WITH_ITERATION ? ["asyncIterator"] : []));
const HermesSymbol = Object.assign((description) => Symbol(description), { prototype: Symbol.prototype });
for (const name of own) HermesSymbol[name] = Symbol[name];
const platform = { Symbol: HermesSymbol, navigator: { product: "ReactNative" } };
for (const name of allowed) if (!(name in platform)) platform[name] = globalThis[name];
platform.globalThis = platform;
const names = [...new Set([...Object.getOwnPropertyNames(globalThis), ...Object.keys(platform)])].filter((name) => !["eval", "undefined"].includes(name));
const values = names.map((name) => platform[name]);
export const { BareClient, ClientError, createClient } = new Function(...names, CODE + "; return client;")(...values);
`;

/** The source of a module with the client as React Native would have it. */
async function build(withIteration: boolean): Promise<string> {
  const { build } = await import("esbuild");
  const { outputFiles: [bundle] } = await build({
    entryPoints: [join(here, "../../src/client/client.ts")],
    bundle: true,
    format: "iife",
    globalName: "client",
    // Without private fields, async functions and async generators, which React Native compiles away.
    target: "es2016",
    write: false,
  });
  return EVALUATE
    .replace("WITH_ITERATION", String(withIteration))
    .replace("ALLOWED", JSON.stringify(`${LANGUAGE} ${PLATFORM}`.split(" ")))
    .replace("CODE", () => JSON.stringify(bundle!.text));
}

/** Behaves as that of React Native, over a real one: it throws where that does, and leaves out what that leaves out. */
class NativeWebSocket implements Client.WebSocketLike {
  static readonly complaints: string[] = [];
  readyState = 0;
  onopen: ((event: never) => void) | null = null;
  onmessage: ((event: never) => void) | null = null;
  onclose: ((event: never) => void) | null = null;
  onerror: ((event: never) => void) | null = null;
  readonly #socket: WebSocket;

  constructor(url: string, protocols?: string | string[] | null, options?: { headers?: Record<string, string> }) {
    const { headers = {}, ...others } = options ?? {};
    if (Object.keys(others).length > 0) NativeWebSocket.complaints.push(`Unrecognized options ${Object.keys(others)}`);
    this.#socket = new WebSocket(url, Array.isArray(protocols) ? protocols : [], { headers });
    this.#socket.on("open", () => {
      this.readyState = 1;
      this.onopen?.({ type: "open" } as never);
    });
    this.#socket.on("message", (data: ArrayBufferLike, isBinary) => {
      this.onmessage?.({ type: "message", data: isBinary ? data : String(data) } as never);
    });
    this.#socket.on("error", () => this.#failed = true);
    // Neither says whether it was clean.
    this.#socket.on("close", (code, reason) => {
      this.readyState = 3;
      if (this.#failed) this.onerror?.({ type: "error" } as never);
      this.onclose?.(
        (this.#failed
          ? { type: "close", code: 1006, reason: "Unable to resolve host" }
          : { type: "close", code, reason: String(reason) }) as never,
      );
    });
  }
  #failed = false;

  get binaryType(): string | undefined {
    return undefined;
  }
  set binaryType(type: string) {
    if (type !== "blob" && type !== "arraybuffer") throw new Error("binaryType must be either 'blob' or 'arraybuffer'");
  }

  send(data: unknown): void {
    if (this.readyState === 0) throw new Error("INVALID_STATE_ERR");
    if (typeof data !== "string") throw new Error("Unsupported data type");
    this.#socket.send(data);
  }

  close(code = 1000, reason = ""): void {
    if (this.readyState >= 2) return;
    this.readyState = 2;
    this.#socket.close(code, reason);
  }
}

describe("The client, with what React Native has", { skip: elsewhere }, () => {
  let folder: string;
  before(async () => void (folder = await mkdtemp(join(tmpdir(), "noroshi-react-native-"))));
  after(() => rm(folder, { recursive: true, force: true }));

  /** Everything of the test is as it is; only the client that it imports is another one. */
  it("passes its unit tests, but for those of `using` and of a page", async () => {
    const { build: bundle } = await import("esbuild");
    const source = await build(true);
    const tests = ["connection", "hostile", "identity", "requests", "subscriptions"].map((name) => `${name}.test.ts`);
    await bundle({
      entryPoints: tests.map((name) => join(here, "../client", name)),
      bundle: true,
      splitting: true,
      format: "esm",
      platform: "node",
      target: "es2022",
      outdir: folder,
      outExtension: { ".js": ".mjs" },
      plugins: [{
        name: "react-native",
        setup({ onResolve, onLoad }) {
          onResolve({ filter: /\/src\/client\/client\.ts$/ }, () => ({ path: "client", namespace: "react-native" }));
          onLoad({ filter: /.*/, namespace: "react-native" }, () => ({ contents: source }));
        },
      }],
    });
    const files = tests.map((name) => join(folder, name.replace(/ts$/, "mjs")));
    const output = await new Promise<string>((resolve) => {
      // Of a test that runs others Node expects another protocol.
      const { NODE_TEST_CONTEXT: _, ...env } = process.env;
      const args = ["--test", "--test-reporter=tap", ...files];
      execFile(process.execPath, args, { env, maxBuffer: 2 ** 26 }, (_error, stdout, stderr) => resolve(stdout + stderr));
    });
    const failed = [...output.matchAll(/^ {4}not ok \d+ - (.*)$/gm)].map(([, name]) => name);
    assert.deepEqual(failed.sort(), [
      "ends with the block of a using declaration, and await using waits for the socket's end",
      "is called back, and ends when it is disposed of or told to",
      "is disposed of at the end of a block",
      "looks when the network changes or the page is seen, and not after it was closed",
      "tries at once when the application asks for it, and not before its time when the page is seen",
    ], output);
    const passed = output.match(/^ {4}ok /gm)?.length ?? 0;
    assert.ok(passed >= 55, `${passed} passed`);
  });

  it("does over such a WebSocket what it promises, without async iteration", async () => {
    const path = join(folder, "client.mjs");
    await writeFile(path, await build(false));
    const { createClient }: typeof Client = await import(path);
    const controller = new WebSocketController({
      authenticate: (credentials) =>
        "access_token" in credentials ? { accountability: { user: credentials.access_token, role: null } } : null,
      logger: false,
    });
    const channels = new Channels(controller, {
      "room:*": { authorize: () => true, history: { size: 100, ttl: 600_000 }, presence: true },
    });
    const headers = new Set<unknown>();
    const app = new Hono().use(async (c, next) => {
      headers.add(c.req.header("x-app"));
      await next();
    }).get("/websocket", controller.upgrade);
    const server = await serve(app, { port: 0, hostname: "127.0.0.1", onListen: false });
    const proxy = await Proxy.open(server.port);
    const clients: Client.Client[] = [];
    try {
      for (const tokenIn of ["message", "protocol"] as const) {
        const client = createClient(`ws://127.0.0.1:${proxy.port}/websocket`, {
          token: () => Promise.resolve("ann"),
          tokenIn,
          WebSocket: class extends NativeWebSocket {
            constructor(url: string, protocols?: string[]) {
              super(url, protocols, { headers: { "x-app": "the test" } });
            }
          },
          backoff: { base: 20, cap: 100 },
          ...PATIENT,
        });
        clients.push(client);
        const channel = `room:${tokenIn}`;
        const heard: unknown[] = [];
        let wake = () => {};
        const heardAll = async (count: number) => {
          while (heard.length < count) await new Promise<void>((resolve) => wake = resolve);
        };
        const hear = (what: unknown) => {
          heard.push(what);
          wake();
        };
        await client.ready;
        const present = new Promise<void>((resolve) => {
          const subscription = client.subscribe(channel, {
            onInit: () => hear("init"),
            onEvent: ({ data }) => hear(data),
            onGap: () => hear("gap"),
            onPresence: ({ present: [member] }) => void (member?.user === "ann" && resolve()),
          });
          // What `Symbol.dispose` would have named where it is undefined.
          for (const each of [client, subscription]) assert.ok(!Object.keys(each).includes("undefined"));
        });
        await present;
        await client.publish(channel, "say", "one");
        await heardAll(2);
        await assert.rejects(client.request("nothing-takes-it"), { code: "UNSUPPORTED_TYPE" });
        const lost = new Promise<Client.ClientClose>((resolve) => client.on("close", resolve));
        proxy.cut();
        const { code, wasClean, isFinal } = await lost;
        assert.deepEqual([code, wasClean, isFinal], [1006, false, false]);
        await channels.publish(channel, "say", "two");
        await heardAll(3);
        assert.deepEqual(heard, ["init", "one", "two"]);
      }
      assert.deepEqual([NativeWebSocket.complaints, [...headers]], [[], ["the test"]]);
    } finally {
      await Promise.all(clients.map((client) => client.close()));
      proxy.close();
      await server.close();
    }
  });
});
