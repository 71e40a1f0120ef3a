import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { Wire } from "../../src/testing/wire.ts";
import { Checker } from "../support/checker.ts";
import { Dice } from "./dice.ts";
import { SeededTurns } from "./seeded-turns.ts";
import { type ClientNode, SimulatedClient, type World } from "./simulated-client.ts";

/** A client whose server sends what the test says, at any time. */
function connect({ mayExpire = true } = {}) {
  const checker = new Checker();
  const turns = new SeededTurns(new Dice(1, "turns"), (error) => checker.problem(String(error)));
  let wire: Wire | undefined;
  const node: ClientNode = {
    number: 0,
    isUp: true,
    upgrade(_request, _ip, accept) {
      const response = { status: 101, headers: new Headers(), body: "" };
      wire = accept(response, null)!; // A status of 101 has one.
      wire.server = { message() {}, closed() {}, heard() {} };
      return Promise.resolve(response);
    },
  };
  const world = {
    checker,
    turns,
    elapsed: 0,
    nodes: [node],
    clock: () => assert.fail("It has no timers"),
    record() {},
    ended() {},
    lost() {},
    left() {},
    banned: new Set<string>(),
    mayExpire: () => mayExpire,
    isWithdrawn: () => false,
  } satisfies World;
  // With this number it stops reading when it acts, and begins without a position.
  const dice = Object.assign(new Dice(1, "client"), { random: () => 0.04 });
  const client = new SimulatedClient(0, world, { channels: ["log:0"], room: "room:0", user: "ann", watches: false, dice });
  return {
    world,
    client,
    problems: () => checker.problems(),
    async open() {
      client.act();
      await turns.settle();
      assert.ok(client.isConnected);
    },
    /** Something happens so many ms after the start. */
    async at(elapsed: number, happen: () => void) {
      world.elapsed = elapsed;
      happen();
      await turns.settle();
    },
    send: (...messages: object[]) => messages.forEach((message) => wire!.sendToClient(JSON.stringify(message))),
  };
}

const EXPIRED = { type: "auth", status: "error", error: { code: "TOKEN_EXPIRED", message: "…" } };
/** The answer to its first `subscribe` to a channel with a history. */
const REFUSED = { type: "subscribe", status: "error", error: { code: "FORBIDDEN", message: "…" }, uid: "s1" };
/** The end of the membership, which has the uid before. */
const ENDED = { type: "subscription", event: "unsubscribe", channel: "room:0", uid: "m0", reason: "FORBIDDEN" };

describe("SimulatedClient", () => {
  it("expects that it is refused as an anonymous client, if it reads so late that its credentials expired meanwhile", async () => {
    const { client, open, at, send, problems } = connect();
    await open();
    await at(1_000, () => client.act());
    await at(2_000, () => send(EXPIRED));
    await at(12_000, () => send(ENDED, REFUSED));
    await at(400_000, () => client.unstall());
    assert.deepEqual(problems(), []);
  });

  it("reports a refusal before the time is over in which it may authenticate again", async () => {
    for (const message of [ENDED, REFUSED]) {
      const { client, open, at, send, problems } = connect();
      await open();
      await at(1_000, () => client.act());
      await at(2_000, () => send(EXPIRED));
      await at(9_000, () => send(message));
      await at(10_000, () => client.unstall());
      assert.deepEqual(problems(), [`c0 was answered ${JSON.stringify(message)}`]);
    }
  });

  it("reports a refusal of valid credentials, however late it reads", async () => {
    for (const message of [ENDED, REFUSED]) {
      const { client, open, at, send, problems } = connect();
      await open();
      await at(1_000, () => client.act());
      await at(400_000, () => send(message));
      await at(400_001, () => client.unstall());
      assert.deepEqual(problems(), [`c0 was answered ${JSON.stringify(message)}`]);
    }
  });

  it("reports that credentials have expired which cannot expire", async () => {
    const { open, at, send, problems } = connect({ mayExpire: false });
    await open();
    await at(2_000, () => send(EXPIRED));
    assert.deepEqual(problems(), [`c0 was answered ${JSON.stringify(EXPIRED)}`]);
  });
});
