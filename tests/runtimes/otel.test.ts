/** The metrics of `noroshi/otel` on each runtime, read by a real Prometheus, add up after connections with every kind of close. */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { on, once } from "node:events";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import process from "node:process";
import { after, before, describe, it } from "node:test";
import { fileURLToPath } from "node:url";
import { WebSocket } from "ws";
import { BrokerProcess, findProgram, lacks } from "../support/brokers.ts";
import { inTime } from "../support/waiting.ts";
import { startServer, type TestServer } from "./server.ts";

/** Connections in one run. */
const CYCLES = Number(process.env["OTEL_CYCLES"] ?? 300);

const here = dirname(fileURLToPath(import.meta.url));
const fixture = join(here, "fixture/observed-serve.ts");
const example = join(here, "../../examples/observability");

/** The ways a client ends, with the cause of the close; `undefined` if it stays. */
const WAYS: readonly [cause: string | undefined, way: (socket: WebSocket) => unknown][] = [
  ["client", (socket) => socket.close(1000)],
  ["error", (socket) => socket.terminate()],
  ["auth", (socket) => socket.send('{"type":"auth","access_token":"bad"}')],
  ["payload", (socket) => socket.send("x".repeat(70_000))],
  ["server", (socket) => {
    socket.send('{"type":"auth","access_token":"good"}');
    socket.send('{"type":"subscribe","channel":"room:1"}');
    socket.send('{"type":"say","uid":1}');
    socket.send('{"type":"leave"}');
  }],
];

/** Runs the cycles, several at a time. Every tenth client stays open. */
async function runCycles(port: number, staying: WebSocket[]): Promise<Record<string, number>> {
  const closes: Record<string, number> = {};
  const cycle = async (number: number) => {
    const socket = new WebSocket(`ws://127.0.0.1:${port}/websocket`);
    socket.on("error", () => {}); // The server may reset the connection when it closes.
    await once(socket, "open");
    if (number % 10 === 9) {
      staying.push(socket);
      socket.send('{"type":"auth","access_token":"good"}'); // Without this message it would be closed.
      socket.send('{"type":"subscribe","channel":"room:1","recover":{"epoch":"lost","offset":1}}');
      for await (const [data] of on(socket, "message")) if (String(data).includes('"recovered":false')) return;
    }
    const [cause, way] = WAYS[number % WAYS.length]!;
    const closed = once(socket, "close");
    way(socket);
    await closed;
    closes[cause!] = (closes[cause!] ?? 0) + 1;
  };
  for (let number = 0; number < CYCLES; number += 20) {
    await Promise.all(Array.from({ length: Math.min(20, CYCLES - number) }, (_, index) => cycle(number + index)));
  }
  return closes;
}

/** A test of the rules: this many calls per minute fail with this `error.type`, and the alert fires or not. */
const alertTest = (calls: number, errorType: string, isFired: boolean): string => `
rule_files: [${JSON.stringify(join(example, "alerts.yaml"))}]
tests:
  - interval: 1m
    input_series:
      - series: 'rpc_server_call_duration_count{rpc_system_name="noroshi",rpc_method="order",error_type="${errorType}",instance="a"}'
        values: "0+${calls}x30"
    promql_expr_test:
      - expr: count(ALERTS{alertname="NoroshiHandlerErrors",alertstate="firing"})
        eval_time: 25m
        exp_samples: [${isFired ? "{ value: 1 }" : ""}]
`;

/** Runs promtool, and resolves with what it prints. */
function promtool(command: string, input = ""): Promise<string> {
  return new Promise((resolve) => {
    const child = execFile(findProgram("promtool")!, command.split(" "), (_error, stdout, stderr) => resolve(stdout + stderr));
    child.stdin!.end(input); // Of execFile, always piped.
  });
}

/** Prometheus as of Debian, which scrapes the servers each second. */
function startPrometheus(ports: Record<string, number>): Promise<BrokerProcess> {
  const targets = Object.entries(ports).map(([runtime, port]) =>
    `      - targets: ["127.0.0.1:${port}"]\n        labels: { runtime: ${runtime} }\n`
  );
  const config = `global: { scrape_interval: 1s }\nscrape_configs:\n  - job_name: noroshi\n    static_configs:\n${
    targets.join("")
  }`;
  return BrokerProcess.prometheus(config);
}

describe("The metrics in Prometheus", { skip: lacks("prometheus") }, () => {
  const runtimes = ["node", "bun", "deno"] as const;
  const servers: Partial<Record<typeof runtimes[number], TestServer>> = {};
  const closes: Record<string, Record<string, number>> = {};
  const staying: WebSocket[] = [];
  let prometheus: BrokerProcess;

  /** The values of a query by one label of each series, once `isReady` accepts them. */
  async function query(
    text: string,
    label: string,
    isReady: (found: Record<string, number>) => boolean,
  ): Promise<Record<string, number>> {
    let found: Record<string, number> = {};
    const look = async () => {
      for (;;) {
        const response = await fetch(`http://127.0.0.1:${prometheus.port}/api/v1/query?query=${encodeURIComponent(text)}`);
        const { data } = await response.json() as {
          data: { result: { metric: Record<string, string>; value: [number, string] }[] };
        };
        found = Object.fromEntries(data.result.map(({ metric, value: [, value] }) => [metric[label] ?? "", Number(value)]));
        if (isReady(found)) return found;
        await new Promise((resolve) => setTimeout(resolve, 100)); // Prometheus has no event for the end of a scrape.
      }
    };
    return await inTime(text, () => found, look());
  }

  before(async () => {
    for (const runtime of runtimes) servers[runtime] = await startServer(runtime, fixture);
    for (const runtime of runtimes) closes[runtime] = await runCycles(servers[runtime]!.port, staying);
    prometheus = await startPrometheus(Object.fromEntries(runtimes.map((runtime) => [runtime, servers[runtime]!.port])));
  }, { timeout: 300_000 * Math.ceil(CYCLES / 1_000) });

  after(async () => {
    for (const socket of staying) socket.terminate();
    await prometheus?.close();
    for (const server of Object.values(servers)) await server.stop();
  });

  for (const runtime of runtimes) {
    it(`add up on ${runtime}: opened − closed = active, for every cause`, { timeout: 300_000 }, async () => {
      const of = (metric: string) => `${metric}{runtime="${runtime}"}`;
      const expected = closes[runtime]!;
      const total = Object.values(expected).reduce((sum, count) => sum + count, 0);
      assert.equal(total, CYCLES - Math.floor(CYCLES / 10));
      // The server may notice the last close after its client.
      const opened = await query(of("noroshi_server_connections_opened_total"), "runtime", (found) => found[runtime] === CYCLES);
      const active = await query(
        of("noroshi_server_active_connections"),
        "runtime",
        (found) => found[runtime] === CYCLES - total,
      );
      const cause = "noroshi_close_cause";
      const some = (found: Record<string, number>) => Object.fromEntries(Object.entries(found).filter(([, count]) => count > 0));
      const sum = (found: Record<string, number>) => Object.values(found).reduce((all, count) => all + count, 0);
      const closed = await query(of("noroshi_server_connections_closed_total"), cause, (found) => sum(found) === total);
      const aged = await query(of("noroshi_server_connection_duration_count"), cause, (found) => sum(found) === total);
      assert.equal(opened[runtime]! - sum(closed), active[runtime]);
      assert.deepEqual(some(closed), expected);
      assert.deepEqual(some(aged), expected);
      const said = expected["server"]!;
      const calls = await query(of("rpc_server_call_duration_count"), "rpc_method", (found) => found["say"] === said);
      assert.deepEqual(calls, { say: said, leave: said });
      const published = of("messaging_client_operation_duration_count");
      assert.deepEqual(await query(published, "runtime", (found) => found[runtime] === said), { [runtime]: said });
    });

    it(`satisfy promtool on ${runtime}`, { timeout: 300_000 }, async () => {
      const response = await fetch(`http://127.0.0.1:${servers[runtime]!.port}/metrics`);
      assert.equal(await promtool("check metrics", await response.text()), "");
    });
  }

  it("include every name that the rules and the dashboard use", { timeout: 300_000 }, async () => {
    const response = await fetch(`http://127.0.0.1:${servers.node!.port}/metrics`);
    const metrics = await response.text();
    assert.match(await promtool(`check config ${join(example, "prometheus.yaml")}`), /SUCCESS: \d+ rules found/);
    const rules = await readFile(join(example, "alerts.yaml"), "utf8");
    const dashboard = JSON.parse(await readFile(join(example, "dashboard.json"), "utf8")) as {
      panels: { title: string; targets: { expr: string }[] }[];
    };
    const queries = dashboard.panels.flatMap(({ targets }) => targets.map(({ expr }) => expr));
    assert.ok(queries.length >= dashboard.panels.length);
    for (const [name] of [rules, ...queries].join("\n").matchAll(/\b(?:noroshi|rpc|messaging)_\w+/g)) {
      assert.ok(metrics.includes(name), `${name} is no metric and no label`);
    }
    for (const expr of queries) {
      const text = expr.replaceAll("$__rate_interval", "1m").replaceAll("$instance", ".*");
      const found = await fetch(`http://127.0.0.1:${prometheus.port}/api/v1/query?query=${encodeURIComponent(text)}`);
      assert.equal(found.status, 200, `${expr}: ${await found.text()}`);
    }
  });
});

it("The handler alert fires for crashes, and not for answers of the application", { skip: lacks("promtool") }, async (t) => {
  const folder = await mkdtemp(join(tmpdir(), "noroshi-alerts-"));
  t.after(() => rm(folder, { recursive: true, force: true }));
  const file = join(folder, "alerts.test.yaml");
  for (const [errorType, isFired] of [["_OTHER", true], ["_APPLICATION", false], ["FORBIDDEN", false]] as const) {
    await writeFile(file, alertTest(12, errorType, isFired));
    assert.match(await promtool(`test rules ${file}`), /SUCCESS/, errorType);
  }
});
