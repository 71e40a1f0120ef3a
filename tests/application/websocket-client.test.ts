import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { type JsonValue, WebSocketClient } from "../../src/application/websocket-client.ts";
import { createClient, FakeConnection } from "../support/fake-connection.ts";
import { HANDSHAKE, open } from "../support/fake-transport.ts";
import { observe } from "../support/observed.ts";
import { turn } from "../support/waiting.ts";

describe("WebSocketClient", () => {
  it("shows its connection as it is now, through an auth, a close and its end", async () => {
    const ann = { accountability: { user: "ann", role: "editor" }, expires_at: 9e9 };
    const { controller } = observe({ authenticate: () => ann });
    const { client, connection, transport } = open(controller);
    const { uid, handshake } = client;
    assert.match(uid, /^[\da-f-]{36}$/);
    assert.deepEqual(handshake, HANDSHAKE);
    assert.equal(client.socket, transport.socket);
    transport.bufferedAmount = 9;
    const shown = () => [client.accountability.user, client.expires_at, client.readyState, client.bufferedAmount];
    assert.deepEqual(shown(), [null, null, 1, 9]);
    connection.message('{"type":"auth","access_token":"t"}');
    await turn();
    assert.deepEqual(shown(), ["ann", 9e9, 1, 9]);
    client.close();
    assert.deepEqual(shown(), ["ann", 9e9, 2, 9]);
    connection.closed(1000, "", true);
    assert.deepEqual(shown(), ["ann", 9e9, 3, 9]);
    assert.deepEqual([client.uid, client.handshake], [uid, handshake]);
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

  it("close closes the socket, with 1000 or the code and reason given", () => {
    const { controller } = observe();
    const [plain, told] = [open(controller), open(controller)];
    plain.client.close();
    told.client.close(4000, "bye");
    assert.deepEqual([...plain.transport.closes, ...told.transport.closes], [{ code: 1000, reason: "" }, {
      code: 4000,
      reason: "bye",
    }]);
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
