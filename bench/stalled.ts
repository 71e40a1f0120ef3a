/**
 * Measures how much slow consumers cost the other clients. A server broadcasts by turns to 1,000 clients that all read, and to 990 that read
 * and 10 that never do. The bench compares its deliveries per CPU second. `slowConsumer` closes the ten with 4508, or drops their messages.
 *
 * `node --import tsx bench/stalled.ts [--runtimes=bun,deno,node] [--rounds=5] [--messages=1500]`
 */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { connect } from "node:net";
import { dirname, join } from "node:path";
import process from "node:process";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

const CLIENTS = 1_000;
const STALLED = 10;
const root = join(dirname(fileURLToPath(import.meta.url)), "..");
const COMMANDS: Record<string, readonly [string, ...string[]]> = {
  bun: [join(root, "node_modules/.bin/bun"), "run"],
  deno: [join(root, "node_modules/deno/deno"), "run", "-A", "--no-lock"],
  node: [process.execPath, "--import", "tsx"],
};

const { values } = parseArgs({
  options: {
    runtimes: { type: "string", default: "bun,deno,node" },
    rounds: { type: "string", default: "5" },
    messages: { type: "string", default: "1500" },
  },
});

/** The first line of the process with this beginning, without it. */
async function told(process: ChildProcess, beginning: string): Promise<string> {
  for await (const line of createInterface(process.stdout!)) if (line.startsWith(beginning)) return line.slice(beginning.length); // Piped.
  throw new Error(`The process ended before it said "${beginning}"`);
}

/** Upgrades, and reads everything or nothing. */
async function enter(port: number, reads: boolean): Promise<() => void> {
  const socket = connect(port, "127.0.0.1");
  socket.on("error", () => {}); // It was closed for not reading.
  socket.write(
    `GET /websocket HTTP/1.1\r\nHost: 127.0.0.1:${port}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n` +
      "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: noroshi.v1\r\n\r\n",
  );
  await once(socket, "data");
  if (reads) socket.on("data", () => {});
  else socket.pause();
  return () => socket.destroy();
}

/** Deliveries per CPU second of a new server. */
async function measure(runtime: string, slowConsumer: string, stalled: number): Promise<number> {
  const [command, ...args] = COMMANDS[runtime]!;
  const server = spawn(command, [...args, join(root, "bench/stalled-server.ts")], {
    cwd: root,
    env: { ...process.env, SLOW_CONSUMER: slowConsumer },
    stdio: ["ignore", "pipe", "inherit"],
  });
  const leave: (() => void)[] = [];
  try {
    const url = await told(server, "listening ");
    for (let i = 0; i < CLIENTS; i++) leave.push(await enter(Number(new URL(url).port), i >= stalled));
    const broadcast = async (messages: number) =>
      await (await fetch(`${url}broadcast?messages=${messages}`)).json() as { sent: number; cpu: number };
    await broadcast(300); // Warms up, and fills what those who stall may hold.
    const { sent, cpu } = await broadcast(Number(values.messages));
    return sent / cpu * 1e6;
  } finally {
    leave.forEach((each) => each());
    server.kill("SIGKILL");
  }
}

const median = (numbers: number[]): number => numbers.sort((a, b) => a - b)[numbers.length >> 1]!;

for (const runtime of values.runtimes.split(",")) {
  for (const slowConsumer of ["close", "drop"]) {
    const all: number[] = [];
    const some: number[] = [];
    for (let round = 0; round < Number(values.rounds); round++) {
      all.push(await measure(runtime, slowConsumer, 0));
      some.push(await measure(runtime, slowConsumer, STALLED));
    }
    const [without, beside] = [median(all), median(some)];
    console.log(
      `${runtime}, ${slowConsumer}: ${Math.round(without / 1000)} k deliveries a CPU second, ` +
        `${Math.round(beside / 1000)} k beside ${STALLED} that do not read (${(beside / without).toFixed(2)})`,
    );
  }
}
