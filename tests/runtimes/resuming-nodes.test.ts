/**
 * Three nodes, on Bun, Deno and Node, share a real broker. 150 clients read resumable streams, and others attach to them.
 * Meanwhile nodes are killed and cut off from the broker, connections are cut, and the broker restarts. Each stream has to come whole and
 * in order, or to end with `STREAM_LOST` after a part in order: no gap, no repeated item, no reader that waits for ever.
 *
 * `FAULT_SECONDS`, `FAULT_CLIENTS`, `FAULT_BROKER` and `SEED` are as in `nodes.test.ts`.
 */
import assert from "node:assert/strict";
import process from "node:process";
import { describe, it } from "node:test";
import { setTimeout as pause } from "node:timers/promises";
import { WebSocket } from "ws";
import { type ClientStream, createClient, type StreamingClient } from "../../src/client/client.ts";
import { streams } from "../../src/client/streams.ts";
import { BrokerProcess, lacks } from "../support/brokers.ts";
import { Random } from "../support/random.ts";
import { NodeProcess } from "./node-process.ts";
import { REDIS_FLAGS } from "./store-losses.ts";

const SECONDS = Number(process.env["FAULT_SECONDS"] ?? 30);
const CLIENTS = Number(process.env["FAULT_CLIENTS"] ?? 150);
const ONLY = process.env["FAULT_BROKER"];
/** The number of items of each stream, and the time between two, in ms. A stream lasts for longer than the pause between two faults. */
const [STEPS, PAUSE] = [12, 300];
/** The longest time between two streams of a client, and of one whose streams have failed again and again, in ms. */
const [IDLE, LONGEST_IDLE] = [500, 16_000];
/** A stream that has not ended this long after the last fault hangs, in ms. */
const TOO_LATE = 120_000;

/** The least that a run must have tried. */
const ENOUGH = { whole: 50, attached: 10 };
/** The longest extension of a run that has not tried enough, in ms. */
const EXTENSION = 90_000;

const BROKERS = {
  redis: { skip: lacks("redis-server"), start: () => BrokerProcess.redis(...REDIS_FLAGS) },
  nats: { skip: lacks("nats-server"), start: () => BrokerProcess.nats() },
};

/** The results of all readers. */
class Reading {
  readonly counts = { whole: 0, lost: 0, refused: 0, resumed: 0, attached: 0 };
  /** By code. */
  readonly refusals: Record<string, number> = {};
  readonly problems: string[] = [];
  /** Streams that have not ended. */
  readonly open = new Set<string>();
  #last = 0;

  /**
   * Resolves with whether the stream came whole.
   *
   * @param after the item that the reader already has.
   */
  async read(who: string, stream: ClientStream<number, number>, after = 0): Promise<boolean> {
    const name = `${who}, ${++this.#last}`;
    this.open.add(name);
    stream.result.catch(() => {});
    let at = after;
    try {
      for await (const item of stream) {
        if (item !== at + 1) this.problems.push(`${name}: ${item} after ${at}`);
        at = item;
      }
      const result = await stream.result;
      if (result !== STEPS || at !== STEPS) this.problems.push(`${name}: ended with ${result} after ${at}`);
      this.counts.whole++;
      return true;
    } catch (error) {
      const { code } = error as { code: string };
      // The second code is for a node that is disconnected from the broker for longer than `ttl`, as on a busy machine.
      if (code === "STREAM_LOST" || (code === "ENGINE_UNAVAILABLE" && at > after)) this.counts.lost++;
      // A stream without an id cannot be resumed, and one that has not begun is requested again.
      else if (at === after && (await stream.id === undefined || code === "ENGINE_UNAVAILABLE")) {
        this.counts.refused++;
        this.refusals[code] = (this.refusals[code] ?? 0) + 1;
      } else this.problems.push(`${name}: ${code} after ${at}`);
      return false;
    } finally {
      this.open.delete(name);
    }
  }
}

describe("Resumable streams over nodes", () => {
  for (const [name, { skip, start }] of Object.entries(BROKERS)) {
    if (ONLY !== undefined && name !== ONLY) continue;
    it(`arrive complete and in order, or end with STREAM_LOST, under faults of nodes, connections and ${name}`, {
      skip,
      timeout: SECONDS * 1_000 + EXTENSION + TOO_LATE + 60_000,
    }, async () => {
      const random = new Random();
      const reading = new Reading();
      const faults: Record<string, number> = {};
      const broker = await start();
      const nodes: NodeProcess[] = [];
      const clients: StreamingClient[] = [];
      console.log(`${name}: SEED=${random.seed}`);
      try {
        nodes.push(
          ...await Promise.all(
            ["bun", "deno", "node"].map((runtime) =>
              NodeProcess.start({ runtime, broker: name, brokerPort: broker.port, skew: 0, isSigned: random.seed % 2 === 1 })
            ),
          ),
        );
        /** Connects to a random node each time. */
        class Roaming extends WebSocket {
          constructor(url: string, protocols: string[]) {
            super(url.replace("//any", `//127.0.0.1:${random.pick(nodes).front.port}`), protocols);
          }
        }
        const connect = (user: string) => {
          const client = createClient(`ws://any/websocket`, {
            token: user,
            WebSocket: Roaming as never, // As `ws` has it.
            backoff: { base: 100, cap: 2_000 },
            heartbeat: 3_000,
            streams,
          });
          client.on("error", () => {});
          client.on("open", () => void reading.counts.resumed++);
          clients.push(client);
          return client;
        };
        const end = performance.now() + SECONDS * 1_000;
        const hasTriedEnough = () => reading.counts.whole >= ENOUGH.whole && reading.counts.attached >= ENOUGH.attached;
        // A busy machine does less in the same time, so the run continues for longer.
        const isOver = () => performance.now() >= end && (hasTriedEnough() || performance.now() >= end + EXTENSION);
        const users = Array.from({ length: CLIENTS }, async (_, index) => {
          const client = connect(`user${index}`);
          const other = index % 3 === 0 ? connect(`user${index}`) : undefined;
          let longest = IDLE;
          while (!isOver()) {
            const stream = client.stream("count", { steps: STEPS, pause: PAUSE }) as ClientStream<number, number>;
            const readings = [reading.read(`client ${index}`, stream)];
            const id = await stream.id;
            if (id && other) {
              await pause(random.below(2 * STEPS * PAUSE));
              const after = random.below(stream.offset + 1);
              reading.counts.attached++;
              readings.push(reading.read(`tab ${index}`, other.attach(id, { after }) as ClientStream<number, number>, after));
            }
            const [isWhole] = await Promise.all(readings);
            // Clients that all ask again at once would keep a busy broker from serving any of them.
            longest = isWhole ? IDLE : Math.min(2 * longest, LONGEST_IDLE);
            await pause(random.below(longest));
          }
        });
        const kinds: Record<string, () => Promise<void>> = {
          "node killed": async () => {
            const node = random.pick(nodes);
            await node.kill();
            await node.start();
          },
          "node cut off": async () => {
            const { back } = random.pick(nodes);
            back.freeze();
            await pause(500 + random.below(4_000));
            back.thaw();
          },
          "node stopped": async () => {
            const node = random.pick(nodes);
            node.signal("SIGSTOP");
            await pause(500 + random.below(4_000));
            node.signal("SIGCONT");
          },
          "broker restarted": async () => {
            await broker.stop();
            await pause(random.below(1_000));
            await broker.start();
          },
          "connections cut": async () => {
            random.pick(nodes).front.cut();
            await pause(500);
          },
        };
        while (!isOver()) {
          await pause(200 + random.below(1_500));
          const kind = random.pick(Object.keys(kinds));
          faults[kind] = (faults[kind] ?? 0) + 1;
          await kinds[kind]!(); // One of them.
        }
        let isLate = false;
        await Promise.race([Promise.all(users), pause(TOO_LATE, undefined, { ref: false }).then(() => isLate = true)]);
        if (isLate) reading.problems.push(...Array.from(reading.open, (each) => `${each}: hangs`));
        console.log(`${name}: ${JSON.stringify({ ...reading.counts, ...reading.refusals, ...faults })}, SEED=${random.seed}`);
        assert.deepEqual(reading.problems, [], `SEED=${random.seed}`);
        assert.ok(hasTriedEnough(), "little was tried");
      } finally {
        await Promise.all(clients.map((client) => client.close()));
        await Promise.all(nodes.map((node) => node.close()));
        await broker.close();
      }
    });
  }
});
