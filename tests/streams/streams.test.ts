import assert from "node:assert/strict";
import { describe, it } from "node:test";
import * as v from "valibot";
import type { WebSocketControllerOptions } from "../../src/application/options.ts";
import { WebSocketError } from "../../src/protocol/errors.ts";
import { FakeTransport, HANDSHAKE } from "../support/fake-transport.ts";
import { observe } from "../support/observed.ts";
import { Stall, turn } from "../support/waiting.ts";

const any = v.looseObject({});

/** A controller with one client. Without `noroshi.v1` the client is sent no credit. */
function create({ protocol = null, ...options }: WebSocketControllerOptions & { protocol?: string | null } = {}) {
  const observed = observe(options);
  const transport = new FakeTransport();
  const identity = { accountability: { user: "ann", role: "editor" }, expires_at: null };
  const connection = observed.controller.open(transport, { ...HANDSHAKE, protocol }, identity);
  observed.takeNames();
  return {
    ...observed,
    connection,
    transport,
    take: () => transport.take(),
    /** What `error` listeners were told. */
    errors: () => observed.events.flatMap(([event, payload]) => event === "error" ? [String(payload.error)] : []),
    send: (message: object) => connection.message(JSON.stringify(message)),
  };
}

const next = (data: unknown, uid = 1) => ({ type: "ask", status: "next", uid, data });
const ok = (data?: unknown, uid = 1) => ({ type: "ask", status: "ok", uid, ...(data === undefined ? {} : { data }) });
const fails = (message: { uid?: unknown; status: string; error: { code: string } }) => [
  message.uid,
  message.status,
  message.error.code,
];

/** Yields numbers for ever. `finished` counts how many of its generators have run `finally`. */
function counter() {
  const counts = { finished: 0, yielded: 0 };
  return {
    counts,
    async *handler() {
      try {
        for (;;) yield ++counts.yielded;
      } finally {
        counts.finished++;
      }
    },
  };
}

describe("A handler that streams", () => {
  it("is answered with each item in order, and with its result at the end", async () => {
    const { controller, send, take } = create();
    controller.handle("ask", v.object({ prompt: v.string() }), async function* ({ message }) {
      for (const letter of message.prompt) yield letter;
      return { usage: 2 };
    });
    send({ type: "ask", uid: 1, prompt: "hi" });
    await turn();
    assert.deepEqual(take(), [next("h"), next("i"), ok({ usage: 2 })]);
    assert.equal(controller.stats().streams, 0);
  });

  it("may return any AsyncIterable or ReadableStream, at once or later", async () => {
    const { controller, send, take } = create();
    const sources: Record<string, () => unknown> = {
      iterable: () => ({ [Symbol.asyncIterator]: () => [1, 2][Symbol.iterator]() }),
      readable: () =>
        new ReadableStream({
          start(controller) {
            controller.enqueue(1);
            controller.enqueue(2);
            controller.close();
          },
        }),
    };
    controller.handle("ask", v.object({ kind: v.string(), isLate: v.boolean() }), ({ message: { kind, isLate } }) => {
      const source = sources[kind]!();
      return isLate ? Promise.resolve(source) : source;
    });
    for (const kind of Object.keys(sources)) {
      for (const isLate of [false, true]) {
        send({ type: "ask", uid: 1, kind, isLate });
        await turn();
        await turn();
        assert.deepEqual(take(), [next(1), next(2), ok()], `${kind} ${isLate}`);
      }
    }
  });

  it("is answered with its error, before and after the first item", async () => {
    const { controller, send, take, errors } = create();
    controller.handle("ask", v.object({ after: v.number() }), async function* ({ message }) {
      for (let n = 0; n < message.after; n++) yield n;
      throw new WebSocketError("ask", "NO_MODEL", "No model");
    });
    for (const after of [0, 1]) {
      send({ type: "ask", uid: 1, after });
      await turn();
      const all = take();
      assert.deepEqual([all.length, fails(all.at(-1))], [after + 1, [1, "error", "NO_MODEL"]]);
    }
    assert.deepEqual(errors(), []);
  });

  it("ends with INTERNAL_ERROR, and its generator returns, at an item that JSON cannot represent", async () => {
    const { controller, send, take, errors } = create();
    const circle: Record<string, unknown> = {};
    circle["self"] = circle;
    const items: Record<string, unknown> = { bigint: 1n, circle, function: () => {} };
    let finished = 0;
    controller.handle("ask", v.object({ item: v.string() }), async function* ({ message }) {
      try {
        yield items[message.item];
      } finally {
        finished++;
      }
    });
    for (const item of Object.keys(items)) {
      send({ type: "ask", uid: 1, item });
      await turn();
      assert.deepEqual(take().map(fails), [[1, "error", "INTERNAL_ERROR"]], item);
    }
    assert.deepEqual([finished, errors().length], [3, 3]);
  });

  it("may yield undefined and null", async () => {
    const { controller, send, take } = create();
    controller.handle("ask", any, async function* () {
      yield undefined;
      yield null;
    });
    send({ type: "ask", uid: 1 });
    await turn();
    assert.deepEqual(take(), [{ type: "ask", status: "next", uid: 1 }, next(null), ok()]);
  });

  it("is refused beyond maxStreams and for a uid that is in use, and its source is closed", async () => {
    const { controller, send, take } = create({ maxStreams: 2, protocol: "noroshi.v1" });
    const stall = new Stall();
    const cancelled: unknown[] = [];
    // deno-lint-ignore require-yield -- it stalls before its first item
    controller.handle("ask", any, async function* () {
      await stall.promise;
    });
    controller.handle("read", any, ({ message }) => new ReadableStream({ cancel: () => void cancelled.push(message.uid) }));
    send({ type: "ask", uid: 1 });
    send({ type: "read", uid: 1 });
    send({ type: "ask", uid: 2 });
    send({ type: "read", uid: 3 });
    await turn();
    const all = take();
    assert.deepEqual(all.map(fails), [[1, "error", "INVALID_PAYLOAD"], [3, "error", "LIMIT_EXCEEDED"]]);
    assert.equal(all[0].error.path, "uid");
    assert.deepEqual(cancelled, [1, 3]);
    stall.resolve();
    await turn();
    assert.deepEqual(take(), [ok(undefined, 1), ok(undefined, 2)]);
  });

  it("cannot answer an idempotent request", async () => {
    const { controller, send, take } = create({
      once: { answer: (_client, _message, run) => ({ result: (async () => await run())() }) },
    });
    controller.handle("ask", any, counter().handler);
    send({ type: "ask", uid: "x.once" });
    await turn();
    assert.deepEqual(take().map(fails), [["x.once", "error", "INVALID_PAYLOAD"]]);
  });
});

describe("stream.cancel", () => {
  it("ends the stream once, after the generator's finally", async () => {
    const { controller, send, take } = create({ protocol: "noroshi.v1" });
    const { counts, handler } = counter();
    controller.handle("ask", any, handler);
    send({ type: "ask", uid: 1 });
    await turn();
    assert.equal(take().length, 64);
    for (let n = 0; n < 2; n++) send({ type: "stream.cancel", uid: 1 });
    await turn();
    assert.deepEqual(take().map(fails), [[1, "error", "CANCELLED"]]);
    send({ type: "stream.cancel", uid: 1 });
    await turn();
    assert.deepEqual([take(), counts.finished, controller.stats().streams], [[], 1, 0]);
  });

  it("before the first item aborts the signal, also while an async handler has not returned its stream", async () => {
    const { controller, send, take, errors } = create();
    const signals: AbortSignal[] = [];
    controller.handle("ask", any, async function* ({ signal }) {
      signals.push(signal);
      await new Promise((_, reject) => signal.addEventListener("abort", () => reject(signal.reason)));
      yield 1;
    });
    const stall = new Stall();
    const { counts, handler } = counter();
    controller.handle("late", any, async () => {
      await stall.promise;
      return handler();
    });
    send({ type: "ask", uid: 1 });
    send({ type: "late", uid: 2 });
    send({ type: "stream.cancel", uid: 1 });
    send({ type: "stream.cancel", uid: 2 });
    stall.resolve();
    await turn();
    assert.deepEqual(take().map(fails).sort(), [[1, "error", "CANCELLED"], [2, "error", "CANCELLED"]]);
    assert.deepEqual([signals[0]!.aborted, counts.yielded, errors()], [true, 0, []]);
  });

  it("ends with the result that the generator returns then", async () => {
    const { controller, send, take } = create();
    controller.handle("ask", any, async function* ({ signal }) {
      yield 1;
      await new Promise((resolve) => signal.addEventListener("abort", resolve));
      return { usage: 1 };
    });
    send({ type: "ask", uid: 1 });
    await turn();
    send({ type: "stream.cancel", uid: 1 });
    await turn();
    assert.deepEqual(take(), [next(1), ok({ usage: 1 })]);
  });

  it("ends a ReadableStream whose read is pending", async () => {
    const { controller, send, take } = create();
    const reasons: unknown[] = [];
    controller.handle("ask", any, () => new ReadableStream({ cancel: () => void reasons.push("cancelled") }));
    send({ type: "ask", uid: 1 });
    await turn();
    send({ type: "stream.cancel", uid: 1 });
    await turn();
    assert.deepEqual([take().map(fails), reasons], [[[1, "error", "CANCELLED"]], ["cancelled"]]);
  });

  it("reports what finally throws", async () => {
    const { controller, send, take, errors } = create({ protocol: "noroshi.v1" });
    controller.handle("ask", any, async function* () {
      try {
        for (;;) yield 1;
      } finally {
        // deno-lint-ignore no-unsafe-finally -- what is tried
        throw new Error("in finally");
      }
    });
    send({ type: "ask", uid: 1 });
    await turn();
    take();
    send({ type: "stream.cancel", uid: 1 });
    await turn();
    assert.deepEqual(take().map(fails), [[1, "error", "INTERNAL_ERROR"]]);
    assert.deepEqual(errors(), ["Error: in finally"]);
  });

  it("ends a stream whose generator ignores its signal after the option timeout", async () => {
    const { controller, clock, send, take, errors } = create({ timeout: 2_000 });
    controller.handle("ask", any, async function* () {
      await new Promise(() => {});
      yield 1;
    });
    send({ type: "ask", uid: 1 });
    send({ type: "stream.cancel", uid: 1 });
    await turn();
    assert.deepEqual(take(), []);
    clock.advance(2_000);
    await turn();
    assert.deepEqual(take().map(fails), [[1, "error", "CANCELLED"]]);
    assert.match(errors().join(), /Cannot end the stream "ask": it ignores its signal/);
    const { streams, deadlines } = controller.stats();
    assert.deepEqual([streams, deadlines], [0, 0]);
  });

  it("asks a plain handler to stop, which answers as usual", async () => {
    const { controller, send, take } = create();
    controller.handle(
      "ask",
      any,
      ({ signal }) => new Promise((resolve) => signal.addEventListener("abort", () => resolve("stopped"))),
    );
    controller.handle("fetch", any, async ({ signal }) => {
      await new Promise((_, reject) => signal.addEventListener("abort", () => reject(new DOMException("x", "AbortError"))));
    });
    send({ type: "ask", uid: 1 });
    send({ type: "fetch", uid: 2 });
    send({ type: "stream.cancel", uid: 1 });
    send({ type: "stream.cancel", uid: 2 });
    await turn();
    const [first, second] = take();
    assert.deepEqual([first, fails(second)], [ok("stopped"), [2, "error", "CANCELLED"]]);
  });

  it("and stream.credit are refused without a uid and with a credit that is no number", () => {
    const { send, take } = create();
    send({ type: "stream.cancel" });
    send({ type: "stream.credit", credit: 1 });
    for (const credit of [undefined, 0, -1, 1.5, "1", null]) send({ type: "stream.credit", uid: 1, credit });
    const all = take();
    assert.deepEqual(all.map(({ error }) => [error.code, error.path]), [
      ["INVALID_PAYLOAD", "uid"],
      ["INVALID_PAYLOAD", "uid"],
      ...Array(6).fill(["INVALID_PAYLOAD", "credit"]),
    ]);
    send({ type: "stream.credit", uid: 1, credit: 32 });
    assert.deepEqual(take(), []);
  });
});

describe("A stream whose client goes away", () => {
  for (const how of ["closed", "close", "disconnect"] as const) {
    it(`is aborted, and sends nothing more (${how})`, async () => {
      const { controller, connection, transport, send, take, errors } = create({ protocol: "noroshi.v1" });
      const { counts, handler } = counter();
      let signal: AbortSignal | undefined;
      controller.handle("ask", any, (context) => {
        signal = context.signal;
        return handler();
      });
      send({ type: "ask", uid: 1 });
      await turn();
      take();
      if (how === "closed") connection.closed(1006, "", false);
      else if (how === "close") connection.close(4000);
      else await controller.disconnect({ user: "ann" });
      assert.equal(signal?.aborted, true);
      await turn();
      assert.deepEqual([take(), counts.finished, counts.yielded, errors()], [[], 1, 64, []]);
      connection.closed(1006, "", false);
      const { streams, deadlines } = controller.stats();
      assert.deepEqual([streams, deadlines, transport.sent], [0, 0, []]);
    });
  }

  it("has its signal aborted when it is read for the first time after that", async () => {
    const { controller, connection, send } = create();
    const stall = new Stall();
    const read: boolean[] = [];
    controller.handle("ask", any, async (context) => {
      await stall.promise;
      read.push(context.signal.aborted);
    });
    send({ type: "ask" });
    connection.closed(1006, "", false);
    stall.resolve();
    await turn();
    assert.deepEqual([read, controller.stats().streams], [[true], 0]);
  });

  it("ends with FORBIDDEN when the role of its client changes, and goes on when nothing changes", async () => {
    let role = "editor";
    const { controller, send, take } = create({
      protocol: "noroshi.v1",
      revalidate: ({ accountability }) => ({ accountability: { ...accountability, role } }),
    });
    const { counts, handler } = counter();
    controller.handle("ask", any, handler);
    send({ type: "ask", uid: 1 });
    await turn();
    take();
    await controller.refresh({});
    send({ type: "stream.credit", uid: 1, credit: 64 });
    await turn();
    assert.equal(take().length, 64);
    role = "reader";
    await controller.refresh({});
    await turn();
    assert.deepEqual(take().map(fails), [[1, "error", "FORBIDDEN"]]);
    assert.equal(counts.finished, 1);
  });
});
