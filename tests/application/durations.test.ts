/** Every duration that an application gives: one that no timer takes is a TypeError, for a longer one fires at once. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { Channels } from "../../src/channels/channels.ts";
import { WebSocketController } from "../../src/controller/controller.ts";
import { BroadcastChannelEngine } from "../../src/engines/broadcast-channel/broadcast-channel.ts";
import { natsEngine } from "../../src/engines/nats/nats.ts";
import { redisEngine } from "../../src/engines/redis/redis.ts";
import { serve } from "../../src/serve/serve.ts";
import { connectFake } from "../support/fake-server.ts";

const WRONG: unknown[] = [NaN, -1, -0.5, Infinity, -Infinity, 2 ** 31, 2 ** 53, "1000", "", null, true, {}, 10n];
const declare = (channel: object) => new Channels(new WebSocketController(), { a: { authorize: () => true, ...channel } });
const redis = (options: object) => redisEngine({ client: { duplicate: () => {}, call: () => {} } as never, ...options }); // It is asked for nothing yet.
const nats = (options: object) => natsEngine({ servers: "127.0.0.1:1", ...options });

/** By name; each takes any value in place of the number. */
// deno-lint-ignore no-explicit-any -- what no type lets through is what is tried
const DURATIONS: Record<string, (value: any) => unknown> = {
  "controller timeout": (timeout) => new WebSocketController({ timeout }),
  "controller closeTimeout": (closeTimeout) => new WebSocketController({ closeTimeout }),
  "heartbeat.period": (period) => new WebSocketController({ heartbeat: { period } }),
  "heartbeat.timeout": (timeout) => new WebSocketController({ heartbeat: { timeout } }),
  "history.ttl": (ttl) => declare({ history: { size: 1, ttl } }),
  "presence.grace": (grace) => declare({ presence: { grace } }),
  "serve drain.timeout": (timeout) => serve({ fetch: () => new Response() }, { port: 0, onListen: false, drain: { timeout } }),
  "cluster.clients timeout": (timeout) => new WebSocketController().cluster.clients({}, { timeout }),
  "cluster.stats timeout": (timeout) => new WebSocketController().cluster.stats({ timeout }),
  "BroadcastChannelEngine lease": (lease) => new BroadcastChannelEngine({ lease }),
  "RedisEngine lease": (lease) => redis({ lease }),
  "RedisEngine checkInterval": (checkInterval) => redis({ checkInterval }),
  "RedisEngine timeout": (timeout) => redis({ timeout }),
  "RedisEngine linger": (linger) => redis({ linger }),
  "NatsEngine lease": (lease) => nats({ lease }),
  "NatsEngine checkInterval": (checkInterval) => nats({ checkInterval }),
  "NatsEngine timeout": (timeout) => nats({ timeout }),
  "NatsEngine linger": (linger) => nats({ linger }),
  "NatsEngine history.maxTtl": (maxTtl) => nats({ history: { maxTtl } }),
  "client heartbeat": (heartbeat) => connectFake({ heartbeat, lazy: true }),
  "client timeout": (timeout) => connectFake({ timeout, lazy: true }),
  "client requestTimeout": (requestTimeout) => connectFake({ requestTimeout, lazy: true }),
  "client backoff.base": (base) => connectFake({ backoff: { base }, lazy: true }),
  "client backoff.cap": (cap) => connectFake({ backoff: { cap }, lazy: true }),
  "client backoff.reset": (reset) => connectFake({ backoff: { reset }, lazy: true }),
  "client outbox.maxAge": (maxAge) => connectFake({ outbox: { maxAge }, lazy: true }),
  "client.request timeout": (timeout) => connectFake().client.request("x", {}, { timeout }),
  "client.publish timeout": (timeout) => connectFake().client.publish("x", "y", 1, { timeout }),
};

describe("A duration", () => {
  for (const [name, give] of Object.entries(DURATIONS)) {
    it(`is a TypeError that says what to pass where no timer takes it: ${name}`, async () => {
      for (const value of WRONG) {
        await assert.rejects(async () => void await give(value), (error: Error) => {
          assert.ok(error instanceof TypeError, `${String(value)}: ${error}`);
          assert.match(error.message, /\bms\b/);
          return true;
        }, String(value));
      }
    });
  }

  it("of a client that is 0 is for ever, and the largest that a timer takes is kept", async () => {
    for (const ms of [0, 2 ** 31 - 1]) {
      const { client, clock, socket, sockets } = connectFake({
        timeout: ms,
        requestTimeout: ms,
        heartbeat: ms,
        outbox: { maxAge: ms },
        backoff: { base: ms, cap: ms },
      });
      const first = await socket();
      let isOver = false;
      const over = () => void (isOver = true);
      client.request("x").then(over, over);
      client.send({ type: "x" }).then(over, over);
      clock.advance(86_400_000);
      await socket();
      assert.deepEqual([sockets.length, isOver, client.status], [1, false, "connecting"]);
      first.end();
      assert.ok(clock.delays.every((delay) => delay < 2 ** 31));
      void client.close();
    }
  });

  it("that a server asks a client to wait stays within what a timer takes", async () => {
    const { client, clock, admit } = connectFake({
      backoff: { base: 2 ** 31 - 1, cap: 2 ** 31 - 1 },
      random: () => 1 - 2 ** -30,
    });
    const socket = await admit();
    client.subscribe("a", { onInit: () => {} });
    const [{ uid }] = socket.take();
    for (const type of ["server", "subscribe"]) {
      const error = { code: "REQUESTS_EXCEEDED", message: "", retry_after: 1e12 };
      socket.receive({ type, status: "error", error, ...(type === "subscribe" && { uid }) });
    }
    socket.end();
    assert.ok(clock.delays.every((delay) => delay < 2 ** 31), String(clock.delays));
    void client.close();
  });
});
