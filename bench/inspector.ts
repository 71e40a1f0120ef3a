/**
 * What the inspector costs: `node --import tsx bench/inspector.ts`. CLIENTS, WINDOW (ms) and ROUNDS change it.
 *
 * - Clients: a node has 10,000 in memory, which are quiet. The time of the processor that the process takes is read in windows, by turns
 *   while nobody has the page open, while it shows the overview, and while it shows the clients. What reads the page's connection is in
 *   the same process, and counted.
 * - Connections: connections are opened and closed in memory, by turns without an inspector and with one that nobody has open.
 */
import process from "node:process";
import { setTimeout } from "node:timers/promises";
import { Hono } from "hono";
import { WebSocket } from "ws";
import { createClient } from "../src/client/client.ts";
import { streams } from "../src/client/streams.ts";
import { WebSocketController } from "../src/controller/controller.ts";
import { inspector } from "../src/inspector/inspector.ts";
import { CHANNEL } from "../src/inspector/shown.ts";
import { serve } from "../src/serve/serve.ts";
import { FakeTransport, HANDSHAKE } from "../tests/support/fake-transport.ts";

const [CLIENTS, WINDOW, ROUNDS] = ([["CLIENTS", 10_000], ["WINDOW", 10_000], ["ROUNDS", 5]] as const)
  .map(([name, fallback]) => Number(process.env[name] ?? fallback)) as [number, number, number]; // One for each.

await measureConnections();
await measureClients();
process.exit();

function createNode(isInspected: boolean) {
  const controller = new WebSocketController({ heartbeat: false, logger: false });
  const app = new Hono();
  if (isInspected) app.route("/inspector", inspector(controller, { authorize: () => true }));
  return { app, controller };
}

async function measureConnections(): Promise<void> {
  const nodes = { without: createNode(false), with: createNode(true) };
  const times: Record<string, number[]> = { without: [], with: [] };
  for (let round = 0; round < 14; round++) {
    for (const name of round % 2 ? ["without", "with"] as const : ["with", "without"] as const) {
      const { controller } = nodes[name];
      const before = process.cpuUsage();
      for (let index = 0; index < 20_000; index++) controller.open(new FakeTransport(), HANDSHAKE, null).closed(1000, "", true);
      const { user, system } = process.cpuUsage(before);
      if (round > 3) times[name]!.push((user + system) / 20_000);
      await setTimeout(50);
    }
  }
  console.log(`a connection, opened and closed: ${median(times["without"]!)} µs without, ${median(times["with"]!)} µs with`);
}

async function measureClients(): Promise<void> {
  const { app, controller } = createNode(true);
  const server = await serve(app, { port: 0, hostname: "127.0.0.1", onListen: false, handleSignals: false });
  for (let index = 0; index < CLIENTS; index++) controller.open(new FakeTransport(), HANDSHAKE, null);
  const shares: Record<string, number[]> = { "nobody looks": [], "the overview": [], "the clients": [] };
  for (let round = 0; round < ROUNDS; round++) {
    const names = Object.keys(shares);
    for (const name of round % 2 ? names.reverse() : names) {
      const page = name === "nobody looks" ? undefined : createClient(`${server.url}inspector/live`, { WebSocket, streams });
      page?.subscribe(CHANNEL, { onEvent: () => {} });
      await page?.ready;
      await setTimeout(2_000);
      const [before, startedAt] = [process.cpuUsage(), performance.now()];
      // As the page does with as many clients: every ten seconds.
      if (name === "the clients") { for await (const _ of page!.stream("look", { about: "clients" })); }
      await setTimeout(WINDOW);
      const { user, system } = process.cpuUsage(before);
      shares[name]!.push((user + system) / 10 / (performance.now() - startedAt));
      await page?.close();
      await setTimeout(7_000); // The node goes on for five seconds without the page.
    }
  }
  for (const [name, all] of Object.entries(shares)) {
    console.log(`${name}: ${median(all)} % of a core (${all.map((share) => share.toFixed(2)).join(", ")})`);
  }
}

function median(values: number[]): string {
  const sorted = [...values].sort((a, b) => a - b);
  return (sorted[sorted.length >> 1] ?? 0).toFixed(2);
}
