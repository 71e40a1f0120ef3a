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
import { parseArgs } from "node:util";
import { frame } from "../tests/runtimes/wire.ts";
import { buildServers } from "./build.ts";
import { inTurns, ItemCounter, type ItemReader, type ItemSample, measureItems, median, percentile, runToEnd } from "./items.ts";
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

/** Of an echo the times over the fallback, too. */
interface Sample extends ItemSample {
  /** In ms: the times of an echo over the socket, and by hand. */
  socket: number;
  byHand: number;
}

class Subscriber implements ItemReader {
  readonly items: ItemCounter = new ItemCounter();
  readonly #socket: Socket;
  #rest = "";

  private constructor(socket: Socket) {
    this.#socket = socket;
    socket.on("data", (chunk: Buffer) => this.#read(chunk));
  }

  static async open(port: number, path: string): Promise<Subscriber> {
    const socket = await open(port);
    socket.write(`GET ${path} HTTP/1.1\r\nHost: 127.0.0.1:${port}\r\nAccept: text/event-stream\r\n\r\n`);
    return new Subscriber(socket);
  }

  close(): void {
    this.#socket.destroy();
  }

  #read(chunk: Buffer): void {
    const text = this.#rest + chunk.toString("latin1");
    this.#rest = text.slice(Math.max(this.items.take(text), text.length - 512));
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

async function measure(subject: Subject): Promise<Sample> {
  const programs: Program[] = [];
  try {
    const { port, pids } = await startServer(subject, programs);
    const { path } = subject;
    if (path !== undefined) {
      const load = { count: Number(values.clients), seconds };
      const sample = await measureItems(`${subject.runtime}, ${subject.name}`, pids, load, () => Subscriber.open(port, path));
      return { ...sample, socket: NaN, byHand: NaN };
    }
    const peer = await startServer({ ...subject, kind: "peer", file: "peers/events-sse.ts" }, programs);
    await measureEcho(port, peer.port, 200 * seconds); // Warms up.
    const [before, start] = [cpuOf(pids), performance.now()];
    const [fallback, socket, byHand] = await measureEcho(port, peer.port, 1_000 * seconds);
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
  } finally {
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
  const samples = await inTurns(subjects, values, measure);
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

await runToEnd(main);
