/** A rolling deploy: three nodes behind nginx, each replaced in turn, while clients listen, ask and publish. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { Agent, request } from "node:http";
import { dirname, join } from "node:path";
import process from "node:process";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { WebSocket } from "ws";
import { type Client, createClient } from "../../src/client/client.ts";
import { BrokerProcess, freePort } from "../support/brokers.ts";
import { inTime } from "../support/waiting.ts";
import { Nginx } from "./nginx.ts";
import { COMMANDS } from "./server.ts";

/** The size and the load of a deploy. */
export interface RollingDeploy {
  readonly broker: "redis" | "nats";
  readonly runtime: "bun" | "deno" | "node";
  /** Clients of `noroshi/client`. */
  readonly clients: number;
  /** Clients that know nothing of the protocol. */
  readonly plainClients: number;
  /** Clients of one channel. */
  readonly crowd: number;
  /** Publications a second, over all channels. */
  readonly rate: number;
  /** Options of the drain, and of presence, in ms. */
  readonly window: number;
  readonly timeout: number;
  readonly grace: number;
  /** The folder of the version that runs before, if it is another one. */
  readonly from?: string;
  /** Processes of nginx: each has two descriptors for a client. @default {1} */
  readonly proxies?: number;
  readonly report?: (line: string) => void;
}

/** How a node was replaced. */
export interface Replacement {
  /** Exit code. */
  readonly code: number | null;
  /** From SIGTERM to the exit, in ms. */
  readonly lasted: number;
  /** Clients of `noroshi/client` that came back. */
  readonly reconnects: number;
  /** The largest part of them that came back within 100 ms, from 0 to 1. */
  readonly peak: number;
}

/** What the clients have seen. */
export interface DeployReport {
  readonly replacements: readonly Replacement[];
  readonly publications: number;
  /** Publications that a client was not sent, and those that it was sent twice or out of order. */
  readonly lost: number;
  readonly doubled: number;
  /** Number of `recovered: false` that clients received. */
  readonly gaps: number;
  /** `leave` events of users who stayed. */
  readonly leaves: number;
  /** Requests of clients and of HTTP. */
  readonly requests: number;
  readonly failed: readonly string[];
  /** How connections of plain clients ended, by code. */
  readonly plainCloses: Readonly<Record<number, number>>;
  /** How connections of the others did. */
  readonly closes: Readonly<Record<number, number>>;
}

const here = dirname(fileURLToPath(import.meta.url));

/** Clients that connect at once at the beginning. */
const AT_ONCE = 100;

/** Interval of requests of clients, in ms. */
const REQUEST_PERIOD = 20;

class Node {
  readonly port: number;
  #child: ChildProcess | undefined;

  constructor(port: number) {
    this.port = port;
  }

  /** Resolves when it listens. */
  async start(deploy: RollingDeploy, brokerPort: number, root: string | undefined): Promise<void> {
    const [command = "", ...args] = COMMANDS[deploy.runtime] ?? [];
    const fixture = join(here, "fixture/rolling-serve.ts");
    const numbers = [brokerPort, this.port, deploy.window, deploy.timeout, deploy.grace].map(String);
    const child = this.#child = spawn(command, [
      ...args,
      fixture,
      deploy.broker,
      ...numbers,
      ...(root === undefined ? [] : [root]),
    ], {
      cwd: join(here, "../.."),
      stdio: ["ignore", "pipe", "inherit"],
    });
    process.once("exit", () => child.kill("SIGKILL"));
    for await (const line of createInterface({ input: child.stdout! })) if (line === "LISTENING") return; // Piped.
    throw new Error("The node ended before it listened");
  }

  async stop(): Promise<Pick<Replacement, "code" | "lasted">> {
    const start = performance.now();
    const exited = once(this.#child!, "exit"); // It has started.
    this.#child!.kill("SIGTERM");
    const [code] = await exited;
    return { code, lasted: Math.round(performance.now() - start) };
  }

  kill(): void {
    this.#child?.kill("SIGKILL");
  }
}

/** A client of a channel, and what it was sent. */
class Listener {
  readonly client: Client;
  readonly channel: number;
  readonly received: number[] = [];
  gaps = 0;
  leaves = 0;
  /** When it was admitted, in ms. */
  readonly opened: number[] = [];
  isListening: Promise<void>;
  #wake = () => {};

  constructor(url: string, number: number, channel: number, watches: boolean, closes: Record<number, number>) {
    this.channel = channel;
    const client = this.client = createClient(url, {
      WebSocket: WebSocket as never, // As the client uses it.
      token: `user-${number}`,
      tokenIn: "query",
      // All clients share a process, which may be busy for longer than a heartbeat.
      heartbeat: 0,
      timeout: 60_000,
    });
    client.on("open", () => this.opened.push(performance.now()));
    client.on("close", ({ code, isFinal }) => isFinal || (closes[code] = (closes[code] ?? 0) + 1));
    this.isListening = new Promise((resolve) => {
      client.subscribe(`room:${channel}`, {
        onInit: () => resolve(),
        onGap: () => this.gaps++,
        onEvent: ({ data }: { data: unknown }) => {
          this.received.push(data as number); // As the publisher sends them.
          this.#wake();
        },
        ...(watches && {
          onPresence: ({ event, members }: { event: string; members: unknown[] }) => {
            if (event === "leave") this.leaves += members.length;
          },
        }),
      } as never); // Its types are those of a contract.
    });
  }
  /** Resolves with the next publication. */
  next(): Promise<void> {
    return new Promise((resolve) => this.#wake = resolve);
  }
}

/** Deploys, and resolves with the counts. */
export async function deployRolling(deploy: RollingDeploy): Promise<DeployReport> {
  const { clients, plainClients, crowd, rate, report = () => {}, proxies = 1 } = deploy;
  const broker = await BrokerProcess[deploy.broker]();
  const nodes: Node[] = [];
  for (let n = 0; n < 3; n++) nodes.push(new Node(await freePort()));
  const fronts: { nginx: Nginx; port: number }[] = [];
  const listeners: Listener[] = [];
  const plain: PlainClient[] = [];
  const agent = new Agent({ keepAlive: true, maxSockets: 64 });
  let isOver = false;
  try {
    for (const node of nodes) await node.start(deploy, broker.port, deploy.from);
    for (let n = 0; n < proxies; n++) fronts.push(await startProxy(nodes.map(({ port }) => port)));
    const portOf = (number: number) => fronts[number % proxies]!.port;
    const closes: Record<number, number> = {};
    const plainCloses: Record<number, number> = {};
    const count = Math.ceil(clients / crowd);
    for (let from = 0; from < clients; from += AT_ONCE) {
      const some = Array.from({ length: Math.min(AT_ONCE, clients - from) }, (_, index) => {
        const number = from + index;
        const url = `ws://127.0.0.1:${portOf(number)}/websocket`;
        return new Listener(url, number, number % count, number < count, closes);
      });
      listeners.push(...some);
      await Promise.all(some.map(({ isListening }) => isListening));
    }
    for (let n = 0; n < plainClients; n++) {
      plain.push(new PlainClient(`ws://127.0.0.1:${portOf(n)}/websocket?access_token=p${n}`, plainCloses));
    }
    await Promise.all(plain.map(({ opened }) => opened));
    report(`${clients} clients and ${plainClients} plain ones are connected`);

    const failed: string[] = [];
    const published = Array.from({ length: count }, () => 0);
    let [publications, requests] = [0, 0];
    const begun = performance.now();
    // Each channel has one publication under way at most, so that their order is known.
    const publishing = (async () => {
      const underWay = new Map<number, Promise<void>>();
      for (; !isOver; publications++) {
        const channel = publications % count;
        await underWay.get(channel);
        const n = ++published[channel]!; // Within its length.
        requests++;
        underWay.set(
          channel,
          put(portOf(publications), `/rooms/${channel}/${n}`, agent).catch((error) => void failed.push(`PUT: ${error}`)),
        );
        await sleep(Math.max(0, begun + (publications + 1) * 1_000 / rate - performance.now()));
      }
      await Promise.all(underWay.values());
    })();
    const asking = (async () => {
      const underWay = new Set<Promise<void>>();
      for (let n = 0; !isOver; n++) {
        const { client } = listeners[(n * 7_919) % clients]!; // A prime: in no order of theirs.
        requests++;
        const asked = client.request("work", { n }, { timeout: 60_000 } as never).then((answer) => {
          if (answer !== n) failed.push(`request ${n}: ${answer}`);
        }, (error) => void failed.push(`request: ${error}`)).finally(() => underWay.delete(asked));
        underWay.add(asked);
        await sleep(REQUEST_PERIOD);
      }
      await Promise.all(underWay);
    })();

    const replacements: Replacement[] = [];
    for (const [index, node] of nodes.entries()) {
      const start = performance.now();
      const stopped = await node.stop();
      await node.start(deploy, broker.port, undefined);
      const opened = listeners.flatMap(({ opened }) => opened.filter((time) => time >= start));
      const replacement = { ...stopped, reconnects: opened.length, peak: peakOf(opened) };
      replacements.push(replacement);
      report(`node ${index + 1}: ${JSON.stringify(replacement)}`);
    }
    isOver = true;
    await Promise.all([publishing, asking]);
    // The last publications are on their way. Whoever has not received them after this has lost them.
    const isComplete = ({ channel, received }: Listener) => new Set(received).size === published[channel];
    const receiving = Promise.all(listeners.map(async (listener) => {
      while (!isComplete(listener)) await listener.next();
    }));
    await inTime("the last publications", () => ({}), receiving).catch((error) => report(String(error)));
    let [lost, doubled] = [0, 0];
    for (const { channel, received } of listeners) {
      lost += published[channel]! - new Set(received).size;
      doubled += received.filter((n, at) => at > 0 && n <= received[at - 1]!).length;
    }
    return {
      replacements,
      publications,
      lost,
      doubled,
      gaps: listeners.reduce((sum, { gaps }) => sum + gaps, 0),
      leaves: listeners.reduce((sum, { leaves }) => sum + leaves, 0),
      requests,
      failed,
      plainCloses,
      closes,
    };
  } finally {
    isOver = true;
    for (const each of plain) each.end();
    await Promise.all(listeners.map(({ client }) => client.close()));
    agent.destroy();
    for (const node of nodes) node.kill();
    for (const { nginx } of fronts) await nginx.stop();
    await broker.close();
  }
}

/** A socket without the protocol, which connects again when it is closed. */
class PlainClient {
  readonly opened: Promise<void>;
  #socket!: WebSocket; // Set by `#connect`.
  #isOver = false;
  readonly #url: string;
  readonly #closes: Record<number, number>;

  constructor(url: string, closes: Record<number, number>) {
    this.#url = url;
    this.#closes = closes;
    this.opened = new Promise((resolve) => this.#connect(resolve));
  }

  #connect(opened: () => void): void {
    let wasOpen = false;
    const socket = this.#socket = new WebSocket(this.#url);
    socket.on("open", () => {
      wasOpen = true;
      opened();
    });
    socket.on("error", () => {}); // `close` follows.
    socket.on("close", (code) => {
      if (this.#isOver) return;
      if (wasOpen) this.#closes[code] = (this.#closes[code] ?? 0) + 1;
      setTimeout(() => this.#isOver || this.#connect(opened), Math.random() * 250);
    });
  }

  end(): void {
    this.#isOver = true;
    this.#socket.terminate();
  }
}

/** Starts nginx as the recipe has it, without TLS. */
async function startProxy(ports: readonly number[]): Promise<{ nginx: Nginx; port: number }> {
  const nginx = new Nginx();
  const port = await freePort();
  await nginx.startWith(`
worker_rlimit_nofile 65536;
events { worker_connections 32768; }
http {
  upstream chat {
    least_conn;
    ${ports.map((each) => `server 127.0.0.1:${each} max_fails=0;`).join("\n    ")}
    keepalive 32;
  }
  map $http_upgrade $connection_upgrade { default upgrade; "" ""; }
  server {
    listen 127.0.0.1:${port} backlog=4096;
    proxy_http_version 1.1;
    proxy_set_header Upgrade $http_upgrade;
    proxy_set_header Connection $connection_upgrade;
    proxy_set_header Host $http_host;
    proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
    proxy_connect_timeout 2s;
    proxy_next_upstream error timeout http_503;
    proxy_read_timeout 75s;
    proxy_buffering off;
    location / { proxy_pass http://chat; }
  }
}
`);
  return { nginx, port };
}

async function put(port: number, path: string, agent: Agent): Promise<void> {
  const asked = request({ host: "127.0.0.1", port, path, agent, method: "PUT" });
  asked.end();
  const [response] = await once(asked, "response");
  response.resume();
  await once(response, "end");
  if (response.statusCode !== 200) throw new Error(`${response.statusCode}`);
}

/** The largest part of the times that lies within 100 ms. */
function peakOf(times: readonly number[]): number {
  const sorted = times.toSorted((a, b) => a - b);
  let [most, from] = [0, 0];
  for (const [at, time] of sorted.entries()) {
    while (sorted[from]! <= time - 100) from++;
    most = Math.max(most, at - from + 1);
  }
  return sorted.length === 0 ? 0 : most / sorted.length;
}
