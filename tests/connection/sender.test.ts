/** `src/connection/sender.ts`, with the policy to drop; that to close is `connection.test.ts`'. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { Frame } from "../../src/protocol/frame.ts";
import { FakeTransport, HibernatingTransport, open, openOn } from "../support/fake-transport.ts";
import { observe } from "../support/observed.ts";
import { turn } from "../support/waiting.ts";

const dropped = (count: number) => ({
  type: "server",
  status: "error",
  error: { code: "MESSAGES_DROPPED", message: "Too slow", count },
});

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
    transport.bufferedAmount = 0;
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
    const again = observe({ maxBufferedBytes: 1000, slowConsumer: "drop" });
    transport.bufferedAmount = 0;
    again.controller.restore(transport, transport.saved.at(-1)!); // It was let in.
    again.clock.advance(250);
    assert.deepEqual(transport.take(), [dropped(4)]);
  });

  it("counts among the dropped of a broadcast", async () => {
    const { controller, transport } = create();
    open(controller);
    transport.bufferedAmount = 1001;
    assert.deepEqual(await controller.broadcast("x"), { matched: 2, sent: 1, dropped: 1 });
  });
});

describe("A client that is sent more in one turn than may wait", () => {
  /** Keeps what it is sent until it is told to write. */
  class TurnTransport extends FakeTransport {
    override send(frame: Frame): boolean {
      this.bufferedAmount += frame.bytes;
      return super.send(frame);
    }

    write(): void {
      this.bufferedAmount = 0;
    }
  }

  it("is not taken for slow while its socket takes it", () => {
    const { controller } = observe({ maxBufferedBytes: 1000 });
    const { client, transport } = openOn(new TurnTransport(), controller);
    for (let n = 0; n < 10; n++) client.send("x".repeat(600));
    assert.deepEqual([transport.sent.length, transport.closes], [10, []]);
  });
});
