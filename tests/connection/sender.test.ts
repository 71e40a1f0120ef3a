/** `src/connection/sender.ts`, with the policy to drop; that to close is `connection.test.ts`'. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { ConnectionHost } from "../../src/connection/connection-host.ts";
import type { Frame } from "../../src/protocol/frame.ts";
import { FakeTransport, HibernatingTransport, open, openOn } from "../support/fake-transport.ts";
import { observe } from "../support/observed.ts";
import { turn } from "../support/waiting.ts";

const dropped = (count: number) => ({
  type: "server",
  status: "error",
  error: { code: "MESSAGES_DROPPED", message: "Too slow", count },
});

/** Drops the frames that have a word in them. */
class PickyTransport extends FakeTransport {
  refused: string | undefined;

  override send(frame: Frame): boolean {
    return this.refused !== undefined && frame.text.includes(this.refused) ? false : super.send(frame);
  }
}

describe("A slow client that is not to be closed", () => {
  const create = () => {
    const observed = observe({ maxBufferedBytes: 1000, slowConsumer: "drop" });
    return { ...observed, ...open(observed.controller) };
  };

  it("is not sent what comes while too much waits, and told how much that was before the next message", () => {
    const { client, transport } = create();
    transport.bufferedAmount = 1001;
    for (let n = 0; n < 3; n++) client.send({ type: "x", n });
    transport.bufferedAmount = 1000;
    client.send({ type: "x", n: 3 });
    client.send({ type: "x", n: 4 });
    assert.deepEqual(transport.take(), [dropped(3), { type: "x", n: 3 }, { type: "x", n: 4 }]);
    assert.deepEqual([transport.closes, client.readyState], [[], 1]);
  });

  it("is told within 250 ms of there being room when nothing else is sent, once", () => {
    const { client, transport, clock, controller } = create();
    const { deadlines } = controller.stats();
    transport.bufferedAmount = 5000;
    client.send("x");
    client.send("y");
    clock.advance(1_000);
    assert.deepEqual(transport.take(), []);
    transport.bufferedAmount = 1000;
    clock.advance(250);
    assert.deepEqual(transport.take(), [dropped(2)]);
    clock.advance(1_000);
    assert.deepEqual(transport.take(), []);
    assert.equal(controller.stats().deadlines, deadlines);
  });

  it("is told of what the runtime dropped by itself", () => {
    const { client, connection, transport } = create();
    transport.sends = false;
    client.send("x");
    connection.dropped();
    transport.sends = true;
    client.send({ type: "z" });
    assert.deepEqual(transport.take(), [dropped(2), { type: "z" }]);
  });

  it("is sent MESSAGES_DROPPED again, before anything else, when the runtime dropped it", () => {
    const { client, clock, transport } = create();
    transport.sends = false;
    client.send("x");
    clock.advance(1_000);
    client.send("y");
    transport.sends = true;
    client.send({ type: "z" });
    assert.deepEqual(transport.take(), [dropped(2), { type: "z" }]);
  });

  it("is sent nothing else when the runtime dropped that alone, and nothing when its socket is closing", () => {
    const { controller, clock } = observe({ maxBufferedBytes: 1000, slowConsumer: "drop" });
    const transport = new PickyTransport();
    const { client } = openOn(transport, controller);
    transport.bufferedAmount = 1001;
    client.send("x");
    transport.bufferedAmount = 0;
    transport.refused = "MESSAGES_DROPPED";
    client.send("y");
    assert.deepEqual(transport.sent, []);
    transport.refused = undefined;
    transport.readyState = 2;
    clock.advance(250);
    assert.deepEqual(transport.sent, []);
    transport.readyState = 1;
    client.send({ type: "z" });
    assert.deepEqual(transport.take(), [dropped(2), { type: "z" }]);
  });

  it("is told how much it missed before hibernation", async () => {
    const { controller } = observe({ maxBufferedBytes: 1000, slowConsumer: "drop" });
    const { client, transport } = openOn(new HibernatingTransport(), controller);
    transport.bufferedAmount = 1001;
    client.send("a");
    await turn();
    const { length } = transport.saved;
    for (const text of ["b", "c", "d"]) client.send(text);
    await turn();
    // Saved once a turn.
    assert.equal(transport.saved.length, length + 1);
    client.send("e");
    await turn();
    assert.equal(transport.saved.length, length + 2);
    const again = observe({ maxBufferedBytes: 1000, slowConsumer: "drop" });
    transport.bufferedAmount = 0;
    again.controller.restore(transport, transport.saved.at(-1)!); // It was let in.
    again.clock.advance(250);
    assert.deepEqual(transport.take(), [dropped(5)]);
  });

  it("reports infinite held bytes until MESSAGES_DROPPED was sent", () => {
    const { client, connection, transport } = create();
    assert.equal(connection.heldBytes, 0);
    transport.bufferedAmount = 1001;
    client.send("x");
    transport.bufferedAmount = 7;
    assert.equal(connection.heldBytes, Infinity); // A frame published to a topic would overtake MESSAGES_DROPPED.
    client.send("y");
    assert.equal(connection.heldBytes, 7);
  });

  it("counts among the dropped of a broadcast", async () => {
    const { controller, transport } = create();
    open(controller);
    transport.bufferedAmount = 1001;
    assert.deepEqual(await controller.broadcast("x"), { matched: 2, sent: 1, dropped: 1 });
  });
});

/** Buffers frames until `write`, which leaves at most so many bytes. */
class TurnTransport extends FakeTransport {
  left = 0;

  override send(frame: Frame): boolean {
    this.bufferedAmount += frame.bytes;
    return super.send(frame);
  }

  write(): void {
    this.bufferedAmount = Math.min(this.left, this.bufferedAmount);
  }
}

describe("A client that is sent more in one turn than may wait", () => {
  it("is not a slow consumer while its socket writes it, down to the limit", () => {
    for (const left of [0, 1000]) {
      const { controller } = observe({ maxBufferedBytes: 1000 });
      const { client, transport } = openOn(Object.assign(new TurnTransport(), { left }), controller);
      for (let n = 0; n < 10; n++) client.send("x".repeat(600));
      assert.deepEqual([transport.sent.length, transport.closes], [10, []]);
    }
  });
});

describe("A client that is sent a frame larger than may wait", () => {
  const create = () => {
    const { controller } = observe({ maxBufferedBytes: 1000 });
    const opened = openOn(Object.assign(new TurnTransport(), { left: Infinity }), controller);
    opened.client.send("x".repeat(5_000));
    return opened;
  };

  it("has the whole limit for the frames after it", () => {
    const { client, transport } = create();
    for (const bytes of [400, 400, 200]) client.send("x".repeat(bytes));
    assert.deepEqual([transport.sent.length, transport.closes], [4, []]);
    client.send("x");
    assert.deepEqual([transport.sent.length, transport.closes], [4, [{ code: 4508, reason: "Too slow" }]]);
  });

  it("has the limit of others once it has read that frame", () => {
    const { client, transport } = create();
    transport.bufferedAmount = 0;
    client.send("x");
    transport.bufferedAmount = 1001;
    client.send("x");
    assert.deepEqual([transport.sent.length, transport.closes.length], [2, 1]);
  });
});

describe("A socket that is drained to 64 KiB", () => {
  it("reads the buffered bytes of a client only if the limit is lower", () => {
    for (const [maxBufferedBytes, isAsked] of [[65_536, false], [65_535, true]] as const) {
      let asked = false;
      const transport = Object.defineProperty(Object.assign(new FakeTransport(), { isDrained: true }), "bufferedAmount", {
        get: () => (asked = true, 0),
      });
      openOn(transport, observe({ maxBufferedBytes }).controller).client.send("x");
      assert.deepEqual([transport.sent, asked], [["x"], isAsked]);
    }
  });
});

describe("Sender", () => {
  it("counts accepted and dropped frames, and how often a client fell behind", () => {
    const { controller } = observe({ maxBufferedBytes: 1000, slowConsumer: "drop" });
    let host: ConnectionHost | undefined;
    controller.observe("test", (given) => (host = given, {}));
    const { client, transport } = open(controller);
    for (let n = 0; n < 2; n++) {
      client.send("x");
      transport.bufferedAmount = 1001;
      for (let n = 0; n < 3; n++) client.send("y");
      transport.bufferedAmount = 0;
    }
    const { sent, dropped, lagged } = host!.sender;
    assert.deepEqual([sent, dropped, lagged], [2, 6, 2]);
  });

  it("marks messages of the protocol as JSON, which may be batched, and a string of the application as text", async () => {
    const frames: [isJson: boolean, type: string][] = [];
    class RecordingTransport extends FakeTransport {
      override send(frame: Frame): boolean {
        frames.push([frame.isJson, JSON.parse(frame.text).error?.code ?? JSON.parse(frame.text).type]);
        return super.send(frame);
      }

      ping(): void {}
    }
    const { controller, clock } = observe({
      mode: "public",
      authenticate: () => ({ accountability: { user: "ann", role: null } }),
      slowConsumer: "drop",
      maxBufferedBytes: 1000,
      heartbeat: { message: true },
    });
    const { client, connection, transport } = openOn(new RecordingTransport(), controller);
    client.send('{"type":"text"}');
    connection.message('{"type":"auth","access_token":"token-1"}');
    await turn();
    connection.message('{"type":"ping"}');
    transport.bufferedAmount = 1001;
    client.send("x");
    transport.bufferedAmount = 0;
    clock.advance(250);
    clock.advance(25_000);
    const types = ["auth", "pong", "MESSAGES_DROPPED", "ping"];
    assert.deepEqual(frames, [[false, "text"], ...types.map((type) => [true, type])]);
  });
});
