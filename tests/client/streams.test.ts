import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { createClient, type StreamsHost } from "../../src/client/client.ts";
import { ClientError } from "../../src/client/error.ts";
import { type Streaming, streams as createStreams } from "../../src/client/streams.ts";
import type { WebSocketMessage } from "../../src/protocol/protocol.ts";
import { Stall, turn } from "../support/waiting.ts";

/** Streams of a client whose server accepts messages while `isOpen`. */
function create(request?: StreamsHost["request"]) {
  const state = { isOpen: true, isUnsent: false };
  const sent: object[] = [];
  const dropped: unknown[] = [];
  const stall = new Stall<WebSocketMessage>();
  const streams = createStreams({
    nextUid: () => "u1",
    request: request ?? (() => stall.promise),
    offer: (text) => {
      if (state.isOpen) sent.push(JSON.parse(text));
      return state.isOpen;
    },
    drop: (_uid, error) => {
      if (state.isUnsent) {
        dropped.push(error);
        stall.reject(error);
      }
      return state.isUnsent;
    },
    report: (error) => assert.fail(String(error)),
  });
  const methods = streams.methods as Streaming; // As `createClient` returns them.
  const start = (signal?: AbortSignal) => methods.stream("ask", {}, { ...(signal && { signal }) });
  const item = (data: unknown, credit?: number) =>
    streams.receive({ type: "ask", status: "next", uid: "u1", data, ...(credit && { credit }) });
  return { state, sent, dropped, stall, streams, methods, start, item };
}

const credit = (n: number) => ({ type: "stream.credit", uid: "u1", credit: n });
const CANCEL = { type: "stream.cancel", uid: "u1" };

describe("client.stream", () => {
  it("yields the items in order, those after the end of the stream too, and then the result", async () => {
    const { start, item, stall, streams } = create();
    const stream = start();
    item(1);
    const iterator = stream[Symbol.asyncIterator]();
    assert.deepEqual(await iterator.next(), { done: false, value: 1 });
    const pending = iterator.next();
    item(undefined);
    assert.deepEqual(await pending, { done: false, value: undefined });
    item(3);
    stall.resolve({ type: "ask", status: "ok", data: "result" });
    await turn();
    assert.deepEqual(await iterator.next(), { done: false, value: 3 });
    assert.deepEqual(await iterator.next(), { done: true, value: undefined });
    assert.equal(await stream.result, "result");
    assert.equal(item(4), false);
    assert.equal(streams.receive({ type: "news", status: "next", uid: 7 }), false);
  });

  it("sends the credit of an item back when the next is asked for, and no earlier", async () => {
    const { start, item, sent } = create();
    const iterator = start()[Symbol.asyncIterator]();
    item("a");
    item("b", 2);
    await iterator.next();
    await iterator.next();
    await turn();
    assert.deepEqual(sent, []);
    void iterator.next();
    assert.deepEqual(sent, [credit(2)]);
  });

  it("sends the last credit once the server accepts messages again, and none on another connection", async () => {
    const { start, item, sent, state, streams } = create();
    const iterator = start()[Symbol.asyncIterator]();
    state.isOpen = false;
    for (const n of [1, 2]) {
      item(n, n);
      await iterator.next();
    }
    void iterator.next();
    streams.flush();
    assert.deepEqual(sent, []);
    state.isOpen = true;
    streams.flush();
    streams.flush();
    assert.deepEqual(sent, [credit(2)]);
    state.isOpen = false;
    item(3, 3);
    void iterator.next();
    streams.lost();
    state.isOpen = true;
    streams.flush();
    assert.deepEqual(sent, [credit(2)]);
  });

  it("is cancelled by break, once, and the result is what the server ends it with", async () => {
    const { start, item, sent, stall } = create();
    const stream = start();
    item(1, 1);
    item(2);
    for await (const data of stream) {
      assert.equal(data, 1);
      break;
    }
    stream.cancel();
    assert.deepEqual(sent, [CANCEL]);
    item(3);
    stall.resolve({ type: "ask", status: "ok", data: { usage: 1 } });
    assert.deepEqual(await stream.result, { usage: 1 });
  });

  it("is cancelled when a server that heeds no credit fills it", async () => {
    const { start, item, sent } = create();
    const stream = start();
    for (let count = 1; count <= 10_000; count++) item(count);
    assert.deepEqual(sent, []);
    for (let count = 1; count <= 3; count++) item(count);
    assert.deepEqual(sent, [CANCEL]);
    await assert.rejects(stream[Symbol.asyncIterator]().next(), { code: "SLOW_CONSUMER" });
  });

  it("is not sent at all when it is cancelled before", async () => {
    const { start, sent, state, dropped } = create();
    state.isUnsent = true;
    const stream = start();
    stream.cancel();
    await assert.rejects(stream.result, { code: "CANCELLED" });
    assert.deepEqual([sent, dropped.length], [[], 1]);
  });

  it("throws the reason of its signal, and cancels", async () => {
    const { start, item, sent } = create();
    const controller = new AbortController();
    const iterator = start(controller.signal)[Symbol.asyncIterator]();
    item(1);
    await iterator.next();
    const pending = iterator.next();
    controller.abort(new Error("unmounted"));
    await assert.rejects(pending, /unmounted/);
    assert.deepEqual(sent, [CANCEL]);
  });

  it("throws the error of the stream after its items, and whoever ignores the result is safe", async () => {
    const { start, item, stall } = create();
    const stream = start();
    item(1);
    stall.reject(new Error("no model"));
    const seen: unknown[] = [];
    await assert.rejects(async () => {
      for await (const data of stream) seen.push(data);
    }, /no model/);
    assert.deepEqual(seen, [1]);
    await turn();
  });

  it("rejects for a payload that is no object, and when the client is closed", async () => {
    const client = createClient("ws://127.0.0.1:1", { lazy: true, WebSocket: class {} as never, streams: createStreams });
    await assert.rejects(client.stream("ask", [] as never).result, TypeError);
    await client.close();
    await assert.rejects(client.stream("ask").result, { code: "CLOSED" });
  });
});

describe("client.stream, resumable", () => {
  /** A stream whose requests the test answers, one for each connection. */
  function resumable(after?: number, id?: string) {
    const requests: { type: string; payload: object | undefined; stall: Stall<WebSocketMessage> }[] = [];
    const created = create((type, payload) => {
      const stall = new Stall<WebSocketMessage>();
      requests.push({ type, payload, stall });
      return stall.promise;
    });
    const { stream: start, attach } = created.methods;
    const stream = id === undefined ? start("ask", { prompt: "Hi" }) : attach(id, after === undefined ? {} : { after });
    const opened = (id = "name") => created.streams.receive({ type: "ask", status: "open", uid: "u1", id });
    const next = (fields: object) => created.streams.receive({ type: "ask", status: "next", uid: "u1", ...fields });
    const lose = async () => {
      created.streams.lost();
      requests.at(-1)!.stall.reject(new ClientError("DISCONNECTED", "lost"));
      await turn();
    };
    return {
      ...created,
      requests,
      stream,
      opened,
      next,
      lose,
      asked: () => requests.map(({ type, payload }) => [type, payload]),
    };
  }

  it("goes on after a lost connection, from the last item that was read", async () => {
    const { stream, opened, next, lose, asked, requests } = resumable();
    const iterator = stream[Symbol.asyncIterator]();
    opened();
    assert.equal(await stream.id, "name");
    next({ data: "a", offset: 1 });
    next({ data: "b", offset: 2 });
    assert.deepEqual([await iterator.next(), stream.offset], [{ done: false, value: "a" }, 1]);
    await lose();
    assert.deepEqual(asked(), [["ask", { prompt: "Hi" }], ["stream.resume", { id: "name", after: 1 }]]);
    opened();
    next({ data: "b", offset: 2 });
    assert.equal((await iterator.next()).value, "b");
    await lose();
    assert.deepEqual(asked().at(-1), ["stream.resume", { id: "name", after: 2 }]);
    requests.at(-1)!.stall.resolve({ type: "stream.resume", status: "ok", data: "end" });
    await turn();
    assert.deepEqual([(await iterator.next()).done, await stream.result], [true, "end"]);
  });

  it("yields merged items one by one, and keeps those that were not read over a lost connection", async () => {
    const { stream, opened, next, lose, asked } = resumable(3, "name");
    const iterator = stream[Symbol.asyncIterator]();
    opened();
    next({ items: [], offset: 4 });
    next({ items: ["a", "b"], offset: 6 });
    assert.deepEqual([(await iterator.next()).value, stream.offset], ["a", 4]);
    await lose();
    assert.deepEqual(asked(), [["stream.resume", { id: "name", after: 3 }], ["stream.resume", { id: "name", after: 6 }]]);
    assert.deepEqual([(await iterator.next()).value, stream.offset], ["b", 6]);
  });

  it("is stopped by its name, on the next connection if there is none", async () => {
    const { state, stream, streams, opened, lose, sent, requests } = resumable();
    opened();
    state.isOpen = false;
    await lose();
    stream.cancel();
    streams.lost();
    assert.deepEqual(sent, []);
    state.isOpen = true;
    streams.flush();
    streams.flush();
    assert.deepEqual(sent, [{ type: "stream.cancel", id: "name" }]);
    requests.at(-1)!.stall.reject(new ClientError("CANCELLED", "x"));
    await assert.rejects(stream.result, { code: "CANCELLED" });
    assert.equal(requests.length, 2);
  });

  it("throws DISCONNECTED while it has no name, and any other error at once", async () => {
    const unnamed = resumable();
    await unnamed.lose();
    await assert.rejects(unnamed.stream.result, { code: "DISCONNECTED" });
    assert.equal(await unnamed.stream.id, undefined);
    const named = resumable();
    named.opened();
    named.requests[0]!.stall.reject(new ClientError("STREAM_LOST", "x"));
    await assert.rejects(named.stream.result, { code: "STREAM_LOST" });
    assert.equal(named.requests.length, 1);
  });
});
