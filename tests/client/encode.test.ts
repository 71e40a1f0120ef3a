/** Whatever the caller gives is encoded where it is given: what JSON cannot hold is a `TypeError` there, and reaches no connection. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { Position } from "../../src/client/client.ts";
import { encode } from "../../src/client/encode.ts";
import { connectFake } from "../support/fake-server.ts";
import { unhandledIn } from "../support/unhandled.ts";
import { turn } from "../support/waiting.ts";

const cycle: Record<string, unknown> = {};
cycle["itself"] = cycle;

/** What JSON cannot hold, at the top. */
const TOP: Record<string, unknown> = {
  "a BigInt": 10n,
  "a function": () => {},
  "a symbol": Symbol("s"),
  "a cycle": cycle,
  "an object that holds a BigInt": { id: 10n },
  "an array that holds a BigInt": [[10n]],
  "a toJSON that throws": {
    toJSON() {
      throw new Error("of toJSON");
    },
  },
  "a nested toJSON that throws a string": {
    at: {
      toJSON() {
        throw "of toJSON";
      },
    },
  },
  "a getter that throws": {
    get at() {
      throw new Error("of a getter");
    },
  },
};

describe("encode", () => {
  it("is the message as JSON", () => {
    assert.equal(
      encode({ type: "say", data: undefined, text: "狼煙", at: { toJSON: () => 1 } }),
      '{"type":"say","text":"狼煙","at":1}',
    );
  });

  it("keeps the cause", () => {
    const error = new Error("of toJSON");
    const toJSON = () => {
      throw error;
    };
    assert.throws(() => encode({ data: { toJSON } }), { name: "TypeError", cause: error });
  });
});

describe("A client that is given what JSON cannot hold", () => {
  for (const [what, value] of Object.entries(TOP)) {
    it(`throws a TypeError and registers nothing: ${what}`, async () => {
      const { client, sockets, admit } = connectFake({ lazy: true });
      const query = value as Record<string, unknown>;
      assert.throws(() => client.subscribe("room", { query }), TypeError);
      assert.throws(() => client.subscribe("room", { data: value }), TypeError);
      assert.throws(() => client.subscribe("room", { recover: value as Position }), TypeError);
      assert.throws(() => client.subscribe(value as string), TypeError);
      await assert.rejects(client.request("ask", { value: query }), TypeError);
      await assert.rejects(client.publish("room", "said", value), TypeError);
      await assert.rejects(client.send({ type: "say", value }), TypeError);
      await turn();
      assert.equal(sockets.length, 0, "a lazy client was opened");
      client.connect();
      const socket = await admit();
      assert.deepEqual(socket.take(), []);
      assert.equal((await client.send({ type: "later" }), socket.take()[0].type), "later");
    });
  }

  it("throws for a message, a payload or a position that is no object", async () => {
    const { client, sockets } = connectFake({ lazy: true });
    for (const value of [undefined, null, "text", 1, true, [], [{ type: "say" }], () => {}, Symbol("s"), 10n] as never[]) {
      await assert.rejects(client.send(value), TypeError);
      if (value !== undefined && value !== null) await assert.rejects(client.request("ask", value), TypeError);
      if (value) assert.throws(() => client.subscribe("room", { recover: value }), TypeError);
    }
    await turn();
    assert.equal(sockets.length, 0);
  });

  it("throws for a payload that names type or uid, which are the request's own", async () => {
    const { client, admit } = connectFake();
    const socket = await admit();
    // @ts-expect-error -- the type is the first argument
    await assert.rejects(client.request("x", { type: "y" }), TypeError);
    // @ts-expect-error -- the client chooses the uid
    await assert.rejects(client.request("x", { uid: 1 }), TypeError);
    // @ts-expect-error -- neither
    await assert.rejects(client.request("x", { text: "hello", type: undefined }), TypeError);
    const typed = connectFake<{ requests: { x: { payload: { text: string; type: string } } } }>({ lazy: true }).client;
    // @ts-expect-error -- not even where a contract has it
    await assert.rejects(typed.request("x", { text: "hello", type: "y" }), TypeError);
    assert.deepEqual(socket.take(), []);
    void client.request("x", { text: "hello" }, { timeout: 0 });
    assert.deepEqual(socket.take().map(({ type, text }) => [type, text]), [["x", "hello"]]);
  });

  it("sends again what it was given, whatever has become of it since", async () => {
    const { client, admit, retry } = connectFake();
    const [query, data, recover, payload] = [{ at: [1] }, { name: "Ann" }, { epoch: "e", offset: 1 }, { n: [1] }];
    const options = { query, data, recover, event: "said" };
    client.subscribe("room", options);
    void client.request("ask", payload, { idempotent: true, timeout: 0 });
    void client.send({ type: "say", payload });
    query.at.push(2);
    data.name = "Bob";
    recover.offset = 9;
    payload.n.push(2);
    Object.assign(options, { query: 10n, event: 10n, data: 10n, recover: 10n });
    const expected = ["room", { at: [1] }, { name: "Ann" }, { epoch: "e", offset: 1 }, "said"];
    for (let n = 0; n < 2; n++) {
      const socket = await admit();
      const [subscribe, ...others] = socket.take();
      const { channel, query, data, recover, event } = subscribe;
      assert.deepEqual([channel, query, data, recover, event], expected);
      const again = n === 0 ? [["ask", [1]], ["say", undefined]] : [["ask", [1]]];
      assert.deepEqual(others.map(({ type, n }) => [type, n]), again);
      socket.end();
      retry();
    }
  });
});

describe("A client whose token is no string", () => {
  const tokens = Object.entries({ ...TOP, "a number": 7, "an object": { token: "t" }, "nothing that counts": false });
  for (const tokenIn of ["message", "protocol", "query"] as const) {
    for (const isAsync of [false, true]) {
      it(`says so, and asks again (${tokenIn}${isAsync ? ", async" : ""})`, async () => {
        for (const [what, value] of tokens) {
          let token: unknown = value;
          const { client, socket, sockets, admit, take, retry } = connectFake({
            tokenIn,
            token: (isAsync ? async () => await token : () => token) as () => string, // What JavaScript may do.
          });
          const unhandled = await unhandledIn(turn);
          assert.deepEqual([unhandled, sockets.length, client.status], [[], 0, "waiting"], what);
          const [{ error }] = take("error");
          assert.deepEqual([error.code, error.cause.name, client.error], ["TOKEN_FAILED", "TypeError", error], what);
          token = "right";
          retry();
          if (tokenIn === "message") await admit();
          else (await socket()).open();
          assert.equal(sockets.length, 1);
          void client.close();
        }
      });
    }
  }

  it("throws at once where it is given as a value", () => {
    for (const token of [7, 10n, {}, Symbol("s"), true] as never[]) {
      assert.throws(() => connectFake({ token }), { name: "TypeError", message: /token/ });
    }
    for (const token of [null, undefined, "t"]) connectFake({ token, lazy: true });
  });
});
