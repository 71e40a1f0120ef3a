/** A Durable Object that is called by RPC from everywhere an application may call it, and whose class has methods of its own. */
import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { fileURLToPath } from "node:url";
import { startWorker, type Worker } from "../../scripts/worker.ts";
import { until } from "../support/waiting.ts";
import { begin } from "./channel-client.ts";
import { evict as evictFrom } from "./server.ts";
import { Wire } from "./wire.ts";

const file = fileURLToPath(new URL("fixture/object-worker.ts", import.meta.url));

let worker: Worker;

/** Calls a method of an object from a Worker, and resolves with its result or its error. */
async function outcome(name: string, method: string, ...args: unknown[]): Promise<{ result?: unknown; error?: unknown }> {
  const answer = await fetch(`http://127.0.0.1:${worker.port}/call/${name}/${method}`, {
    method: "POST",
    body: JSON.stringify(args),
  });
  return await answer.json() as { result?: unknown; error?: unknown };
}

// deno-lint-ignore no-explicit-any -- a test reads what it expects and fails on the rest
async function call(name: string, method: string, ...args: unknown[]): Promise<any> {
  const { result, error } = await outcome(name, method, ...args);
  assert.equal(error, undefined);
  return result;
}

const open = (name: string, path = "/websocket") => Wire.open(worker.port, `${path}?object=${name}`);

const evict = (name: string) => evictFrom(worker.miniflare, name);

describe("An object", () => {
  before(async () => {
    worker = await startWorker(file, "Fixture", { queue: "events" });
  });
  after(async () => {
    Wire.resetAll();
    await worker.miniflare.dispose();
  });

  it("publishes, broadcasts, disconnects and returns stats when a Worker calls it", async () => {
    const wire = await open("called");
    await wire.ask({ type: "auth", access_token: "ann" });
    await begin(wire, "room:1");
    const { epoch, offset } = await call("called", "publish", "room:1", "said", { text: "hello" });
    assert.deepEqual((await wire.next()).data, { text: "hello" });

    assert.deepEqual(await call("called", "presence", "room:1"), [{ user: "ann" }]);
    const { publications, ...history } = await call("called", "history", "room:1", { limit: 1 });
    assert.deepEqual(publications, [{ event: "said", data: { text: "hello" }, offset }]);
    assert.deepEqual(history, { epoch, offset, isComplete: true });

    assert.deepEqual(await call("called", "broadcast", { type: "news", text: "to readers" }, { role: "reader" }), {
      matched: 1,
      sent: 1,
      dropped: 0,
    });
    assert.equal((await wire.next()).text, "to readers");
    assert.equal((await call("called", "broadcast", "to nobody", { user: "ben" })).matched, 0);

    const stats = await call("called", "stats");
    assert.deepEqual([stats.clients, stats.channels.subscriptions], [1, 1]);
    assert.ok(stats.databaseBytes > 0);

    assert.deepEqual(await call("called", "disconnect", { user: "ann" }, 4000, "moved"), { missing: [], isSent: true });
    assert.deepEqual(await wire.closed, { code: 4000, reason: "moved" });
  });

  it("publishes once for an id, also after an eviction", async () => {
    const said = ["room:1", "said", { text: "once" }, { id: "1" }];
    const position = await call("once", "publish", ...said);
    assert.deepEqual(await call("once", "publish", ...said), position);
    await evict("once");
    assert.deepEqual(await call("once", "publish", ...said), position);
    assert.equal((await call("once", "history", "room:1")).publications.length, 1);
  });

  it("publishes to a client that hibernates", async () => {
    const wire = await open("asleep");
    await begin(wire, "room:1");
    await evict("asleep");
    await call("asleep", "publish", "room:1", "said", { text: "awake" });
    assert.deepEqual((await wire.next()).data, { text: "awake" });
  });

  it("starts a subscription that was waiting for authorize when it hibernated", async () => {
    const wire = await open("waiting");
    wire.send({ type: "subscribe", channel: "closed:1", uid: 1 });
    // Each answer belongs to a later event, and is sent after everything before it is stored.
    for (const uid of [2, 3]) assert.equal((await wire.ask({ type: "ping", uid })).type, "pong");
    await call("waiting", "openDoors");
    await evict("waiting");
    wire.send({ type: "ping", uid: 4 });
    const answers = [await wire.next(), await wire.next()];
    assert.deepEqual(answers.map(({ type, event, uid }) => `${event ?? type} ${uid}`).sort(), ["init 1", "pong 4"]);
    await call("waiting", "publish", "closed:1", "said", { text: "inside" });
    assert.deepEqual((await wire.next()).data, { text: "inside" });
  });

  it("publishes when a cron trigger, a queue consumer and another object call it", async () => {
    const wire = await open("main");
    await begin(wire, "room:1");
    const { scheduled } = await worker.miniflare.getWorker() as unknown as {
      scheduled(options: { cron: string }): Promise<unknown>;
    }; // A fetcher of workerd.
    await scheduled({ cron: "* * * * *" });
    assert.deepEqual((await wire.next()).data, { text: "cron * * * * *" });
    await fetch(`http://127.0.0.1:${worker.port}/queue`, { method: "POST", body: '"order 1"' });
    assert.deepEqual((await wire.next()).data, { text: "queue order 1" });
    // The queue consumer published it twice, with one id.
    await call("other", "publishElsewhere", "main", "from another object");
    assert.deepEqual((await wire.next()).data, { text: "from another object" });
  });

  it("refuses wrong arguments with an error that names what to pass", async () => {
    const wrong: [method: string, args: unknown[], message: RegExp][] = [
      ["publish", [], /^Cannot publish to "undefined": no such channel is declared/],
      ["publish", ["elsewhere", "said", {}], /no such channel is declared/],
      ["publish", ["room:1", "", {}], /the event must be a string/],
      ["publish", ["room:1", "said", {}, null], /^Cannot publish: the options must be an object with id, or absent$/],
      ["publish", ["room:1", "said", {}, { ids: "1" }], /the options must be an object with id/],
      ["publish", ["room:1", "said", {}, { id: "" }], /the id must be a string/],
      ["broadcast", [], /^Cannot /],
      ["broadcast", [{ type: "news" }, { users: "ann" }], /unknown filter key "users"/],
      ["broadcast", [{ type: "news" }, null], /the filter must be an object/],
      ["disconnect", [], /^Cannot disconnect: the filter must be an object/],
      ["disconnect", [{}], /pass a user, a role or a uid/],
      ["disconnect", [{ user: "ann" }, 1005], /1005/],
      ["presence", [["room:1"]], /no such channel is declared/],
      ["history", ["room:1", "all"], /the options must be an object with limit and after/],
      ["history", ["room:1", { limit: -1 }], /limit must be a whole number/],
    ];
    for (const [method, args, message] of wrong) {
      const { error } = await outcome("strict", method, ...args) as { error?: { name: string; message: string } };
      assert.equal(error?.name, "TypeError", `${method}(${JSON.stringify(args)})`);
      assert.match(error.message, message);
    }
  });

  it("calls the methods of a subclass beside its own", async () => {
    const wire = await open("extended");
    assert.equal((await wire.ask({ type: "ping", uid: 1 })).type, "pong");
    const theirs = await open("extended", "/theirs");
    theirs.send("hello");
    assert.equal(await theirs.text(), "theirs: hello");
    await wire.close(1000);
    await theirs.close(1000);
    assert.deepEqual(await call("extended", "wait", "close 1000", 2), [
      "constructor",
      'message {"type":"ping","uid":1}',
      "message hello",
      "close 1000",
      "close 1000",
    ]);
    assert.equal((await call("extended", "stats")).closed, 1);
  });

  it("gives a subclass its own alarm beside the controller's timers, which survives an eviction", async () => {
    await call("alarmed", "setAlarm", 600_000);
    assert.equal(await call("alarmed", "hasAlarm"), true);
    await call("alarmed", "deleteAlarm");
    assert.equal(await call("alarmed", "hasAlarm"), false);
    // The controller's deadline for the history uses the alarm, too.
    await call("alarmed", "publish", "room:1", "said", { text: "a deadline" });
    // On a busy machine the alarm may ring before the eviction. Then the test tries again with a longer delay.
    for (let delay = 250, begin = -Infinity; performance.now() - begin >= delay;) {
      delay *= 2;
      begin = performance.now();
      await call("alarmed", "setAlarm", delay);
      await evict("alarmed");
    }
    assert.deepEqual(await call("alarmed", "wait", "alarm 0"), ["constructor", "alarm 0"]);
    assert.equal(await call("alarmed", "hasAlarm"), false);
  });

  it("retries an alarm that fails, and one that an eviction has ended", async () => {
    await call("failing", "setAlarm", 0, 1);
    assert.deepEqual(await call("failing", "wait", "alarm 1"), ["constructor", "alarm 0", "alarm 1"]);
    await call("stalled", "setAlarm", 0, 0, true);
    await call("stalled", "wait", "alarm 0");
    await evict("stalled");
    assert.deepEqual(await call("stalled", "wait", "alarm 1"), ["constructor", "alarm 1"]);
  });

  it("starts empty after it has deleted everything and aborted itself", async () => {
    const wire = await open("erased");
    await begin(wire, "room:1");
    await call("erased", "publish", "room:1", "said", { text: "before" });
    await wire.next();
    await call("erased", "schedule", 60_000, "say", { text: "later" });
    await call("erased", "setAlarm", 60_000);
    const { error } = await outcome("erased", "erase");
    assert.equal((error as { message: string }).message, "Erased");
    await wire.closed;

    const again = await open("erased");
    await begin(again, "room:1");
    assert.deepEqual(await call("erased", "schedules"), []);
    assert.equal(await call("erased", "hasAlarm"), false);
    await call("erased", "publish", "room:1", "said", { text: "after" });
    assert.deepEqual((await again.next()).data, { text: "after" });
    const { publications } = await call("erased", "history", "room:1");
    assert.deepEqual(publications.map(({ data }: { data: unknown }) => data), [{ text: "after" }]);
    await call("erased", "schedule", 0, "say", { text: "scheduled" });
    assert.deepEqual((await again.next()).data, { text: "scheduled 1" });
  });

  it("runs scheduled calls, also after an eviction, retries failed ones, and keeps dead letters", async () => {
    const wire = await open("scheduling");
    await begin(wire, "room:1");
    await call("scheduling", "schedule", 300, "say", { text: "later" });
    await evict("scheduling");
    assert.deepEqual((await wire.next()).data, { text: "later 1" });
    await call("scheduling", "schedule", 0, "say", { text: "again", failures: 1 });
    assert.deepEqual((await wire.next()).data, { text: "again 2" });

    const id = await call("scheduling", "schedule", 0, "say", { text: "never", failures: 2 });
    await call("scheduling", "schedule", 100, "say", { text: "after that" });
    assert.deepEqual((await wire.next()).data, { text: "after that 1" });
    // On a busy machine the retry may come after the call that was due later.
    let letters: Record<string, unknown>[] = [];
    await until(async () => (letters = await call("scheduling", "deadLetters")).length > 0);
    const [{ due: _, ...letter }] = letters as [Record<string, unknown>]; // As awaited.
    assert.deepEqual(letter, {
      id,
      name: "say",
      payload: { text: "never", failures: 2 },
      attempts: 2,
      error: "As it was told to",
    });
    assert.equal(await call("scheduling", "cancel", id), true);

    await call("scheduling", "schedule", "0 8 * * *", "say", { text: "eight" }, { id: "eight" });
    const [{ id: listed, cron }] = await call("scheduling", "schedules");
    assert.deepEqual([listed, cron], ["eight", "0 8 * * *"]);
    for (let place = 0; place < 2; place++) await call("scheduling", "schedule", 60_000, "say", { text: "" });
    const { error } = await outcome("scheduling", "schedule", 60_000, "say", { text: "" });
    assert.deepEqual(error, {
      name: "WebSocketError",
      message: 'Cannot schedule "say": maxSchedules is reached: cancel some, or raise it',
      code: "LIMIT_EXCEEDED",
    });
  });
});
