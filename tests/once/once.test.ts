/** Idempotent requests: `answerOnce` on one node, and on two that share a store. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import * as v from "valibot";
import { answerOnce, type AnswerOnceOptions } from "../../src/once/once.ts";
import type { AnswerStore } from "../../src/engines/engine.ts";
import { MemoryEngine } from "../../src/engines/memory-engine.ts";
import { MemoryAnswerStore } from "../../src/once/memory-answer-store.ts";
import { WebSocketError } from "../../src/protocol/errors.ts";
import { open } from "../support/fake-transport.ts";
import { observe } from "../support/observed.ts";
import { Stall, turn } from "../support/waiting.ts";

/** An engine that stores answers in the store that it is given. */
class StoringEngine extends MemoryEngine {
  readonly answers: AnswerStore;

  constructor(answers: AnswerStore) {
    super();
    this.answers = answers;
  }
}

/** A node that counts what it handles. */
function create(options: AnswerOnceOptions = {}, answers?: AnswerStore) {
  const observed = observe({ once: answerOnce(options), ...(answers && { engine: new StoringEngine(answers) }) });
  const { controller } = observed;
  const handled: string[] = [];
  const stall = new Stall<string>();
  controller.handle("count", v.object({}), () => `${handled.push("count")}`);
  controller.handle("slow", v.object({}), async () => {
    handled.push("slow");
    return await stall.promise;
  });
  controller.handle("known", v.object({}), () => {
    handled.push("known");
    throw new WebSocketError("known", "NOT_FOUND", "No such thing", { details: { id: 7 } });
  });
  controller.handle("bug", v.object({}), () => {
    handled.push("bug");
    throw new Error("secret");
  });
  controller.handle("nothing", v.object({}), () => void handled.push("nothing"));
  controller.handle("big", v.object({}), () => {
    handled.push("big");
    return "x".repeat(200);
  });
  return {
    ...observed,
    handled,
    stall,
    join: (user: string | null = "mika") => {
      const peer = open(controller, { identity: user === null ? null : { accountability: { user, role: null } } });
      return {
        ...peer,
        send: (type: string, uid: string) => peer.connection.message(JSON.stringify({ type, uid })),
        async ask(type: string, uid = "1.once") {
          peer.connection.message(JSON.stringify({ type, uid }));
          for (let turns = 0; turns < 4; turns++) await turn();
          return peer.transport.take();
        },
      };
    },
  };
}

type Peer = ReturnType<ReturnType<typeof create>["join"]>;

/** Each call of the store takes a turn, as over a broker. */
function slowly(answers: MemoryAnswerStore): AnswerStore {
  return {
    claim: (...args) => turn().then(() => answers.claim(...args)),
    settle: (...args) => turn().then(() => answers.settle(...args)),
  };
}

describe("answerOnce", () => {
  it("refuses an answer that is a stream, and cancels the stream", async () => {
    const { controller, join } = create();
    let isClosed = false;
    controller.handle("parts", v.object({}), () => new ReadableStream({ cancel: () => void (isClosed = true) }));
    const [{ error }] = await join().ask("parts");
    assert.deepEqual([error.code, isClosed], ["INVALID_PAYLOAD", true]);
  });

  it("handles a request once and answers its repeats with the first answer, on every connection of the user", async () => {
    const { join, handled } = create();
    const [tab, other] = [join(), join()];
    for (const type of ["count", "nothing", "known", "bug"]) {
      const first = await tab.ask(type);
      assert.deepEqual(await tab.ask(type), first);
      assert.deepEqual(await other.ask(type), first);
    }
    assert.deepEqual(handled, ["count", "nothing", "known", "bug"]);
    assert.deepEqual(await tab.ask("known"), [
      { type: "known", status: "error", uid: "1.once", error: { id: 7, code: "NOT_FOUND", message: "No such thing" } },
    ]);
  });

  it("handles a request as a new one when its uid does not end with .once, or its user or type differs", async () => {
    const { join, handled } = create();
    const mika = join();
    for (const uid of ["1", "1", "1.once.", "1.once", "2.once"]) await mika.ask("count", uid);
    await join("yuki").ask("count");
    await mika.ask("nothing");
    assert.equal(handled.length, 7);
  });

  it("answers a repeat of a running request with the answer of that request", async () => {
    for (const answers of [undefined, slowly(new MemoryAnswerStore())]) {
      const { join, handled, stall } = create({}, answers);
      const [tab, other] = [join(), join()];
      tab.send("slow", "1.once");
      tab.send("slow", "1.once");
      other.send("slow", "1.once");
      for (let turns = 0; turns < 4; turns++) await turn();
      stall.resolve("done");
      for (let turns = 0; turns < 4; turns++) await turn();
      const answer = { type: "slow", status: "ok", uid: "1.once", data: "done" };
      assert.deepEqual([tab.transport.take(), other.transport.take()], [[answer, answer], [answer]]);
      assert.deepEqual(handled, ["slow"]);
    }
  });

  it("answers a repeat on another node, even while the first request is running", async () => {
    const answers = slowly(new MemoryAnswerStore());
    const [a, b] = [create({}, answers), create({}, answers)];
    const [first] = await a.join().ask("count");
    assert.deepEqual(await b.join().ask("count"), [first]);
    const [runs, joins] = [a.join(), b.join()];
    await runs.ask("slow");
    await joins.ask("slow");
    a.stall.resolve("done");
    for (let waited = 0; waited < 4; waited++) {
      b.clock.advance(1_000);
      for (let turns = 0; turns < 4; turns++) await turn();
    }
    assert.deepEqual(joins.transport.take(), [{ type: "slow", status: "ok", uid: "1.once", data: "done" }]);
    assert.deepEqual([a.handled, b.handled], [["count", "slow"], []]);
  });

  it("answers OUTCOME_UNKNOWN and does not handle the request again when its node is gone", async () => {
    const answers = slowly(new MemoryAnswerStore());
    const [killed, next] = [create({}, answers), create({}, answers)];
    await killed.join().ask("slow"); // The node never settles it.
    const peer = next.join();
    await peer.ask("slow");
    for (let waited = 0; waited < 20; waited++) {
      next.clock.advance(1_000);
      for (let turns = 0; turns < 4; turns++) await turn();
    }
    assert.deepEqual(peer.transport.take().map(({ error }) => error.code), ["OUTCOME_UNKNOWN"]);
    assert.deepEqual(next.handled, []);
  });

  it("rejects a request whose claim fails, and handles its repeat", async () => {
    const memory = new MemoryAnswerStore();
    let fails = true;
    const { join, handled } = create({}, {
      async claim(...args) {
        const known = memory.claim(...args); // The claim is stored, but its answer is lost.
        await turn();
        if (fails) throw new WebSocketError("engine", "ENGINE_UNAVAILABLE", "Cannot claim: the broker is away");
        return known;
      },
      settle: (...args) => memory.settle(...args),
    });
    const peer = join();
    assert.equal((await peer.ask("count"))[0].error.code, "ENGINE_UNAVAILABLE");
    assert.deepEqual(handled, []);
    fails = false;
    const [answer] = await peer.ask("count");
    assert.deepEqual([answer.data, await peer.ask("count"), handled], ["1", [answer], ["count"]]);
  });

  it("stores for the window the error that replaces an answer JSON cannot represent", async () => {
    const answers = slowly(new MemoryAnswerStore());
    const nodes = [create({}, answers), create({}, answers), create({ window: 1_000 })];
    const handled: string[] = [];
    for (const { controller } of nodes) {
      controller.handle("rows", v.object({}), () => {
        handled.push("rows");
        return 10n;
      });
      controller.handle("full", v.object({}), () => {
        handled.push("full");
        throw new WebSocketError("full", "LIMIT_EXCEEDED", "Full", { details: { rows: 10n } });
      });
    }
    const [peer, other, single] = nodes.map(({ join }) => join()) as [Peer, Peer, Peer]; // As many as nodes.
    for (const [type, code] of [["rows", "INTERNAL_ERROR"], ["full", "LIMIT_EXCEEDED"]] as const) {
      const [first] = await peer.ask(type);
      assert.equal(first.error.code, code);
      assert.deepEqual([await peer.ask(type), await other.ask(type)], [[first], [first]]);
    }
    assert.deepEqual(handled, ["rows", "full"]);
    for (const type of ["rows", "rows"]) await single.ask(type);
    nodes[2]!.clock.advance(1_000);
    await single.ask("rows");
    assert.deepEqual(handled, ["rows", "full", "rows", "rows"]);
  });

  it("stores an answer for the window, unless it is longer than maxLength", async () => {
    const { join, handled, clock } = create({ window: 1_000, maxLength: 100 });
    const peer = join();
    assert.equal((await peer.ask("big", "2.once"))[0].data.length, 200);
    assert.equal((await peer.ask("big", "2.once"))[0].error.code, "OUTCOME_UNKNOWN");
    await peer.ask("count");
    clock.advance(999);
    await peer.ask("count");
    assert.deepEqual(handled, ["big", "count"]);
    clock.advance(1);
    await peer.ask("count");
    assert.deepEqual(handled, ["big", "count", "count"]);
  });

  it("stores the answers of each user up to a total length", async () => {
    const { join, handled, clock } = create({ window: 1_000, maxLengthPerUser: 300 });
    const [peer, other] = [join(), join("yuki")];
    for (const uid of ["1.once", "2.once", "3.once"]) await peer.ask("big", uid);
    await other.ask("big", "1.once");
    assert.equal((await peer.ask("big", "2.once"))[0].data.length, 200);
    assert.equal((await peer.ask("big", "3.once"))[0].error.code, "OUTCOME_UNKNOWN");
    assert.equal((await other.ask("big", "1.once"))[0].data.length, 200);
    assert.equal(handled.length, 4);
    clock.advance(1_000);
    await peer.ask("big", "4.once");
    assert.equal((await peer.ask("big", "4.once"))[0].data.length, 200);
  });

  it("answers with the type of the request when the store refuses the claim", async () => {
    const claim = () => {
      throw new WebSocketError("server", "LIMIT_EXCEEDED", "Too many answers are kept, try again later");
    };
    const [{ type, error }] = await create({}, { claim, settle() {} }).join().ask("count");
    assert.deepEqual([type, error.code], ["count", "LIMIT_EXCEEDED"]);
  });

  it("refuses requests of a user beyond maxPerUser without handling them", async () => {
    const { join, handled, clock } = create({ maxPerUser: 2, window: 1_000 });
    const [tab, other] = [join(), join()];
    await tab.ask("count", "1.once");
    await other.ask("count", "2.once");
    const [{ error }] = await tab.ask("count", "3.once");
    assert.deepEqual([error.code, error.retry_after, handled.length], ["REQUESTS_EXCEEDED", 1_000, 2]);
    // Repeats are answered, because a refusal would mean that the request was not handled.
    for (const uid of ["1.once", "2.once", "1.once"]) assert.equal((await tab.ask("count", uid))[0].status, "ok");
    assert.equal(handled.length, 2);
    await join("yuki").ask("count", "3.once");
    clock.advance(1_000);
    await tab.ask("count", "3.once");
    assert.equal(handled.length, 4);
    for (let n = 0; n < 3; n++) await tab.ask("count", "3.once"); // Repeats do not count.
    await tab.ask("count", "4.once");
    assert.equal(handled.length, 5);
  });

  it("keeps the order of a client's messages while it waits for the store", async () => {
    for (const hasMiddleware of [false, true]) {
      const { controller, join, handled } = create({}, slowly(new MemoryAnswerStore()));
      if (hasMiddleware) controller.use((_context, next) => next());
      const peer = join();
      peer.send("count", "1.once");
      peer.send("nothing", "2");
      for (let turns = 0; turns < 6; turns++) await turn();
      assert.deepEqual(handled, ["count", "nothing"]);
    }
  });

  it("refuses a request when the memory store is full, and forgets none", () => {
    const answers = new MemoryAnswerStore().at(() => 0);
    for (let number = 0; number < 100_000; number++) answers.claim(`${number}`, "", 1_000);
    assert.throws(() => answers.claim("more", "", 1_000), { code: "LIMIT_EXCEEDED" });
    assert.equal(answers.claim("0", "", 1_000), "");
    assert.equal(answers.at(() => 1_000).claim("more", "", 1_000), null);
  });

  it("drops older long answers from the memory store when all together are too long, and keeps short ones", () => {
    const answers = new MemoryAnswerStore().at(() => 0);
    answers.claim("short", "{}", 1_000);
    const text = JSON.stringify("x".repeat(2 ** 16));
    for (let number = 0; number < 600; number++) assert.equal(answers.claim(`long ${number}`, text, 1_000), null);
    assert.equal(answers.claim("short", "", 1_000), "{}");
    assert.deepEqual(JSON.parse(answers.claim("long 0", "", 1_000)!), { isLost: true });
    assert.equal(answers.claim("long 599", "", 1_000), text);
  });

  it("throws for an option out of range", () => {
    const cases = [{ window: 0 }, { patience: Infinity }, { maxPerUser: 0 }, { maxLength: 1.5 }, { maxLengthPerUser: 0 }, {
      max: 1,
    }];
    for (const options of cases) {
      assert.throws(() => answerOnce(options as AnswerOnceOptions), /^TypeError: Cannot answer once/);
    }
  });
});
