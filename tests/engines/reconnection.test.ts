import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { Broker, BrokerSession } from "../../src/engines/broker/broker.ts";
import { Reconnection } from "../../src/engines/broker/reconnection.ts";
import { WebSocketError } from "../../src/protocol/errors.ts";
import { FAILURES } from "../support/failures.ts";
import { TestClock } from "../support/test-clock.ts";
import { unhandledIn } from "../support/unhandled.ts";
import { Stall, turn } from "../support/waiting.ts";
import { TestHost } from "./test-host.ts";

const TIMEOUT = 1_000;

/** A reconnection that is ready, to a broker that answers what the test lets it; no heartbeat or check runs by itself. */
async function create() {
  const clock = new TestClock();
  const host = new TestHost(clock);
  const sessions: { isClosed: boolean; end(error: Error): void }[] = [];
  let connecting: Promise<void> = Promise.resolve();
  const broker: Broker = {
    name: "Fake",
    async connect({ ended }) {
      const session = {
        isClosed: false,
        heartbeat: () => Promise.resolve(true),
        close: () => session.isClosed = true,
        end: ended,
      };
      sessions.push(session);
      await connecting;
      return session as unknown as BrokerSession; // With all that is asked of it here.
    },
  };
  const nothing = () => {};
  const listener = { live: nothing, mark: nothing, message: nothing, member: nothing, malformed: nothing };
  const done = () => Promise.resolve();
  const hooks = { prepare: done, resume: done, check: done, nodes: nothing, announce: done, retire: done };
  const options = {
    node: "node",
    namespace: "test",
    lease: 3e6,
    slack: 0,
    timeout: TIMEOUT,
    now: () => clock.now(),
    positions: () => [],
  };
  const reconnection = new Reconnection(broker, options, listener, host, 1e6, hooks);
  reconnection.open();
  await host.until(() => host.statuses.includes("ready"));
  /** Lets half a timeout pass. */
  const pass = async () => {
    clock.advance(TIMEOUT / 2);
    await turn();
  };
  /** Asks, and says how it ended. */
  const ask = () => {
    const stall = new Stall<string>();
    const asked = { answer: stall.resolve, outcome: "waits" };
    reconnection.call("ask", () => stall.promise).then((answer) => asked.outcome = answer, (error) => {
      asked.outcome = error instanceof WebSocketError ? error.code : String(error);
    });
    return asked;
  };
  /** From here on a connection is made when the stall is let go. */
  const slow = () => {
    const stall = new Stall();
    connecting = stall.promise;
    return stall;
  };
  return { clock, host, sessions, reconnection, pass, ask, slow };
}

describe("Reconnection", () => {
  it("closes a session that opens after the engine was closed", async () => {
    const { clock, reconnection, sessions, slow } = await create();
    const stall = slow();
    sessions[0]!.end(new Error("ended"));
    clock.advance(200);
    await turn();
    const closed = reconnection.close();
    stall.resolve();
    await closed;
    await turn();
    assert.deepEqual(sessions.map(({ isClosed }) => isClosed), [true, true]);
  });

  it("treats a broker that answers nothing as unavailable after at most 1.5 timeouts", async () => {
    const { host, sessions, pass, ask } = await create();
    const asked = [ask(), ask()];
    for (let rounds = 0; rounds < 2; rounds++) await pass();
    assert.deepEqual(asked.map(({ outcome }) => outcome), ["waits", "waits"]);
    await pass();
    assert.deepEqual(asked.map(({ outcome }) => outcome), ["ENGINE_UNAVAILABLE", "ENGINE_UNAVAILABLE"]);
    assert.equal(sessions[0]!.isClosed, true);
    assert.equal(host.statuses.at(-1), "unavailable");
    assert.equal(host.errors.length, 1);
  });

  it("keeps waiting and keeps the session while other answers arrive", async () => {
    const { host, sessions, pass, ask } = await create();
    const asked = ask();
    for (let rounds = 0; rounds < 6; rounds++) {
      ask().answer("quick");
      await pass();
    }
    assert.equal(asked.outcome, "waits");
    asked.answer("late");
    await turn();
    assert.equal(asked.outcome, "late");
    assert.equal(host.statuses.at(-1), "ready");
    assert.deepEqual(sessions.map(({ isClosed }) => isClosed), [false]);
    assert.deepEqual(host.errors, []);
  });

  it("waits at most 3.5 timeouts for an answer, whatever else arrives", async () => {
    const { host, pass, ask } = await create();
    const asked = ask();
    for (let rounds = 0; rounds < 7; rounds++) {
      ask().answer("quick");
      await pass();
    }
    assert.equal(asked.outcome, "ENGINE_UNAVAILABLE");
    assert.equal(host.statuses.at(-1), "unavailable");
  });

  it("measures silence from the last answer, not from the oldest request", async () => {
    const { pass, ask } = await create();
    const asked = ask();
    await pass();
    ask().answer("quick");
    await turn();
    for (let rounds = 0; rounds < 2; rounds++) await pass();
    assert.equal(asked.outcome, "waits");
    await pass();
    assert.equal(asked.outcome, "ENGINE_UNAVAILABLE");
  });

  it("does not treat its own busy process as a silent broker", async () => {
    const { clock, host, ask } = await create();
    const asked = ask();
    clock.jump(60_000);
    asked.answer("was there all the time");
    await turn();
    assert.equal(asked.outcome, "was there all the time");
    assert.equal(host.statuses.at(-1), "ready");
  });

  it("rejects with an error of another copy of the package as it is, and with any other as ENGINE_UNAVAILABLE", async () => {
    const { reconnection } = await create();
    const brand = { [Symbol.for("noroshi.error")]: true };
    const theirs = Object.assign(new Error("Too large"), brand, { type: "publish", code: "LIMIT_EXCEEDED" });
    for (const [reason, code] of [[theirs, "LIMIT_EXCEEDED"], [new Error("Too large"), "ENGINE_UNAVAILABLE"]] as const) {
      await assert.rejects(reconnection.call("ask", () => Promise.reject(reason)), { name: "WebSocketError", code });
    }
  });
});

describe("Reconnection, with a connect of the application that fails", () => {
  it("reports an outage once, retries, and does not end the process", async () => {
    for (const { name, fail, kind } of FAILURES) {
      if (kind !== "thrown") continue;
      const clock = new TestClock();
      const host = new TestHost(clock);
      let tries = 0;
      const broker: Broker = {
        name: "Fake",
        connect: () => {
          tries++;
          return fail();
        },
      };
      const nothing = () => {};
      const listener = { live: nothing, mark: nothing, message: nothing, member: nothing, malformed: nothing };
      const done = () => Promise.resolve();
      const hooks = { prepare: done, resume: done, check: done, nodes: nothing, announce: done, retire: done };
      const options = {
        node: "node",
        namespace: "test",
        lease: 3e6,
        slack: 0,
        timeout: TIMEOUT,
        now: () => clock.now(),
        positions: () => [],
      };
      const reconnection = new Reconnection(broker, options, listener, host, 1e6, hooks);
      const unhandled = await unhandledIn(async () => {
        reconnection.open();
        for (let n = 0; n < 5; n++) await turn();
        clock.advance(60_000);
        for (let n = 0; n < 5; n++) await turn();
      });
      assert.deepEqual([unhandled.length, host.errors.length, host.statuses], [0, 1, ["unavailable"]], name);
      assert.match((host.errors[0] as WebSocketError).message, /^Cannot reach other nodes: Fake is away \(/, name);
      assert.ok(tries > 1, name);
      await reconnection.close();
    }
  });
});
