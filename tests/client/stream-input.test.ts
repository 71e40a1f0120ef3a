import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { ClientError } from "../../src/client/client.ts";
import { type Streaming, streams as createStreams } from "../../src/client/streams.ts";
import type { WebSocketMessage } from "../../src/protocol/protocol.ts";
import { Stall, turn } from "../support/waiting.ts";

/** A stream with input, of a client whose server accepts messages while `isOpen`, none larger than 200 characters. */
function create() {
  const state = { isOpen: true };
  // deno-lint-ignore no-explicit-any -- a test reads what it expects and fails on the rest
  const sent: any[] = [];
  const reports: unknown[] = [];
  const stall = new Stall<WebSocketMessage>();
  const streams = createStreams({
    nextUid: () => "u1",
    request: () => stall.promise,
    offer: (text, refused) => {
      if (text.length > 200) refused(new ClientError("MESSAGE_TOO_BIG", "Too big"));
      else if (state.isOpen) sent.push(JSON.parse(text));
      return state.isOpen;
    },
    drop: () => false,
    report: (error) => reports.push(error),
  });
  const { stream } = streams.methods as Streaming; // As `createClient` returns them.
  return {
    state,
    reports,
    streams,
    stall,
    take: () => sent.splice(0),
    start: (input: AsyncIterable<unknown>) => stream("upload", {}, { input }),
    /** Returns whether there is a stream to grant it to. */
    grant: async (item: number, bytes = 10_000) => {
      const isOpen = streams.receive({ type: "stream.credit", uid: "u1", item, bytes });
      await turn();
      return isOpen;
    },
  };
}

/** An input that counts the calls of `next` and `return`. */
function counter(last = Infinity) {
  const counts = { asked: 0, returned: 0 };
  const input: AsyncIterable<unknown> = {
    [Symbol.asyncIterator]: () => ({
      next: () => Promise.resolve({ done: counts.asked >= last, value: ++counts.asked }),
      return: () => Promise.resolve({ done: true, value: counts.returned++ }),
    }),
  };
  return { input, counts };
}

const input = (item: number, data: unknown = item) => ({ type: "stream.input", uid: "u1", item, data });
const end = (item: number, code?: string) => ({ type: "stream.end", uid: "u1", item, ...(code && { error: { code } }) });

describe("The input of client.stream", () => {
  it("is asked for no item before the server grants it, and is sent in order with its end", async () => {
    const { start, grant, take } = create();
    const { input: numbers, counts } = counter(3);
    start(numbers);
    await turn();
    assert.equal(counts.asked, 0);
    await grant(2);
    assert.deepEqual([take(), counts.asked], [[input(1), input(2)], 2]);
    await grant(4);
    assert.deepEqual(take(), [input(3), end(4)]);
    assert.equal(counts.returned, 0);
  });

  it("stops at the bytes that the server grants, after the item that exceeds them", async () => {
    const { start, grant, take } = create();
    start(counter().input);
    const { length } = JSON.stringify(input(1));
    await grant(100, 2 * length);
    assert.deepEqual(take(), [input(1), input(2)]);
    await grant(100, 2 * length + 1);
    assert.deepEqual(take(), [input(3)]);
  });

  it("waits while the server accepts no message, and sends nothing on another connection", async () => {
    const { start, grant, take, state, streams } = create();
    start(counter().input);
    state.isOpen = false;
    await grant(2);
    assert.deepEqual(take(), []);
    streams.flush();
    state.isOpen = true;
    streams.flush();
    await turn();
    assert.deepEqual(take(), [input(1), input(2)]);
    state.isOpen = false;
    await grant(3);
    streams.lost();
    state.isOpen = true;
    streams.flush();
    await turn();
    assert.deepEqual(take(), []);
  });

  it("ends when the handler reads no more, and when the stream ends or is cancelled", async () => {
    for (const how of ["stop", "end", "fail", "cancel", "break"]) {
      const { start, grant, take, streams, stall } = create();
      const { input: numbers, counts } = counter();
      const stream = start(numbers);
      await grant(1);
      take();
      if (how === "stop") streams.receive({ type: "stream.cancel", uid: "u1" });
      else if (how === "end") stall.resolve({ type: "sum", status: "ok", data: 1 });
      else if (how === "fail") stall.reject(new Error("no"));
      else if (how === "cancel") stream.cancel();
      else void stream[Symbol.asyncIterator]().return?.();
      await turn();
      assert.equal(await grant(9), how === "stop" || how === "cancel" || how === "break", how);
      assert.deepEqual([counts, take().filter(({ type }) => type !== "stream.cancel")], [{ asked: 1, returned: 1 }, []], how);
    }
  });

  it("may end before and after the answer", async () => {
    const { start, grant, take, stall } = create();
    const stream = start(counter(1).input);
    await grant(9);
    assert.deepEqual(take(), [input(1), end(2)]);
    stall.resolve({ type: "sum", status: "ok", data: 1 });
    assert.equal(await stream.result, 1);
  });

  it("ends with an error when it throws, which the stream throws too, unless it is answered all the same", async () => {
    for (
      const [error, code] of [[new Error("secret"), "INTERNAL_ERROR"], [
        new ClientError("NO_MICROPHONE", "secret"),
        "NO_MICROPHONE",
      ]] as const
    ) {
      for (const isAnswered of [false, true]) {
        const { start, grant, take, stall } = create();
        const stream = start((async function* () {
          yield 1;
          throw error;
        })());
        await grant(9);
        assert.deepEqual(take(), [input(1), end(2, code)]);
        if (isAnswered) stall.resolve({ type: "sum", status: "ok", data: 7 });
        else stall.reject(new ClientError(code, "The input of the client has failed", { item: 2 }));
        if (isAnswered) assert.equal(await stream.result, 7);
        else await assert.rejects(stream.result, (thrown) => thrown === error);
      }
    }
  });

  it("is not why a stream fails whose handler has coped with its failure", async () => {
    const later = [
      new ClientError("INTERNAL_ERROR", "Something went wrong"),
      new ClientError("NO_SPEECH", "No speech", { item: 1 }),
      new ClientError("DISCONNECTED", "The connection was lost"),
    ];
    for (const error of later) {
      const { start, grant, stall } = create();
      const stream = start((async function* () {
        yield 1;
        throw new Error("secret");
      })());
      await grant(9);
      stall.reject(error);
      await assert.rejects(stream.result, (thrown) => thrown === error);
    }
  });

  it("ends with an error at an item that JSON cannot represent or the server does not accept, and is closed", async () => {
    for (const [item, code] of [[1n, "INTERNAL_ERROR"], ["x".repeat(200), "MESSAGE_TOO_BIG"]] as const) {
      const { start, grant, take } = create();
      let finished = 0;
      start((async function* () {
        try {
          yield 1;
          yield item;
        } finally {
          finished++;
        }
      })());
      await grant(9);
      assert.deepEqual([take(), finished], [[input(1), end(2, code)], 1]);
    }
  });

  it("reports what its end throws", async () => {
    const { start, grant, streams, reports } = create();
    start((async function* () {
      try {
        for (;;) yield 1;
      } finally {
        // deno-lint-ignore no-unsafe-finally -- what is tried
        throw new Error("in finally");
      }
    })());
    await grant(1);
    streams.receive({ type: "stream.cancel", uid: "u1" });
    await turn();
    assert.match(String(reports), /in finally/);
  });
});
