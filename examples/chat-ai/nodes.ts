/**
 * `npm run chat-ai:nodes`: the chat on three nodes that meet at Redis, behind a front that spreads clients over them. Kill the node that
 * writes an answer, or the one that serves a page, by its pid, and watch. A killed node starts again after three seconds.
 *
 * `PORT` is the front's, and `REDIS_URL` is a server that runs already. Without it Debian's `redis-server` is started.
 */
import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { type AddressInfo, createServer } from "node:net";
import { join } from "node:path";
import process from "node:process";
import { Front } from "../cluster/front.ts";
import { Program } from "../cluster/program.ts";

const { PORT = "3000", REDIS_URL, ENGINE_SECRET = randomUUID() } = process.env;

const brokerPort = await freePort();
const broker = REDIS_URL ? undefined : new Program({
  name: "redis-server",
  command: ["redis-server", "--port", `${brokerPort}`, "--bind", "127.0.0.1", "--save", ""],
  ready: /Ready to accept connections/,
  hidden: /./,
});
const env = { REDIS_URL: REDIS_URL || `redis://127.0.0.1:${brokerPort}`, ENGINE_SECRET };
const ports = [await freePort(), await freePort(), await freePort()];
const nodes = ports.map((port, index) => {
  const name = `node-${index + 1}`;
  const command = [process.execPath, ...process.execArgv, join(import.meta.dirname, "main.ts")];
  return new Program({ name, command, env: { ...env, NODE_NAME: name, PORT: `${port}` }, ready: /^Listening on/ });
});
const front = new Front(ports);

let isStopping = false;
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.on(signal, stop);

try {
  await broker?.start();
  await Promise.all(nodes.map((node) => node.start()));
  console.log(`\nThe chat is at http://localhost:${await front.listen(Number(PORT), "127.0.0.1")}/`);
  console.log("Ctrl-C ends all of it.\n");
} catch (error) {
  if (!isStopping) {
    console.error(error instanceof Error ? error.message : error);
    process.exit(1);
  }
}

/** Ends the nodes before what they need; at once when asked again. */
async function stop(): Promise<void> {
  if (isStopping) process.exit(1);
  isStopping = true;
  await Promise.all(nodes.map((node) => node.stop()));
  front.close();
  await broker?.stop();
  process.exit(0);
}

/** A port of this machine that nobody listens to. */
async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address() as AddressInfo; // Of a TCP server.
  server.close();
  await once(server, "close");
  return port;
}
