import assert from "node:assert/strict";
import { describe, it } from "node:test";
import * as v from "valibot";
import type { WebSocketClient } from "../../src/application/websocket-client.ts";
import type { Connection } from "../../src/connection/connection.ts";
import { RateGate } from "../../src/connection/rate-gate.ts";
import { WebSocketController } from "../../src/controller/controller.ts";
import { anybody, createChannels, TestPeer } from "../support/channels-fixture.ts";
import { FakeTransport, HANDSHAKE, open } from "../support/fake-transport.ts";
import { TestClock } from "../support/test-clock.ts";

/** A connection that has used up its limit of one message a second. */
function exhausted() {
  const gate = new RateGate({ messages: 1, burst: 1, bytes: 1e9, burstBytes: 1e9 }, () => 0, () => "key");
  const sent: string[] = [];
  const owner = {
    client: {} as WebSocketClient,
    isPending: false,
    flood: undefined,
    transmit: (text: string) => sent.push(text) > 0,
    close: () => assert.fail("It may go on"),
  } as Pick<Connection, "client" | "isPending" | "flood" | "close"> & { transmit(text: string): boolean };
  gate.accepts(owner as Connection, 1, 0);
  return {
    accepts: (text: string, now = 0): boolean => gate.accepts(owner as Connection, text.length, now, text),
    /** The answers to a message that is refused. */
    answers(text: string, now = 0): unknown[] {
      assert.equal(gate.accepts(owner as Connection, text.length, now, text), false);
      return sent.splice(0).map((answer) => JSON.parse(answer));
    },
  };
}

/** A client with one message a second. */
function limited(mode: "public" | "handshake" = "public") {
  const clock = new TestClock();
  const controller = new WebSocketController({
    clock,
    logger: false,
    mode,
    authenticate: () => null,
    rateLimit: { messages: 1, burst: 1 },
  });
  let handled = 0;
  controller.handle("x", v.object({}), () => void handled++);
  const { connection, transport } = open(controller, { mode });
  return { clock, controller, transport, send: (text = '{"type":"x"}') => connection.message(text), handled: () => handled };
}

const error = { code: "REQUESTS_EXCEEDED", message: "Too many messages", retry_after: 1_000 };
const refusal = { type: "server", status: "error", error };

describe("RateGate.accepts", () => {
  it("closes a client with 4529 at 101 refused messages that no accepted one has made up for, and handles none", () => {
    const { controller, clock, transport, send, handled } = limited();
    send();
    for (let n = 0; n < 150; n++) {
      send();
      clock.advance(1_000);
      send();
    }
    // Further accepted messages give no credit.
    for (let n = 0; n < 20; n++) {
      clock.advance(1_000);
      send();
    }
    for (let n = 0; n < 100; n++) send();
    assert.deepEqual([transport.closes, controller.stats().limited, handled()], [[], 250, 171]);
    send();
    assert.deepEqual(transport.closes, [{ code: 4529, reason: "Too many messages" }]);
    assert.deepEqual([controller.stats().limited, handled()], [251, 171]);
  });

  it("closes a client that is not admitted at the first refused message", () => {
    const { transport, send } = limited("handshake");
    send('{"type":"auth","access_token":"token-1"}');
    assert.deepEqual(transport.closes, []);
    send('{"type":"stream.cancel","uid":1}');
    assert.deepEqual([transport.sent, transport.closes], [[], [{ code: 4529, reason: "Too many messages" }]]);
  });

  it("answers each refused message by the uid that it ends with", () => {
    const { answers } = exhausted();
    for (const uid of [0, 7, -7, 999_999_999_999_999, "a", " !#[]~", "k3f9.once", "x".repeat(64)]) {
      for (
        const text of [
          JSON.stringify({ type: "say", text: "x".repeat(500), uid }),
          `{"type": "say", "uid": ${JSON.stringify(uid)}}`,
          JSON.stringify({ uid }),
        ]
      ) {
        assert.deepEqual(answers(text), [{ ...refusal, uid }], text);
      }
    }
  });

  it("lets one stream.cancel with an id through in each wait, if it begins with its type and id", () => {
    const cancel = JSON.stringify({ type: "stream.cancel", id: "x".repeat(1_000) });
    const { accepts } = exhausted();
    assert.deepEqual([accepts(cancel), accepts(cancel), accepts(cancel, 999)], [true, false, false]);
    for (
      const text of [
        '{"id":"x","type":"stream.cancel"}',
        '{"type":"stream.cancel","x":1,"id":"x"}',
        '{"type":"stream.cancel","ids":["x"]}',
        '{"type":"stream.cancelled","id":"x"}',
      ]
    ) assert.deepEqual(exhausted().answers(text), [refusal], text);
    assert.equal(exhausted().accepts('{ "type": "stream.cancel", "id": "x" }'), true);
  });

  it("reads no uid where another field, or another object, ends the message, and where it belongs to a running stream", () => {
    const texts = [
      "",
      '{"type":"say"}',
      '"uid":7}',
      '{"uid":7,"type":"say"}',
      '{"type":"say","data":{"uid":7}}',
      '[{"type":"say","uid":7}]',
      '{"type":"say","uid":null}',
      '{"type":"say","uid":{}}',
      '{"type":"say","uid":07}',
      '{"type":"say","uid":-0}',
      '{"type":"say","uid":1234567890123456}',
      '{"type":"say","uid":1e5}',
      '{"type":"say","uid":""}',
      '{"type":"say","uid":"é"}',
      '{"type":"say","uid":"\\u0061"}',
      `{"type":"say","uid":"${"x".repeat(65)}"}`,
      '{"type":"say","text":",\\"uid\\":7}"}',
      '{"type":"say","a\\"uid":7}',
      '{"type":"stream.cancel","uid":7}',
      JSON.stringify({ type: "stream.cancel", uid: "x".repeat(64) }),
      '{"uid":7',
    ];
    const { answers } = exhausted();
    assert.deepEqual(answers("first"), [refusal]);
    // Without a uid it says so once for each wait.
    for (const text of texts) assert.deepEqual(answers(text), [], text);
    for (const text of texts) assert.deepEqual(exhausted().answers(text), [refusal], text);
  });
});

describe("An admitted client beyond its rate", () => {
  for (const message of [{ type: "auth", uid: 1, access_token: "valid" }, { type: "ping", uid: 1, limits: true }]) {
    it(`has one ${message.type} in a wait read, which costs what others do`, async () => {
      const { controller, clock } = createChannels({ "room:*": anybody }, {
        mode: "public",
        rateLimit: { messages: 1, burst: 2 },
        authenticate: () => ({ accountability: { user: "eve", role: null } }),
      });
      const transport = new FakeTransport();
      const connection = controller.open(transport, HANDSHAKE, { accountability: { user: "eve", role: null } });
      const peer = new TestPeer(connection, connection.client, transport);
      /** How many of ten are answered as they would be within the rate. */
      const read = async () => {
        let count = 0;
        for (let n = 0; n < 10; n++) {
          const [answer] = await peer.ask(message);
          if (answer?.type === "auth" || answer?.type === "pong") count++;
        }
        return count;
      };
      for (const uid of [1, 2]) await peer.ask({ type: "ping", uid });
      assert.equal(await read(), 1);
      // Another message waits until it is paid for.
      clock.advance(1_000);
      assert.equal((await peer.ask({ type: "ping", uid: 3 }))[0].error.code, "REQUESTS_EXCEEDED");
      clock.advance(1_100);
      assert.equal((await peer.ask({ type: "ping", uid: 4 }))[0].type, "pong");
      let count = 0;
      for (let second = 0; second < 8; second++) {
        count += await read();
        clock.advance(1_000);
      }
      assert.ok(count >= 4 && count <= 9, `${count} were read in 8 s`);
      assert.deepEqual(transport.closes, []);
    });
  }
});

describe("RateGate.ask", () => {
  it("costs two messages a request, or nothing with a wait; bytes sent in answers delay it, but no other message", () => {
    let now = 0;
    const gate = new RateGate({ messages: 1, burst: 10, bytes: 1e9, burstBytes: 1e9 }, () => now, () => "key");
    const client = {} as WebSocketClient; // The key of all clients is the same.
    const left = () => gate.left(client).messages.left;
    assert.deepEqual([gate.ask(client, 3), left()], [0, 4]);
    assert.deepEqual([gate.limited, gate.ask(client, 3), gate.limited, left()], [0, 2_000, 1, 4]);
    now = 2_000;
    assert.deepEqual([gate.ask(client, 3), left()], [0, 0]);
    now = 10_000;
    gate.spend(client, 12 * 16_384);
    assert.deepEqual([gate.ask(client, 1), gate.limited, left()], [3_000, 2, 8]);
    assert.equal(gate.ask(client, 0), 0);
    now = 13_000;
    assert.deepEqual([gate.ask(client, 1), left()], [0, 8]);
  });
});

describe("RateGate.renew", () => {
  it("charges an auth for each subscription of the same user, to a debt of one full bucket, and says so in its answer", async () => {
    const users = ["eve", "eve", "bob", "bob"];
    const { controller, clock } = createChannels({ "room:*": anybody }, {
      mode: "public",
      rateLimit: { messages: 1, burst: 4 },
      authenticate: () => ({ accountability: { user: users.shift()!, role: null } }),
    });
    const transport = new FakeTransport();
    const identity = { accountability: { user: "eve", role: null } };
    const connection = controller.open(transport, { ...HANDSHAKE, protocol: "noroshi.v1" }, identity);
    const peer = new TestPeer(connection, connection.client, transport);
    for (let uid = 0; uid < 9; uid++) {
      await peer.ask({ type: "subscribe", channel: `room:${uid}`, uid });
      clock.advance(1_000);
    }
    const lefts: unknown[] = [];
    const auth = async () => {
      const [answer] = await peer.ask({ type: "auth", access_token: "valid", uid: 1 });
      lefts.push(answer.limits?.messages.left ?? answer.error.retry_after);
    };
    await auth();
    await auth();
    clock.advance(5_000);
    await auth();
    // The subscriptions of before end: only its message counts, in the bucket of another user.
    clock.advance(8_000);
    await auth();
    await auth();
    assert.deepEqual(lefts, [-4, 5_000, -4, 4, 3]);
  });
});
