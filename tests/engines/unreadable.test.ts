/** A node that cannot open an entry reports a gap, live and to clients that recover, whatever the reason. */
import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import type { HistoryOptions } from "../../src/engines/engine.ts";
import type { BrokerEngineOptions } from "../../src/engines/broker/options.ts";
import { Envelopes } from "../../src/engines/broker/envelope.ts";
import { natsEngine } from "../../src/engines/nats/nats.ts";
import { redisEngine } from "../../src/engines/redis/redis.ts";
import { BrokerProcess, lacks } from "../support/brokers.ts";
import { redisClient } from "../support/redis.ts";
import { type BrokerNode, startNode } from "./broker-fixture.ts";
import { publish } from "./conformance.ts";

const HISTORY: HistoryOptions = { size: 100, ttl: 300_000 };
const FAST = { lease: 15_000, checkInterval: 300, linger: 300, timeout: 10_000 };
const [OLD, NEW] = ["the secret of before", "the secret of tomorrow"];

const BROKERS = {
  redis: {
    start: () => BrokerProcess.redis(),
    engine: (port: number, options: BrokerEngineOptions) => redisEngine({ client: redisClient(port), ...FAST, ...options }),
  },
  nats: {
    start: () => BrokerProcess.nats(),
    engine: (port: number, options: BrokerEngineOptions) =>
      natsEngine({ servers: `nats://127.0.0.1:${port}`, ...FAST, ...options }),
  },
};

/** Why this node cannot open an envelope of another node, with the options of both. */
const REASONS: Record<
  string,
  {
    own: BrokerEngineOptions;
    other: BrokerEngineOptions;
    data: string;
    isNewer?: boolean;
  }
> = {
  "signed with a secret that it does not have yet": {
    own: { secret: OLD },
    other: { secret: [NEW, OLD] },
    data: "1",
  },
  "not signed": { own: { secret: OLD }, other: {}, data: "1" },
  "too large for it": { own: { maxLength: 5_000 }, other: {}, data: JSON.stringify("x".repeat(6_000)) },
  "of a version that it does not know": { own: {}, other: {}, data: "1", isNewer: true },
};

for (const [name, { start, engine }] of Object.entries(BROKERS)) {
  describe(`The engine "${name}"`, { skip: lacks(`${name}-server`) }, () => {
    let broker: BrokerProcess;
    before(async () => void (broker = await start()));
    after(() => broker?.close());

    for (const [number, [reason, { own: options, other, data, isNewer = false }]] of Object.entries(REASONS).entries()) {
      it(`reports a gap and refuses to recover across it when a publication is ${reason}`, { timeout: 300_000 }, async () => {
        const namespace = `unreadable${number}`;
        const nodes: BrokerNode[] = [];
        const node = async (options: BrokerEngineOptions) => {
          const started = await startNode(engine(broker.port, { namespace, ...options }));
          nodes.push(started);
          return started;
        };
        const [own, same, foreign] = [await node(options), await node(options), await node(other)];
        const { seal } = Envelopes.prototype;
        try {
          const first = await own.engine.subscribe("room", HISTORY);
          const [before] = await publish(same.engine, "room", HISTORY, 1);
          if (isNewer) {
            Envelopes.prototype.seal = function (...args) {
              return `${seal.apply(this, args)}`.replace('"v":2', '"v":3');
            };
          }
          const unreadable = await foreign.engine.publish("room", { event: "say", data }, HISTORY);
          Envelopes.prototype.seal = seal;
          // The last publication: nothing comes after it that would show the hole.
          await own.host.until(() => own.host.gaps.includes("room"));
          const [next, last] = await publish(same.engine, "room", HISTORY, 2, 10);
          await own.host.until(() => own.host.data("room").at(-1) === 11);
          assert.deepEqual(own.host.data("room"), [0, 10, 11]);
          for (const position of [first!, before!]) {
            const page = await own.engine.read("room", HISTORY, position, 100);
            assert.deepEqual([page.isComplete, page.publications, page.position], [false, [], last]);
          }
          for (const [position, numbers] of [[unreadable!, ["10", "11"]], [next!, ["11"]], [last!, []]] as const) {
            const page = await own.engine.read("room", HISTORY, position, 100);
            assert.deepEqual([page.isComplete, page.publications.map(({ data }) => data)], [true, numbers]);
          }
          const page = await own.engine.read("room", HISTORY, null, 100);
          assert.deepEqual([page.isComplete, page.publications.map(({ data }) => data)], [false, ["0", "10", "11"]]);
        } finally {
          Envelopes.prototype.seal = seal;
          await Promise.all(nodes.map(({ engine }) => engine.close()));
        }
      });
    }
  });
}
