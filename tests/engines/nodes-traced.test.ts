/** A publication that is traced is continued on another node behind a real broker. */
import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import * as v from "valibot";
import { Channels } from "../../src/channels/channels.ts";
import { WebSocketController } from "../../src/controller/controller.ts";
import type { Engine } from "../../src/engines/engine.ts";
import { natsEngine } from "../../src/engines/nats/nats.ts";
import { redisEngine } from "../../src/engines/redis/redis.ts";
import { observe } from "../../src/otel/otel.ts";
import { collectSpans, inContexts, type Spanned } from "../otel/spans.ts";
import { BrokerProcess, lacks } from "../support/brokers.ts";
import { redisClient } from "../support/redis.ts";
import { open } from "../support/fake-transport.ts";
import { until } from "../support/waiting.ts";
import { untilAcquainted } from "./acquainted.ts";

const TIMEOUT = { timeout: 300_000 };
/** A busy machine keeps a broker silent for a while. */
const OPTIONS = { secret: "a secret of the tests", timeout: 10_000 };
const TRACE = "0af7651916cd43dd8448eb211c80319c";
const SPAN = "b7ad6b7169203331";

const BROKERS = {
  Redis: {
    program: "redis-server",
    start: () => BrokerProcess.redis(),
    engine: (port: number) => redisEngine({ client: redisClient(port), ...OPTIONS }),
  },
  NATS: {
    program: "nats-server",
    start: () => BrokerProcess.nats(),
    engine: (port: number) => natsEngine({ servers: `nats://127.0.0.1:${port}`, history: { storage: "memory" }, ...OPTIONS }),
  },
};

for (const [name, { program, start, engine }] of Object.entries(BROKERS)) {
  describe(`A trace over ${name}`, { skip: lacks(program) }, () => {
    let broker: BrokerProcess;
    before(async () => void (broker = await start()), TIMEOUT);
    after(() => broker?.close(), TIMEOUT);

    const create = (own: Engine) => {
      const spans = collectSpans();
      const controller = new WebSocketController({ engine: own, logger: false, rateLimit: false });
      const channels = new Channels(controller, {
        kept: { authorize: () => true, history: { size: 10, ttl: 60_000 } },
        passing: { authorize: () => true },
      });
      controller.handle("say", v.object({ channel: v.picklist(["kept", "passing"]) }), async ({ message }) => {
        await channels.publish(message.channel, "said", "hello");
      });
      observe(controller, { meter: false, tracer: spans.tracer });
      return { controller, spans, ...open(controller) };
    };

    for (const channel of ["kept", "passing"]) {
      it(
        `leads from a request on one node to the delivery on another, of the channel "${channel}"`,
        TIMEOUT,
        () =>
          inContexts(async () => {
            const [a, b] = [create(engine(broker.port)), create(engine(broker.port))];
            try {
              await untilAcquainted([a, b]);
              b.connection.message(JSON.stringify({ type: "subscribe", channel }));
              await until(() => b.transport.sent.some((frame) => frame.includes('"init"')));
              a.connection.message(JSON.stringify({ type: "say", channel, traceparent: `00-${TRACE}-${SPAN}-01` }));
              await until(() => b.transport.sent.some((frame) => frame.includes('"said"')));
              const ended: Spanned[] = [];
              await until(() => ended.push(...a.spans.take()) === 2);
              const [published, said] = ended;
              const [delivered] = b.spans.take().filter(({ kind }) => kind === "CONSUMER");
              assert.deepEqual([said!.kind, said!.traceId, said!.parent], ["SERVER", TRACE, SPAN]);
              assert.deepEqual([published!.kind, published!.traceId, published!.parent], ["PRODUCER", TRACE, said!.spanId]);
              assert.deepEqual([delivered!.traceId, delivered!.parent], [TRACE, published!.spanId]);
            } finally {
              for (const { controller } of [a, b]) await controller.engine.close();
            }
          }),
      );
    }
  });
}
