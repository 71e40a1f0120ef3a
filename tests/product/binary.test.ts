/** One file that needs no runtime installed: what `bun build --compile` makes of an app serves its route. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdtemp, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import process from "node:process";
import { createInterface } from "node:readline";
import { it } from "node:test";
import { fileURLToPath } from "node:url";
import { WebSocket } from "ws";
import { createClient } from "../../src/client/client.ts";
import { start } from "../docs/projects.ts";
import { freePort } from "../support/brokers.ts";
import { PATIENT } from "../support/patient.ts";

const root = join(dirname(fileURLToPath(import.meta.url)), "../..");

const APP = `
import { Hono } from "hono";
import { WebSocketController } from "${join(root, "mod.ts")}";
import { websocket } from "${join(root, "src/runtimes/bun.ts")}";
import * as v from "valibot";

const controller = new WebSocketController();
controller.handle("double", v.object({ n: v.number() }), ({ message }) => 2 * message.n);
const app = new Hono().get("/websocket", controller.upgrade);
export default { fetch: app.fetch, websocket, port: Number(process.env.PORT), hostname: "127.0.0.1" };
`;

const noShell = process.platform === "win32" && "the command is that of a POSIX shell";

it("bun build --compile makes a binary that serves the route", { timeout: 300_000, skip: noShell }, async (t) => {
  const folder = await mkdtemp(join(tmpdir(), "noroshi-binary-"));
  t.after(() => rm(folder, { recursive: true, force: true }));
  await symlink(join(root, "node_modules"), join(folder, "node_modules"), "junction");
  await writeFile(join(folder, "main.ts"), APP);
  await start("bun build --compile main.ts --outfile server", folder, { path: [join(root, "node_modules/.bin")] }).ended;

  const port = await freePort();
  // Without a PATH there is no Bun that it could call.
  const server = spawn(join(folder, "server"), { env: { PORT: String(port), PATH: "" }, stdio: ["ignore", "pipe", "inherit"] });
  t.after(() => server.kill());
  const [line] = await Promise.race([
    once(createInterface({ input: server.stdout })),
    new Promise<never>((_, reject) => server.on("exit", (code) => reject(new Error(`The server exited with ${code}`)))),
  ]);
  assert.match(line, /Started development server/);
  const client = createClient(`ws://127.0.0.1:${port}/websocket`, { WebSocket: WebSocket as never, ...PATIENT }); // As the client uses it.
  assert.equal(await client.request("double", { n: 21 }), 42);
  await client.close();
});

function once(lines: ReturnType<typeof createInterface>): Promise<[line: string]> {
  return new Promise((resolve) => lines.once("line", (line) => resolve([line])));
}
