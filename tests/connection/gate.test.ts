/** `src/connection/gate.ts`: the order in which messages are handled, and which are handled beyond the limits. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import * as v from "valibot";
import type { WebSocketControllerOptions } from "../../src/application/options.ts";
import { anybody, createChannels, kept } from "../support/channels-fixture.ts";
import { FakeTransport, HANDSHAKE, open } from "../support/fake-transport.ts";
import { observe } from "../support/observed.ts";
import { Stall, turn } from "../support/waiting.ts";

/** A client of `noroshi.v1` and a handler `ask` that yields numbers for ever. */
function stream({ expiresIn, ...options }: WebSocketControllerOptions & { expiresIn?: number } = {}) {
  const observed = observe({ authenticate: () => null, ...options });
  const { controller, clock } = observed;
  /** The types that an observer sees. */
  const received: (string | null)[] = [];
  controller.observe("test", () => ({ received: (type) => void received.push(type) }));
  const counts = { finished: 0 };
  controller.handle("ask", v.object({}), async function* () {
    try {
      for (let n = 0;; n++) yield n;
    } finally {
      counts.finished++;
    }
  });
  const transport = new FakeTransport();
  const expires_at = expiresIn === undefined ? null : (clock.now() + expiresIn) / 1000;
  const connection = controller.open(transport, { ...HANDSHAKE, protocol: "noroshi.v1" }, {
    accountability: { user: "ann", role: null },
    expires_at,
  });
  return {
    ...observed,
    transport,
    connection,
    counts,
    received,
    /** The messages that answer a text. */
    async answers(text: string) {
      connection.message(text);
      await turn();
      return transport.take();
    },
  };
}

/** A message of exactly so many characters. */
const padded = (fields: string, length: number) => `{${fields},"pad":"${"x".repeat(length - fields.length - 11)}"}`;

describe("A message about a stream", () => {
  it("counts against the rate limit only if the server did not wait for it", async () => {
    const { answers } = stream({ rateLimit: { messages: 0.001, burst: 3 } });
    await answers('{"type":"ask","uid":1}');
    for (const credit of [32, 64]) {
      assert.equal((await answers(`{"type":"stream.credit","uid":1,"credit":${credit}}`)).length, 32);
    }
    assert.deepEqual(await answers('{"type":"stream.credit","uid":1,"credit":64}'), []);
    assert.deepEqual(await answers('{"type":"ping","uid":2}'), [{ type: "pong", uid: 2 }]);
    assert.equal((await answers('{"type":"ping","uid":3,"x":0}'))[0].error.code, "REQUESTS_EXCEEDED");
  });

  it("is read beyond the limit if the server waits for it and it begins with its type, within 200 characters", async () => {
    const { answers, controller, counts, received, connection } = stream({ rateLimit: { messages: 0.001, burst: 1 } });
    assert.equal((await answers('{"type":"ask","uid":1}')).length, 64);
    assert.equal((await answers('{ "type": "stream.credit", "uid": 1, "credit": 32 }')).length, 32);
    assert.deepEqual([received, controller.stats().limited], [["ask", "stream.credit"], 0]);
    const refused = [
      '{"type":"stream.credit","uid":1,"credit":7}', // Not awaited.
      '{"uid":1,"type":"stream.cancel"}',
      padded('"type":"stream.cancel","uid":1', 201),
      '{"type":"stream.cancel","uid":1',
      '{"type":"stream.credit","uid":1,"credit":"x"}',
      '{"type":"stream.credit","uid":1,"type":"x","credit":64}',
      '{"type":"stream.cancel"}',
    ];
    for (const [count, text] of refused.entries()) {
      const codes = (await answers(text)).map(({ error }) => error?.code);
      assert.ok(codes.every((code) => code === "REQUESTS_EXCEEDED"), text);
      assert.equal(controller.stats().limited, count + 1, text);
    }
    assert.deepEqual([received.length, counts.finished], [2, 0]);
    const [end] = await answers(padded('"type":"stream.cancel","uid":1', 200));
    assert.deepEqual([end.error.code, counts.finished, connection.readyState], ["CANCELLED", 1, 1]);
  });

  it("is handled by its uid after the credentials have expired, but not a cancellation by id", async () => {
    const { answers, clock, counts, transport } = stream({ expiresIn: 1_000 });
    assert.equal((await answers('{"type":"stream.cancel"}'))[0].error.path, "uid");
    await answers('{"type":"ask","uid":1}');
    clock.advance(1_000);
    transport.take();
    assert.deepEqual((await answers('{"type":"stream.cancel","id":"x"}')).map(({ error }) => error.code), ["TOKEN_EXPIRED"]);
    assert.equal(counts.finished, 0);
    await answers('{"type":"stream.cancel","uid":1}');
    assert.equal(counts.finished, 1);
  });
});

describe("A ping", () => {
  it("is answered with the positions of the client's channels, and on request with its limits", async () => {
    const { controller, channels, join } = createChannels({ "kept:*": kept, other: anybody }, {
      maxPayload: 1_000,
      maxPipelined: 5,
      maxSubscriptions: 7,
      rateLimit: { messages: 10, burst: 20, bytes: 300, burstBytes: 4_000 },
    });
    const peer = join("ann");
    const [plain] = await peer.ask({ type: "ping" });
    assert.deepEqual(plain, { type: "pong" });
    const position = await channels.publish("kept:1", "e", 1);
    await peer.ask({ type: "subscribe", channel: "kept:1" });
    assert.deepEqual(await peer.ask({ type: "ping", limits: 1 }), [{ type: "pong", channels: { "kept:1": position } }]);
    const [{ limits }] = await peer.ask({ type: "ping", limits: true });
    const { messages, bytes, ...rest } = limits;
    assert.deepEqual(rest, { payload: 1_000, waiting: 5, subscriptions: 7 });
    assert.deepEqual([messages.rate, messages.burst, bytes.rate, bytes.burst], [10, 20, 300, 4_000]);
    assert.equal(controller.stats().limited, 0);
  });

  it("names no limit that there is not", async () => {
    const unlimited = createChannels({ other: anybody }, { maxSubscriptions: Infinity, rateLimit: false }).join("ann");
    const { connection, transport } = open(observe({ rateLimit: false }).controller);
    connection.message('{"type":"ping","limits":true}');
    for (const [pong] of [transport.take(), await unlimited.ask({ type: "ping", limits: true })]) {
      assert.deepEqual(pong, { type: "pong", limits: { payload: 65_536, waiting: 64 } });
    }
  });
});

describe("An answer to a question", () => {
  it("is read while a middleware that waits for it holds the other messages of the client", async () => {
    const { controller } = observe();
    const answered: unknown[] = [];
    controller.use(async ({ client, message }, next) => {
      if (message.type === "x") answered.push(await client.ask("confirm"));
      await next();
    });
    controller.handle("x", v.object({}), () => "done");
    const { connection, transport } = open(controller);
    connection.message('{"type":"x","uid":1}');
    const [{ uid }] = transport.take();
    connection.message(Uint8Array.of(0xff));
    assert.deepEqual(transport.take(), []);
    connection.message(JSON.stringify({ type: "confirm", uid, status: "ok", data: 7 }));
    for (let n = 0; n < 5; n++) await turn();
    assert.deepEqual(answered, [7]);
    assert.deepEqual(transport.take().map(({ data, error }) => data ?? error.code), ["done", "INVALID_PAYLOAD"]);
    connection.message(JSON.stringify({ type: "confirm", uid, status: "ok", data: 8 }));
    assert.deepEqual(transport.take().map(({ type, error }) => [type, error.code]), [["confirm", "NOT_ASKED"]]);
  });
});

describe("Messages of a client", () => {
  it("are shown to an observer, also those that cannot be read", () => {
    const { connection, received } = stream();
    for (const text of ['{"type":"ping"}', "{", '{"type":"x"}']) connection.message(text);
    assert.deepEqual(received, ["ping", null, "x"]);
  });

  it("wait in their order while revalidate runs, also an answer and what shows that the credentials have expired", async () => {
    const revalidated = new Stall<{ accountability: { user: string; role: null } }>();
    const { connection, transport, clock } = stream({ expiresIn: 60_000, revalidate: () => revalidated.promise });
    const asked = connection.client.ask("confirm", {}, { timeout: 100_000 });
    const [question] = transport.take();
    clock.step(60_000);
    for (const uid of [1, 2]) connection.message(`{"type":"ping","uid":${uid}}`);
    connection.message(JSON.stringify({ type: "confirm", uid: question.uid, status: "ok", data: 7 }));
    connection.message('{"type":"ping","uid":3}');
    assert.deepEqual(transport.take(), []);
    revalidated.resolve({ accountability: { user: "ann", role: null } });
    assert.equal(await asked, 7);
    assert.deepEqual(transport.take().map(({ uid }) => uid), [1, 2, 3]);
  });
});
