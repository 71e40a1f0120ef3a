/** The honest clients, in a process of their own: they ping, and say how long each answer took. */
import { performance } from "node:perf_hooks";
import process from "node:process";
import { Wire } from "../tests/runtimes/wire.ts";

/** What is told of one phase. */
export interface Told {
  /** Round trips in ms. */
  times: number[];
  sent: number;
  lost: number;
  closed: number;
  /** The part of the time in which this process had nothing to do. */
  idle: number;
}

const [port, count, interval] = process.argv.slice(2).map(Number) as [
  number,
  number,
  number,
];

/** The longest a ping may take before it counts as lost, in ms. */
const LOST = 10_000;

let times: number[] = [];
let sent = 0;
let closed = 0;
let leaving = false;
const outstanding = new Set<number>();
let since = performance.eventLoopUtilization();

const wires = await Promise.all(
  Array.from(
    { length: count },
    (_, i) => Wire.open(port, `/public?access_token=honest${i}:honest`),
  ),
);
for (const [i, wire] of wires.entries()) {
  void wire.closed.then(() => void (leaving || closed++));
  // Spread evenly, so that no two ask at the same moment.
  setTimeout(() => void ping(wire, i * 1_000_000_000), (i * interval) / count);
}

async function ping(wire: Wire, first: number): Promise<void> {
  for (let uid = first;; uid++) {
    const start = performance.now();
    outstanding.add(uid);
    sent++;
    const answer = await wire.ask({ type: "ping", uid });
    if (answer === null) return;
    if (answer.type !== "pong" || answer.uid !== uid) {
      throw new Error(`Asked ${uid}, got ${JSON.stringify(answer)}`);
    }
    outstanding.delete(uid);
    times.push(performance.now() - start);
    await new Promise((resolve) => setTimeout(resolve, Math.max(0, interval - (performance.now() - start))));
  }
}

const tell = (what: unknown) => void process.send?.(what);

process.on("message", async (message) => {
  if (message === "leave") {
    leaving = true;
    await Promise.all(wires.map((wire) => wire.close(1000)));
    process.exit(0);
  }
  // What was asked in this phase belongs to it.
  const asked = [...outstanding];
  const deadline = performance.now() + LOST;
  while (
    asked.some((uid) => outstanding.has(uid)) && closed === 0 &&
    performance.now() < deadline
  ) {
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  const idle = 1 - performance.eventLoopUtilization(since).utilization;
  since = performance.eventLoopUtilization();
  const told: Told = {
    times,
    sent,
    lost: asked.filter((uid) => outstanding.has(uid)).length,
    closed,
    idle,
  };
  times = [];
  sent = 0;
  tell(told);
});
tell("ready");
