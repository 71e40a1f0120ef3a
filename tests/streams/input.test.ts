import assert from "node:assert/strict";
import { describe, it } from "node:test";
import * as v from "valibot";
import type { HandlerContext } from "../../src/application/call.ts";
import type { WebSocketControllerOptions } from "../../src/application/options.ts";
import { FakeTransport, HANDSHAKE } from "../support/fake-transport.ts";
import { observe } from "../support/observed.ts";
import { Stall, turn } from "../support/waiting.ts";

/** Takes numbers, and answers in parts or at once. */
const Sum = { payload: v.object({}), stream: { input: v.number() } };

/** A controller whose handler `sum` has input, and one client. */
function create(
  handler: (context: HandlerContext<object, object, unknown>) => unknown,
  { request = Sum, ...options }: WebSocketControllerOptions & { request?: object } = {},
) {
  const observed = observe(options);
  // deno-lint-ignore no-explicit-any -- a test passes what it tries
  observed.controller.handle("sum", request as any, handler as any);
  const transport = new FakeTransport();
  const identity = { accountability: { user: "ann", role: null }, expires_at: null };
  const connection = observed.controller.open(transport, { ...HANDSHAKE, protocol: "noroshi.v1" }, identity);
  observed.takeNames();
  const send = (message: object) => connection.message(JSON.stringify(message));
  let last = 0;
  return {
    ...observed,
    connection,
    transport,
    send,
    /** The messages sent since it was last asked; an array is read as its messages. */
    take: () => transport.take().flat(),
    start: (uid: unknown = 1) => send({ type: "sum", uid }),
    input: (data: unknown, item = ++last) => send({ type: "stream.input", uid: 1, item, data }),
    end: (error?: object) => send({ type: "stream.end", uid: 1, item: ++last, ...(error && { error }) }),
    errors: () => observed.events.flatMap(([event, payload]) => event === "error" ? [String(payload.error)] : []),
  };
}

const credit = (item: number, bytes = 262_144) => ({ type: "stream.credit", uid: 1, item, bytes });
const ok = (data: unknown) => ({ type: "sum", status: "ok", uid: 1, data });
// deno-lint-ignore no-explicit-any -- a test reads what it expects and fails on the rest
const codeOf = ({ type, status, uid, error }: any) => [type, status, uid, error?.code];
const fails = (code: string) => ["sum", "error", 1, code];

/** Adds the input up. */
async function total({ input }: HandlerContext<object, object, unknown>): Promise<number> {
  let sum = 0;
  for await (const item of input) sum += item as number; // As the schema says.
  return sum;
}

describe("The input of a request", () => {
  it("is read item by item by a handler that answers at once, whose client is granted credit when it reads", async () => {
    const { start, input, end, take } = create(total);
    start();
    await turn();
    assert.deepEqual(take(), [credit(32)]);
    input(1);
    input(2);
    end();
    await turn();
    assert.deepEqual(take(), [ok(3)]);
  });

  it("is read by a generator, which answers as it reads", async () => {
    const { start, input, end, take, controller } = create(async function* ({ input }) {
      for await (const item of input) yield item;
      return "done";
    });
    start();
    await turn();
    take();
    input(1);
    await turn();
    assert.deepEqual(take(), [{ type: "sum", status: "next", uid: 1, data: 1 }]);
    end();
    await turn();
    assert.deepEqual(take(), [ok("done")]);
    assert.equal(controller.stats().streams, 0);
  });

  it("may end before the handler reads it, and each item may be undefined", async () => {
    const { start, end, send, take } = create(async ({ input }) => {
      const items = [];
      for await (const item of input) items.push(item);
      return items.length;
    }, { request: { ...Sum, stream: { input: v.unknown() } } });
    start();
    await turn();
    take();
    send({ type: "stream.input", uid: 1, item: 1 });
    send({ type: "stream.end", uid: 1, item: 2 });
    end();
    await turn();
    assert.deepEqual(take(), [ok(1)]);
  });

  it("is granted more once half of the credit is used, by items and by bytes", async () => {
    const { start, input, take } = create(total);
    start();
    await turn();
    take();
    for (let n = 1; n <= 15; n++) input(n);
    await turn();
    assert.deepEqual(take(), []);
    input(16);
    await turn();
    assert.deepEqual(take().map(({ item }) => item), [48]);
  });

  it("is granted no more than a quarter of maxBufferedBytes ahead of the handler", async () => {
    const text = "x".repeat(100);
    const stall = new Stall();
    const { start, input, take } = create(async ({ input }) => {
      for await (const _ of input) await stall.promise;
    }, { request: { ...Sum, stream: { input: v.string() } }, maxBufferedBytes: 4_000 });
    start();
    await turn();
    assert.deepEqual(take(), [credit(32, 1_000)]);
    // The message has 149 bytes: the seventh is sent while 106 are left.
    for (let n = 1; n <= 7; n++) input(text);
    await turn();
    assert.deepEqual(take(), []);
    input(text);
    await turn();
    assert.deepEqual(take().map(codeOf), []);
    stall.resolve();
    await turn();
    assert.deepEqual(take().map(codeOf), [fails("LIMIT_EXCEEDED")]);
  });

  it("shares what may wait for the handlers between the inputs of a client", async () => {
    const { start, take } = create(total);
    for (let uid = 1; uid <= 4; uid++) start(uid);
    await turn();
    assert.deepEqual(take().map(({ bytes }) => bytes), [262_144, 131_072, 87_382, 65_536]);
  });

  it("ends the stream with LIMIT_EXCEEDED beyond the credit, also of a handler that does not read", async () => {
    for (
      const handler of [
        async function* () {
          await new Promise(() => {});
          yield 1;
        },
        total,
      ]
    ) {
      const { start, input, take, connection, clock } = create(handler);
      start();
      if (handler === total) {
        await turn();
        take();
        // In one turn, so that the handler reads none.
        for (let n = 1; n <= 32; n++) input(n);
        assert.deepEqual(take(), []);
      }
      input(0);
      await turn();
      clock.advance(10_000); // For the generator that ignores its signal.
      await turn();
      assert.deepEqual(take().map(codeOf), [fails("LIMIT_EXCEEDED")]);
      assert.equal(connection.readyState, 1);
    }
  });

  it("ends the stream with INVALID_PAYLOAD when an item is missing", async () => {
    const { start, input, take } = create(total);
    start();
    await turn();
    take();
    input(1, 1);
    input(3, 3);
    await turn();
    const [{ error }, ...others] = take();
    assert.deepEqual([error.code, error.path, others], ["INVALID_PAYLOAD", "item", []]);
  });

  it("throws INVALID_PAYLOAD at an item that its schema refuses, with its number and path, and asks the client to stop", async () => {
    for (const [data, path] of [[{ n: "1" }, { path: "n" }], [null, {}]] as const) {
      const { start, input, take } = create(total, { request: { ...Sum, stream: { input: v.object({ n: v.number() }) } } });
      start();
      await turn();
      take();
      input({ n: 1 });
      input(data);
      input({ n: 2 });
      await turn();
      const [stop, { error }, ...others] = take();
      assert.deepEqual(stop, { type: "stream.cancel", uid: 1 });
      const { message: _, ...shown } = error;
      assert.deepEqual([shown, others], [{ code: "INVALID_PAYLOAD", item: 2, ...path }, []]);
    }
  });

  it("may be validated by an asynchronous schema, in order, and outputs what it transforms", async () => {
    const schema = v.pipeAsync(v.string(), v.transformAsync(async (text) => (await turn(), Number(text))));
    const { start, input, end, take } = create(async ({ input }) => {
      const items = [];
      for await (const item of input) items.push(item);
      return items;
    }, { request: { ...Sum, stream: { input: schema } } });
    start();
    await turn();
    take();
    for (const item of ["1", "2"]) input(item);
    end();
    for (let n = 0; n < 4; n++) await turn();
    assert.deepEqual(take(), [ok([1, 2])]);
  });

  it("fails with the code that the client sends, after the items before it", async () => {
    for (
      const [error, code] of [[{ code: "NO_MICROPHONE", message: "secret" }, "NO_MICROPHONE"], [
        { code: "<b>" },
        "UNKNOWN",
      ]] as const
    ) {
      const { start, input, end, take, errors } = create(total);
      start();
      await turn();
      take();
      input(1);
      end(error);
      await turn();
      const all = take();
      assert.deepEqual(all.map(codeOf), [fails(code)]);
      assert.equal(all[0]!.error.item, 2); // The `stream.end`.
      assert.ok(!JSON.stringify(all).includes("secret"));
      assert.deepEqual(errors(), []);
    }
  });

  it("may fail without the answer: a handler that catches the error ends with a result", async () => {
    const { start, end, take } = create((context) => total(context).catch(({ code }) => code));
    start();
    await turn();
    take();
    end({ code: "NO_MICROPHONE" });
    await turn();
    assert.deepEqual(take(), [ok("NO_MICROPHONE")]);
  });

  it("asks the client to stop when the handler leaves the loop, which then goes on, and ignores what is under way", async () => {
    const stall = new Stall();
    const { start, input, end, take } = create(async ({ input }) => {
      for await (const item of input) if (item === 2) break;
      await stall.promise;
      for await (const item of input) assert.fail(`It reads ${item}`);
      return "done";
    });
    start();
    await turn();
    take();
    for (const item of [1, 2, 3]) input(item);
    await turn();
    assert.deepEqual(take(), [{ type: "stream.cancel", uid: 1 }]);
    input(4);
    end();
    await turn();
    assert.deepEqual(take(), []);
    stall.resolve();
    await turn();
    assert.deepEqual(take(), [ok("done")]);
  });

  it("is ignored after the answer, and throws for a handler that still reads it", async () => {
    let late: Promise<unknown> | undefined;
    const { start, input, take } = create(({ input }) => {
      const reader = input[Symbol.asyncIterator]();
      late = reader.next();
      return "done";
    });
    start();
    assert.deepEqual(take().map(({ type }) => type), ["stream.credit", "sum"]);
    input(1);
    await assert.rejects(late!, { code: "CANCELLED" });
    assert.deepEqual(take(), []);
  });

  it("rejects when the request is cancelled, and when the connection ends", async () => {
    const seen: unknown[] = [];
    const handler = async ({ input }: HandlerContext<object, object, unknown>) => {
      try {
        for await (const item of input) void item;
      } catch (error) {
        seen.push((error as { code: string }).code);
        throw error;
      }
    };
    for (const how of ["cancel", "lost"]) {
      const { start, send, take, connection } = create(handler);
      start();
      await turn();
      if (how === "cancel") send({ type: "stream.cancel", uid: 1 });
      else connection.closed(1006, "", false);
      await turn();
      assert.deepEqual(
        take().map(codeOf).at(-1),
        how === "cancel" ? fails("CANCELLED") : ["stream.credit", undefined, 1, undefined],
      );
    }
    assert.deepEqual(seen, ["CANCELLED", "DISCONNECTED"]);
  });

  it("needs a uid of its own, and counts as a stream of the client", async () => {
    const { start, send, take } = create(total, { maxStreams: 2 });
    send({ type: "sum" });
    start();
    start();
    start(2);
    start(3);
    await turn();
    assert.deepEqual(take().map(codeOf), [
      ["sum", "error", undefined, "INVALID_PAYLOAD"],
      ["stream.credit", undefined, 1, undefined],
      fails("INVALID_PAYLOAD"),
      ["stream.credit", undefined, 2, undefined],
      ["sum", "error", 3, "LIMIT_EXCEEDED"],
    ]);
    // The refusals have ended nothing.
    send({ type: "stream.end", uid: 1, item: 1 });
    await turn();
    assert.deepEqual(take(), [ok(0)]);
    start();
    await turn();
    assert.equal(take()[0].type, "stream.credit");
  });

  it("is ignored for a uid that no request has, and ends a stream that declares none", async () => {
    const { controller, send, take } = create(total);
    send({ type: "stream.input", uid: 7, item: 1, data: 1 });
    send({ type: "stream.end", uid: 7, item: 2 });
    assert.deepEqual(take(), []);
    controller.handle("ask", v.object({}), async function* ({ input, signal }) {
      assert.equal(input, undefined);
      await new Promise((resolve) => signal.addEventListener("abort", resolve));
      yield 1;
    });
    send({ type: "ask", uid: 1 });
    await turn();
    send({ type: "stream.input", uid: 1, item: 1, data: 1 });
    await turn();
    assert.deepEqual(take().map(codeOf), [["ask", "error", 1, "INVALID_PAYLOAD"]]);
    for (const type of ["stream.input", "stream.end"]) send({ type });
    assert.deepEqual(take().map(({ error }) => [error.code, error.path]), [["INVALID_PAYLOAD", "uid"], [
      "INVALID_PAYLOAD",
      "uid",
    ]]);
  });

  it("waits while the credentials are expired, and loses nothing", async () => {
    const items: unknown[] = [];
    const ann = { accountability: { user: "ann", role: null }, expires_at: null };
    const { controller, clock } = create(total, { authenticate: () => ann });
    controller.handle("keep", Sum, async ({ input }) => {
      for await (const item of input) items.push(item);
      return items;
    });
    const transport = new FakeTransport();
    const identity = { ...ann, expires_at: clock.now() / 1000 + 60 };
    const connection = controller.open(transport, { ...HANDSHAKE, mode: "handshake" }, identity);
    const send = (message: object) => connection.message(JSON.stringify(message));
    send({ type: "keep", uid: 1 });
    await turn();
    transport.take();
    clock.advance(60_000);
    assert.equal(transport.take().flat()[0].error.code, "TOKEN_EXPIRED");
    send({ type: "stream.input", uid: 1, item: 1, data: 1 });
    send({ type: "stream.end", uid: 1, item: 2 });
    await turn();
    assert.deepEqual([items, transport.take()], [[], []]);
    send({ type: "auth", access_token: "token" });
    await turn();
    assert.deepEqual(transport.take().flat().map(codeOf).map(([type, status]) => [type, status]), [["auth", "ok"], [
      "keep",
      "ok",
    ]]);
    assert.deepEqual(items, [1]);
  });

  it("is refused when the handler is set up if its schema is none", () => {
    for (const input of [{}, () => {}, null]) {
      assert.throws(
        () => create(total, { request: { stream: { input } } }),
        /Cannot handle "sum": stream\.input must be a schema/,
      );
    }
  });
});
