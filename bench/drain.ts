/**
 * A rolling deploy under load: `npm run drain -- [--clients=10000] [--plain=500] [--crowd=20] [--rate=200] [--window=30000] [--broker=redis]
 * [--runtime=node] [--from=GIT_REF]`. It needs nginx and a broker.
 *
 * Three nodes behind nginx are replaced in turn. What a client loses, is sent twice or sees fail makes the exit code 1; times do not.
 * With `--from` the nodes that are replaced run another commit.
 */
import { rmSync } from "node:fs";
import process from "node:process";
import { parseArgs } from "node:util";
import { lacks } from "../tests/support/brokers.ts";
import { type DeployReport, deployRolling } from "../tests/runtimes/rolling-deploy.ts";
import { checkOut } from "./check-out.ts";
import { maxDescriptors } from "./process.ts";

const { values } = parseArgs({
  options: {
    clients: { type: "string", default: "10000" },
    plain: { type: "string", default: "500" },
    crowd: { type: "string", default: "20" },
    rate: { type: "string", default: "200" },
    window: { type: "string", default: "30000" },
    broker: { type: "string", default: "redis" },
    runtime: { type: "string", default: "node" },
    from: { type: "string" },
  },
});

/** Default of `presence.grace`, in ms. */
const GRACE = 5_000;

/** More of the reconnects than this within 100 ms is a stampede. */
const MOST = 0.03;

// An exit ends the nodes too.
for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, () => process.exit(1));

const lack = lacks("nginx") || lacks(`${values.broker}-server`);
if (lack) throw new Error(`Cannot deploy: ${lack}`);
const from = values.from === undefined ? undefined : checkOut(values.from);
try {
  process.exitCode = await main();
} finally {
  if (from !== undefined) rmSync(from, { recursive: true, force: true });
}

async function main(): Promise<number> {
  const [clients, plainClients, window] = [values.clients, values.plain, values.window].map(Number) as [number, number, number];
  const report = await deployRolling({
    broker: values.broker as "redis" | "nats", // Checked above.
    runtime: values.runtime as "node",
    ...{ clients, plainClients, crowd: Number(values.crowd), rate: Number(values.rate) },
    ...{ window, timeout: window + 15_000, grace: GRACE },
    proxies: Math.ceil(2.2 * (clients + plainClients) / maxDescriptors()),
    ...(from !== undefined && { from }),
    report: (line) => console.log(line),
  });
  print(report, window);
  const { lost, doubled, gaps, leaves, failed } = report;
  return lost + doubled + gaps + leaves + failed.length === 0 ? 0 : 1;
}

function print({ replacements, failed, plainCloses, closes, ...counts }: DeployReport, window: number): void {
  const peak = Math.max(...replacements.map(({ peak }) => peak));
  const rows: [string, unknown][] = [
    ["publications", counts.publications],
    ["lost, of all clients", counts.lost],
    ["doubled or out of order", counts.doubled],
    ["recovered: false", counts.gaps],
    ["leave of a user who stayed", counts.leaves],
    ["requests, of clients and HTTP", counts.requests],
    ["of them failed", `${failed.length}${failed.length > 0 ? `: ${[...new Set(failed)].slice(0, 5).join("; ")}` : ""}`],
    ["closes by code", JSON.stringify(closes)],
    ["closes of plain clients", JSON.stringify(plainCloses)],
    ["exit codes", replacements.map(({ code }) => code).join(", ")],
    [`SIGTERM to exit, window ${window} ms`, replacements.map(({ lasted }) => `${lasted} ms`).join(", ")],
    [`most reconnects in 100 ms, ${100 * MOST} % at most`, `${(100 * peak).toFixed(2)} % of one node`],
  ];
  console.log("");
  for (const [name, value] of rows) console.log(`${name.padEnd(44)} ${value}`);
}
