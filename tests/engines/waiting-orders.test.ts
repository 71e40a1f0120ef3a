/** Orders during an outage of the broker: each is queued and sent after the reconnect, or refused at once. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { Orders } from "../../src/engines/broker/orders.ts";
import { WebSocketError } from "../../src/protocol/errors.ts";
import { Stall } from "../support/waiting.ts";

/** Orders of a node whose broker is unavailable until the test sets its status. */
function create({ isWhole = true, open = (): unknown => null } = {}) {
  const sent: string[] = [];
  const reported: unknown[] = [];
  let stored: () => unknown = () => ({ envelopes: [], isWhole });
  const read: number[] = [];
  const link = {
    status: "unavailable",
    isStarting: false,
    now: () => clock.time,
    call: (_action: string, call: (session: object) => unknown) =>
      Promise.resolve(call({
        storedOrders(since: number) {
          read.push(since);
          return stored();
        },
        storeOrder(envelope: string) {
          if (link.status !== "ready") throw new WebSocketError("engine", "ENGINE_UNAVAILABLE", "Cannot keep: lost");
          sent.push(envelope.replace(/^\d+ /, ""));
          link.left--;
          if (link.left === 0) link.status = "unavailable";
        },
      })),
    /** How many orders it stores until it is unavailable again. */
    left: Infinity,
  };
  const clock = { time: 0 };
  const host = {
    node: "a",
    deadlines: { now: () => clock.time },
    report: (error: unknown) => reported.push(error),
    received() {},
  };
  const seal = (body: string) => body;
  const orders = new Orders({ host, link, maxDetectionTime: 0, seal, open, malformed() {} } as never); // All that it reads.
  return { orders, link, sent, reported, clock, read, answer: (next: () => unknown) => stored = next };
}

const messageOf = (error: Error) => error.message;

describe("Orders that wait for the broker", () => {
  it("are sent after the reconnect, and those beyond 1,000 are refused with another message", async () => {
    const { orders, link, sent, reported } = create();
    const given = Array.from({ length: 1_200 }, (_, number) => `order ${number}`);
    const texts = await Promise.all(given.map((text) => orders.send(text).then(() => "sent", messageOf)));
    assert.match(texts[999]!, /it is sent when the broker is back/);
    assert.match(texts[1_000]!, /1000 orders wait for it, send this one again/);
    assert.equal(new Set(texts).size, 2);
    link.status = "ready";
    await orders.resume();
    assert.deepEqual(sent, given.slice(0, 1_000));
    // There is room again.
    link.status = "unavailable";
    assert.equal(await orders.send("later").then(() => "sent", messageOf), texts[0]);
    link.status = "ready";
    await orders.resume();
    assert.deepEqual([sent.at(-1), reported], ["later", []]);
  });

  it("are all sent, in order, when the broker disconnects again while they are being sent", async () => {
    const { orders, link, sent, reported } = create();
    const given = Array.from({ length: 1_000 }, (_, number) => `order ${number}`);
    for (const text of given) await assert.rejects(orders.send(text));
    Object.assign(link, { status: "ready", left: 300 });
    await orders.resume();
    assert.deepEqual([sent.length, reported.length], [300, 1]);
    for (let number = 0; number < 300; number++) {
      given.push(`more ${number}`);
      await assert.rejects(orders.send(`more ${number}`), /it is sent when/);
    }
    Object.assign(link, { status: "ready", left: Infinity });
    await orders.resume();
    assert.deepEqual(sent, given);
  });
});

describe("Orders that were missed", () => {
  const codesOf = (reported: unknown[]) => reported.map((error) => WebSocketError.from(error)?.code);

  it("are reported as lost when the broker may have deleted some", async () => {
    const { orders, reported } = create({ isWhole: false });
    await orders.resume();
    assert.deepEqual(codesOf(reported), ["ORDERS_LOST"]);
  });

  it("are reported as lost when the node was disconnected for longer than the broker keeps them", async () => {
    const { orders, reported, clock } = create();
    orders.ended();
    clock.time += 24 * 3_600_000 - 60_000;
    await orders.resume();
    assert.deepEqual(codesOf(reported), []);
    orders.ended();
    clock.time += 24 * 3_600_000 - 59_999;
    await orders.resume();
    assert.deepEqual(codesOf(reported), ["ORDERS_LOST"]);
  });

  it("are read from the first disconnect on when the next session ends before it has read them", async () => {
    const { orders, link, clock, read, answer } = create();
    const minutes = (count: number) => count * 60_000;
    link.status = "ready";
    await orders.resume();
    clock.time = minutes(10);
    orders.ended();
    clock.time = minutes(30);
    answer(() => Promise.reject(new WebSocketError("engine", "ENGINE_UNAVAILABLE", "Cannot read: lost")));
    await assert.rejects(orders.resume());
    orders.ended();
    clock.time = minutes(31);
    answer(() => ({ envelopes: [], isWhole: true }));
    await orders.resume();
    assert.deepEqual(read, [0, minutes(9), minutes(9)]);
    // The next read starts at the last disconnect, because earlier orders have been read.
    clock.time = minutes(40);
    orders.ended();
    await orders.resume();
    assert.equal(read.at(-1), minutes(39));
  });

  it("are read again when the session ends while they are being handled", async () => {
    const stall = new Stall();
    const { orders, link, clock, read, answer } = create({ open: () => stall.promise });
    link.status = "ready";
    answer(() => ({ envelopes: ["an order"], isWhole: true }));
    const resumed = orders.resume();
    clock.time = 300_000;
    link.status = "unavailable";
    orders.ended();
    stall.resolve();
    await resumed;
    clock.time = 360_000;
    link.status = "ready";
    await orders.resume();
    assert.deepEqual(read, [0, -60_000]); // Both reads start at the same time; the second adds a minute of slack.
  });

  it("are not counted as read by a later session when the read of an earlier one goes on", async () => {
    const stall = new Stall();
    const { orders, link, clock, read, answer } = create({ open: () => stall.promise });
    link.status = "ready";
    answer(() => ({ envelopes: ["an order"], isWhole: true }));
    const resumed = orders.resume();
    clock.time = 300_000;
    orders.ended();
    // The next session is ready, and ends before it has read anything.
    stall.resolve();
    await resumed;
    clock.time = 600_000;
    orders.ended();
    await orders.resume();
    assert.deepEqual(read, [0, -60_000]);
  });
});
