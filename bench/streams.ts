/**
 * Measures streams of this project beside `streamSSE` of Hono, Socket.IO, tRPC and oRPC: `node --import tsx bench/streams.ts
 * [--runtimes=node,bun,deno] [--servers=noroshi,streamSSE] [--streams=1000] [--seconds=10] [--rounds=3] [--flat] [--lock=FILE]`
 *
 * Each client has one stream of 50 items a second, of 60 bytes of JSON. With `--flat` it is one stream as fast as it is read, beside the same
 * frames sent by hand with backpressure. CPU is what is compared. Delays say something on a quiet machine only.
 */
import { spawnSync } from "node:child_process";
import { once } from "node:events";
import { connect, type Socket } from "node:net";
import process from "node:process";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";
import { frame } from "../tests/runtimes/wire.ts";
import { buildServers } from "./build.ts";
import { lock } from "./lock.ts";
import { type Program, startServer } from "./measure.ts";
import { cpuOf, memoryOf } from "./process.ts";
import { root, RUNTIME_TITLES, type RuntimeName, type Server } from "./servers.ts";

const { values } = parseArgs({
  options: {
    runtimes: { type: "string", default: "node,bun,deno" },
    servers: { type: "string", default: "" },
    streams: { type: "string", default: "1000" },
    seconds: { type: "string", default: "10" },
    rounds: { type: "string", default: "3" },
    flat: { type: "boolean", default: false },
    lock: { type: "string" },
  },
});

/** What is compared with. */
const BASE = values.flat ? "by hand" : "streamSSE";

/** Clients that connect at once. */
const AT_ONCE = 50;

/** Times 10 ms until each client must have an item. */
const TRIES = 6_000;

interface Subject extends Server {
  /** Path of the request, and the texts that are sent once it is answered. Absent: the answer is the stream. */
  path: string;
  headers?: string;
  texts?: string[];
}

interface Sample {
  /** In s a million items. */
  cpu: number;
  /** Items a second. */
  rate: number;
  /** Delays in ms. */
  p50: number;
  p99: number;
  /** Resident memory, in MiB. */
  memory: number;
  /** Items that were missing, doubled or out of order. */
  faults: number;
}

const [CONNECT, ASK] = ["40", '42["paced"]'];

/** What Socket.IO says before a text may be sent. */
const BEFORE: Record<string, string> = { [CONNECT]: '0{"sid"', [ASK]: '40{"sid"' };

const V1 = "Sec-WebSocket-Protocol: noroshi.v1\r\n";

function subjectsOf(runtime: RuntimeName): Subject[] {
  const type = values.flat ? "flat" : "paced";
  const noroshi = { runtime, kind: "noroshi", file: "stream-noroshi.ts", path: "/websocket" } as const;
  const peer = { runtime, kind: "peer" } as const;
  const texts = [JSON.stringify({ type, uid: 1 })];
  const own: Subject[] = [
    { ...noroshi, name: "noroshi", texts, headers: V1 },
    { ...noroshi, name: "noroshi, without noroshi.v1", texts },
    ...runtime === "deno" ? [{ ...noroshi, name: "noroshi, Deno.serve", texts, headers: V1, args: ["native"] }] : [],
  ];
  own.push({ runtime, kind: "raw", name: "by hand", file: "stream-raw.ts", path: "/", texts });
  if (values.flat) return own;
  return [
    ...own,
    { ...peer, name: BASE, file: "peers/stream-sse.ts", path: "/paced" },
    { ...peer, name: "tRPC, SSE", file: "peers/stream-trpc.ts", path: "/trpc/paced" },
    { ...peer, name: "oRPC, WebSocket", file: "peers/stream-orpc.ts", path: "/", texts: ['{"i":"1","p":{"u":"/paced"}}'] },
    // It has none for Deno.
    ...runtime === "deno" ? [] : [{
      ...peer,
      name: "Socket.IO",
      file: "peers/stream-socket-io.ts",
      path: "/socket.io/?EIO=4&transport=websocket",
      texts: [CONNECT, ASK],
    }],
  ];
}

/** A client that counts items, and looks at nothing else. */
class Reader {
  items = 0;
  faults = 0;
  readonly delays: number[] = [];
  readonly #socket: Socket;
  #rest = "";

  private constructor(socket: Socket) {
    this.#socket = socket;
  }

  static async open(port: number, { path, headers = "", texts }: Subject): Promise<Reader> {
    const socket = connect({ port, host: "127.0.0.1", noDelay: true });
    socket.on("error", () => {}); // The items that are missing tell.
    const upgrade = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n" +
      `Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n${headers}`;
    const rest = texts ? upgrade : "Accept: text/event-stream\r\n";
    socket.write(`GET ${path} HTTP/1.1\r\nHost: 127.0.0.1:${port}\r\n${rest}\r\n`);
    const reader = new Reader(socket);
    let answer = "";
    for (const text of texts ?? []) {
      while (!answer.includes(BEFORE[text] ?? "\r\n\r\n")) answer += (await once(socket, "data"))[0];
      socket.write(frame(1, text));
    }
    socket.on("data", (chunk: Buffer) => reader.#read(chunk));
    return reader;
  }

  close(): void {
    this.#socket.destroy();
  }

  #read(chunk: Buffer): void {
    const now = performance.timeOrigin + performance.now();
    const text = this.#rest + chunk.toString("latin1");
    let from = 0;
    for (;;) {
      const start = text.indexOf('{"n":', from);
      const end = start < 0 ? -1 : text.indexOf('"}', start);
      if (end < 0) break;
      const seq = parseInt(text.slice(start + 5, start + 20), 10);
      if (seq !== this.items++) this.faults++;
      const at = text.indexOf('"at":', start) + 5;
      this.delays.push(now - parseFloat(text.slice(at, at + 20)));
      from = end;
    }
    // As the project's client sends it, once it has read the item.
    const credit = text.lastIndexOf('"credit":');
    const digits = credit < 0 ? null : /^\d+(?=\})/.exec(text.slice(credit + 9, credit + 30));
    if (digits) this.#socket.write(frame(1, `{"type":"stream.credit","uid":1,"credit":${digits[0]}}`));
    this.#rest = text.slice(Math.max(from, digits ? credit + 9 : 0, text.length - 512));
  }
}

async function measure(subject: Subject): Promise<Sample> {
  const programs: Program[] = [];
  const readers: Reader[] = [];
  try {
    const { port, pids } = await startServer(subject, programs);
    const streams = values.flat ? 1 : Number(values.streams);
    while (readers.length < streams) {
      const some = Array.from({ length: Math.min(AT_ONCE, streams - readers.length) }, () => Reader.open(port, subject));
      readers.push(...await Promise.all(some));
    }
    for (let tries = 0; readers.some(({ items }) => items === 0); tries++) {
      if (tries === TRIES) throw new Error(`Cannot measure ${subject.runtime}, ${subject.name}: a client has no item`);
      await sleep(10);
    }
    await sleep(200 * Number(values.seconds)); // Warms up.
    for (const { delays } of readers) delays.length = 0;
    const [before, start] = [cpuOf(pids), performance.now()];
    await sleep(1_000 * Number(values.seconds));
    const [after, end] = [cpuOf(pids), performance.now()];
    const delays = Float64Array.from(readers.flatMap(({ delays }) => delays)).sort();
    return {
      cpu: (after - before) / delays.length * 1e6,
      rate: delays.length / (end - start) * 1_000,
      p50: delays[Math.floor(delays.length / 2)] ?? NaN,
      p99: delays[Math.floor(delays.length * 0.99)] ?? NaN,
      memory: memoryOf(pids) / 1_024,
      faults: readers.reduce((sum, { faults }) => sum + faults, 0),
    };
  } finally {
    for (const reader of readers) reader.close();
    for (const program of programs) program.end();
  }
}

async function main(): Promise<void> {
  const parts = values.servers.split(",");
  const subjects = values.runtimes.split(",")
    .flatMap((runtime) => subjectsOf(runtime as RuntimeName)) // One that is unknown has no command, and fails.
    .filter(({ name }) => parts.some((part) => name.toLowerCase().includes(part.toLowerCase())));
  if (subjects.some(({ kind }) => kind === "peer")) {
    const { status } = spawnSync("npm", ["ls", "--prefix", `${root}/bench`, "@orpc/server"], { stdio: "ignore" });
    if (status !== 0) throw new Error("Cannot measure the peers: run npm ci --ignore-scripts in bench, or --servers=noroshi");
  }
  await buildServers(subjects);
  const samples = new Map<Subject, Sample[]>();
  // Rounds alternate: what else the machine does meanwhile meets all of them.
  for (let round = 0; round < Number(values.rounds); round++) {
    for (const subject of subjects) {
      const release = values.lock === undefined ? () => {} : await lock(values.lock);
      try {
        samples.set(subject, [...samples.get(subject) ?? [], await measure(subject)]);
      } finally {
        release();
      }
    }
  }
  console.log(`| server | CPU, s a million | of ${BASE} | items a second | p50, ms | p99, ms | RSS, MiB | faults |`);
  console.log("| --- | --: | --: | --: | --: | --: | --: | --: |");
  for (const subject of subjects) {
    const own = samples.get(subject)!; // Measured above.
    const base = samples.get(subjects.find(({ name, runtime }) => name === BASE && runtime === subject.runtime) ?? subject)!;
    const of = (figure: keyof Sample, digits: number) => median(own.map((sample) => sample[figure])).toFixed(digits);
    const ratio = median(own.map(({ cpu }, round) => cpu / base[round]!.cpu)).toFixed(2); // As many rounds.
    const faults = own.reduce((sum, { faults }) => sum + faults, 0);
    console.log(
      `| ${RUNTIME_TITLES[subject.runtime]}, ${subject.name} | ${of("cpu", 2)} | ${ratio} | ${of("rate", 0)} | ` +
        `${of("p50", 2)} | ${of("p99", 2)} | ${of("memory", 0)} | ${faults} |`,
    );
  }
}

const median = (numbers: number[]): number => numbers.sort((a, b) => a - b)[numbers.length >> 1] ?? NaN;

// An exit ends the servers too.
for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, () => process.exit(1));
await main();
process.exit(); // Sockets that were cut may linger.
