import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { type JsonValue, WebSocketClient } from "../../src/application/websocket-client.ts";
import { createClient, FakeConnection } from "../support/fake-connection.ts";
import { HANDSHAKE } from "../support/fake-transport.ts";

describe("WebSocketClient", () => {
  it("shows what its connection is, now", () => {
    const { client, connection } = createClient();
    assert.equal(client.uid, "client-1");
    assert.equal(client.handshake, HANDSHAKE);
    assert.equal(client.socket, connection.socket);
    connection.accountability = { user: "bob", role: "reader" };
    Object.assign(connection, { expires_at: 7, readyState: 2, bufferedAmount: 9 });
    assert.equal(client.accountability, connection.accountability);
    assert.deepEqual([client.expires_at, client.readyState, client.bufferedAmount], [7, 2, 9]);
  });

  it("send encodes an object as JSON and sends a string as it is, well-formed", () => {
    const { client, connection } = createClient();
    client.send({ type: "x", text: "é" });
    client.send("plain");
    client.send("\ud800");
    assert.deepEqual(connection.sent, ['{"type":"x","text":"é"}', "plain", "\ufffd"]);
  });

  it("send throws TypeError and sends nothing when JSON cannot hold the message", () => {
    const { client, connection } = createClient();
    for (const message of [{ type: "x", n: 1n }, undefined, 1]) assert.throws(() => client.send(message as never), TypeError);
    assert.deepEqual(connection.sent, []);
  });

  it("close hands on code and reason, absent ones too", () => {
    const { client, connection } = createClient();
    client.close();
    client.close(4000, "bye");
    assert.deepEqual(connection.closes, [[undefined, undefined], [4000, "bye"]]);
  });
});

describe("WebSocketClient.state", () => {
  it("is null at first, and what it was restored with", () => {
    assert.equal(createClient().client.state, null);
    const restored = new WebSocketClient(new FakeConnection(), HANDSHAKE, "client-1", { seen: [1] });
    assert.deepEqual(restored.state, { seen: [1] });
    assert.ok(Object.isFrozen(restored.state) && Object.isFrozen((restored.state as { seen: unknown }).seen));
  });

  it("keeps each kind of JSON and saves it, each time it is set", () => {
    const { client, connection } = createClient();
    const values: JsonValue[] = [null, true, 0, "x", [], {}, [1, [2]], { a: { b: [null] } }];
    for (const [index, value] of values.entries()) {
      client.state = value;
      assert.deepEqual(client.state, value);
      assert.equal(connection.saves, index + 1);
    }
  });

  it("is a copy, so that what it was made of may change", () => {
    const { client } = createClient();
    const value = { list: [1] };
    client.state = value;
    value.list.push(2);
    assert.deepEqual(client.state, { list: [1] });
    assert.equal(Object.isFrozen(value.list), false);
  });

  it("is frozen at every level, so that a change that would not be kept throws", () => {
    const { client } = createClient();
    client.state = { a: { b: [{ c: 1 }] } };
    // deno-lint-ignore no-explicit-any -- the types forbid to write to it, which is the point
    const state = client.state as any;
    assert.throws(() => state.x = 1, TypeError);
    assert.throws(() => state.a.x = 1, TypeError);
    assert.throws(() => state.a.b.push(1), TypeError);
    assert.throws(() => state.a.b[0].c = 2, TypeError);
    assert.deepEqual(client.state, { a: { b: [{ c: 1 }] } });
  });

  it("takes 8192 bytes of JSON and throws TypeError at 8193, counted in bytes", () => {
    const { client, connection } = createClient();
    for (const char of ["a", "é", "語", "💬"]) {
      const size = new TextEncoder().encode(char).byteLength;
      const filled = char.repeat(Math.floor(8190 / size)) + "a".repeat(8190 % size); // And two quotes.
      client.state = filled;
      assert.equal(client.state, filled);
      assert.throws(() => client.state = filled + "a", {
        name: "TypeError",
        message: "Cannot keep the state: it is larger than 8 KiB, keep an id and store the rest elsewhere",
      });
      assert.equal(client.state, filled);
    }
    assert.equal(connection.saves, 4);
  });

  it("throws TypeError and keeps the old one when the value is not JSON", () => {
    const { client, connection } = createClient();
    client.state = "old";
    const cycle: Record<string, unknown> = {};
    cycle["self"] = cycle;
    for (const value of [undefined, () => {}, Symbol("x"), 1n, { n: 1n }, cycle]) {
      assert.throws(() => client.state = value as never, TypeError);
    }
    assert.throws(() => client.state = undefined as never, { message: "Cannot keep the state: it is not JSON" });
    assert.equal(client.state, "old");
    assert.equal(connection.saves, 1);
  });
});
