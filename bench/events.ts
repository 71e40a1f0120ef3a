/**
 * Measures `noroshi/http`: `node --import tsx bench/events.ts [--runtimes=node,bun,deno] [--servers=noroshi,streamSSE] [--works=events,echo]
 * [--clients=1000] [--seconds=10] [--rounds=3] [--lock=FILE]`
 *
 * `events`: subscribers of one channel as event streams, which 50 items of 60 bytes a second are published to, beside a loop over streams of
 * `streamSSE` of Hono. CPU is what is compared. `echo`: one client that asks and waits for the answer, over the fallback and over a
 * WebSocket of the same server, and over `streamSSE` and POST by hand. The median time until the answer is there is what is compared.
 */
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
import { RUNTIME_TITLES, type RuntimeName, type Server } from "./servers.ts";

const { values } = parseArgs({
  options: {
    runtimes: { type: "string", default: "node,bun,deno" },
    servers: { type: "string", default: "" },
    works: { type: "string", default: "events,echo" },
    clients: { type: "string", default: "1000" },
    seconds: { type: "string", default: "10" },
    rounds: { type: "string", default: "3" },
    lock: { type: "string" },
  },
});
const seconds = Number(values.seconds);

/** What the event streams are compared with. */
const BASE = "streamSSE";

/** Clients that connect at once. */
const AT_ONCE = 50;

/** Times 10 ms until each client must have an item. */
const TRIES = 6_000;

interface Subject extends Server {
  /** Paths of event streams, and what they are. Absent: the server is measured by its echo. */
  path?: string;
}

function subjectsOf(runtime: RuntimeName): Subject[] {
  const noroshi = {
    runtime,
    kind: "noroshi",
    file: "events-noroshi.ts",
  } as const;
  const subjects: Subject[] = [];
  if (values.works.includes("events")) {
    subjects.push(
      {
        runtime,
        kind: "peer",
        name: BASE,
        file: "peers/events-sse.ts",
        path: "/news",
      },
      { ...noroshi, name: "noroshi", path: "/channels/news" },
      { ...noroshi, name: "noroshi, with a history", path: "/channels/kept" },
    );
    if (runtime === "deno") {
      subjects.push({
        ...noroshi,
        name: "noroshi, Deno.serve",
        path: "/channels/news",
        args: ["native"],
      });
    }
  }
  if (values.works.includes("echo")) {
    subjects.push({ ...noroshi, name: "noroshi, echo" });
    if (runtime === "deno") {
      subjects.push({
        ...noroshi,
        name: "noroshi, echo, Deno.serve",
        args: ["native"],
      });
    }
  }
  return subjects;
}

interface Sample {
  /** In s a million events. */
  cpu: number;
  /** Events a second. */
  rate: number;
  /** In ms: delays, or the time of an echo over the fallback. */
  p50: number;
  p99: number;
  /** In ms: the times of an echo over the socket, and by hand. */
  socket: number;
  byHand: number;
  /** Resident memory, in MiB. */
  memory: number;
  /** Events that were missing, doubled or out of order. */
  faults: number;
}

/** A client that counts items, and looks at nothing else. */
class Subscriber {
  items = 0;
  faults = 0;
  readonly delays: number[] = [];
  readonly #socket: Socket;
  #next: number | undefined;
  #rest = "";

  private constructor(socket: Socket) {
    this.#socket = socket;
    socket.on("data", (chunk: Buffer) => this.#read(chunk));
  }

  static async open(port: number, path: string): Promise<Subscriber> {
    const socket = await open(port);
    socket.write(
      `GET ${path} HTTP/1.1\r\nHost: 127.0.0.1:${port}\r\nAccept: text/event-stream\r\n\r\n`,
    );
    return new Subscriber(socket);
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
      if (this.#next !== undefined && seq !== this.#next) this.faults++;
      this.#next = seq + 1;
      this.items++;
      const at = text.indexOf('"at":', start) + 5;
      this.delays.push(now - parseFloat(text.slice(at, at + 20)));
      from = end;
    }
    this.#rest = text.slice(Math.max(from, text.length - 512));
  }
}

async function open(port: number): Promise<Socket> {
  const socket = connect({ port, host: "127.0.0.1", noDelay: true });
  socket.on("error", () => {}); // What is missing tells.
  await once(socket, "connect");
  return socket;
}

/** A socket whose text is awaited part by part. */
class Wire {
  readonly socket: Socket;
  #text = "";
  #heard = () => {};

  constructor(socket: Socket) {
    this.socket = socket;
    socket.on("data", (chunk: Buffer) => {
      this.#text += chunk.toString("latin1");
      this.#heard();
    });
  }

  /** Resolves with all up to this part, which is there already or comes. */
  async until(part: string): Promise<string> {
    for (;;) {
      const at = this.#text.indexOf(part);
      if (at >= 0) {
        const text = this.#text.slice(0, at + part.length);
        this.#text = this.#text.slice(at + part.length);
        return text;
      }
      await new Promise<void>((resolve) => this.#heard = resolve);
    }
  }
}

/** Asks once, and resolves with when the answer had come. */
type Ask = (uid: number) => Promise<number>;

const TEXT = "x".repeat(60);
const echo = (uid: number) => JSON.stringify({ type: "echo", uid, text: TEXT });

/** The end of an answer, whatever is before it. */
const answerTo = (uid: number) => `"uid":${uid},`;

async function overSocket(port: number): Promise<Ask> {
  const wire = new Wire(await open(port));
  wire.socket.write(
    `GET /websocket HTTP/1.1\r\nHost: 127.0.0.1:${port}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n` +
      "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
  );
  await wire.until("\r\n\r\n");
  return async (uid) => {
    wire.socket.write(frame(1, echo(uid)));
    await wire.until(answerTo(uid));
    return performance.now();
  };
}

async function overFallback(port: number): Promise<Ask> {
  const [stream, posts] = [
    new Wire(await open(port)),
    new Wire(await open(port)),
  ];
  stream.socket.write(
    `GET /websocket HTTP/1.1\r\nHost: 127.0.0.1:${port}\r\nAccept: text/event-stream\r\n\r\n`,
  );
  await stream.until('data: {"connection":"');
  const connection = (await stream.until('"')).slice(0, -1);
  await stream.until('"secret":"');
  const secret = (await stream.until('"')).slice(0, -1);
  let sequence = 0;
  return async (uid) => {
    const body = JSON.stringify({
      secret,
      sequence: ++sequence,
      frames: [echo(uid)],
    });
    posts.socket.write(
      `POST /websocket?connection=${connection} HTTP/1.1\r\nHost: 127.0.0.1:${port}\r\nContent-Type: text/plain\r\n` +
        `Content-Length: ${body.length}\r\n\r\n${body}`,
    );
    const answered = stream.until(answerTo(uid)).then(() => performance.now());
    await posts.until("\r\n\r\n"); // The next POST waits for that.
    return await answered;
  };
}

/** Asks for so long, one of them after the other, and returns the times that each took, in ms. */
async function measureEcho(
  port: number,
  byHand: number,
  duration: number,
): Promise<[number[], number[], number[]]> {
  const asks = [
    await overFallback(port),
    await overSocket(port),
    await overFallback(byHand),
  ];
  const times: [fallback: number[], socket: number[], byHand: number[]] = [
    [],
    [],
    [],
  ];
  let uid = 1_000_000; // As many digits each time.
  for (const end = performance.now() + duration; performance.now() < end;) {
    // In short turns: what else the machine does meets all.
    for (const [which, ask] of asks.entries()) {
      for (let n = 0; n < 20; n++) {
        const start = performance.now();
        times[which]!.push(await ask(++uid) - start);
      }
    }
  }
  return times;
}

const percentile = (times: readonly number[], part: number): number =>
  Float64Array.from(times).sort()[Math.floor(times.length * part)] ?? NaN;

async function measure(subject: Subject): Promise<Sample> {
  const programs: Program[] = [];
  const readers: Subscriber[] = [];
  try {
    const { port, pids } = await startServer(subject, programs);
    const { path } = subject;
    if (path === undefined) {
      const peer = await startServer({
        ...subject,
        kind: "peer",
        file: "peers/events-sse.ts",
      }, programs);
      await measureEcho(port, peer.port, 200 * seconds); // Warms up.
      const [before, start] = [cpuOf(pids), performance.now()];
      const [fallback, socket, byHand] = await measureEcho(
        port,
        peer.port,
        1_000 * seconds,
      );
      const [after, end] = [cpuOf(pids), performance.now()];
      const count = fallback.length + socket.length;
      return {
        cpu: (after - before) / count * 1e6,
        rate: count / (end - start) * 1_000,
        p50: percentile(fallback, 0.5),
        p99: percentile(fallback, 0.99),
        socket: percentile(socket, 0.5),
        byHand: percentile(byHand, 0.5),
        memory: memoryOf(pids) / 1_024,
        faults: 0,
      };
    }
    while (readers.length < Number(values.clients)) {
      const count = Math.min(AT_ONCE, Number(values.clients) - readers.length);
      readers.push(
        ...await Promise.all(
          Array.from({ length: count }, () => Subscriber.open(port, path)),
        ),
      );
    }
    for (let tries = 0; readers.some(({ items }) => items === 0); tries++) {
      if (tries === TRIES) {
        throw new Error(
          `Cannot measure ${subject.runtime}, ${subject.name}: a client has no item`,
        );
      }
      await sleep(10);
    }
    await sleep(200 * seconds); // Warms up.
    for (const { delays } of readers) delays.length = 0;
    const [before, start] = [cpuOf(pids), performance.now()];
    await sleep(1_000 * seconds);
    const [after, end] = [cpuOf(pids), performance.now()];
    const delays = readers.flatMap((reader) => reader.delays);
    return {
      cpu: (after - before) / delays.length * 1e6,
      rate: delays.length / (end - start) * 1_000,
      p50: percentile(delays, 0.5),
      p99: percentile(delays, 0.99),
      socket: NaN,
      byHand: NaN,
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
  // The peer of an echo, too.
  await buildServers([
    ...subjects,
    ...subjects.map((subject) => ({ ...subject, kind: "peer", file: "peers/events-sse.ts" }) as const),
  ]);
  const samples = new Map<Subject, Sample[]>();
  // Rounds alternate: what else the machine does meanwhile meets all of them.
  for (let round = 0; round < Number(values.rounds); round++) {
    for (const subject of subjects) {
      const release = values.lock === undefined ? () => {} : await lock(values.lock);
      try {
        samples.set(subject, [
          ...samples.get(subject) ?? [],
          await measure(subject),
        ]);
      } finally {
        release();
      }
    }
  }
  console.log(
    `| server | CPU, s a million | of ${BASE} | a second | p50, ms | p99, ms | RSS, MiB | faults |`,
  );
  console.log("| --- | --: | --: | --: | --: | --: | --: | --: |");
  for (const subject of subjects) {
    const own = samples.get(subject)!; // Measured above.
    const base = samples.get(
      subjects.find(({ name, runtime }) => name === BASE && runtime === subject.runtime) ?? subject,
    )!;
    const of = (figure: keyof Sample, digits: number) => median(own.map((sample) => sample[figure])).toFixed(digits);
    const ratio = subject.path === undefined ? "" : median(own.map(({ cpu }, round) => cpu / base[round]!.cpu)).toFixed(2); // As many rounds.
    const faults = own.reduce((sum, { faults }) => sum + faults, 0);
    const toSocket = (figure: "p50" | "byHand") => median(own.map((sample) => sample[figure] / sample.socket)).toFixed(2);
    const times = subject.path === undefined
      ? `${of("p50", 3)}, ${toSocket("p50")} × the socket's ${of("socket", 3)}; by hand ${toSocket("byHand")} ×`
      : of("p50", 2);
    console.log(
      `| ${RUNTIME_TITLES[subject.runtime]}, ${subject.name} | ${of("cpu", 2)} | ${ratio} | ${of("rate", 0)} | ${times} | ` +
        `${of("p99", 2)} | ${of("memory", 0)} | ${faults} |`,
    );
  }
}

const median = (numbers: number[]): number => numbers.sort((a, b) => a - b)[numbers.length >> 1] ?? NaN;

// An exit ends the servers too.
for (const signal of ["SIGINT", "SIGTERM"] as const) {
  process.once(signal, () => process.exit(1));
}
await main();
process.exit(); // Sockets that were cut may linger.
