/** The spans of `observe`, made by the SDK of OpenTelemetry. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { trace } from "@opentelemetry/api";
import { AlwaysOffSampler, ParentBasedSampler, SamplingDecision } from "@opentelemetry/sdk-trace-base";
import * as v from "valibot";
import { Channels } from "../../src/channels/channels.ts";
import { WebSocketController } from "../../src/controller/controller.ts";
import { observe } from "../../src/otel/otel.ts";
import { continued } from "../../src/otel/traces.ts";
import { WebSocketError } from "../../src/protocol/errors.ts";
import { testkit } from "../../src/testing/testkit.ts";
import { open } from "../support/fake-transport.ts";
import { TestClock } from "../support/test-clock.ts";
import { turn } from "../support/waiting.ts";
import { collectSpans, inContexts, type Spans } from "./spans.ts";

const TRACE = "0af7651916cd43dd8448eb211c80319c";
const SPAN = "b7ad6b7169203331";
const SAMPLED = `00-${TRACE}-${SPAN}-01`;

function create(spans: Spans = collectSpans()) {
  const controller = new WebSocketController({ logger: false, clock: new TestClock(), rateLimit: false });
  const end = observe(controller, { meter: false, tracer: spans.tracer });
  const { connection, transport, client } = open(controller);
  const say = async (message: object) => {
    connection.message(JSON.stringify(message));
    for (let turns = 0; turns < 6; turns++) await turn();
    return transport.take();
  };
  return { controller, client, end, spans, say };
}

const activeSpan = () => trace.getActiveSpan()?.spanContext().spanId;

describe("A span of a handler", () => {
  it("has the type and the outcome, and continues the trace of the client", async () => {
    const { controller, client, spans, say } = create();
    controller.handle("say", v.object({}), async () => await turn());
    controller.handle("sync", v.object({}), () => 1);
    await say({ type: "say", traceparent: SAMPLED });
    await say({ type: "sync" });
    const [said, sync] = spans.take();
    assert.deepEqual([said!.name, said!.kind, said!.traceId, said!.parent, said!.status], [
      "say",
      "SERVER",
      TRACE,
      SPAN,
      "UNSET",
    ]);
    assert.deepEqual(said!.attributes, {
      "noroshi.controller": "main",
      "rpc.system.name": "noroshi",
      "rpc.method": "say",
      "noroshi.client": client.uid,
    });
    assert.notEqual(sync!.traceId, TRACE);
    assert.equal(sync!.parent, undefined);
  });

  it("has an error status for a thrown or rejected error that is no answer, and leaves the response unchanged", async () => {
    const { controller, spans, say } = create();
    controller.on("error", () => {});
    controller.handle("throws", v.object({}), () => {
      throw new Error("secret");
    });
    controller.handle("rejects", v.object({}), () => Promise.reject(new Error("secret")));
    controller.handle("refuses", v.object({}), () => {
      throw new WebSocketError("refuses", "FORBIDDEN", "No");
    });
    controller.handle("order", v.object({}), () => {
      throw new WebSocketError("order", "OUT_OF_STOCK", "There is none left");
    });
    controller.handle("engine", v.object({}), () => {
      throw new WebSocketError("engine", "OF_AN_ENGINE", "Cannot publish");
    });
    const codes = [];
    for (const type of ["throws", "rejects", "refuses", "order", "engine"]) codes.push((await say({ type }))[0].error.code);
    assert.deepEqual(codes, ["INTERNAL_ERROR", "INTERNAL_ERROR", "FORBIDDEN", "OUT_OF_STOCK", "OF_AN_ENGINE"]);
    assert.deepEqual(
      spans.take().map(({ name, status, exceptions, attributes }) => [name, status, exceptions, attributes["error.type"]]),
      [["throws", "ERROR", 1, "_OTHER"], ["rejects", "ERROR", 1, "_OTHER"], ["refuses", "UNSET", 0, "FORBIDDEN"], [
        "order",
        "UNSET",
        0,
        "_APPLICATION",
      ], ["engine", "ERROR", 1, "_OTHER"]],
    );
  });

  it("lasts until its stream has ended", async () => {
    const { controller, spans, say } = create();
    let go!: () => void; // Set by the generator, which the first message starts.
    const wait = new Promise<void>((resolve) => go = resolve);
    controller.handle("count", v.object({}), async function* () {
      yield 1;
      await wait;
      yield 2;
    });
    controller.handle("breaks", v.object({}), async function* () {
      yield 1;
      throw new WebSocketError("breaks", "FORBIDDEN", "No");
    });
    assert.deepEqual((await say({ type: "count", uid: 1 })).map(({ status }) => status), ["next"]);
    assert.deepEqual(spans.take(), []);
    go();
    await say({ type: "ping" });
    await say({ type: "breaks", uid: 2 });
    assert.deepEqual(spans.take().map(({ name, attributes }) => [name, attributes["error.type"]]), [["count", undefined], [
      "breaks",
      "FORBIDDEN",
    ]]);
  });

  it("is active in the handler, before and after its awaits, and only there", () =>
    inContexts(async () => {
      const { controller, spans, say } = create();
      const active: (string | undefined)[] = [];
      const look = () => active.push(activeSpan());
      controller.on("message", look);
      controller.handle("say", v.object({}), async () => {
        look();
        await turn();
        look();
        spans.tracer.startSpan("database").end();
      });
      await say({ type: "say" });
      look();
      const [database, said] = spans.take();
      assert.deepEqual([database!.name, database!.parent, database!.traceId], ["database", said!.spanId, said!.traceId]);
      assert.deepEqual(active, [undefined, said!.spanId, said!.spanId, undefined]);
    }));

  for (const resumable of [false, true]) {
    it(`is active in ${resumable ? "a resumable" : "a"} generator, whatever makes it go on`, () =>
      inContexts(async () => {
        const spans = collectSpans();
        const controller = new WebSocketController({ logger: false, rateLimit: false, mode: "public" });
        observe(controller, { meter: false, tracer: spans.tracer });
        const active = new Set<string | undefined>();
        const text = "x".repeat(10_000);
        // More than may wait for the client: it goes on with a message that the client sends as it reads.
        controller.handle("count", v.object({}), async function* () {
          try {
            for (let item = 0; item < 500; item++) {
              active.add(activeSpan());
              yield text;
              if (item % 50 === 0) await turn();
              active.add(activeSpan());
            }
          } finally {
            active.add(activeSpan());
          }
        }, { resumable });
        const t = testkit(controller);
        const client = await t.connect();
        let items = 0;
        const read = (async () => {
          for await (const _ of client.stream("count", {})) items++;
        })();
        while (items < 500) await t.advance(100);
        await read;
        await t.advance(0);
        const [span] = spans.take();
        assert.deepEqual([items, [...active]], [500, [span!.spanId]]);
        await t.close();
      }));
  }

  it("is active in a generator although it is not sampled, so that what the generator calls is not either", () =>
    inContexts(async () => {
      const { controller, spans, say } = create(collectSpans(new ParentBasedSampler({ root: new AlwaysOffSampler() })));
      const active = new Set<string | undefined>();
      controller.handle("count", v.object({}), async function* () {
        for (let item = 0; item < 3; item++) {
          active.add(activeSpan());
          yield item;
        }
      });
      controller.handle("later", v.object({}), async () => {
        await turn();
        return (async function* () {
          active.add(activeSpan());
          yield spans.tracer.startSpan("database").end();
        })();
      });
      for (const type of ["count", "later"]) await say({ type, uid: type });
      assert.deepEqual([active.size, active.has(undefined), spans.take()], [2, false, []]);
    }));

  it("ignores an invalid traceparent, and hides the field from a strict schema", async () => {
    const { controller, spans, say } = create();
    controller.handle("say", v.strictObject({ text: v.string() }), () => 1);
    for (const traceparent of [SAMPLED, "", "x", 1, null, {}, `${SAMPLED}-more`, `00-${"0".repeat(32)}-${SPAN}-01`]) {
      const [answer] = await say({ type: "say", text: "hi", traceparent });
      assert.equal(answer.status, "ok");
    }
    assert.deepEqual(spans.take().map(({ traceId }) => traceId === TRACE), [true, ...Array(7).fill(false)]);
  });

  it("is not created when the sampler drops it, and the request is still handled", async () => {
    const { controller, spans, say } = create(collectSpans(new ParentBasedSampler({ root: new AlwaysOffSampler() })));
    const channels = new Channels(controller, { news: { authorize: () => true } });
    controller.handle("say", v.object({}), async () => {
      await channels.publish("news", "say", 1);
      return 1;
    });
    assert.equal((await say({ type: "say" }))[0].data, 1);
    assert.deepEqual(spans.take(), []);
    await say({ type: "say", traceparent: SAMPLED });
    assert.deepEqual(spans.take().map(({ name }) => name), ["say"]);
    await say({ type: "say", traceparent: SAMPLED.replace(/1$/, "0") });
    assert.deepEqual(spans.take(), []);
  });

  it("is not created after observe has ended, or without an SDK", async () => {
    const { controller, end, spans, say } = create();
    controller.handle("say", v.object({}), () => 1);
    end();
    await say({ type: "say" });
    assert.deepEqual(spans.take(), []);
    const started = trace.getTracer("noroshi");
    started.startSpan = () => assert.fail("a span is started");
    observe(controller, { meter: false })();
  });
});

describe("A span of a publication", () => {
  it("continues from the client's request to each node that delivers the publication", () =>
    inContexts(async () => {
      const all = collectSpans();
      const t = testkit(() => {
        const controller = new WebSocketController({ logger: false });
        const channels = new Channels(controller, { "room:*": { authorize: () => true, history: { size: 10, ttl: 60_000 } } });
        controller.handle("say", v.object({}), async () => {
          await channels.publish("room:1", "say", "hello");
        });
        observe(controller, { meter: false, tracer: all.tracer });
        return controller;
      }, { nodes: 2 });
      const [a, b] = [await t.connect({ node: 0, traceparent: () => SAMPLED }), await t.connect({ node: 1 })];
      const received: unknown[] = [];
      b.subscribe("room:1", { onEvent: ({ event, data }) => event !== "init" && received.push([event, data]) });
      await t.advance(1_000);
      await a.request("say");
      await t.advance(1_000);
      assert.deepEqual(received, [["say", "hello"]]);
      const spans = all.take();
      const [say, publish, ...deliver] = ["say", "publish room:*", "deliver room:*"].flatMap((name) =>
        spans.filter((span) => span.name === name)
      );
      assert.equal(deliver.length, 1);
      assert.deepEqual(spans.map(({ traceId }) => traceId), [TRACE, TRACE, TRACE]);
      assert.deepEqual([say!.parent, publish!.parent, deliver[0]!.parent], [SPAN, say!.spanId, publish!.spanId]);
      assert.deepEqual([publish!.kind, deliver[0]!.kind], ["PRODUCER", "CONSUMER"]);
      assert.deepEqual(deliver[0]!.attributes, {
        "noroshi.controller": "main",
        "messaging.system.name": "noroshi",
        "messaging.operation.type": "process",
        "messaging.operation.name": "deliver",
        "messaging.destination.template": "room:*",
        "messaging.destination.name": "room:1",
        "noroshi.subscriptions": 1,
      });
      // A publication by a client continues its trace, too.
      await a.publish("room:1", "say", "again");
      await t.advance(1_000);
      assert.deepEqual(all.take().map(({ name, traceId }) => [name, traceId]).sort().reverse(), [["publish room:*", TRACE], [
        "deliver room:*",
        TRACE,
      ]]);
      await t.close();
    }));

  it("is not continued by other nodes if it is recorded and not sampled", async () => {
    const { controller } = create(collectSpans({ shouldSample: () => ({ decision: SamplingDecision.RECORD }) }));
    const channels = new Channels(controller, { news: { authorize: () => true } });
    const sent: unknown[] = [];
    controller.observe("test", () => ({
      publish(publishing, call) {
        const result = call();
        sent.push(publishing.traceparent);
        return result;
      },
    }));
    await channels.publish("news", "say", 1);
    assert.deepEqual(sent, [undefined]);
  });

  it("has an error status when the engine refuses the publication", async () => {
    const { controller, spans } = create();
    const channels = new Channels(controller, { news: { authorize: () => true } });
    controller.on("error", () => {});
    controller.engine.publish = () => {
      throw new WebSocketError("engine", "ENGINE_UNAVAILABLE", "Away");
    };
    await assert.rejects(channels.publish("news", "say", 1));
    const [span] = spans.take();
    assert.deepEqual([span!.name, span!.status, span!.attributes["error.type"]], ["publish news", "ERROR", "ENGINE_UNAVAILABLE"]);
  });
});

describe("continued", () => {
  const spanOf = (traceparent: unknown) => {
    const context = continued(traceparent);
    return context && trace.getSpanContext(context);
  };

  it("reads version 00, and the same fields of later versions", () => {
    const span = { traceId: TRACE, spanId: SPAN, isRemote: true };
    assert.deepEqual(spanOf(SAMPLED), { ...span, traceFlags: 1 });
    assert.deepEqual(spanOf(SAMPLED.replace(/01$/, "fe")), { ...span, traceFlags: 0 });
    assert.deepEqual(spanOf(`01${SAMPLED.slice(2)}-what-comes`), { ...span, traceFlags: 1 });
    assert.deepEqual(spanOf(`cc${SAMPLED.slice(2)}`), { ...span, traceFlags: 1 });
  });

  it("refuses everything else", () => {
    const zero = "0".repeat(32);
    for (
      const value of [
        ...[undefined, null, 1, {}, [SAMPLED], "", "00", SAMPLED.toUpperCase(), ` ${SAMPLED}`, `${SAMPLED} `, `${SAMPLED}-x`],
        ...[`ff${SAMPLED.slice(2)}`, `0x${SAMPLED.slice(2)}`, `01${SAMPLED.slice(2)}x`, `00-${zero}-${SPAN}-01`],
        ...[`00-${TRACE}-${zero.slice(16)}-01`, `00-${TRACE}-${SPAN}-1`, `00-${TRACE}-${SPAN}-0g`, `00-${TRACE}${SPAN}-01`],
      ]
    ) assert.equal(continued(value), undefined, String(value));
  });
});
