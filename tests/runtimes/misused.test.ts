/** The log of a server that is set up wrongly: each line names the mistake and the remedy. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { dirname, join } from "node:path";
import { createInterface } from "node:readline";
import type { Readable } from "node:stream";
import { after, before, describe, it } from "node:test";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";
import { Miniflare } from "miniflare";
import { COMMANDS } from "./server.ts";
import { Wire } from "./wire.ts";

const fixture = (name: string) => join(dirname(fileURLToPath(import.meta.url)), "fixture", name);

/** The message of a line of the log. */
const messageOf = (line: string): string => JSON.parse(line).message;

/** Lines of a log, with a way to wait for one. */
class Log {
  #lines: string[] = [];
  #wake = () => {};

  add(line: string): void {
    this.#lines.push(line);
    this.#wake();
  }

  async find(pattern: RegExp): Promise<string> {
    for (;;) {
      const line = this.#lines.find((line) => pattern.test(line));
      if (line !== undefined) return line;
      await new Promise<void>((resolve) => this.#wake = resolve);
    }
  }
}

describe("A misused server", () => {
  after(() => Wire.resetAll());

  const cases: [runtime: string, misuse: string, advice: RegExp][] = [
    ["bun", "no handler", /pass websocket of "noroshi\/bun": export default \{ fetch: app\.fetch, websocket \}/],
    ["bun", "no server", /did not receive Bun's server\. Write fetch: \(request, server\) => app\.fetch\(request, server\)/],
    [
      "node",
      "not attached",
      /the server is not attached\. Write attachWebSocket\(server, app\) with attachWebSocket of "noroshi\/node"/,
    ],
    ["deno", "not attached", /Write Deno\.serve\(app\.fetch\), or attachWebSocket\(server, app\)/],
  ];
  for (const [runtime, misuse, advice] of cases) {
    it(`answers 501 and logs the remedy on ${runtime}: ${misuse}`, { timeout: 300_000 }, async (t) => {
      const [command = "", ...args] = COMMANDS[runtime]!;
      const child = spawn(command, [...args, fixture("misused.ts"), misuse], { stdio: ["ignore", "pipe", "pipe"] });
      const exited = new Promise((resolve) => child.on("exit", resolve));
      t.after(() => {
        child.kill();
        return exited;
      });
      const log = new Log();
      for (const input of [child.stdout, child.stderr]) createInterface({ input }).on("line", (line) => log.add(line));
      const port = Number((await log.find(/^PORT /)).slice(5));

      const { answer } = await Wire.request(port, "/websocket");
      assert.equal(answer.status, 501);
      assert.equal(JSON.parse(answer.body).error.code, "SERVICE_UNAVAILABLE");
      assert.match(messageOf(await log.find(/"event":"noroshi\./)), advice);

      assert.equal((await Wire.request(port, "/called")).answer.status, 500);
      await log.find(/Cannot upgrade: pass the handler without calling it, app\.get\("\/websocket", controller\.upgrade\)/);
    });
  }
});

describe("A misused Worker", () => {
  let script: string;
  before(async () => {
    const { outputFiles } = await build({
      entryPoints: [fixture("plain-worker.ts")],
      bundle: true,
      format: "esm",
      target: "es2024",
      write: false,
      external: ["node:*", "ws", "@hono/node-server"],
    });
    script = outputFiles[0]!.text;
  });
  after(() => Wire.resetAll());

  async function start(useSQLite: boolean) {
    const log = new Log();
    const miniflare = new Miniflare({
      // Given as a list, because Miniflare would otherwise resolve modules that the Worker never imports.
      modules: [{ type: "ESModule", path: "worker.js", contents: script }],
      compatibilityDate: "2026-07-01",
      compatibilityFlags: ["enable_request_signal"],
      host: "127.0.0.1",
      port: 0,
      durableObjects: { ROOM: { className: "Room", useSQLite } },
      handleRuntimeStdio: (...outputs: Readable[]) => {
        for (const input of outputs) createInterface({ input }).on("line", (line) => log.add(line));
      },
    });
    const { port } = await miniflare.ready;
    return { miniflare, log, port: Number(port) };
  }

  it("logs how to write a Durable Object when the app runs in a plain Worker", { timeout: 300_000 }, async (t) => {
    const { miniflare, log, port } = await start(true);
    t.after(() => miniflare.dispose());
    assert.equal((await Wire.request(port, "/websocket")).answer.status, 501);
    const line = messageOf(await log.find(/"event":"noroshi\./));
    assert.match(line, /runs outside of a Durable Object/);
    assert.match(line, /export class Room extends createWebSocketObject\(\(\) => \(\{ app, controller \}\)\) \{\}/);
    assert.match(line, /export default forward\(\(env\) => env\.ROOM\.getByName\("main"\)\)/);
  });

  it("times out the body of a request after another request has ended", { timeout: 300_000 }, async (t) => {
    const { miniflare, log, port } = await start(true);
    t.after(() => miniflare.dispose());
    const publish = async (by: string) => {
      const headers = { Upgrade: undefined, Connection: undefined, "Content-Length": "50" };
      const wire = Wire.begin(port, `/channels/news?by=${by}`, { method: "POST", headers, follow: Buffer.from('{"event":') });
      await log.find(new RegExp(`^ASKED ${by}$`));
      return wire;
    };
    const first = await publish("first");
    const second = await publish("second");
    first.socket.destroy();
    await second.answered;
    assert.equal(second.answer.status, 408);
  });

  it("names the code of a Durable Object in the error when a Worker calls serve", { timeout: 300_000 }, async (t) => {
    const { miniflare, port } = await start(true);
    t.after(() => miniflare.dispose());
    const { body } = (await Wire.request(port, "/serve", { headers: {} })).answer;
    assert.match(
      body,
      /^Cannot serve: .* Write export class Room extends createWebSocketObject\(.* both of "noroshi\/cloudflare"$/,
    );
  });

  it("logs that hibernation loses channels when its class has no SQLite storage", { timeout: 300_000 }, async (t) => {
    const { miniflare, log, port } = await start(false);
    t.after(() => miniflare.dispose());
    await Wire.open(port, "/object");
    assert.match(
      await log.find(/"event":"noroshi\./),
      /Channels are lost in hibernation: .* Write new_sqlite_classes instead of new_classes in the migrations of wrangler/,
    );
  });
});
