import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { Hono } from "hono";
import * as v from "valibot";
import { WebSocketController, WebSocketError } from "../../mod.ts";
import type { StreamingClient } from "../../src/client/client.ts";
import type { ClientStream } from "../../src/client/streams.ts";
import type { ResumableOptions } from "../../src/streams/resumable-options.ts";
import { testkit } from "../../src/testing/testkit.ts";

// A type, for a payload has an index signature.
type Count = {
  steps?: number;
  /** Between two items, in ms. */
  pause?: number;
};

/** Nodes with a stream "count". */
function createNodes(nodes: number, resumable: ResumableOptions<Count, number> = {}) {
  const built: WebSocketController[] = [];
  const finished: unknown[] = [];
  const t = testkit((node) => {
    const controller = built[node] = new WebSocketController({
      logger: false,
      authenticate: (credentials) => {
        const user = "access_token" in credentials ? credentials.access_token : null;
        return { accountability: { user, role: null }, expires_at: null };
      },
      mode: "public",
    });
    controller.handle(
      "count",
      v.object({ steps: v.optional(v.number(), 10), pause: v.optional(v.number(), 100) }),
      async function* ({ message: { steps, pause }, signal }) {
        try {
          for (let n = 1; n <= steps; n++) {
            await new Promise<void>((resolve) => {
              const timer = t.clock.setTimeout(resolve, pause);
              signal.addEventListener("abort", () => {
                t.clock.clearTimeout(timer);
                resolve();
              });
            });
            if (signal.aborted) throw signal.reason;
            yield n;
          }
          return "counted";
        } finally {
          finished.push(signal.reason?.code ?? "end");
        }
      },
      { resumable },
    );
    return { app: new Hono().get("/websocket", controller.upgrade), controller };
  }, { nodes });
  return { t, built, finished };
}

/** What a stream has yielded, and how it ended. */
function read<Item>(stream: ClientStream<Item>) {
  const seen: { items: Item[]; end: unknown } = { items: [], end: undefined };
  const reading = (async () => {
    for await (const item of stream) seen.items.push(item);
    seen.end = await stream.result;
  })();
  reading.catch((error) => seen.end = error.code);
  return seen;
}

const upTo = (last: number) => Array.from({ length: last }, (_, index) => index + 1);
const count = (client: StreamingClient, payload: Count = {}) => client.stream("count", payload) as ClientStream<number>;

describe("A resumable stream over nodes", () => {
  it("continues for a client that reconnects to another node, with no item lost or sent twice", async () => {
    const { t, built } = createNodes(2);
    const client = await t.connect({ token: "ann" }); // Of the nodes in turn, the first.
    const stream = count(client, { steps: 50 });
    const seen = read(stream);
    await t.advance(350);
    assert.deepEqual(seen.items, [1, 2, 3]);
    const other = await t.connect({ token: "ann", node: 1 });
    const again = read(other.attach((await stream.id)!) as ClientStream<number>);
    const rest = read(other.attach((await stream.id)!, { after: 2 }) as ClientStream<number>);
    t.cut(client);
    await t.advance(2_000);
    assert.deepEqual(built.map((each) => each.clients().size), [0, 2]);
    await t.advance(5_000);
    assert.deepEqual(seen, { items: upTo(50), end: "counted" });
    assert.deepEqual(again, { items: upTo(50), end: "counted" });
    assert.deepEqual(rest, { items: upTo(50).slice(2), end: "counted" });
    assert.deepEqual(built.map((each) => each.stats().streams), [0, 0]);
    await t.close();
  });

  it("is lost with its node, after everything that was kept", async () => {
    const { t } = createNodes(2);
    const client = await t.connect({ token: "ann" }); // Of the nodes in turn, the first.
    const other = await t.connect({ token: "ann", node: 1 });
    const stream = count(client, { steps: 100_000 });
    const seen = read(stream);
    await t.advance(1_050);
    const attached = read(other.attach((await stream.id)!) as ClientStream<number>);
    await t.advance(1_000);
    t.kill(0);
    await t.advance(60_000);
    assert.deepEqual(attached.end, "STREAM_LOST");
    assert.deepEqual(attached.items, upTo(attached.items.length));
    assert.ok(attached.items.length >= 20);
    assert.deepEqual(seen, { items: attached.items, end: "STREAM_LOST" });
    await t.close();
  });

  it("ends with STREAM_LOST at once when its node is stopped, for a client that goes on with another", async () => {
    const { t, finished } = createNodes(2);
    const client = await t.connect({ token: "ann" }); // Of the nodes in turn, the first.
    const seen = read(count(client, { steps: 1_000 }));
    await t.advance(1_050);
    await t.stop(0);
    assert.deepEqual(finished, ["STREAM_LOST"]);
    await t.advance(3_000);
    assert.deepEqual(seen, { items: upTo(seen.items.length), end: "STREAM_LOST" });
    assert.ok(seen.items.length >= 10);
    await t.close();
  });

  it("is handed over by a drain, which waits for its end", async () => {
    const { t, built, finished } = createNodes(2);
    const client = await t.connect({ token: "ann" }); // Of the nodes in turn, the first.
    const seen = read(count(client, { steps: 80 }));
    await t.advance(1_050);
    let result: unknown;
    void built[0]!.drain({ window: 10_000 }).then((ended) => result = ended);
    await t.advance(2_500);
    assert.deepEqual(built.map((each) => each.clients().size), [0, 1]);
    await t.advance(3_000);
    assert.deepEqual([finished, result], [[], undefined]);
    await t.advance(2_500);
    assert.deepEqual(seen, { items: upTo(80), end: "counted" });
    assert.deepEqual(finished, ["end"]);
    await t.advance(200);
    assert.deepEqual(result, { closed: 1, cut: 0, isClean: true });
    await t.close();
  });

  it("ends with STREAM_LOST when the window of a drain is over, which is clean", async () => {
    const { t, built, finished } = createNodes(2);
    const client = await t.connect({ token: "ann" }); // Of the nodes in turn, the first.
    const seen = read(count(client, { steps: 1_000 }));
    await t.advance(1_050);
    let result: unknown;
    void built[0]!.drain({ window: 4_000 }).then((ended) => result = ended);
    await t.advance(4_500);
    assert.deepEqual(finished, ["STREAM_LOST"]);
    assert.deepEqual(result, { closed: 1, cut: 0, isClean: true });
    assert.deepEqual(seen, { items: upTo(seen.items.length), end: "STREAM_LOST" });
    assert.ok(seen.items.length >= 45, `${seen.items.length} items`);
    await t.close();
  });

  it("is listed for its user on every node, until it ends", async () => {
    const { t } = createNodes(2, { key: ({ message }) => `up to ${message.steps}` });
    const ann = await t.connect({ token: "ann", node: 0 });
    const phone = await t.connect({ token: "ann", node: 1 });
    const bob = await t.connect({ token: "bob", node: 1 });
    const id = await count(ann).id;
    const listed = [{ id, type: "count", key: "up to 10" }];
    assert.deepEqual([await ann.streams(), await phone.streams(), await bob.streams()], [listed, listed, []]);
    await t.advance(5_000);
    assert.deepEqual([await ann.streams(), await phone.streams()], [[], []]);
    await t.close();
  });

  it("is stopped from another node, and while no client is attached", async () => {
    const { t, finished } = createNodes(2);
    const ann = await t.connect({ token: "ann", node: 0 });
    const phone = await t.connect({ token: "ann", node: 1 });
    const stream = count(ann);
    const seen = read(stream);
    await t.advance(250);
    const attached = phone.attach((await stream.id)!) as ClientStream<number>;
    const other = read(attached);
    await t.advance(100);
    attached.cancel();
    await t.advance(1_000);
    assert.deepEqual([seen.end, finished], ["CANCELLED", ["CANCELLED"]]);
    assert.deepEqual(other.items, [1, 2, 3]);
    const unattended = count(ann);
    read(unattended);
    await t.advance(250);
    const id = await unattended.id;
    await ann.close();
    await phone.send({ type: "stream.cancel", id });
    await t.advance(1_000);
    assert.deepEqual(finished, ["CANCELLED", "CANCELLED"]);
    await t.close();
  });

  it("ends when no client was attached for ttl, and not while one is on another node", async () => {
    const { t, finished } = createNodes(2, { ttl: 5_000 });
    const ann = await t.connect({ token: "ann", node: 0 });
    const phone = await t.connect({ token: "ann", node: 1 });
    const stream = count(ann, { steps: 1_000 });
    read(stream);
    await t.advance(150);
    const id = (await stream.id)!;
    const attached = read(phone.attach(id) as ClientStream<number>);
    await t.advance(100);
    await ann.close();
    await t.advance(20_000);
    assert.deepEqual([attached.items.length > 180, finished], [true, []]);
    await phone.close();
    await t.advance(4_000);
    assert.deepEqual(finished, []);
    await t.advance(12_000);
    assert.deepEqual(finished, ["STREAM_LOST"]);
    const late = read((await t.connect({ token: "ann" })).attach(id, { after: 3 }) as ClientStream<number>);
    await t.advance(1_000);
    assert.deepEqual([late.items[0], late.end], [4, "STREAM_LOST"]);
    await t.close();
  });

  it("is refused to a foreign user as one that does not exist is", async () => {
    const { t } = createNodes(2);
    const ann = await t.connect({ token: "ann", node: 0 });
    const id = (await count(ann, { steps: 100 }).id)!;
    for (const [token, node] of [["bob", 0], ["bob", 1], [undefined, 0]] as const) {
      const client = await t.connect({ node, ...(token && { token }) });
      const messages = await Promise.all([id, "no-such-id", `${crypto.randomUUID()}/count`, "%"].map(async (each) => {
        return await client.attach(each).result.then(() => "attached", ({ code, message }) => `${code} ${message}`);
      }));
      assert.deepEqual(new Set(messages).size, 1);
      assert.match(messages[0]!, /^STREAM_LOST /);
    }
    await t.close();
  });

  it("of an anonymous client is resumed by its id", async () => {
    const { t } = createNodes(2);
    const stranger = await t.connect({ node: 0 });
    const seen = read(count(stranger));
    await t.advance(250);
    t.cut(stranger);
    await t.advance(5_000);
    assert.deepEqual([seen, await stranger.streams()], [{ items: upTo(10), end: "counted" }, []]);
    await t.close();
  });

  it("asks authorize about every client, with the user and the key", async () => {
    const asked: unknown[] = [];
    const { t } = createNodes(2, {
      key: () => "chat/5",
      authorize: ({ client: { accountability }, id: _id, ...context }) => {
        asked.push({ ...context, by: accountability.user });
        if (accountability.user === "eve") throw new WebSocketError("x", "NO", "No");
        return accountability.user === "bob";
      },
    });
    const ann = await t.connect({ token: "ann", node: 0 });
    const id = (await count(ann, { steps: 3 }).id)!;
    const bob = await t.connect({ token: "bob", node: 1 });
    const seen = read(bob.attach(id) as ClientStream<number>);
    const mine = read(ann.attach(id) as ClientStream<number>);
    await t.advance(5_000);
    const context = { type: "count", user: "ann", role: null, key: "chat/5" };
    assert.deepEqual(asked.sort((a, b) => JSON.stringify(a) < JSON.stringify(b) ? -1 : 1), [
      { ...context, by: "ann" },
      { ...context, by: "bob" },
    ]);
    assert.deepEqual([seen, mine], [{ items: [1, 2, 3], end: "counted" }, { items: [], end: "STREAM_LOST" }]);
    await t.close();
  });

  it("continues after the engine was unavailable for a while", async () => {
    const { t } = createNodes(3);
    const here = await t.connect({ token: "ann", node: 0 });
    const there = await t.connect({ token: "ann", node: 1 });
    const stream = count(here, { steps: 300 });
    const seen = [read(stream)];
    await t.advance(150);
    seen.push(read(there.attach((await stream.id)!) as ClientStream<number>));
    await t.advance(1_000);
    t.partition([0], [1, 2]);
    await t.advance(4_000);
    t.heal();
    await t.advance(60_000);
    for (const each of seen) {
      assert.deepEqual(each.items, upTo(each.items.length));
      assert.ok(each.end === "counted" ? each.items.length === 300 : each.end === "STREAM_LOST");
    }
    assert.equal(seen[0]!.end, "counted");
    await t.close();
  });
});
