import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { connectFake } from "../support/fake-server.ts";
import { unhandledIn } from "../support/unhandled.ts";

describe("client.on, with one function twice", () => {
  /** Registers the same function twice; `emit` returns how often it is called for one message. */
  async function listen() {
    const { client, admit } = connectFake();
    const socket = await admit();
    let calls = 0;
    const listener = () => void calls++;
    const stops = [client.on("message", listener), client.on("message", listener)];
    const emit = () => {
      calls = 0;
      socket.receive({ type: "news" });
      return calls;
    };
    return { client, listener, stops, emit };
  }

  it("is two registrations, and off removes one", async () => {
    const { client, listener, emit } = await listen();
    const calls = [emit()];
    for (let n = 0; n < 3; n++) {
      client.off("message", listener);
      calls.push(emit());
    }
    assert.deepEqual(calls, [2, 1, 0, 0]);
    client.on("message", listener);
    assert.equal(emit(), 1);
  });

  it("stops each by the function that on returned, once", async () => {
    const { client, listener, stops: [first, second], emit } = await listen();
    first!();
    first!();
    assert.equal(emit(), 1);
    second!();
    assert.equal(emit(), 0);
    client.on("message", listener);
    second!();
    assert.equal(emit(), 1);
    client.off("error", listener);
    client.off("message", () => {});
    assert.equal(emit(), 1);
  });
});

describe("client.on, for error", () => {
  it("passes an Error as it is, and any other thrown value as the cause of one", async () => {
    const { client, admit } = connectFake();
    const errors: Error[] = [];
    client.on("error", ({ error }) => errors.push(error));
    const thrown = [new TypeError("a"), new DOMException("b", "AbortError"), "c", undefined, Object.create(null)];
    const left = [...thrown];
    client.on("message", () => {
      throw left.shift();
    });
    const socket = await admit();
    for (const _ of thrown) socket.receive({ type: "news" });
    assert.deepEqual(errors.map((error) => error instanceof Error), thrown.map(() => true));
    assert.deepEqual(errors.slice(0, 2), thrown.slice(0, 2));
    assert.deepEqual(errors.slice(2).map(({ cause }) => cause), thrown.slice(2));
  });
});

describe("client.ready", () => {
  it("keeps nothing for each access: while the client connects or waits there is one promise", async () => {
    const { client, socket, admit, retry } = connectFake();
    const { ready } = client;
    // Each promise and its listener took 1.3 kB.
    for (let n = 0; n < 20_000; n++) assert.equal(client.ready, ready);
    (await socket()).end();
    assert.deepEqual([client.status, client.ready], ["waiting", ready]);
    retry();
    await admit();
    await ready;
  });

  it("may be left alone where it is rejected", async () => {
    const seen = await unhandledIn(async () => {
      const { client, socket } = connectFake({ maxAttempts: 1 });
      for (let n = 0; n < 3; n++) void client.ready;
      const ready = client.ready;
      (await socket()).end();
      await assert.rejects(ready, { code: "NOT_CONNECTED" });
      void client.ready;
      await assert.rejects(client.ready, { code: "NOT_CONNECTED" });
    });
    assert.deepEqual(seen, []);
  });

  it("is another promise after each outcome", async () => {
    const { client, socket, admit } = connectFake();
    const first = client.ready;
    void client.close();
    client.connect();
    const second = client.ready;
    await assert.rejects(first, { code: "CLOSED" });
    const opened = await admit();
    await second;
    await client.ready;
    opened.end(4403);
    await assert.rejects(client.ready, { code: "FORBIDDEN" });
    client.connect();
    const third = client.ready;
    (await socket()).open();
    (await socket()).letIn();
    await third;
  });
});
