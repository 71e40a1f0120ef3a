/**
 * Recoverable clients on two nodes, of which one is killed while something is published all the time: how soon those of it have all of it
 * from the other node. `node --import tsx bench/takeover.ts [--clients=10000] [--brokers=redis,nats] [--runtime=node]`
 *
 * The clients are `noroshi/client` with its defaults. Each connects to one node, and after a failure to the other, as behind a balancer that
 * has noticed. It has caught up when it has been answered by the other node and has everything that was acknowledged until then.
 */
import process from "node:process";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";
import WebSocket from "ws";
import { type Client, createClient } from "../src/client/client.ts";
import { BROKERS, type RunningNode, sumUp, withNodes } from "./nodes.ts";
import { COMMANDS, type RuntimeName } from "./servers.ts";

const { values } = parseArgs({
  options: {
    clients: { type: "string", default: "10000" },
    brokers: { type: "string", default: "redis,nats" },
    runtime: { type: "string", default: "node" },
  },
});

/** Clients of one channel. */
const CROWD = 100;
/** Publications a second, each to one channel. */
const RATE = 50;
/** Clients that connect at once at the beginning. */
const WINDOW = 200;
/** After the kill, in ms: how long something is published, and how long a client may take. */
const LASTS = 10_000;
const MOST = 60_000;

/** A client, and what it has seen. */
interface Follower {
  readonly client: Client;
  readonly channel: string;
  /** The number of the last publication it was sent. */
  last: number;
  /** It was told that it has missed something, or was sent another than the next one. */
  hasGap: boolean;
  isAnswered: boolean;
  caughtUpAt: number | undefined;
}

/** What is published. */
class Publisher {
  /** By channel: the number of the last one that was acknowledged. */
  readonly acknowledged = new Map<string, number>();
  count = 0;
  isOver = false;
  readonly #client: Client;
  readonly #channels: readonly string[];

  constructor(url: string, channels: readonly string[]) {
    // It shares its process with all the others, and is not to lose its own connection to that.
    this.#client = createClient(url, { WebSocket, heartbeat: 0, requestTimeout: 0 });
    this.#channels = channels;
    for (const channel of channels) this.acknowledged.set(channel, -1);
  }

  async publish(): Promise<void> {
    for (const start = performance.now(); !this.isOver; this.count++) {
      const channel = this.#channels[this.count % this.#channels.length]!; // Below its length.
      const number = this.acknowledged.get(channel)! + 1; // Set by the constructor.
      await this.#client.publish(channel, "said", { number, text: "x".repeat(80) });
      this.acknowledged.set(channel, number);
      await sleep(Math.max(0, start + (this.count + 1) * 1_000 / RATE - performance.now()));
    }
    await this.#client.close();
  }
}

function follow(
  nodes: readonly RunningNode[],
  index: number,
  channel: string,
  acknowledged: Publisher["acknowledged"],
): Follower {
  let attempts = index;
  /** The next node with each attempt, whatever the address. */
  class Front extends WebSocket {
    constructor(_: string, protocols?: string[]) {
      super(`ws://127.0.0.1:${nodes[attempts++ % nodes.length]!.port}/websocket`, protocols ?? []); // Below its length.
      this.on("message", (data) => {
        if (String(data).includes('"event":"init"')) follower.isAnswered = true;
        // Once the client has read it.
        queueMicrotask(() => {
          if (follower.isAnswered && follower.last >= acknowledged.get(channel)!) follower.caughtUpAt ??= performance.now(); // Set at the beginning.
        });
      });
    }
  }
  const client = createClient("ws://front/websocket", { WebSocket: Front });
  const follower: Follower = { client, channel, last: -1, hasGap: false, isAnswered: false, caughtUpAt: undefined };
  client.on("close", () => {
    follower.isAnswered = false;
    follower.caughtUpAt = undefined;
  });
  client.subscribe(channel, {
    onGap: () => follower.hasGap = true,
    onEvent: ({ data }) => {
      const { number } = data as { number: number }; // As the publisher sends it.
      if (number !== follower.last + 1) follower.hasGap = true;
      follower.last = number;
    },
  });
  return follower;
}

/** Resolves when it is so for all, or it is too late. */
async function until(followers: readonly Follower[], condition: (follower: Follower) => boolean): Promise<void> {
  for (const end = performance.now() + MOST; !followers.every(condition) && performance.now() < end;) await sleep(20);
}

async function takeOver(nodes: RunningNode[], broker: string): Promise<void> {
  const [killed, other] = nodes as [RunningNode, RunningNode]; // Two were started.
  const count = Number(values.clients);
  const channels = Array.from({ length: Math.ceil(count / CROWD) }, (_, index) => `log:${index}`);
  const publisher = new Publisher(`ws://127.0.0.1:${other.port}/websocket`, channels);
  const { acknowledged } = publisher;
  const followers: Follower[] = [];
  while (followers.length < count) {
    const some = Array.from({ length: Math.min(WINDOW, count - followers.length) }, (_, index) => followers.length + index);
    followers.push(...some.map((index) => follow(nodes, index, channels[index % channels.length]!, acknowledged))); // As above.
    await until(followers, ({ isAnswered }) => isAnswered);
  }
  // Every second one, whatever its channel.
  const moved = followers.filter((_, index) => index % nodes.length === 0);
  const publishing = publisher.publish();
  await sleep(LASTS / 2);
  const start = performance.now();
  await killed.kill();
  await sleep(LASTS);
  publisher.isOver = true;
  await publishing;
  const hasAll = ({ last, channel }: Follower) => last === acknowledged.get(channel);
  await until(followers, hasAll);
  const times = moved.flatMap(({ caughtUpAt }) => caughtUpAt === undefined || caughtUpAt < start ? [] : caughtUpAt - start);
  const whole = followers.filter((follower) => hasAll(follower) && !follower.hasGap).length;
  console.log(
    `${broker}: ${times.length} of ${moved.length} have caught up, ${sumUp(times)}; ` +
      `${whole} of ${count} have all of ${publisher.count} publications, ${
        followers.filter(({ hasGap }) => hasGap).length
      } have a gap`,
  );
  if (whole < count) process.exitCode = 1;
  await Promise.all(followers.map(({ client }) => client.close()));
}

const brokers = values.brokers.split(",");
const runtime = values.runtime as RuntimeName; // Looked at next.
if (!(runtime in COMMANDS) || !brokers.every((name) => name in BROKERS)) {
  throw new Error("Cannot measure: see the first lines of this file");
}
await withNodes(brokers, [runtime, runtime], takeOver);
