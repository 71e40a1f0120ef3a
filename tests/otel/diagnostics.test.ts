/** `publishDiagnostics` of `noroshi/diagnostics`, received on `node:diagnostics_channel`. */
import assert from "node:assert/strict";
import { subscribe, unsubscribe } from "node:diagnostics_channel";
import process from "node:process";
import { describe, it } from "node:test";
import * as v from "valibot";
import { Channels } from "../../src/channels/channels.ts";
import { WebSocketController } from "../../src/controller/controller.ts";
import { publishDiagnostics } from "../../src/otel/diagnostics.ts";
import { observe } from "../../src/otel/otel.ts";
import { createRoute } from "../support/fake-runtime.ts";
import { open } from "../support/fake-transport.ts";
import { turn } from "../support/waiting.ts";
import { observed } from "./collected.ts";

const EVENTS = ["connection:open", "connection:close", "authentication", "message", "recovery", "log"].map((name) =>
  `noroshi:${name}`
);
const CALLS = ["handle", "stream", "publish"].flatMap((name) =>
  ["start", "end", "asyncStart", "asyncEnd", "error"].map((step) => `tracing:noroshi:${name}:${step}`)
);

/** Subscribes to the channels until the end of the run. */
async function heard(names: string[], run: () => unknown): Promise<[name: string, message: Record<string, unknown>][]> {
  const messages: [string, Record<string, unknown>][] = [];
  const listener = (message: unknown, name: string | symbol) =>
    void messages.push([String(name), { ...message as Record<string, unknown> }]); // An object, which the end of the call changes.
  for (const name of names) subscribe(name, listener);
  try {
    await run();
  } finally {
    for (const name of names) unsubscribe(name, listener);
  }
  return messages;
}

const settle = async () => {
  for (let turns = 0; turns < 6; turns++) await turn();
};

describe("publishDiagnostics", () => {
  it("publishes connections, messages, authentications, recoveries and the log", async () => {
    const { controller, request, opened } = createRoute({
      name: "chat",
      logger: false,
      authenticate: (credentials) =>
        "access_token" in credentials && credentials.access_token === "good"
          ? { accountability: { user: "ann", role: null } }
          : null,
    });
    new Channels(controller, { news: { authorize: () => true, history: { size: 1, ttl: 1_000 } } });
    publishDiagnostics(controller);
    const messages = await heard(EVENTS, async () => {
      await request("/websocket", { origin: "https://evil.example" });
      await request("/websocket");
      const [connection] = opened;
      connection!.message('{"type":"auth","access_token":"good"}');
      await settle();
      connection!.message('{"type":"subscribe","channel":"news","recover":{"epoch":"lost","offset":1}}');
      await settle();
      connection!.message("no JSON");
      await settle();
      connection!.closed(1000, "", true);
    });
    const client = messages.find(([name]) => name === "noroshi:connection:open")![1].client;
    const common = { controller: "chat" };
    const { record, message, ...log } = messages[0]![1];
    assert.deepEqual(log, { ...common, level: "warn" });
    assert.equal((record as { reason: string }).reason, "origin");
    assert.match(String(message), /^Refused origin https:\/\/evil\.example/);
    assert.deepEqual(messages.slice(1), [
      ["noroshi:connection:open", { ...common, client }],
      ["noroshi:message", { ...common, client, type: "auth" }],
      ["noroshi:authentication", { ...common, outcome: "accepted" }],
      ["noroshi:message", { ...common, client, type: "subscribe" }],
      ["noroshi:recovery", { ...common, isComplete: false }],
      ["noroshi:message", { ...common, client, type: null }],
      ["noroshi:connection:close", { ...common, client, cause: "client" }],
    ]);
  });

  it("traces handlers, streams and publications: synchronous, asynchronous and failing ones", async () => {
    const controller = new WebSocketController({ logger: false, rateLimit: false });
    const channels = new Channels(controller, { news: { authorize: () => true } });
    controller.on("error", () => {});
    controller.handle("sync", v.object({}), () => 1);
    controller.handle("async", v.object({}), async () => await Promise.resolve(2));
    controller.handle("throws", v.object({}), () => {
      throw new Error("thrown");
    });
    controller.handle("rejects", v.object({}), () => Promise.reject(new Error("rejected")));
    controller.handle("counts", v.object({}), async function* () {
      yield 1;
      return 3;
    });
    publishDiagnostics(controller);
    const { connection, client, transport } = open(controller);
    const answers: unknown[] = [];
    const say = async (type: string) => {
      const messages = await heard(CALLS, async () => {
        connection.message(JSON.stringify({ type, uid: 1 }));
        await settle();
      });
      answers.push(...transport.take());
      return messages.map(([name, { result, error, ...rest }]) => {
        assert.deepEqual(rest, { controller: "main", client, request: { type, uid: 1 } });
        return [
          name.replace("tracing:noroshi:", ""),
          ...(result === undefined ? [] : [result]),
          ...(error ? [String(error)] : []),
        ];
      });
    };
    assert.deepEqual(await say("sync"), [["handle:start"], ["handle:end", 1]]);
    assert.deepEqual(await say("async"), [["handle:start"], ["handle:end"], ["handle:asyncStart", 2], ["handle:asyncEnd", 2]]);
    assert.deepEqual(await say("throws"), [["handle:start"], ["handle:error", "Error: thrown"], ["handle:end", "Error: thrown"]]);
    assert.deepEqual(await say("rejects"), [
      ["handle:start"],
      ["handle:end"],
      ["handle:error", "Error: rejected"],
      ["handle:asyncStart", "Error: rejected"],
      ["handle:asyncEnd", "Error: rejected"],
    ]);
    const steps = await say("counts");
    assert.deepEqual(steps.filter(([name]) => String(name).startsWith("stream")), [
      ["stream:start"],
      ["stream:end"],
      ["stream:asyncStart", 3],
      ["stream:asyncEnd", 3],
    ]);
    assert.deepEqual((answers as { status: string }[]).map(({ status }) => status), ["ok", "ok", "error", "error", "next", "ok"]);
    const published = await heard(CALLS, () => channels.publish("news", "say", 1));
    assert.deepEqual(published, [
      ["tracing:noroshi:publish:start", { controller: "main", channel: "news", event: "say" }],
      ["tracing:noroshi:publish:end", { controller: "main", channel: "news", event: "say", result: null }],
    ]);
  });

  it("publishes nothing without a subscriber, and leaves the answers unchanged", async () => {
    const controller = new WebSocketController({ logger: false });
    controller.handle("sync", v.object({}), () => 1);
    const end = publishDiagnostics(controller);
    const { connection, transport } = open(controller);
    connection.message('{"type":"sync"}');
    assert.deepEqual(transport.take(), [{ type: "sync", status: "ok", data: 1 }]);
    end();
    assert.deepEqual(await heard([...EVENTS, ...CALLS], () => connection.message('{"type":"sync"}')), []);
  });

  it("works beside observe, and publishes the events of a controller once", async () => {
    const controller = new WebSocketController({ logger: false });
    controller.handle("sync", v.object({}), () => 1);
    const metrics = observed(controller);
    const end = publishDiagnostics(controller);
    assert.throws(() => publishDiagnostics(controller), /noroshi\/diagnostics observes it already, end that first/);
    assert.throws(
      () => publishDiagnostics({} as WebSocketController),
      /^TypeError: Cannot publish diagnostics: pass a WebSocket/,
    );
    const { connection } = open(controller);
    const messages = await heard(CALLS, () => connection.message('{"type":"sync"}'));
    assert.equal(messages.length, 2);
    assert.deepEqual(await metrics.by("rpc.server.call.duration", "rpc.method"), { sync: 1 });
    end();
    connection.message('{"type":"sync"}');
    assert.deepEqual(await metrics.by("rpc.server.call.duration", "rpc.method"), { sync: 2 });
    metrics.end();
    observe(controller, { meter: false })();
  });

  it("does nothing when the runtime has no node:diagnostics_channel", () => {
    const { getBuiltinModule } = process;
    process.getBuiltinModule = (() => undefined) as never; // As on Workers without nodejs_compat.
    try {
      publishDiagnostics(new WebSocketController({ logger: false }))();
    } finally {
      process.getBuiltinModule = getBuiltinModule;
    }
  });
});
