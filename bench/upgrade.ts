/**
 * Measures the upgrade route without sockets: the CPU from Hono's `fetch` to an open connection, and to its close, on any runtime. It runs
 * for 5 s.
 *
 * `node --import tsx bench/upgrade.ts`, `bun bench/upgrade.ts`, `deno run -A --no-check bench/upgrade.ts`
 */
import process from "node:process";
import type { Connection } from "../src/connection/connection.ts";
import { Connections } from "../src/connection/connections.ts";
import type { Transport } from "../src/delivery/transport.ts";
import { HOST, type Runtime } from "../src/runtimes/runtime.ts";
import { createNoroshi } from "./servers/noroshi-app.ts";

const ROUNDS = 20;
const COUNT = 5_000;

const { app } = createNoroshi();
const transport: Transport = {
  readyState: 1,
  bufferedAmount: 0,
  socket: {},
  send: () => true,
  close() {},
  terminate() {},
};
let opened: Connection | undefined;
const runtime: Runtime = {
  ip: () => "127.0.0.1",
  accept(_request, acceptance) {
    opened = acceptance.open(transport);
    return new Response(null);
  },
};
const env = { [HOST]: { runtime, connections: new Connections() } };
const headers = {
  host: "127.0.0.1",
  upgrade: "websocket",
  connection: "Upgrade",
  "sec-websocket-version": "13",
  "sec-websocket-key": "AAAAAAAAAAAAAAAAAAAAAA==",
};

/** In microseconds. */
function cpu(): number {
  const { user, system } = process.cpuUsage();
  return user + system;
}

let least = Infinity;
for (let round = 0; round < ROUNDS; round++) {
  const requests = Array.from(
    { length: COUNT },
    (_, i) => new Request(`http://127.0.0.1/websocket?access_token=u${i % 50}:many`, { headers }),
  );
  const before = cpu();
  for (const request of requests) {
    const response = await app.fetch(request, env);
    if (!opened) throw new Error(`Cannot measure: it answered ${response.status}`);
    opened.closed(1006, "", false);
    opened = undefined;
  }
  least = Math.min(least, (cpu() - before) / COUNT);
}
console.log(`${least.toFixed(1)} us of CPU an upgrade and its close, in the cheapest of ${ROUNDS} rounds of ${COUNT}`);
process.exit(0);
