import assert from "node:assert/strict";
import { after, describe, it } from "node:test";
import { fileURLToPath } from "node:url";
import { WebSocket } from "ws";
import { type Client, createClient } from "../../src/client/client.ts";
import { PATIENT } from "../support/patient.ts";
import { closesSlowReader, holdsNoMoreThanTheLimit, keepsReader } from "./behaviours/delivery.ts";
import { readLate } from "./behaviours/recovering.ts";
import { losesTheStream, MUTE_READER, readsLate, SLOW_READER } from "./behaviours/streaming.ts";
import { leavesNoPlace, leavesNothing, staysConnected } from "./behaviours/upgrading.ts";
import { begin, connect, publish, subscribe, take } from "./channel-client.ts";
import { conformance, type Difference } from "./conformance.ts";
import { startDurableObject, type TestServer } from "./server.ts";
import { frame, Wire } from "./wire.ts";

/** The object sends no ping while time passes, because its timer would keep it from hibernating. */
const sendsNoPing: Difference = {
  because: "the timer of a heartbeat would prevent hibernation",
  async instead(server) {
    for (const subject of ["beating", "asking"]) {
      const wire = await Wire.open(server.port, `/${subject}`);
      await server.control(subject, "advance", { ms: 10_000 });
      await server.control(subject, "quiet");
      assert.equal((await wire.ask({ type: "ping" })).type, "pong");
      assert.equal(wire.pings, 0);
    }
  },
};

/** Broadcasts 20 large messages to a reader that answers each ping. A client that does not has its second after the fourth. */
async function answersWhileOthersDoNot(server: TestServer, subject: string, reader: Wire): Promise<void> {
  const text = "x".repeat(200_000);
  for (let n = 0; n < 20; n++) {
    await server.control(subject, "broadcast", { message: { type: "large", n, text } });
    const message = await reader.next();
    assert.deepEqual([message.type, message.n], ["large", n]);
    if (n === 3) await server.control(subject, "advance", { ms: 1_000 });
    // A ping follows half of what may wait.
    if (n % 3 !== 2) continue;
    assert.deepEqual(await reader.next(), { type: "ping" });
    // The answer to this ping shows that the pong before it has arrived.
    reader.send({ type: "pong" });
    reader.send({ type: "ping", uid: n });
    assert.equal((await reader.next()).uid, n);
  }
}

const differences: Record<string, Difference> = {
  "a client that does not read is closed with 4508, and the others receive everything": {
    because: "workerd 2026-07-30 does not report the bytes buffered for a client",
    async instead(server) {
      const slow = await Wire.open(server.port, "/public");
      const reader = await Wire.open(server.port, "/public");
      await Promise.all([slow, reader].map((wire) => wire.ask({ type: "ping" })));
      slow.socket.pause();
      const text = "x".repeat(1_000_000);
      for (let n = 0; n < 20; n++) {
        await server.control("public", "broadcast", { message: { type: "large", n, text } });
        assert.equal((await reader.next()).n, n);
      }
      // Nothing is lost: the client receives everything once it reads again.
      slow.socket.resume();
      for (let n = 0; n < 20; n++) assert.equal((await slow.next()).n, n);
    },
  },
  "a client that does not read is closed with 4508 for small messages too, and the others receive everything": {
    because:
      "workerd 2026-07-30 does not report buffered bytes: a client of noroshi.v1 is pinged, and for others there is no estimate",
    instead: (server) => closesSlowReader(server, { headers: { "Sec-WebSocket-Protocol": "noroshi.v1" } }),
  },
  "at most the limit and one message are buffered for a client that does not read, however much one turn sends": {
    because:
      "workerd 2026-07-30 does not report buffered bytes: a client of noroshi.v1 has a second to answer before it is treated as slow",
    instead: (server) => holdsNoMoreThanTheLimit(server, 4, { headers: { "Sec-WebSocket-Protocol": "noroshi.v1" } }),
  },
  "a client that does not read and is not closed receives the number of messages that it missed": {
    because:
      "workerd 2026-07-30 does not report buffered bytes: a client of noroshi.v1 is pinged, and for others there is no estimate",
    async instead(server) {
      const headers = { "Sec-WebSocket-Protocol": "noroshi.v1" };
      const slow = await Wire.open(server.port, "/dropping", { headers });
      const reader = await Wire.open(server.port, "/dropping", { headers });
      await answersWhileOthersDoNot(server, "dropping", reader);
      let received = 0;
      for (; received < 6; received++) {
        assert.equal((await slow.next()).n, received);
        if (received === 2) assert.deepEqual(await slow.next(), { type: "ping" });
      }
      slow.send({ type: "ping", uid: 1 });
      // Both in one frame, because it accepts arrays.
      const [told, pong] = await slow.next();
      assert.deepEqual([told.error.code, told.error.count, pong], ["MESSAGES_DROPPED", 20 - received, { type: "pong", uid: 1 }]);
    },
  },
  "a slow client that missed messages receives the whole history in the end, in order": {
    because: "workerd 2026-07-30 does not report the bytes buffered for a client, so no message is dropped",
    async instead(server) {
      assert.equal(await readLate(server), 0);
    },
  },
  [SLOW_READER]: {
    because: "workerd 2026-07-30 does not report the bytes buffered for a client, so the generator runs ahead",
    instead: readsLate,
  },
  [MUTE_READER]: {
    because: "workerd 2026-07-30 does not report the bytes buffered for a client: only clients of noroshi.v1 send credit",
    instead: (server) => losesTheStream(server),
  },
  "an unresponsive peer that is written to is closed with 4504 within two periods": sendsNoPing,
  "a plain listener that answers protocol pings is never closed": sendsNoPing,
  "heartbeat.message asks the client with a ping message": sendsNoPing,
  "answers 4xx when the method is not GET": {
    because: "workerd answers 500 itself",
    async instead({ port }) {
      assert.equal(
        (await Wire.request(port, "/public", { method: "POST", headers: { "Content-Length": "0" } })).answer.status,
        500,
      );
      await Wire.open(port, "/public");
    },
  },
  "answers 4xx to an upgrade with a thousand headers": {
    because: "workerd has no limit; Cloudflare's network has its own",
    async instead({ port }) {
      const headers = Object.fromEntries(Array.from({ length: 1_000 }, (_, i) => [`X${i}`, "1"]));
      assert.equal((await Wire.request(port, "/public", { headers })).answer.status, 101);
    },
  },
  "answers 4xx to an odd request target and keeps serving": {
    because: "workerd answers 500 itself to a target it cannot parse",
    async instead({ port }) {
      assert.equal((await Wire.request(port, "http://[/public")).answer.status, 500);
      await Wire.open(port, "/public");
    },
  },
  "closes with 1007 on a text frame that is not UTF-8": {
    because: "workerd replaces invalid bytes by U+FFFD before the application receives them",
    async instead({ port }) {
      const wire = await Wire.open(port, "/public");
      wire.write(frame(1, Buffer.from('{"type":"say","text":"\xff"}', "latin1")));
      assert.equal((await wire.next()).data, "\ufffd");
    },
  },
  "the TCP connection is ended after the close handshake": {
    because: "workerd ends it some ten seconds later if the client had sent no message",
    async instead({ port }) {
      const wire = await Wire.open(port, "/public?connect=close");
      assert.equal((await wire.closed).code, 4001);
      const other = await Wire.open(port, "/public");
      await other.ask({ type: "ping" });
      await other.close(1000);
      await other.ended;
    },
  },
};

conformance("Durable Object", () => startDurableObject(), { differences });
conformance("Durable Object", () => startDurableObject(), { hibernating: true });

/** Starts one Worker for several tests. Each test gets a new object. The Worker ends after the tests of the file. */
function shared(file?: string): () => Promise<TestServer> {
  let server: Promise<TestServer> | undefined;
  after(async () => await (await server)?.stop());
  return async () => {
    if (server) await (await server).restart!();
    return await (server ??= startDurableObject(file));
  };
}

const start = shared();
const startAround = shared(fileURLToPath(new URL("fixture/answering-worker.ts", import.meta.url)));

describe("Durable Object, with code around its app", () => {
  const answers: Record<string, number> = { drop: 502, throw: 500, early: 202 };
  for (const [around, status] of Object.entries(answers)) {
    it(`opens no connection when another response replaces that of the route: ${around}`, { timeout: 300_000 }, async () => {
      const server = await startAround();
      try {
        const path = around === "early"
          ? "/strict?access_token=stall:ann&around=early"
          : `/strict?access_token=ann&around=${around}`;
        assert.equal((await Wire.request(server.port, path)).answer.status, status);
        if (around === "early") await server.control("strict", "release", { name: "stall:ann" });
        await leavesNothing(server, "strict");
        await staysConnected(server, "/public");
      } finally {
        Wire.resetAll();
      }
    });
  }

  it("opens a connection for a copied response, and one for a request that is upgraded twice", { timeout: 300_000 }, async () => {
    const server = await startAround();
    try {
      for (const around of ["copy", "twice"]) {
        const wire = await Wire.open(server.port, `/strict?access_token=ann&around=${around}`);
        assert.equal((await wire.ask({ type: "ping" })).type, "pong");
        assert.equal((await server.control("strict", "stats")).reserved, 1);
        assert.equal((await server.control("strict", "clients")).length, 1);
        await wire.close(1000);
        await server.control("strict", "wait", { event: "close", count: around === "copy" ? 1 : 2 });
      }
    } finally {
      Wire.resetAll();
    }
  });

  it("opens no connection when the client disconnects before the app has answered", { timeout: 300_000 }, async () => {
    const server = await startAround();
    try {
      const wire = Wire.begin(server.port, "/strict?access_token=stall:ann&around=gone");
      await server.control("strict", "wait", { event: "stalled" });
      await server.control("strict", "release", { name: "stall:ann" });
      assert.equal((await server.control("strict", "stats")).reserved, 1);
      wire.reset();
      await leavesNoPlace(server, "strict");
      await leavesNothing(server, "strict");
    } finally {
      Wire.resetAll();
    }
  });

  it("reports a client as closed when the Worker in front replaces the 101", { timeout: 300_000 }, async () => {
    const server = await startAround();
    try {
      assert.equal((await Wire.request(server.port, "/strict?access_token=ann&front=1")).answer.status, 502);
      const [{ code, wasClean }] = await server.control("strict", "wait", { event: "close" });
      assert.deepEqual({ code, wasClean }, { code: 1006, wasClean: false });
      assert.equal((await server.control("strict", "stats")).reserved, 0);
    } finally {
      Wire.resetAll();
    }
  });

  it("leaves the sockets of another library to that library, also after hibernation", { timeout: 300_000 }, async () => {
    const server = await startAround();
    try {
      const theirs = await Wire.open(server.port, "/theirs");
      const ours = await Wire.open(server.port, "/public");
      for (let round = 0; round < 2; round++) {
        theirs.send("hello");
        assert.equal(await theirs.text(), "theirs: hello");
        assert.equal((await ours.ask({ type: "say", text: "hello" })).data, "hello");
        assert.equal((await server.control("public", "clients")).length, 1);
        await server.evict!();
      }
    } finally {
      Wire.resetAll();
    }
  });
});

describe("Durable Object, beside another one in its isolate", () => {
  it("sends its noroshi.v1 clients everything while the other object sends, too", { timeout: 300_000 }, async () => {
    const server = await startAround();
    try {
      const headers = { "Sec-WebSocket-Protocol": "noroshi.v1" };
      const wires = await Promise.all(
        ["one", "other"].map((name) => Wire.open(server.port, `/public?object=${name}`, { headers })),
      );
      for (let uid = 0; uid < 200; uid++) for (const wire of wires) wire.send({ type: "ping", uid });
      const expected = Array.from({ length: 200 }, (_, uid) => uid);
      for (const wire of wires) {
        const uids: number[] = [];
        while (uids.length < 200) for (const { uid } of [await wire.next()].flat()) uids.push(uid);
        assert.deepEqual(uids, expected);
      }
    } finally {
      Wire.resetAll();
    }
  });
});

describe("Durable Object, with a client of noroshi.v1", () => {
  const options = { headers: { "Sec-WebSocket-Protocol": "noroshi.v1" } };

  it("sends more than may wait in one event, during which the client cannot answer", { timeout: 300_000 }, async () => {
    const server = await start();
    try {
      await keepsReader(server, options);
    } finally {
      Wire.resetAll();
    }
  });
});

describe("Durable Object, when every client must answer a ping message", () => {
  it("closes a client that does not answer once too much may wait, and keeps one that does", { timeout: 300_000 }, async () => {
    const server = await start();
    try {
      const mute = await Wire.open(server.port, "/asking");
      const reader = await Wire.open(server.port, "/asking");
      await Promise.all([mute, reader].map((wire) => wire.ask({ type: "ping" })));
      mute.socket.pause();
      await answersWhileOthersDoNot(server, "asking", reader);
      // It does not answer the close frame either.
      await server.control("asking", "advance", { ms: 1_000 });
      const [{ code, cause }] = await server.control("asking", "wait", { event: "close" });
      assert.deepEqual({ code, cause }, { code: 4508, cause: "slow" });
      assert.equal((await server.control("asking", "clients")).length, 1);
    } finally {
      Wire.resetAll();
    }
  });
});

describe("Durable Object, asleep", () => {
  it("wakes to report an expired token to its client, and closes the client after the grace", { timeout: 300_000 }, async () => {
    const server = await start();
    try {
      // Tries again with a longer token when a busy machine takes longer than this to put the object to sleep.
      for (let seconds = 1, isAsleep = false; !isAsleep; seconds *= 4) {
        const begin = performance.now();
        const wire = await Wire.open(server.port, `/realtime?access_token=ann::${seconds}`);
        await wire.ask({ type: "ping", uid: 1 });
        await server.evict!();
        isAsleep = performance.now() - begin < seconds * 1_000;
        if (!isAsleep) continue;
        assert.equal((await wire.next()).error.code, "TOKEN_EXPIRED");
        assert.equal((await wire.next()).error.code, "AUTH_TIMEOUT");
        assert.equal((await wire.closed).code, 4401);
      }
    } finally {
      Wire.resetAll();
    }
  });

  it("answers a client's ping without waking, once no client is pending", { timeout: 300_000 }, async () => {
    const server = await start();
    try {
      const wire = await Wire.open(server.port, "/handshake");
      await wire.ask({ type: "auth", access_token: "ann", tokenIn: "query" });
      await wire.ask({ type: "say", text: "nobody is pending any more" });
      await server.evict!();
      assert.deepEqual(await wire.ask('{"type":"ping"}'), { type: "pong" });
      assert.equal(await server.evict!(), false);
      // The object itself answers a ping with a uid, and the client is still the same.
      assert.deepEqual(await wire.ask({ type: "ping", uid: 1 }), { type: "pong", uid: 1 });
      assert.equal((await wire.ask({ type: "who" })).data.accountability.user, "ann");
    } finally {
      Wire.resetAll();
    }
  });

  it("wakes to report that a member has left whose connection was lost before the sleep", { timeout: 300_000 }, async () => {
    const server = await startDurableObject();
    try {
      const [eve, ann] = [
        await Wire.open(server.port, "/realtime?access_token=eve"),
        await Wire.open(server.port, "/realtime?access_token=ann"),
      ];
      eve.send(subscribe("plain:1", { presence: true }));
      assert.deepEqual((await take(eve, 3)).map(({ event }) => event), ["init", "init", "join"]);
      await begin(ann, "plain:1");
      assert.equal((await eve.next()).event, "join");
      ann.reset();
      await server.control("realtime", "wait", { event: "close" });
      await server.evict!();
      // Only the alarm wakes the object.
      assert.deepEqual(await eve.next(), { type: "presence", event: "leave", channel: "plain:1", members: [{ user: "ann" }] });
      assert.deepEqual(await server.control("realtime", "presence", { channel: "plain:1" }), [{ user: "eve" }]);
    } finally {
      Wire.resetAll();
      await server.stop();
    }
  });

  it(
    "closes subscribed clients after hibernation when its class has no SQLite storage",
    { timeout: 300_000 },
    async () => {
      const server = await startDurableObject(undefined, false);
      try {
        const [wire, other] = [await connect(server), await Wire.open(server.port, "/public")];
        await begin(wire, "log:1");
        await publish(server, "log:1", 1);
        assert.equal((await wire.next()).data, 1);
        await server.evict!();
        assert.equal((await other.ask({ type: "say", text: "still here" })).data, "still here");
        assert.equal((await wire.closed).code, 1012);
      } finally {
        Wire.resetAll();
        await server.stop();
      }
    },
  );
});

describe("Durable Object, at a deployment", () => {
  const COUNT = 20;

  /** Clients of one channel, with what they have received. */
  async function listen(server: TestServer, channel: string) {
    const seen = Array.from({ length: COUNT }, () => ({ items: [] as unknown[], codes: [] as number[], delays: [] as number[] }));
    const clients: Client[] = [];
    let wake = () => {};
    // Connects them one by one: workerd does not evict an object for half a minute after it has accepted several at once.
    for (const { items, codes, delays } of seen) {
      const url = `ws://127.0.0.1:${server.port}/realtime`;
      const options = { token: "ann", tokenIn: "query", ...PATIENT } as const;
      const client = createClient(url, { WebSocket: WebSocket as never, ...options }); // As the client uses it.
      clients.push(client);
      client.on("close", ({ code, isFinal }) => isFinal || codes.push(code));
      client.on("reconnecting", ({ delay }) => delays.push(delay));
      await new Promise<void>((resolve) => {
        client.subscribe(channel, {
          onInit: () => resolve(),
          onEvent: ({ data }) => {
            items.push(data);
            wake();
          },
          onGap: () => items.push("gap"),
        });
      });
    }
    const say = (data: number) => server.control("realtime", "publish", { channel, data });
    const heard = async (data: number) => {
      while (!seen.every(({ items }) => items.includes(data))) await new Promise<void>((resolve) => wake = resolve);
    };
    return { clients, seen, say, heard };
  }

  it("drops its clients, which reconnect spread over half a second and miss nothing", { timeout: 300_000 }, async () => {
    const server = await startDurableObject();
    const { clients, seen, say, heard } = await listen(server, "log:deployed");
    try {
      await say(1);
      await heard(1);
      await server.restart!();
      await say(2); // The object runs again.
      await heard(2);
      const delays = seen.map(({ delays }) => delays[0]!);
      assert.ok(delays.every((delay) => delay >= 0 && delay <= 500), `${delays}`);
      assert.ok(Math.max(...delays) - Math.min(...delays) > 100, `${delays}`);
      for (const { items, codes } of seen) assert.deepEqual({ items, codes }, { items: [1, 2], codes: [1006] });
    } finally {
      await Promise.all(clients.map((client) => client.close()));
      await server.stop();
    }
  });

  it(
    "drains first: its clients reconnect after retryAfter, and miss nothing",
    { timeout: 300_000 },
    async () => {
      const server = await startDurableObject();
      const { clients, seen, say, heard } = await listen(server, "log:drained");
      try {
        await say(1);
        await heard(1);
        await server.control("realtime", "drain", { window: 500, retryAfter: 1_000 });
        const [{ event: _, ...result }] = await server.control("realtime", "wait", { event: "drained" });
        assert.deepEqual(result, { closed: COUNT, cut: 0, isClean: true });
        assert.equal((await Wire.request(server.port, "/realtime")).answer.status, 503);
        await server.restart!();
        await say(2);
        await heard(2);
        for (const { items, codes, delays } of seen) {
          assert.deepEqual({ items, codes }, { items: [1, 2], codes: [1012] });
          assert.ok(delays[0]! >= 1_000 && delays[0]! <= 1_250, `${delays}`);
        }
      } finally {
        await Promise.all(clients.map((client) => client.close()));
        await server.stop();
      }
    },
  );
});
