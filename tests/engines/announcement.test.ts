import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { BrokerEngine } from "../../src/engines/broker/broker-engine.ts";
import type { Broker, BrokerListener, BrokerSession } from "../../src/engines/broker/broker.ts";
import { TestClock } from "../support/test-clock.ts";
import { Stall, turn } from "../support/waiting.ts";
import { range } from "./conformance.ts";
import { TestHost } from "./test-host.ts";

/** A node whose broker keeps the names of members in the order that it is told of them, and can end the session and take its time. */
async function create() {
  const clock = new TestClock();
  const host = new TestHost(clock);
  const members = new Set<string>();
  let listener: BrokerListener | undefined;
  let stall: Stall | undefined;
  const asked: string[] = [];
  const refused = new Set<string>();
  const tell = (action: "join" | "leave") => async (_channel: string, user: string) => {
    asked.push(`${action} ${user}`);
    if (refused.has(user)) throw new Error(`${user} is refused`);
    if (action === "join") members.add(user);
    else members.delete(user);
    await stall?.promise;
  };
  const session = {
    join: tell("join"),
    leave: tell("leave"),
    heartbeat: () => Promise.resolve(true),
    nodes: () => Promise.resolve([]),
    ownMembers: () => Promise.resolve([]),
    retire: () => Promise.resolve(),
    close() {},
  };
  const broker: Broker = {
    name: "Fake",
    connect(told) {
      listener = told;
      return Promise.resolve(session as unknown as BrokerSession); // With all that is asked of it here.
    },
  };
  const engine = new BrokerEngine(broker, { lease: 3e6, checkInterval: 1e6 });
  engine.start(host);
  await host.until(() => engine.status === "ready");
  return {
    engine,
    host,
    clock,
    refused,
    members,
    asked,
    /** Ends the session. */
    end: () => listener!.ended(new Error("ended")), // There is one.
    /** Lets nobody be answered who tells of a member, until it is let go. */
    hold: () => stall = new Stall(),
    /** Waits until there is another session. */
    async resume() {
      clock.advance(100);
      await host.until(() => engine.status === "ready");
      await turn();
    },
    release: () => stall?.resolve(),
    /** From here on who tells of a member waits by himself; returns how those of before are let go. */
    part() {
      const before = stall;
      stall = new Stall();
      return () => before?.resolve();
    },
  };
}

describe("A node that reconnects to its broker", () => {
  it("announces its members, except those that leave meanwhile", async () => {
    const { engine, members, asked, end, hold, resume, release } = await create();
    for (const user of range(300).map(String)) {
      await engine.join("room", { user });
    }
    end();
    members.clear();
    hold();
    await resume();
    assert.equal(members.size, 200);
    // Of the first it has told, of the last it has not.
    const leaving = [engine.leave("room", "0"), engine.leave("room", "299")];
    release();
    await Promise.all(leaving);
    await turn();
    assert.equal(members.size, 298);
    assert.deepEqual(["0", "299"].filter((user) => members.has(user)), []);
    assert.equal(asked.at(-1)?.split(" ")[0], "join");
    await engine.close();
  });

  it("announces the members that left while it was disconnected, except those that rejoin meanwhile", async () => {
    const { engine, members, end, hold, resume, release } = await create();
    for (const user of range(300).map(String)) {
      await engine.join("room", { user });
    }
    end();
    for (const user of range(300).map(String)) await engine.leave("room", user);
    hold();
    await resume();
    assert.equal(members.size, 100);
    const joining = engine.join("room", { user: "299" });
    release();
    await joining;
    await turn();
    assert.deepEqual([...members], ["299"]);
    await engine.close();
  });

  it("announces a second leave again when the broker has not confirmed it", async () => {
    const { engine, members, end, hold, part, resume, release } = await create();
    await engine.join("room", { user: "mika" });
    hold();
    const answered = [engine.leave("room", "mika"), engine.join("room", { user: "mika" })];
    await turn();
    const letGo = part();
    const second = assert.rejects(engine.leave("room", "mika"), { code: "ENGINE_UNAVAILABLE" });
    await turn();
    letGo();
    await Promise.all(answered);
    end();
    await second;
    members.add("mika"); // It had not arrived.
    release();
    await resume();
    assert.deepEqual([...members], []);
    await engine.close();
  });

  it("goes on when the broker refuses one member, and announces it again at the next check", async () => {
    const { engine, host, clock, refused, members, asked, end, resume } = await create();
    for (const user of ["mika", "noa", "ren"]) await engine.join("room", { user });
    end();
    members.clear();
    refused.add("noa");
    await resume();
    assert.deepEqual([engine.status, [...members].sort()], ["ready", ["mika", "ren"]]);
    assert.match(String(host.errors.at(-1)), /Fake is refusing/);
    refused.clear();
    clock.advance(1e6);
    while (!members.has("noa")) await turn();
    const count = asked.length;
    clock.advance(1e6);
    await turn();
    assert.deepEqual([engine.status, asked.length], ["ready", count]);
    await engine.close();
  });
});

describe("A node whose earlier session is received late", () => {
  /** A node, and what the broker holds of it: the envelope of each user. */
  async function create() {
    const clock = new TestClock();
    const host = new TestHost(clock);
    const held = new Map<string, string>();
    const opening = { opened() {} };
    let listener: BrokerListener | undefined;
    const session = {
      join: (_channel: string, user: string, envelope: string) => Promise.resolve(void held.set(user, envelope)),
      leave: (_channel: string, user: string) => Promise.resolve(void held.delete(user)),
      members: () =>
        Promise.resolve((function* () {
          yield* held.values();
          opening.opened();
        })()),
      listen: () => Promise.resolve(),
      unlisten: () => Promise.resolve(),
      heartbeat: () => Promise.resolve(true),
      nodes: () => Promise.resolve([host.node]),
      ownMembers: () => Promise.resolve([]),
      retire: () => Promise.resolve(),
      close() {},
    };
    const broker: Broker = {
      name: "Fake",
      connect(told) {
        listener = told;
        return Promise.resolve(session as unknown as BrokerSession); // As above.
      },
    };
    const engine = new BrokerEngine(broker, { lease: 3e6, checkInterval: 1e6 });
    engine.start(host);
    await host.until(() => engine.status === "ready");
    await engine.subscribe("room", null);
    await engine.members("room");
    /** Waits for the check that reads the members. */
    const look = async () => {
      for (const _ of range(13)) {
        clock.advance(1e6);
        await turn();
      }
    };
    /** Ends the session while the members that are read next are opened. */
    const endWhileOpening = () => opening.opened = () => listener!.ended(new Error("ended")); // There is one.
    return { engine, host, held, look, endWhileOpening };
  }

  it("announces its members again when the broker has older data of them, or none", async () => {
    const { engine, host, held, look } = await create();
    await engine.join("room", { user: "mika", data: '"old"' });
    const old = held.get("mika")!;
    await engine.join("room", { user: "mika", data: '"new"' });
    await engine.join("room", { user: "noa" });
    const expected = ["mika", "noa"].map((user) => held.get(user)!.split("\n")[2]);
    held.set("mika", old);
    held.delete("noa");
    await look();
    assert.deepEqual(["mika", "noa"].map((user) => held.get(user)?.split("\n")[2]), expected);
    assert.deepEqual(host.errors, []);
    await engine.close();
  });

  it("announces the leave of members that the broker still lists", async () => {
    const { engine, held, look } = await create();
    await engine.join("room", { user: "mika" });
    const late = held.get("mika")!;
    await engine.leave("room", "mika");
    held.set("mika", late);
    await look();
    assert.deepEqual([...held], []);
    await engine.close();
  });

  it("corrects nothing by a list that it read in a session that has ended", async () => {
    const { engine, host, held, endWhileOpening } = await create();
    await engine.join("room", { user: "mika" });
    held.set("noa", held.get("mika")!.replace("mika", "noa"));
    endWhileOpening();
    engine.unsubscribe("room"); // Its members are no longer tracked.
    await assert.rejects(engine.members("room"), { code: "ENGINE_UNAVAILABLE" });
    await turn();
    assert.equal(host.errors.length, 1, String(host.errors.slice(1))); // The outage.
    await engine.close();
  });

  it("announces nothing while the broker has what it announced", async () => {
    const { engine, held, look } = await create();
    await engine.join("room", { user: "mika", data: "1" });
    await engine.join("room", { user: "noa" });
    const before = [...held];
    await look();
    assert.deepEqual([...held], before); // Each envelope has a number of its own.
    await engine.close();
  });
});
