/** One room over a home object and relays: evictions and restarts by workerd cost clients nothing. */
import assert from "node:assert/strict";
import { after, before, describe, it } from "node:test";
import { begin, range, take } from "./channel-client.ts";
import { ShardedWorker } from "./sharded-worker.ts";
import { Wire } from "./wire.ts";
import { until } from "../support/waiting.ts";

let worker: ShardedWorker;

const outcome = (...call: Parameters<ShardedWorker["outcome"]>) => worker.outcome(...call);
const call = (...call: Parameters<ShardedWorker["call"]>) => worker.call(...call);
const newHome = () => worker.newHome();
const open = (...call: Parameters<ShardedWorker["open"]>) => worker.open(...call);
const evict = (name: string) => worker.evict(name);

const publish = (home: string, n: number, channel = "room:1") => call(home, "publish", channel, "said", n, { id: `${n}` });

/** Publishes until it is confirmed: an object that is evicted during the call may or may not have published. */
async function publishSurely(home: string, n: number): Promise<void> {
  for (;;) if ("result" in await outcome(home, "publish", "room:1", "said", n, { id: `${n}` })) return;
}

/** Disconnects a user. On a busy machine a relay may confirm too late: what is promised is that the order was sent. */
async function disconnect(home: string, user: string): Promise<void> {
  await until(async () => {
    const { isSent, missing } = await call(home, "disconnect", { user }, 4000, "moved");
    assert.equal(isSent, true);
    return missing.length === 0;
  });
}

const dataOf = ({ data }: { data?: unknown }) => data;

/** The data of the next publications. */
const next = async (wire: Wire, count: number) => (await take(wire, count)).map(dataOf);

describe("Shards", { timeout: 300_000 }, () => {
  before(async () => {
    worker = await ShardedWorker.start();
  });
  after(() => worker.stop());

  it("deliver publications of the home object and of each relay to all clients in one order", async () => {
    const home = newHome();
    const wires = await Promise.all(range(3).map((relay) => open(`${home}#${relay}`)));
    for (const wire of wires) await begin(wire, "room:1");
    for (const n of range(5)) await publish(n % 2 ? `${home}#${n % 3}` : home, n);
    for (const wire of wires) assert.deepEqual(await next(wire, 5), range(5));
    const { publications } = await call(`${home}#1`, "history", "room:1");
    assert.deepEqual(publications.map(dataOf), range(5));
    // Without a history.
    for (const wire of wires) await begin(wire, "note:1");
    await publish(`${home}#2`, 9, "note:1");
    for (const wire of wires) assert.equal((await wire.next()).data, 9);
  });

  it("recover a client at another relay by its position", async () => {
    const home = newHome();
    const wire = await open(`${home}#0`);
    const { epoch } = await begin(wire, "room:1");
    await publish(home, 0);
    const { offset } = await wire.next();
    wire.socket.destroy();
    for (const n of range(3, 1)) await publish(home, n);
    const again = await open(`${home}#1`);
    const { recovered } = await begin(again, "room:1", { recover: { epoch, offset } });
    assert.equal(recovered, true);
    assert.deepEqual(await next(again, 3), range(3, 1));
    await publish(home, 4);
    assert.equal((await again.next()).data, 4);
  });

  it("deliver to clients whose relays hibernate, and from one of them to the others", async () => {
    const home = newHome();
    const relays = range(3).map((relay) => `${home}#${relay}`);
    const wires = await Promise.all(relays.map((relay) => open(relay)));
    for (const wire of wires) await begin(wire, "room:1");
    await publish(home, 0);
    for (const wire of wires) await wire.next();
    for (const name of [...relays, home]) await evict(name);
    for (const n of range(3, 1)) await publish(home, n);
    for (const wire of wires) assert.deepEqual(await next(wire, 3), range(3, 1));
    await evict(relays[1]!);
    wires[1]!.send({ type: "publish", channel: "room:1", event: "said", data: 4 });
    for (const wire of [wires[0]!, wires[2]!]) assert.equal((await wire.next()).data, 4);
  });

  it("neither lose nor repeat a publication when any object is evicted at any time", async () => {
    const home = newHome();
    const relays = range(8).map((relay) => `${home}#${relay}`);
    const wires = await Promise.all(relays.map((relay) => open(relay)));
    for (const wire of wires) await begin(wire, "room:1");
    const objects = [home, ...relays];
    const count = 90;
    for (const n of range(count)) {
      // Evicted during the publication, or before it.
      const evicting = evict(objects[n % objects.length]!);
      if (n % 2) await evicting;
      await Promise.all([evicting, publishSurely(home, n)]);
    }
    for (const wire of wires) assert.deepEqual(await next(wire, count), range(count));
  });

  it("list the members of all relays, which stay during hibernation and leave after a restart without them", async () => {
    const home = newHome();
    const [ann, ben] = [await open(`${home}#0`, "ann"), await open(`${home}#1`, "ben")];
    await begin(ann, "room:1", { presence: true });
    assert.deepEqual((await take(ann, 2)).map(({ event, members }) => [event, members]), [
      ["init", []],
      ["join", [{ user: "ann" }]],
    ]);
    await begin(ben, "room:1");
    assert.deepEqual((await ann.next()).members, [{ user: "ben" }]);
    for (const name of [`${home}#0`, `${home}#1`, home]) await evict(name);
    const names = async () => (await call(home, "presence", "room:1")).map(({ user }: { user: string }) => user).sort();
    assert.deepEqual(await names(), ["ann", "ben"]);
    await outcome(`${home}#1`, "crash");
    await ben.closed;
    // The relay notices at its next call, and its members have the time of a reconnect before they leave.
    await publish(home, 0);
    // The home object was evicted while it reported the joins, and may report them again.
    let message = await ann.next();
    while (message.event === "join") message = await ann.next();
    assert.equal(message.data, 0);
    const { event, members } = await ann.next();
    assert.deepEqual([event, members], ["leave", [{ user: "ben" }]]);
    assert.deepEqual(await names(), ["ann"]);
  });

  it("broadcast to, list, count and disconnect the clients of all relays, including hibernating ones", async () => {
    const home = newHome();
    const wires = await Promise.all(range(3).map((relay) => open(`${home}#${relay}`, `user-${relay}`)));
    for (const wire of wires) await wire.ask({ type: "ping" });
    for (const relay of range(3)) await evict(`${home}#${relay}`);
    const { clients, missing } = await call(home, "clients", {}, { timeout: 60_000 });
    assert.deepEqual([clients.map(({ user }: { user: string }) => user).sort(), missing], [range(3).map((n) => `user-${n}`), []]);
    await evict(`${home}#0`);
    await call(home, "broadcast", { type: "news" });
    for (const wire of wires) assert.equal((await wire.next()).type, "news");
    const { nodes } = await call(home, "allStats", { timeout: 60_000 });
    assert.deepEqual((Object.values(nodes) as { clients: number }[]).map(({ clients }) => clients).sort(), [0, 1, 1, 1]);
    await evict(`${home}#1`);
    await disconnect(home, "user-1");
    assert.deepEqual(await wires[1]!.closed, { code: 4000, reason: "moved" });
  });

  it("reach a relay whose only client has an event stream", async () => {
    const home = newHome();
    const { body } = await fetch(`http://127.0.0.1:${worker.port}/websocket?object=${home}%230&access_token=ann`, {
      headers: { accept: "text/event-stream" },
    });
    const reader = body!.pipeThrough(new TextDecoderStream()).getReader();
    let text = "";
    const seen = async (part: string) => {
      while (!text.includes(part)) {
        const { done, value } = await reader.read();
        assert.equal(done, false, text);
        text += value;
      }
    };
    await seen("event:");
    const names = ({ clients }: { clients: { user: string }[] }) => clients.map(({ user }) => user);
    assert.deepEqual(names(await call(home, "clients", {}, { timeout: 60_000 })), ["ann"]);
    await call(home, "broadcast", { type: "news" });
    await seen("news");
    await disconnect(home, "ann");
    await seen("moved");
    await reader.cancel();
  });

  it("refuse an upgrade while the home object is unreachable, because it could not list the relay", async () => {
    for (const home of ["away", "hung"]) {
      const { answer } = await Wire.request(worker.port, `/websocket?object=${home}%230&access_token=ann`);
      assert.equal(answer.status, 503, home);
    }
  });

  it("move an upgrade from a full relay to another, and refuse it when all are full", async () => {
    const path = "/websocket?home=full&shards=4";
    const wires = await Promise.all(range(8).map(() => Wire.open(worker.port, path)));
    for (const wire of wires) assert.equal((await wire.ask({ type: "ping" })).type, "pong");
    const refused = await Wire.request(worker.port, path);
    assert.equal(refused.answer.status, 503);
    await wires[0]!.close(1000);
    // Its client is told of the close before the relay is.
    let again = refused;
    await until(async () => (again = await Wire.request(worker.port, path)).answer.status === 101, () => again.answer);
    assert.equal((await again.ask({ type: "ping" })).type, "pong");
  });
});
