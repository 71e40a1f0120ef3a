/**
 * What the inspector costs: `node --import tsx bench/inspector.ts`.
 *
 * - Clients: a node with 10,000 clients in another process, which send 1,000 messages a second. The time of the processor that the node
 *   takes is read in windows, by turns while the page is closed, shows the overview, and shows the clients.
 * - Connections: connections are opened and closed in memory, by turns without an inspector and with one that nobody has open.
 *
 * CLIENTS, WINDOW (ms) and ROUNDS change it.
 */
import { fork } from "node:child_process";
import { once } from "node:events";
import process from "node:process";
import { setTimeout } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { Hono } from "hono";
import * as v from "valibot";
import { WebSocket } from "ws";
import { createClient } from "../src/client/client.ts";
import { WebSocketController } from "../src/controller/controller.ts";
import { inspector } from "../src/inspector/inspector.ts";
import { CHANNEL } from "../src/inspector/shown.ts";
import { serve } from "../src/serve/serve.ts";
import { FakeTransport, HANDSHAKE } from "../tests/support/fake-transport.ts";

const [COUNT, WINDOW, ROUNDS] = ([["CLIENTS", 10_000], ["WINDOW", 20_000], ["ROUNDS", 4]] as const)
  .map(([name, fallback]) => Number(process.env[name] ?? fallback)) as [number, number, number]; // One for each.

/** Time between two messages of one client, in ms. */
const PERIOD = 10_000;

if (process.argv[2] === "clients") await beClients(process.argv[3]!);
else {
  await measureConnections();
  await measureClients();
  process.exit();
}

function createNode(isInspected: boolean) {
  const controller = new WebSocketController({ rateLimit: false, logger: false });
  controller.handle("say", v.object({ text: v.string() }), ({ message }) => message.text);
  const app = new Hono().get("/websocket", controller.upgrade);
  if (isInspected) app.route("/inspector", inspector(controller, { authorize: () => true }));
  return { app, controller };
}

async function measureConnections(): Promise<void> {
  const nodes = { without: createNode(false), with: createNode(true) };
  const times: Record<string, number[]> = { without: [], with: [] };
  for (let round = 0; round < 14; round++) {
    for (const name of round % 2 ? ["without", "with"] as const : ["with", "without"] as const) {
      const { controller } = nodes[name];
      const startedAt = performance.now();
      for (let index = 0; index < 20_000; index++) controller.open(new FakeTransport(), HANDSHAKE, null).closed(1000, "", true);
      if (round > 3) times[name]!.push((performance.now() - startedAt) / 20);
      await setTimeout(50);
    }
  }
  console.log(`connection, opened and closed: ${median(times["without"]!)} µs without, ${median(times["with"]!)} µs with`);
}

async function measureClients(): Promise<void> {
  const { app, controller } = createNode(true);
  const server = await serve(app, { port: 0, hostname: "127.0.0.1", onListen: false, handleSignals: false });
  const clients = fork(fileURLToPath(import.meta.url), ["clients", server.url], { execArgv: process.execArgv });
  await once(clients, "message");
  console.log(`${controller.stats().clients} clients`);
  const shares: Record<string, number[]> = { closed: [], overview: [], clients: [] };
  for (let round = 0; round < ROUNDS; round++) {
    const names = Object.keys(shares);
    for (const name of round % 2 ? names.reverse() : names) {
      const page = name === "closed" ? undefined : createClient(`${server.url}inspector/live`, { WebSocket });
      page?.subscribe(CHANNEL, { onEvent: () => {} });
      await page?.ready;
      await setTimeout(2_000);
      const [before, startedAt] = [process.cpuUsage(), performance.now()];
      while (performance.now() - startedAt < WINDOW) {
        // As the page does with as many clients.
        if (name === "clients") await read(page!);
        await setTimeout(Math.min(10_000, WINDOW));
      }
      const { user, system } = process.cpuUsage(before);
      const share = (user + system) / 10 / (performance.now() - startedAt);
      shares[name]!.push(share);
      console.log(`${name}: ${share.toFixed(2)} %`);
      await page?.close();
      await setTimeout(2_000);
    }
  }
  for (const [name, all] of Object.entries(shares)) console.log(`${name}, median: ${median(all)} % of a core`);
  clients.kill();
}

/** The page is in this process, too: what it parses is counted. */
async function read(page: ReturnType<typeof createClient>): Promise<void> {
  for await (const _ of page.stream("look", { about: "clients" }));
}

async function beClients(url: string): Promise<void> {
  const sockets: WebSocket[] = [];
  while (sockets.length < COUNT) {
    const some = Array.from({ length: 100 }, () => new WebSocket(`${url}websocket`, { perMessageDeflate: false }));
    await Promise.all(some.map((socket) => once(socket, "open")));
    sockets.push(...some);
  }
  process.send!("ready"); // It was forked.
  let next = 0;
  setInterval(() => {
    for (let index = 0; index < COUNT * 50 / PERIOD; index++) sockets[next++ % COUNT]!.send('{"type":"say","uid":1,"text":"hi"}');
  }, 50);
  process.on("disconnect", () => process.exit());
}

function median(values: number[]): string {
  const sorted = [...values].sort((a, b) => a - b);
  return (sorted[sorted.length >> 1] ?? 0).toFixed(2);
}
