/**
 * `npm run cluster`: the newsroom on three nodes, one on each runtime, which meet at a NATS server, behind a front that spreads clients
 * over them. Whatever is killed is started again after three seconds, so that one can watch what becomes of its clients.
 *
 * `PORT` and `HOST` are the front's, and `NATS_URL` is a server with JetStream that runs already.
 */
import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { type AddressInfo, createServer } from "node:net";
import { tmpdir } from "node:os";
import { delimiter, dirname, join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { Front } from "./front.ts";
import { Program } from "./program.ts";

// On this machine alone unless told: the passwords are on the page, and so is a button that ends a node.
const { HOST = "127.0.0.1", PORT = "3000", NATS_URL, JWT_SECRET = randomUUID(), ENGINE_SECRET = randomUUID() } = process.env;

const here = dirname(fileURLToPath(import.meta.url));
const bin = (name: string) => join(here, "../../node_modules/.bin", name);
const RUNTIMES = {
  Bun: [bin("bun"), "run"],
  Deno: [bin("deno"), "run", "-A", "--no-lock"],
  Node: [process.execPath, "--import", "tsx"],
};

const broker = NATS_URL ? undefined : await findBroker();
const url = NATS_URL ?? broker?.url;
if (!url) {
  console.error(
    "Cannot start the cluster: nats-server is not installed. On Debian apt-get install nats-server, or set NATS_URL to one that " +
      "runs with JetStream, such as NATS_URL=nats://127.0.0.1:4222",
  );
  process.exit(1);
}

// All nodes sign with one secret what they send to each other, and take each other's tokens.
const env = { HOST: "127.0.0.1", NATS_URL: url, JWT_SECRET, ENGINE_SECRET };
const ports: number[] = [];
const nodes: Program[] = [];
for (const [name, command] of Object.entries(RUNTIMES)) {
  const port = await freePort();
  ports.push(port);
  nodes.push(
    new Program({
      name,
      command: [...command, join(here, "node.ts")],
      env: { ...env, NODE_NAME: name, PORT: `${port}` },
      ready: /^Listening on/,
    }),
  );
}
const front = new Front(ports);

let isStopping = false;
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.on(signal, stop);

try {
  await broker?.program.start();
  await Promise.all(nodes.map((node) => node.start()));
  const port = await front.listen(Number(PORT), HOST);
  console.log(`\nThe newsroom is at http://${HOST === "127.0.0.1" ? "localhost" : HOST}:${port}/`);
  console.log("Kill the node that serves you on the page, or any by its pid, and watch. Ctrl-C ends all of it.\n");
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
  await broker?.program.stop();
  process.exit(0);
}

/** Debian's `nats-server`, on a free port, with a store that is gone when this process ends; nothing where it is not installed. */
async function findBroker(): Promise<{ url: string; program: Program } | undefined> {
  const folders = [...(process.env["PATH"] ?? "").split(delimiter), "/usr/sbin", "/usr/local/sbin"];
  const command = folders.map((folder) => join(folder, "nats-server")).find((path) => existsSync(path));
  if (!command) return undefined;
  const port = await freePort();
  const store = mkdtempSync(join(tmpdir(), "newsroom-"));
  const program = new Program({
    name: "nats-server",
    command: [command, "-a", "127.0.0.1", "-p", `${port}`, "-js", "-sd", store],
    ready: /Server is ready/,
    hidden: /\[INF\]/,
  });
  process.on("exit", () => rmSync(store, { recursive: true, force: true }));
  return { url: `nats://127.0.0.1:${port}`, program };
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
