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
import { parseArgs } from "node:util";
import { frame } from "../tests/runtimes/wire.ts";
import { buildServers } from "./build.ts";
import { inTurns, ItemCounter, type ItemReader, type ItemSample, measureItems, median, runToEnd } from "./items.ts";
import { type Program, startServer } from "./measure.ts";
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

interface Subject extends Server {
  /** Path of the request, and the texts that are sent once it is answered. Absent: the answer is the stream. */
  path: string;
  headers?: string;
  texts?: string[];
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

class Reader implements ItemReader {
  readonly items: ItemCounter = new ItemCounter(0);
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
    const text = this.#rest + chunk.toString("latin1");
    const from = this.items.take(text);
    // As the project's client sends it, once it has read the item.
    const credit = text.lastIndexOf('"credit":');
    const digits = credit < 0 ? null : /^\d+(?=\})/.exec(text.slice(credit + 9, credit + 30));
    if (digits) this.#socket.write(frame(1, `{"type":"stream.credit","uid":1,"credit":${digits[0]}}`));
    this.#rest = text.slice(Math.max(from, digits ? credit + 9 : 0, text.length - 512));
  }
}

async function measure(subject: Subject): Promise<ItemSample> {
  const programs: Program[] = [];
  try {
    const { port, pids } = await startServer(subject, programs);
    const load = { count: values.flat ? 1 : Number(values.streams), seconds: Number(values.seconds) };
    return await measureItems(`${subject.runtime}, ${subject.name}`, pids, load, () => Reader.open(port, subject));
  } finally {
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
  const samples = await inTurns(subjects, values, measure);
  console.log(`| server | CPU, s a million | of ${BASE} | items a second | p50, ms | p99, ms | RSS, MiB | faults |`);
  console.log("| --- | --: | --: | --: | --: | --: | --: | --: |");
  for (const subject of subjects) {
    const own = samples.get(subject)!; // Measured above.
    const base = samples.get(subjects.find(({ name, runtime }) => name === BASE && runtime === subject.runtime) ?? subject)!;
    const of = (figure: keyof ItemSample, digits: number) => median(own.map((sample) => sample[figure])).toFixed(digits);
    const ratio = median(own.map(({ cpu }, round) => cpu / base[round]!.cpu)).toFixed(2); // As many rounds.
    const faults = own.reduce((sum, { faults }) => sum + faults, 0);
    console.log(
      `| ${RUNTIME_TITLES[subject.runtime]}, ${subject.name} | ${of("cpu", 2)} | ${ratio} | ${of("rate", 0)} | ` +
        `${of("p50", 2)} | ${of("p99", 2)} | ${of("memory", 0)} | ${faults} |`,
    );
  }
}

await runToEnd(main);
