import assert from "node:assert/strict";
import type { Behaviour } from "../conformance.ts";
import type { TestServer } from "../server.ts";
import { frames, type HandshakeOptions, Wire } from "../wire.ts";

const AUDIENCE = ["ann:editor", "ann:reader", "bob:editor", "cid:", ":"] as const;

/** Connects everybody, broadcasts, and tells who received: each is then asked for a pong, which comes after. */
async function reached(server: TestServer, filter: unknown): Promise<string[]> {
  const wires: Wire[] = [];
  for (const token of AUDIENCE) wires.push(await Wire.open(server.port, `/strict?access_token=${token}`));
  await Promise.all(wires.map((wire) => wire.ask({ type: "ping" })));
  await server.pause();
  assert.equal(await server.control("strict", "broadcast", { message: { type: "news" }, filter }), "sent");
  const first = await Promise.all(wires.map((wire) => wire.ask({ type: "ping" })));
  for (const wire of wires) wire.reset();
  return AUDIENCE.filter((_, i) => first[i].type === "news");
}

/** More bytes than the kernel's buffers hold on both sides. */
const TOO_MUCH = 60_000_000;

/** Texts that are broadcast in one turn of the server. */
interface Texts {
  size: number;
  count: number;
}

const LARGE: Texts = { size: 1_000_000, count: 1 };
const SMALL: Texts = { size: 10_000, count: 20 };

/** Broadcasts numbered texts, turn by turn, until the server drops one, and then half as many again. Resolves with their number. */
async function flood(server: TestServer, subject: string, { size, count }: Texts, readers: readonly Wire[]): Promise<number> {
  let sent = 0;
  let isDropped = false;
  for (let end = TOO_MUCH / size; sent < end;) {
    const dropped: number = await server.control(subject, "flood", { from: sent, count, size });
    for (const reader of readers) for (let n = sent; n < sent + count; n++) assert.equal((await reader.next()).n, n);
    sent += count;
    if (dropped > 0 && !isDropped) end = Math.min(end, 1.5 * sent);
    isDropped = dropped > 0;
  }
  return sent;
}

/** Sends several clients more than the buffers of any kernel hold. One of the clients does not read. */
export async function closesSlowReader(
  server: TestServer,
  options: HandshakeOptions = {},
  { texts = SMALL, count = 2 }: { texts?: Texts; count?: number } = {},
): Promise<void> {
  const slow = await Wire.open(server.port, "/public", options);
  const readers = await Promise.all(Array.from({ length: count }, () => Wire.open(server.port, "/public")));
  await Promise.all([slow, ...readers].map((wire) => wire.ask({ type: "ping" })));
  slow.socket.pause();
  await flood(server, "public", texts, readers);
  await server.control("public", "advance", { ms: 1_000 });
  const [{ code, cause }] = await server.control("public", "wait", { event: "close" });
  assert.deepEqual({ code, cause }, { code: 4508, cause: "slow" });
  assert.equal((await server.control("public", "clients")).length, count);
}

/** Sends far more than may wait in each turn to a client that does not read. */
export async function holdsNoMoreThanTheLimit(server: TestServer, limits = 1, options?: HandshakeOptions): Promise<void> {
  const slow = await Wire.open(server.port, "/dropping", options);
  await slow.ask({ type: "ping" });
  slow.socket.pause();
  for (let turn = 0; turn < 10; turn++) {
    await server.control("dropping", "flood", { count: 300, size: 10_000 });
    const [{ bufferedAmount }] = await server.control("dropping", "clients");
    assert.ok(bufferedAmount <= limits * 1024 * 1024 + 11_000, `It holds ${bufferedAmount} bytes`);
  }
}

/** Sends three times as much as may wait in one turn to a client that reads, and once more before it can have answered. */
export async function keepsReader(server: TestServer, options?: HandshakeOptions): Promise<void> {
  const wire = await Wire.open(server.port, "/bounded", options);
  await wire.ask({ type: "ping" });
  const news = Array.from({ length: 20 }, (_, n) => ({ type: "news", n, text: "x".repeat(10_000) }));
  await server.control("bounded", "turn", { steps: [...news.map((send) => ({ send })), { broadcast: { type: "end" } }] });
  const received: unknown[] = [];
  while (received.at(-1) !== "end") {
    const messages = [await wire.next()].flat();
    received.push(...messages.map(({ type, n }) => type === "news" ? n : type).filter((what) => what !== "ping"));
  }
  assert.deepEqual(received, [...news.keys(), "end"]);
  assert.equal((await server.control("bounded", "clients")).length, 1);
}

/** Who receives what. */
/** Receives numbered messages, and checks that missing ones are counted before the next one. Returns how many were received. */
async function receiveOrMiss(server: TestServer, app: string, wire: Wire, count: number): Promise<number> {
  let [received, missed] = [0, 0];
  const all = (async () => {
    while (received + missed < count) {
      const { n, error } = await wire.next();
      if (error?.code === "MESSAGES_DROPPED") missed += error.count;
      else assert.equal(n, missed + received++, "A message is missing that was not counted before the next one");
    }
    return true;
  })();
  // The server looks for room every 250 ms, and its clock stands still.
  while (!await Promise.race([all, server.control(app, "advance", { ms: 250 })]));
  return received;
}

export const delivery: Behaviour[] = [
  {
    title: "broadcast without a filter reaches everybody",
    hibernates: true,
    async run(server) {
      assert.deepEqual(await reached(server, undefined), AUDIENCE);
    },
  },
  {
    title: "broadcast with an empty filter reaches everybody",
    async run(server) {
      assert.deepEqual(await reached(server, {}), AUDIENCE);
    },
  },
  {
    title: "broadcast to a user reaches each of the user's connections",
    hibernates: true,
    async run(server) {
      assert.deepEqual(await reached(server, { user: "ann" }), ["ann:editor", "ann:reader"]);
    },
  },
  {
    title: "broadcast to a role reaches everybody in it",
    hibernates: true,
    async run(server) {
      assert.deepEqual(await reached(server, { role: "editor" }), ["ann:editor", "bob:editor"]);
    },
  },
  {
    title: "broadcast to a user and a role reaches the clients that match both",
    async run(server) {
      assert.deepEqual(await reached(server, { user: "ann", role: "editor" }), ["ann:editor"]);
    },
  },
  {
    title: "broadcast that nobody matches reaches nobody",
    async run(server) {
      assert.deepEqual(await reached(server, { user: "dan" }), []);
    },
  },
  {
    title: "broadcast sends a string as it is",
    async run(server) {
      const wire = await Wire.open(server.port, "/public");
      await server.control("public", "broadcast", { message: "just text, no JSON" });
      assert.equal(await wire.text(), "just text, no JSON");
      wire.reset();
    },
  },
  {
    title: "broadcast throws for a filter with an undefined, empty or unknown key, and reaches nobody",
    async run(server) {
      const wire = await Wire.open(server.port, "/public");
      const filters = [
        { user: "" },
        { role: null },
        { user: 7 },
        { user: ["ann"] },
        { team: "a" },
        { user: "ann", team: "a" },
        [],
        "ann",
      ];
      for (const filter of filters) {
        const result = await server.control("public", "broadcast", { message: { type: "news" }, filter });
        assert.match(result, /^TypeError: Cannot broadcast/, JSON.stringify(filter));
      }
      for (const keys of [["user"], ["role"], ["team"]]) {
        const result = await server.control("public", "broadcast", { message: { type: "news" }, filter: {}, keys });
        assert.match(result, /^TypeError: Cannot broadcast/, `undefined ${keys}`);
      }
      assert.equal((await wire.ask({ type: "ping" })).type, "pong");
      wire.reset();
    },
  },
  {
    title: "broadcasts arrive in the order they were made",
    async run(server) {
      const wire = await Wire.open(server.port, "/public");
      const sender = await Wire.open(server.port, "/public");
      for (let n = 0; n < 200; n++) sender.send({ type: "broadcast", message: { type: "news", n } });
      for (let n = 0; n < 200; n++) assert.equal((await wire.next()).n, n);
      wire.reset();
      sender.reset();
    },
  },
  {
    title: "a broadcast from a handler reaches the sender before its answer",
    async run({ port }) {
      const wire = await Wire.open(port, "/public");
      assert.deepEqual(await wire.ask({ type: "broadcast", message: { type: "news" } }), { type: "news" });
      assert.deepEqual(await wire.next(), { type: "broadcast", status: "ok" });
      wire.reset();
    },
  },
  {
    title: "a large frame arrives whole",
    async run(server) {
      const wire = await Wire.open(server.port, "/public");
      const text = "grüße ".repeat(50_000);
      await server.control("public", "broadcast", { message: { type: "large", text } });
      assert.equal((await wire.next()).text, text);
      wire.reset();
    },
  },
  {
    title: "a client that does not read is closed with 4508, and the others receive everything",
    run: (server) => closesSlowReader(server, {}, { texts: LARGE, count: 1 }),
  },
  {
    title: "a client that does not read and is not closed receives the number of messages that it missed",
    async run(server) {
      const slow = await Wire.open(server.port, "/dropping");
      const reader = await Wire.open(server.port, "/dropping");
      await Promise.all([slow, reader].map((wire) => wire.ask({ type: "ping" })));
      slow.socket.pause();
      const sent = await flood(server, "dropping", LARGE, [reader]);
      slow.socket.resume();
      const received = await receiveOrMiss(server, "dropping", slow, sent);
      assert.ok(received < sent);
      await server.control("dropping", "broadcast", { message: { type: "news" } });
      assert.deepEqual(await slow.next(), { type: "news" });
    },
  },
  {
    title: "messages of one turn arrive in order, answers and broadcasts alike, before a close",
    async run(server) {
      const wire = await Wire.open(server.port, "/public");
      const other = await Wire.open(server.port, "/public");
      const steps = [1, 2, 3].flatMap((n) => [{ type: "ping", uid: n }, { type: "broadcast", message: { type: "news", n } }]);
      wire.write(frames(...steps, { type: "close", code: 4000, reason: "done" }));
      for (const n of [1, 2, 3]) {
        assert.deepEqual(await wire.next(), { type: "pong", uid: n });
        assert.deepEqual(await wire.next(), { type: "news", n });
        assert.deepEqual(await wire.next(), { type: "broadcast", status: "ok" });
        assert.deepEqual(await other.next(), { type: "news", n });
      }
      assert.deepEqual(await wire.closed, { code: 4000, reason: "done" });
    },
  },
  {
    title: "messages of one turn arrive in order, for any recipients, before a close",
    async run(server) {
      const open = (token: string) => Wire.open(server.port, `/strict?access_token=${token}`);
      const [ann, bob, cid] = [await open("ann:editor"), await open("bob:editor"), await open("cid:reader")];
      await Promise.all([ann, bob, cid].map((wire) => wire.ask({ type: "ping" })));
      const filters = [{}, { role: "editor" }, { user: "ann" }, { user: "ann", role: "editor" }];
      const steps = Array.from({ length: 60 }, (_, n) => {
        const message = { type: "news", n };
        return n % 15 === 7 ? { send: message } : { broadcast: message, filter: filters[n % 7 % 4] };
      });
      await server.control("strict", "turn", {
        steps: [...steps, { disconnect: { user: "ann" } }, { broadcast: { type: "end" } }],
      });
      for (const [wire, user, role] of [[ann, "ann", "editor"], [bob, "bob", "editor"], [cid, "cid", "reader"]] as const) {
        for (const [n, { filter = {} }] of steps.entries()) {
          if ("user" in filter && filter.user !== user || "role" in filter && filter.role !== role) continue;
          assert.equal((await wire.next()).n, n);
        }
        if (wire !== ann) assert.equal((await wire.next()).type, "end");
      }
      assert.equal((await ann.closed).code, 4000);
      assert.equal(await ann.text(), null);
    },
  },
  {
    title: "a client that does not read is closed with 4508 for small messages too, and the others receive everything",
    run: (server) => closesSlowReader(server),
  },
  {
    title: "a client that reads late receives everything, or the number of messages that it missed, with a large buffer too",
    async run(server) {
      const wire = await Wire.open(server.port, "/generous");
      await wire.ask({ type: "ping" });
      wire.socket.pause();
      for (let turn = 0; turn < 10; turn++) {
        await server.control("generous", "flood", { from: 400 * turn, count: 400, size: 10_000 });
      }
      wire.socket.resume();
      await receiveOrMiss(server, "generous", wire, 4_000);
      await server.control("generous", "broadcast", { message: { type: "end" } });
      assert.deepEqual(await wire.next(), { type: "end" });
    },
  },
  {
    title: "a client that reads stays connected and misses nothing when one turn exceeds the buffer limit",
    run: (server) => keepsReader(server),
  },
  {
    title: "at most the limit and one message are buffered for a client that does not read, however much one turn sends",
    run: (server) => holdsNoMoreThanTheLimit(server),
  },
  {
    title:
      "a client of noroshi.v1 may receive the messages of one turn as an array, and misses nothing; other clients receive none",
    async run(server) {
      const batching = await Wire.open(server.port, "/public", { headers: { "Sec-WebSocket-Protocol": "noroshi.v1" } });
      const plain = await Wire.open(server.port, "/public");
      const steps = Array.from(
        { length: 40 },
        (_, n) => ({ type: "broadcast", message: n % 10 === 9 ? `raw ${n}` : { type: "news", n } }),
      );
      plain.write(frames(...steps));
      const expected = steps.map(({ message }) => message);
      const received: unknown[] = [];
      while (received.length < expected.length) {
        const text = await batching.text() ?? "";
        // A string of the application's need not be JSON: it goes by itself.
        if (text.startsWith("raw")) received.push(text);
        else received.push(...[JSON.parse(text)].flat());
      }
      assert.deepEqual(received, expected);
      for (const message of expected) {
        const text = await plain.text();
        assert.equal(text, typeof message === "string" ? message : JSON.stringify(message));
        assert.deepEqual(await plain.next(), { type: "broadcast", status: "ok" });
      }
    },
  },
  {
    title: "clients lists each client until it disconnects",
    hibernates: true,
    async run(server) {
      const ann = await Wire.open(server.port, "/strict?access_token=ann:editor");
      const bob = await Wire.open(server.port, "/strict?access_token=bob");
      const users = async () => (await server.control("strict", "clients")).map(({ user }: { user: string }) => user).sort();
      assert.deepEqual(await users(), ["ann", "bob"]);
      await server.pause();
      assert.deepEqual(await users(), ["ann", "bob"]);
      await ann.close(1000);
      await server.control("strict", "wait", { event: "close" });
      assert.deepEqual(await users(), ["bob"]);
      bob.reset();
    },
  },
];
