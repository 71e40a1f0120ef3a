/** Runs the server of one's own of the guide to draining, with a shorter window. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFile } from "node:fs/promises";
import { connect } from "node:net";
import { join } from "node:path";
import process from "node:process";
import { createInterface } from "node:readline";
import { after, it } from "node:test";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("../..", import.meta.url));

/** The program, and what it takes for granted. */
async function program(): Promise<string> {
  const guide = await readFile(join(root, "docs/guides/drain.md"), "utf8");
  const [, section = ""] = guide.split("## With a server of your own");
  const [, code = ""] = section.split(/```(?:ts no-run)?\n/);
  const lines = `
    import { Hono } from "hono";
    import { WebSocketController } from "${new URL("../../mod.ts", import.meta.url).href}";
    const controller = new WebSocketController();
    const app = new Hono().get("/websocket", controller.upgrade);
    ${code}
  `;
  const replacements = [
    ['"noroshi/node"', `"${new URL("../../src/runtimes/node.ts", import.meta.url).href}"`],
    ["server.listen(3000);", 'server.listen(0, "127.0.0.1", () => console.log(server.address().port));'],
    ["window: 30_000", "window: 100"],
    ["10_000", "1_000"],
  ] as const;
  return replacements.reduce((text, [from, to]) => {
    assert.equal(text.split(from).length, 2, from);
    return text.replace(from, to);
  }, lines);
}

it("exits with 0 though a connection sends nothing and another one half of a request", { timeout: 300_000 }, async () => {
  const args = ["--import", "./scripts/typescript.mjs", "--input-type=module", "--eval", await program()];
  const child = spawn(process.execPath, args, { cwd: root, stdio: ["ignore", "pipe", "inherit"] });
  after(() => child.kill("SIGKILL"));
  const exited = once(child, "exit");
  const [port] = await once(createInterface({ input: child.stdout! }), "line");
  const sockets = ["", "POST /websocket HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nx"].map((bytes) => {
    const socket = connect(Number(port), "127.0.0.1").on("error", () => {}); // A reset, which the end of the process is.
    socket.write(bytes);
    return socket;
  });
  after(() => sockets.forEach((socket) => socket.destroy()));
  await Promise.all(sockets.map((socket) => once(socket, "connect")));
  child.kill("SIGTERM");
  assert.deepEqual(await exited, [0, null]);
});
