import assert from "node:assert/strict";
import { until } from "../../support/waiting.ts";
import type { Behaviour } from "../conformance.ts";
import type { TestServer } from "../server.ts";
import { type HandshakeOptions, Wire } from "../wire.ts";

export const V1 = { headers: { "Sec-WebSocket-Protocol": "noroshi.v1" } };
const FOREVER = ["texts", null, 1];

/** A client of the subject, whose frames may be arrays. */
export class Reader {
  readonly wire: Wire;
  readonly #server: TestServer;
  // deno-lint-ignore no-explicit-any -- a test reads what it expects and fails on the rest
  #messages: any[] = [];

  private constructor(wire: Wire, server: TestServer) {
    this.wire = wire;
    this.#server = server;
  }

  static async open(server: TestServer, options: HandshakeOptions = V1, path = "/streaming?access_token=ann"): Promise<Reader> {
    return new Reader(await Wire.open(server.port, path, options), server);
  }

  send(message: unknown): void {
    this.wire.send(message);
  }

  run(uid: unknown, steps: unknown[], more: object = {}): void {
    this.send({ type: "run", uid, steps, ...more });
  }

  // deno-lint-ignore no-explicit-any -- as above
  async next(): Promise<any> {
    for (;;) {
      while (this.#messages.length === 0) this.#messages = [await this.wire.next()].flat();
      const message = this.#messages.shift();
      if (message?.type !== "ping") return message;
      // A Durable Object asks a client of noroshi.v1 whether it reads.
      this.send({ ...message, type: "pong" });
    }
  }

  // deno-lint-ignore no-explicit-any -- as above
  async take(count: number): Promise<any[]> {
    const messages = [];
    while (messages.length < count) messages.push(await this.next());
    return messages;
  }

  /** Whether nothing comes before the answer to a ping. */
  async isQuiet(): Promise<void> {
    this.send({ type: "ping", uid: "quiet" });
    assert.deepEqual(await this.next(), { type: "pong", uid: "quiet" });
  }

  control(name: string, body: object = {}): Promise<unknown> {
    return this.#server.control("streaming", name, body);
  }

  /** How the generators ended. */
  // deno-lint-ignore no-explicit-any -- as above
  async finished(count = 1): Promise<any[]> {
    // deno-lint-ignore no-explicit-any -- as above
    return await this.control("wait", { event: "finished", count }) as Promise<any[]>; // Of `record`.
  }

  async streams(): Promise<number> {
    return (await this.control("stats") as { streams: number }).streams;
  }

  /** How many texts the generators have yielded. */
  async yielded(): Promise<number> {
    const other = await Reader.open(this.#server);
    other.send({ type: "yielded", uid: 1 });
    const { data } = await other.next();
    await other.wire.close(1000);
    return data;
  }
}

// deno-lint-ignore no-explicit-any -- as above
export const codeOf = ({ uid, status, error }: any) => [uid, status, error?.code];

/** The behaviours in which the server has to know how much waits for a client without credit. */
export const SLOW_READER = "a slow reader without credit slows its generator, and reads everything in the end";
export const MUTE_READER = "a reader without credit that never reads loses the stream, and not the connection";

/** Lets time pass until the work is over: a server looks now and then how much a client has read. */
async function whileTimePasses(reader: Reader, work: () => Promise<void>): Promise<void> {
  let isOver = false;
  const advancing = (async () => {
    while (!isOver) await reader.control("advance", { ms: 100 });
  })();
  try {
    await work();
  } finally {
    isOver = true;
    await advancing;
  }
}

/** Reads a stream of 300 texts to its end. */
function readsEverything(reader: Reader): Promise<void> {
  return whileTimePasses(reader, async () => {
    for (let n = 0; n < 300; n++) assert.equal((await reader.next()).data.length, 100_000);
    assert.equal((await reader.next()).status, "ok");
  });
}

/** Where the runtime does not tell how much waits, the generator runs ahead. Nothing is lost. */
export async function readsLate(server: TestServer): Promise<void> {
  const reader = await Reader.open(server, {});
  reader.wire.socket.pause();
  reader.run(1, [["texts", 300, 100_000]]);
  await reader.control("wait", { event: "connect" });
  reader.wire.socket.resume();
  await readsEverything(reader);
}

/** A client that does not read its socket. Once it reads again, its connection is there. */
export async function losesTheStream(server: TestServer, options: HandshakeOptions = V1): Promise<void> {
  const reader = await Reader.open(server, options);
  reader.wire.socket.pause();
  reader.run(1, [["texts", null, 100_000]]);
  await until(async () => await reader.streams() > 0);
  let streams = 1;
  await until(async () => {
    await reader.control("advance", { ms: 20_000 });
    return (streams = await reader.streams()) === 0;
  }, () => ({ streams }));
  const [{ code }] = await reader.finished();
  assert.equal(code, "SLOW_CONSUMER");
  reader.wire.socket.resume();
  let last = await reader.next();
  while (last.status === "next") last = await reader.next();
  assert.equal(last.error.code, "SLOW_CONSUMER");
  await reader.isQuiet();
}

/** Answers in parts, how far they run ahead, and how they end. */
export const streaming: Behaviour[] = [
  ...["run", "later", "iterable", "readable"].map((type): Behaviour => ({
    title: `the items of a stream come in order, then its end (${type})`,
    async run(server) {
      const reader = await Reader.open(server);
      reader.send({ type, uid: "s", steps: [["yield", 1], ["yield", { two: 2 }], ["return", { usage: 2 }]] });
      if (type === "later") await reader.control("release", { name: "stream" });
      assert.deepEqual(await reader.take(3), [
        { type, status: "next", uid: "s", data: 1 },
        { type, status: "next", uid: "s", data: { two: 2 } },
        // A ReadableStream has no result.
        { type, status: "ok", uid: "s", ...(type === "readable" ? {} : { data: { usage: 2 } }) },
      ]);
      assert.equal((await reader.finished()).length, 1);
      assert.equal(await reader.streams(), 0);
    },
  })),
  {
    title: "a stream without a uid, and of a client without noroshi.v1, needs no credit",
    async run(server) {
      const reader = await Reader.open(server, {});
      for (const uid of [undefined, 1]) {
        reader.run(uid, [["texts", 300, 10]]);
        const items = await reader.take(300);
        assert.ok(items.every(({ status, credit }) => status === "next" && credit === undefined));
        assert.deepEqual(codeOf(await reader.next()), [uid, "ok", undefined]);
      }
    },
  },
  {
    title: "an item may be undefined, which has no data, and null",
    async run(server) {
      const reader = await Reader.open(server);
      reader.run(1, [["odd", "undefined"], ["yield", null]]);
      const [first, second, end] = await reader.take(3);
      assert.deepEqual(["data" in first, second.data, end.status], [false, null, "ok"]);
    },
  },
  ...["bigint", "circular", "function"].map((kind): Behaviour => ({
    title: `an item that JSON cannot represent ends the stream with INTERNAL_ERROR, and the generator returns (${kind})`,
    async run(server) {
      const reader = await Reader.open(server);
      reader.run(1, [["yield", 1], ["odd", kind], ["yield", 2]]);
      const [item, end] = await reader.take(2);
      assert.deepEqual([item.data, codeOf(end)], [1, [1, "error", "INTERNAL_ERROR"]]);
      assert.equal((await reader.finished()).length, 1);
      assert.equal((await reader.control("wait", { event: "error" }) as unknown[]).length, 1);
      await reader.isQuiet();
    },
  })),
  ...[["known", "NO_MODEL"], ["unknown", "INTERNAL_ERROR"]].flatMap(([kind, code]) =>
    [0, 1].map((after): Behaviour => ({
      title: `a throw ${after ? "after" : "before"} the first item ends the stream with ${code}`,
      async run(server) {
        const reader = await Reader.open(server);
        reader.run(1, [["texts", after, 1], ["throw", kind]]);
        const all = await reader.take(after + 1);
        assert.deepEqual(codeOf(all.at(-1)), [1, "error", code]);
        assert.ok(!JSON.stringify(all).includes("secret"));
        await reader.isQuiet();
      },
    }))
  ),
  {
    title: "what finally throws ends the stream with INTERNAL_ERROR, once",
    async run(server) {
      const reader = await Reader.open(server);
      reader.run(1, [["yield", 1]], { fault: "secret detail" });
      assert.deepEqual((await reader.take(2)).map(codeOf), [[1, "next", undefined], [1, "error", "INTERNAL_ERROR"]]);
      reader.run(2, [["aborted"]], { fault: "secret detail" });
      reader.send({ type: "stream.cancel", uid: 2 });
      assert.deepEqual(codeOf(await reader.next()), [2, "error", "INTERNAL_ERROR"]);
      assert.equal((await reader.control("wait", { event: "error", count: 2 }) as unknown[]).length, 2);
      await reader.isQuiet();
      assert.equal(await reader.streams(), 0);
    },
  },
  {
    title: "a cancel before the first item aborts the signal and is answered by the end",
    async run(server) {
      const reader = await Reader.open(server);
      reader.run(1, [["aborted"], ["yield", "never"]]);
      reader.send({ type: "stream.cancel", uid: 1 });
      assert.deepEqual(codeOf(await reader.next()), [1, "error", "CANCELLED"]);
      const [{ aborted, code }] = await reader.finished();
      assert.deepEqual([aborted, code], [true, "CANCELLED"]);
      await reader.isQuiet();
    },
  },
  {
    title: "a cancel while an async handler has not returned its stream ends it without an item",
    async run(server) {
      const reader = await Reader.open(server);
      reader.send({ type: "later", uid: 1, steps: [FOREVER] });
      await reader.control("wait", { event: "stalled" });
      reader.send({ type: "stream.cancel", uid: 1 });
      await reader.isQuiet();
      await reader.control("release", { name: "stream" });
      assert.deepEqual(codeOf(await reader.next()), [1, "error", "CANCELLED"]);
      await reader.isQuiet();
      assert.equal(await reader.streams(), 0);
    },
  },
  {
    title: "a cancel ends a generator that yields for ever, whose finally runs once; more cancels are ignored",
    async run(server) {
      const reader = await Reader.open(server);
      reader.run(1, [FOREVER]);
      await reader.take(64);
      for (let n = 0; n < 3; n++) reader.send({ type: "stream.cancel", uid: 1 });
      assert.deepEqual(codeOf(await reader.next()), [1, "error", "CANCELLED"]);
      reader.send({ type: "stream.cancel", uid: 1 });
      await reader.isQuiet();
      assert.equal((await reader.finished()).length, 1);
      assert.equal(await reader.streams(), 0);
      // The uid is free again.
      reader.run(1, [["return", 1]]);
      assert.equal((await reader.next()).data, 1);
    },
  },
  {
    title: "a cancelled generator may end with a result, or throw the reason",
    async run(server) {
      const reader = await Reader.open(server);
      reader.run(1, [["aborted"], ["return", { usage: 7 }]]);
      reader.send({ type: "stream.cancel", uid: 1 });
      assert.deepEqual(await reader.next(), { type: "run", status: "ok", uid: 1, data: { usage: 7 } });
      reader.run(2, [["aborted"], ["throw", "reason"]]);
      reader.send({ type: "stream.cancel", uid: 2 });
      assert.deepEqual(codeOf(await reader.next()), [2, "error", "CANCELLED"]);
      const log = await reader.control("log") as { event: string }[];
      assert.ok(!log.some(({ event }) => event === "error"));
    },
  },
  {
    title: "a generator that ignores its signal is given up after the timeout, and holds no stream of the client",
    async run(server) {
      const reader = await Reader.open(server);
      reader.run(1, [["stall", "ignoring"], ["yield", "late"]]);
      await reader.control("wait", { event: "stalled" });
      reader.send({ type: "stream.cancel", uid: 1 });
      await reader.isQuiet();
      assert.equal(await reader.streams(), 1);
      await reader.control("advance", { ms: 10_000 });
      assert.deepEqual(codeOf(await reader.next()), [1, "error", "CANCELLED"]);
      assert.equal(await reader.streams(), 0);
      await reader.control("release", { name: "ignoring" });
      assert.equal((await reader.finished()).length, 1);
      await reader.isQuiet();
    },
  },
  {
    title: "a cancel of a plain request aborts its signal, and the request is answered as usual",
    async run(server) {
      const reader = await Reader.open(server);
      reader.send({ type: "plain", uid: 1, steps: [["aborted"], ["yield", "stopped"]] });
      reader.send({ type: "stream.cancel", uid: 1 });
      assert.deepEqual(await reader.next(), { type: "plain", status: "ok", uid: 1, data: ["stopped"] });
      reader.send({ type: "plain", uid: 2, steps: [["aborted"], ["throw", "reason"]] });
      reader.send({ type: "stream.cancel", uid: 2 });
      assert.deepEqual(codeOf(await reader.next()), [2, "error", "CANCELLED"]);
    },
  },
  {
    title: "a cancel and a credit without a uid, and a credit that is no number from 1, are answered INVALID_PAYLOAD",
    async run(server) {
      const reader = await Reader.open(server);
      for (const message of [{ type: "stream.cancel" }, { type: "stream.credit", credit: 1 }]) {
        reader.send(message);
        const { type, error } = await reader.next();
        assert.deepEqual([type, error.code, error.path], [message.type, "INVALID_PAYLOAD", "uid"]);
      }
      for (const credit of [0, -1, 1.5, "1", null]) {
        reader.send({ type: "stream.credit", uid: 1, credit });
        const { uid, error } = await reader.next();
        assert.deepEqual([uid, error.code, error.path], [1, "INVALID_PAYLOAD", "credit"]);
      }
      reader.send({ type: "stream.credit", uid: 1, credit: 5 });
      await reader.isQuiet();
    },
  },
  {
    title: "a stream with the uid of one that has not ended is refused, and the first goes on",
    async run(server) {
      const reader = await Reader.open(server);
      reader.run(1, [["stall", "first"], ["return", "first"]]);
      reader.run(1, [["return", "second"]]);
      const { uid, error } = await reader.next();
      assert.deepEqual([uid, error.code, error.path], [1, "INVALID_PAYLOAD", "uid"]);
      await reader.control("release", { name: "first" });
      assert.equal((await reader.next()).data, "first");
    },
  },
  {
    title: "the 33rd stream of a client is answered LIMIT_EXCEEDED, and another client may begin one",
    async run(server) {
      const reader = await Reader.open(server);
      for (let uid = 1; uid <= 33; uid++) reader.run(uid, [["stall", "many"]]);
      assert.deepEqual(codeOf(await reader.next()), [33, "error", "LIMIT_EXCEEDED"]);
      const other = await Reader.open(server);
      other.run(1, [["return", 1]]);
      assert.equal((await other.next()).data, 1);
      await reader.control("release", { name: "many" });
      assert.equal((await reader.take(32)).length, 32);
      reader.run(33, [["return", 33]]);
      assert.equal((await reader.next()).data, 33);
    },
  },
  {
    title: "a stream is at most 64 items ahead of the credit that a client of noroshi.v1 sends back",
    async run(server) {
      const reader = await Reader.open(server);
      reader.run(1, [FOREVER]);
      const items = await reader.take(64);
      assert.deepEqual(items.flatMap(({ credit }) => credit ?? []), [32, 64]);
      await reader.isQuiet();
      assert.equal(await reader.yielded(), 64);
      for (const credit of [32, 64]) {
        reader.send({ type: "stream.credit", uid: 1, credit });
        assert.equal((await reader.take(32)).at(-1).credit, credit + 64);
      }
      await reader.isQuiet();
    },
  },
  {
    title: "items of 1 MiB come one after the other, as the credit comes back, and delay others by no more than one",
    async run(server) {
      const reader = await Reader.open(server);
      reader.run(1, [["texts", 5, 1_048_576]]);
      await whileTimePasses(reader, async () => {
        for (let n = 1; n <= 5; n++) {
          const { data, credit } = await reader.next();
          assert.deepEqual([data.length, credit], [1_048_576, n]);
          await reader.isQuiet();
          reader.send({ type: "stream.credit", uid: 1, credit });
        }
        assert.equal((await reader.next()).status, "ok");
      });
    },
  },
  {
    title: "the credit of a stream does not count against the rate limit",
    async run(server) {
      const reader = await Reader.open(server, V1, "/streamlimited");
      // They take three times as many credits as the limit allows messages.
      reader.run(1, [["texts", 500, 1]]);
      for (let item = await reader.next(); item.status === "next"; item = await reader.next()) {
        if (item.credit) reader.send({ type: "stream.credit", uid: 1, credit: item.credit });
      }
      await reader.isQuiet();
    },
  },
  {
    title: "a stream goes on by its credit, and ends by its cancellation, when its client has used up its rate",
    async run(server) {
      const reader = await Reader.open(server, V1, "/streamlimited");
      reader.run(1, [FOREVER]);
      await reader.take(64);
      for (let answer = { type: "pong" }; answer.type === "pong"; answer = await reader.next()) {
        reader.send({ type: "ping", uid: 2 });
      }
      reader.send({ type: "stream.credit", uid: 1, credit: 64 });
      for (const { status } of await reader.take(64)) assert.equal(status, "next");
      reader.send({ type: "stream.cancel", uid: 1 });
      assert.deepEqual(codeOf(await reader.next()), [1, "error", "CANCELLED"]);
    },
  },
  {
    title: "streams of one client go on beside one that it does not process",
    async run(server) {
      const reader = await Reader.open(server);
      reader.run("stopped", [FOREVER]);
      await reader.take(64);
      reader.run("read", [["texts", 200, 1]]);
      let count = 0;
      for (let item = await reader.next(); item.status === "next"; item = await reader.next()) {
        assert.equal(item.uid, "read");
        count++;
        if (item.credit) reader.send({ type: "stream.credit", uid: "read", credit: item.credit });
      }
      assert.equal(count, 200);
    },
  },
  {
    title: "a client that does not send its credit back loses the stream with SLOW_CONSUMER, and not the connection",
    async run(server) {
      const reader = await Reader.open(server);
      reader.run(1, [FOREVER]);
      await reader.take(64);
      for (let n = 0; n < 4; n++) await reader.control("advance", { ms: 20_000 });
      assert.deepEqual(codeOf(await reader.next()), [1, "error", "SLOW_CONSUMER"]);
      const [{ code }] = await reader.finished();
      assert.equal(code, "SLOW_CONSUMER");
      await reader.isQuiet();
      assert.equal(await reader.streams(), 0);
    },
  },
  {
    title: SLOW_READER,
    async run(server) {
      const reader = await Reader.open(server, {});
      reader.wire.socket.pause();
      reader.run(1, [["texts", 300, 100_000]]);
      await reader.control("wait", { event: "connect" });
      // Some of it is in the buffers of the system. A while later the generator has gone no further.
      let yielded = -1;
      await until(async () => {
        const before = yielded;
        await reader.control("advance", { ms: 500 });
        yielded = await reader.yielded();
        return yielded > 0 && yielded === before;
      }, () => ({ yielded }));
      assert.ok(yielded < 300, `${yielded}`);
      reader.wire.socket.resume();
      await readsEverything(reader);
    },
  },
  {
    title: MUTE_READER,
    run: (server) => losesTheStream(server, {}),
  },
  ...["reset", "close", "disconnect"].map((how): Behaviour => ({
    title: `a stream is aborted when its connection ends (${how}), and so is the signal of a plain handler`,
    async run(server) {
      const reader = await Reader.open(server);
      reader.run(1, [FOREVER]);
      reader.run(2, [["aborted"]], { name: "waiting" });
      reader.send({ type: "plain", uid: 3, steps: [["aborted"]] });
      await reader.take(64);
      // A reset discards messages that the server has not read: the pong says that it has.
      await reader.isQuiet();
      if (how === "reset") reader.wire.reset();
      else if (how === "close") await reader.wire.close(1000);
      else await reader.control("disconnect", { filter: { user: "ann" } });
      const ends = await reader.finished(3);
      assert.ok(ends.every(({ aborted, code }) => aborted && code === "DISCONNECTED"), JSON.stringify(ends));
      assert.equal(await reader.streams(), 0);
      const log = await reader.control("log") as { event: string }[];
      assert.ok(!log.some(({ event }) => event === "error"));
    },
  })),
  {
    title: "a refresh that takes a role away ends the stream with FORBIDDEN, and one that changes nothing does not",
    async run(server) {
      const reader = await Reader.open(server, V1, "/streaming?access_token=ann:editor");
      reader.run(1, [["yield", 1], ["aborted"], ["return", "secret result"]]);
      assert.equal((await reader.next()).data, 1);
      await reader.control("plan", { plan: "renew" });
      await reader.control("refresh");
      await reader.isQuiet();
      await reader.control("plan", { plan: "demote" });
      await reader.control("refresh");
      assert.deepEqual(codeOf(await reader.next()), [1, "error", "FORBIDDEN"]);
      await reader.isQuiet();
      assert.equal(await reader.streams(), 0);
    },
  },
  {
    title: "a stream waits while the credentials are expired, and goes on once they are renewed",
    async run(server) {
      const reader = await Reader.open(server, V1, "/streaming?access_token=ann::60");
      reader.run(1, [["stall", "expiry"], ["yield", 1], ["return", 2]]);
      await reader.control("wait", { event: "stalled" });
      await reader.control("advance", { ms: 60_000 });
      assert.equal((await reader.next()).error.code, "TOKEN_EXPIRED");
      await reader.control("release", { name: "expiry" });
      await reader.isQuiet();
      reader.send({ type: "auth", uid: "a", access_token: "ann" });
      assert.deepEqual((await reader.take(3)).map(({ status, data }) => [status, data]), [
        ["ok", undefined],
        ["next", 1],
        ["ok", 2],
      ]);
    },
  },
  {
    title: "a stream is aborted when the credentials expire and are not renewed",
    async run(server) {
      const reader = await Reader.open(server, V1, "/streaming?access_token=ann::60");
      reader.run(1, [FOREVER]);
      await reader.take(64);
      await reader.control("advance", { ms: 60_000 });
      assert.equal((await reader.next()).error.code, "TOKEN_EXPIRED");
      await reader.control("advance", { ms: 10_000 });
      assert.equal((await reader.finished()).length, 1);
      await reader.wire.closed;
      assert.equal(await reader.streams(), 0);
    },
  },
];
