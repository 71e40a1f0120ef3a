import assert from "node:assert/strict";
import { describe, it } from "node:test";
import * as v from "valibot";
import { WebSocketError } from "../../src/protocol/errors.ts";
import { WebSocketController } from "../../src/controller/controller.ts";
import type { EngineHost, HistoryOptions, Member } from "../../src/engines/engine.ts";
import { MemoryEngine } from "../../src/engines/memory-engine.ts";
import { natsEngine } from "../../src/engines/nats/nats.ts";
import type { WebSocketControllerOptions } from "../../src/application/options.ts";
import { FakeTransport, HANDSHAKE } from "../support/fake-transport.ts";
import { observe } from "../support/observed.ts";
import { Stall, turn } from "../support/waiting.ts";
import type { ResumableOptions } from "../../src/streams/resumable-options.ts";

/** A controller with a stream "count" that yields 1, 2, … to `steps`, and stalls where a test says. */
function create({ resumable = {}, ...options }: WebSocketControllerOptions & { resumable?: ResumableOptions } = {}) {
  const observed = observe(options);
  const { controller } = observed;
  const counts = { yielded: 0, finished: 0 };
  const reasons: unknown[] = [];
  const stalls = new Map<number, Stall>();
  controller.handle("count", v.object({ steps: v.optional(v.number(), Infinity) }), async function* ({ message, signal }) {
    signal.addEventListener("abort", () => void reasons.push(signal.reason.code));
    try {
      for (let n = 1; n <= message.steps; n++) {
        const stall = stalls.get(n);
        if (stall) await Promise.race([stall.promise, new Promise((resolve) => signal.addEventListener("abort", resolve))]);
        if (signal.aborted) return { counted: n - 1 };
        counts.yielded++;
        yield n;
      }
      return { counted: message.steps };
    } finally {
      counts.finished++;
    }
  }, { resumable });
  const connect = (
    user: string | null = "ann",
    protocol: string | null = null,
    expires_at: number | null = null,
    role: string | null = null,
  ) => {
    const transport = new FakeTransport();
    const identity = { accountability: { user, role }, expires_at };
    const connection = controller.open(transport, { ...HANDSHAKE, protocol }, identity);
    return {
      connection,
      transport,
      take: () => transport.take(),
      send: (message: object) => connection.message(JSON.stringify(message)),
      lose: () => connection.closed(1006, "", false),
    };
  };
  return {
    ...observed,
    counts,
    reasons,
    stallAt: (n: number) => {
      const stall = new Stall();
      stalls.set(n, stall);
      return stall;
    },
    connect,
    errors: () => observed.events.flatMap(([event, payload]) => event === "error" ? [String(payload.error)] : []),
  };
}

/** An engine of several nodes, of which the test plays the others. */
class SharedEngine extends MemoryEngine {
  host!: EngineHost;
  /** Set while a list of streams is joined. */
  listing: Promise<void> | undefined;
  /** The channel of the generator that has started last. */
  running = "";
  override readonly isAlone = false as true; // The base class is alone.
  override start(host: EngineHost): void {
    this.host = host;
    super.start(host);
  }
  override join(channel: string, member: Member): void {
    super.join(channel, member);
    if (member.user === "run") this.running = channel;
    else if (channel.startsWith("streams")) return this.listing as unknown as void; // An engine may answer with a promise.
  }
}

async function turns(count = 5): Promise<void> {
  for (let n = 0; n < count; n++) await turn();
}

const next = (n: number, type = "stream.resume", uid = 2) => ({ type, status: "next", uid, data: n, offset: n });
describe("A resumable stream", () => {
  it("is named first, then its items are numbered", async () => {
    const { connect, errors } = create();
    const client = connect();
    client.send({ type: "count", uid: 1, steps: 2 });
    await turns();
    const [{ id, ...open }, ...rest] = client.take();
    assert.deepEqual(open, { type: "count", status: "open", uid: 1 });
    assert.match(id, /^[\da-f-]{36}\/count$/);
    assert.deepEqual(rest, [
      next(1, "count", 1),
      next(2, "count", 1),
      { type: "count", status: "ok", uid: 1, data: { counted: 2 } },
    ]);
    assert.deepEqual(errors(), []);
  });

  it("goes on without its client, and is resumed at each offset: everything after, in order, once", async () => {
    const { connect, counts, stallAt } = create();
    const first = connect();
    const stall = stallAt(4);
    first.send({ type: "count", uid: 1, steps: 6 });
    await turns();
    const [{ id }] = first.take();
    first.lose();
    const clients = [0, 1, 2, 3].map((after) => {
      const client = connect();
      client.send({ type: "stream.resume", uid: 2, id, after });
      return client;
    });
    await turns();
    stall.resolve();
    await turns();
    for (const [after, client] of clients.entries()) {
      const expected = [1, 2, 3, 4, 5, 6].slice(after).map((n) => next(n));
      assert.deepEqual(client.take(), [
        { type: "stream.resume", status: "open", uid: 2, id },
        ...expected,
        { type: "stream.resume", status: "ok", uid: 2, data: { counted: 6 } },
      ]);
    }
    assert.deepEqual(counts, { yielded: 6, finished: 1 });
    const late = connect();
    late.send({ type: "stream.resume", uid: 2, id, after: 5 });
    await turns();
    assert.deepEqual(late.take().slice(1).map(({ status, offset }) => [status, offset]), [["next", 6], ["ok", undefined]]);
  });

  it("is merged for a client that has missed items, in one message each, whose offset is that of the last", async () => {
    const merged: number[][] = [];
    const merge = (items: unknown[]) => {
      merged.push(items as number[]);
      return [items.join("+")];
    };
    const { connect, stallAt } = create({ resumable: { merge } });
    const stall = stallAt(5);
    const client = connect();
    client.send({ type: "count", uid: 1, steps: 6 });
    await turns();
    const [{ id }, ...items] = client.take();
    assert.deepEqual(items.flatMap(({ items, data }) => items ?? data).join("+"), "1+2+3+4");
    merged.length = 0;
    const other = connect();
    other.send({ type: "stream.resume", uid: 2, id, after: 1 });
    await turns();
    assert.deepEqual(other.take().slice(1), [{ type: "stream.resume", status: "next", uid: 2, items: ["2+3+4"], offset: 4 }]);
    stall.resolve();
    await turns();
    assert.deepEqual(other.take().map(({ data, items }) => items ?? data), [5, 6, { counted: 6 }]);
    assert.deepEqual(merged, [[2, 3, 4]]);
  });

  it("is at most size items ahead of the fastest client, and goes on when that has read", async () => {
    const { connect, counts } = create({ resumable: { size: 100 } });
    const client = connect("ann", "noroshi.v1");
    client.send({ type: "count", uid: 1 });
    await turns(20);
    const sent = client.take();
    assert.deepEqual([sent.length, counts.yielded], [64, 63 + 99]);
    client.send({ type: "stream.credit", uid: 1, credit: 32 });
    await turns(20);
    assert.deepEqual([client.take().length, counts.yielded], [32, 63 + 99 + 32]);
    client.lose();
    await turns(20);
    assert.equal(counts.yielded, 63 + 99 + 32);
  });

  it("is at most 2 MiB ahead, however few items that are, and keeps at most 4 MiB", async () => {
    const { controller, connect } = create();
    let yielded = 0;
    controller.handle("large", v.object({}), async function* () {
      for (;;) {
        yielded++;
        yield "x".repeat(100_000);
      }
    }, { resumable: true });
    const client = connect("ann", "noroshi.v1");
    client.send({ type: "large", uid: 1 });
    await turns(100);
    const ahead = yielded;
    assert.ok(ahead > 20 && ahead < 40, `${ahead} items`);
    for (let n = 0; n < 100; n++) {
      for (const { credit } of client.take()) if (credit) client.send({ type: "stream.credit", uid: 1, credit });
      await turns(20);
    }
    assert.ok(yielded > 100);
    const { historyBytes } = controller.engine as MemoryEngine;
    assert.ok(historyBytes < 2 * 4_600_000, `${historyBytes} bytes`);
  });

  it("is lost for a client whose items are not kept any more", async () => {
    const { connect, stallAt } = create({ resumable: { size: 10 } });
    const stall = stallAt(50);
    const client = connect();
    client.send({ type: "count", uid: 1, steps: 50 });
    await turns(20);
    const [{ id }] = client.take();
    for (const [after, expected] of [[0, "STREAM_LOST"], [38, "STREAM_LOST"], [39, undefined], [50, "STREAM_LOST"]] as const) {
      const other = connect();
      other.send({ type: "stream.resume", uid: 2, id, after });
      await turns();
      const messages = other.take();
      assert.equal(messages.at(-1).error?.code, expected, `after ${after}`);
      if (!expected) assert.deepEqual(messages.slice(1).map(({ data }) => data), [40, 41, 42, 43, 44, 45, 46, 47, 48, 49]);
    }
    stall.resolve();
  });

  it("is stopped by stream.cancel with its uid and with its id, and answers every client once", async () => {
    for (const how of ["uid", "id"]) {
      const { connect, counts, errors, reasons, stallAt } = create();
      stallAt(3);
      const first = connect();
      first.send({ type: "count", uid: 1 });
      await turns();
      const [{ id }] = first.take();
      const other = connect();
      other.send({ type: "stream.resume", uid: 2, id });
      await turns();
      other.take();
      if (how === "uid") other.send({ type: "stream.cancel", uid: 2 });
      else connect().send({ type: "stream.cancel", id });
      await turns();
      const result = { counted: 2 };
      assert.deepEqual(first.take(), [{ type: "count", status: "ok", uid: 1, data: result }]);
      assert.deepEqual(other.take(), [{ type: "stream.resume", status: "ok", uid: 2, data: result }]);
      assert.deepEqual([counts.finished, reasons, errors()], [1, ["CANCELLED"], []]);
    }
  });

  it("is not stopped by a foreign client, with its id", async () => {
    const { connect, counts, stallAt, errors } = create();
    stallAt(3);
    const client = connect();
    client.send({ type: "count", uid: 1 });
    await turns();
    const [{ id }] = client.take();
    const foreign = connect("bob");
    foreign.send({ type: "stream.cancel", id });
    foreign.send({ type: "stream.cancel", id: "nothing" });
    await turns();
    assert.deepEqual([foreign.take(), client.take(), counts.finished, errors()], [[], [], 0, []]);
  });

  it("ends with its error, and with INTERNAL_ERROR for one that is not to be shown and for what is no JSON", async () => {
    const { controller, connect, errors } = create();
    const odd: Record<string, () => unknown> = {
      known: () => {
        throw new WebSocketError("odd", "NO_MODEL", "No model", { details: { tries: 3 } });
      },
      unknown: () => {
        throw new Error("secret");
      },
      item: () => 1n,
    };
    controller.handle("odd", v.object({ kind: v.string() }), async function* ({ message }) {
      yield "first";
      yield odd[message.kind]!();
    }, { resumable: true });
    controller.handle("result", v.object({}), async function* () {
      yield "first";
      return 1n;
    }, { resumable: true });
    for (
      const [message, code] of [
        [{ type: "odd", kind: "known" }, "NO_MODEL"],
        [{ type: "odd", kind: "unknown" }, "INTERNAL_ERROR"],
        [{ type: "odd", kind: "item" }, "INTERNAL_ERROR"],
        [{ type: "result" }, "INTERNAL_ERROR"],
      ] as const
    ) {
      const client = connect();
      client.send({ ...message, uid: 1 });
      await turns();
      const [{ id }, first, end] = client.take();
      assert.deepEqual([first.data, end.uid, end.error.code], ["first", 1, code]);
      if (code === "NO_MODEL") assert.equal(end.error.tries, 3);
      client.send({ type: "stream.resume", uid: 2, id, after: 1 });
      await turns();
      assert.deepEqual(client.take().map(({ uid, error }) => [uid, error?.code]), [[2, undefined], [2, code]]);
    }
    assert.equal(errors().length, 3);
  });

  it("without a client counts against maxStreams, and ends after ttl with its deadlines", async () => {
    const { controller, clock, connect, counts, reasons, stallAt } = create({ maxStreams: 2, resumable: { ttl: 5_000 } });
    stallAt(2);
    for (let n = 0; n < 2; n++) {
      const client = connect();
      client.send({ type: "count", uid: 1 });
      await turns();
      client.lose();
    }
    await turns();
    assert.equal(controller.stats().streams, 2);
    const client = connect();
    client.send({ type: "count", uid: 1 });
    connect("bob").send({ type: "count", uid: 1, steps: 1 });
    await turns();
    assert.deepEqual(client.take().map(({ error }) => error.code), ["LIMIT_EXCEEDED"]);
    clock.advance(4_999);
    await turns();
    assert.deepEqual([counts.finished, reasons], [1, []]);
    clock.advance(1);
    await turns();
    assert.deepEqual([counts.finished, reasons, controller.stats().streams], [3, ["STREAM_LOST", "STREAM_LOST"], 0]);
    client.send({ type: "count", uid: 1, steps: 1 });
    await turns();
    assert.equal(client.take().at(-1).status, "ok");
  });

  it("ends with FORBIDDEN when the role of its client changes", async () => {
    let role = "editor";
    const { controller, connect, reasons, stallAt } = create({
      revalidate: ({ accountability }) => ({ accountability: { ...accountability, role } }),
    });
    stallAt(2);
    const client = connect();
    client.send({ type: "count", uid: 1 });
    await turns();
    client.take();
    role = "reader";
    await controller.refresh({});
    await turns();
    assert.deepEqual([client.take().map(({ error }) => error?.code), reasons], [["FORBIDDEN"], ["FORBIDDEN"]]);
  });

  it("is neither resumed nor listed by its user with another role, unless authorize says so", async () => {
    const roles: unknown[] = [];
    const authorize: ResumableOptions["authorize"] = ({ client, role }) => {
      roles.push([role, client.accountability.role]);
      return true;
    };
    for (const resumable of [{}, { authorize }]) {
      const { connect, stallAt } = create({ resumable });
      const stall = stallAt(2);
      const admin = connect("ann", null, null, "admin");
      admin.send({ type: "count", uid: 1, steps: 2 });
      await turns();
      const [{ id }] = admin.take();
      admin.lose();
      const demoted = connect("ann", null, null, "reader");
      const seen = [];
      for (const client of [demoted, connect("ann", null, null, "admin")]) {
        client.send({ type: "stream.list", uid: 1 });
        client.send({ type: "stream.resume", uid: 2, id });
        await turns();
        seen.push(client.take().map(({ data, status, error }) => error?.code ?? data ?? status));
      }
      const whole = [[{ id, type: "count" }], "open", 1];
      assert.deepEqual(seen, resumable.authorize ? [whole, whole] : [[[], "STREAM_LOST"], whole]);
      stall.resolve();
      await turns();
    }
    assert.deepEqual(roles, [["admin", "reader"], ["admin", "admin"]]);
  });

  it("of an anonymous client is not resumed with a role", async () => {
    const { connect, stallAt } = create();
    stallAt(2);
    const client = connect(null);
    client.send({ type: "count", uid: 1 });
    await turns();
    const [{ id }] = client.take();
    const other = connect(null, null, null, "guest");
    other.send({ type: "stream.resume", uid: 2, id });
    await turns();
    assert.deepEqual(other.take().map(({ error }) => error.code), ["STREAM_LOST"]);
  });

  it("is ended by the close of its controller", async () => {
    const { controller, connect, counts, reasons, stallAt } = create();
    stallAt(2);
    const client = connect();
    client.send({ type: "count", uid: 1 });
    await turns();
    client.lose();
    await controller.close();
    await turns();
    assert.deepEqual([counts.finished, reasons], [1, ["STREAM_LOST"]]);
    const { streams, deadlines } = controller.stats();
    assert.deepEqual([streams, deadlines], [0, 0]);
  });

  it("leaves nothing in the engine but its history", async () => {
    const { controller, connect } = create();
    const client = connect();
    for (let uid = 0; uid < 20; uid++) client.send({ type: "count", uid, steps: 2 });
    await turns(10);
    assert.equal(client.take().filter(({ status }) => status === "ok").length, 20);
    for (let n = 0; n < 30; n++) client.send({ type: "stream.resume", uid: n, id: `${n}/count` });
    await turns(10);
    assert.equal(client.take().filter(({ error }) => error?.code === "STREAM_LOST").length, 30);
    const { streams, deadlines } = controller.stats();
    assert.deepEqual([streams, deadlines], [0, 1]); // The sweep of the histories.
  });

  it("misses no item that is published while a second client attaches", async () => {
    for (let turnsBefore = 0; turnsBefore < 6; turnsBefore++) {
      const { connect, stallAt } = create();
      const stall = stallAt(1);
      const first = connect();
      first.send({ type: "count", uid: 1, steps: 3 });
      await turns();
      const [{ id }] = first.take();
      const second = connect();
      second.send({ type: "stream.resume", uid: 2, id });
      for (let n = 0; n < turnsBefore; n++) await Promise.resolve();
      stall.resolve();
      await turns(10);
      assert.deepEqual(second.take().slice(1).map(({ data, error }) => error?.code ?? data), [1, 2, 3, { counted: 3 }]);
    }
  });

  it("misses no item if a client on another node attaches before the first, whether it has ended by then or not", async () => {
    for (const hasEnded of [true, false]) {
      const engine = new SharedEngine();
      const listing = new Stall();
      engine.listing = listing.promise;
      const { connect, counts, stallAt } = create({ engine });
      const stall = stallAt(2);
      if (hasEnded) stall.resolve();
      const client = connect();
      client.send({ type: "count", uid: 1, steps: 2 });
      await turns();
      // The name is not sent yet: another node has it from the list.
      engine.host.present(engine.running, [{ user: "other", data: '{"at":0,"stop":false}' }], []);
      await turns();
      assert.equal(counts.yielded, hasEnded ? 2 : 1);
      listing.resolve();
      await turns();
      stall.resolve();
      await turns();
      assert.deepEqual(client.take().map(({ data, error }) => error?.code ?? data), [undefined, 1, 2, { counted: 2 }]);
    }
  });

  it("leaves nothing behind when it cannot start, and when it cannot be read", async () => {
    class Broken extends SharedEngine {
      readonly followed = new Set<string>();
      override subscribe(channel: string, history: HistoryOptions | null): ReturnType<MemoryEngine["subscribe"]> {
        this.followed.add(channel);
        return super.subscribe(channel, history);
      }
      override members(channel: string): Member[] {
        if (channel.startsWith("stream*")) throw new WebSocketError("engine", "NO_MEMBERS", "No");
        return super.members(channel);
      }
    }
    const engine = new Broken();
    const { connect, controller } = create({ engine });
    const client = connect();
    client.send({ type: "count", uid: 1 });
    client.send({ type: "stream.resume", uid: 2, id: "1/count" });
    await turns(10);
    assert.deepEqual(client.take().map(({ uid, error }) => [uid, error?.code]).sort(), [[1, "NO_MEMBERS"], [2, "NO_MEMBERS"]]);
    assert.equal(engine.followed.size, 2);
    let taken = 0;
    for (const channel of engine.followed) {
      engine.host.published(channel, {
        get event() {
          taken++;
          return "1 next";
        },
        data: '{"data":1}',
        position: null,
      });
    }
    assert.deepEqual([taken, controller.stats().streams], [0, 0]);
  });

  it("counts against maxStreams while its handler has not answered, and is stopped if it is refused", async () => {
    const { connect, controller } = create({ maxStreams: 4 });
    let started = 0;
    const stall = new Stall();
    controller.handle("slow", v.object({}), async () => {
      started++;
      await stall.promise;
      return (async function* () {
        yield 1;
        await new Promise(() => {});
      })();
    }, { resumable: true });
    const client = connect();
    for (let uid = 1; uid <= 10; uid++) client.send({ type: "slow", uid });
    await turns();
    stall.resolve();
    await turns(10);
    const answers = client.take();
    assert.deepEqual([started, answers.filter(({ status }) => status === "open").length], [4, 4]);
    assert.equal(answers.filter(({ error }) => error?.code === "LIMIT_EXCEEDED").length, 6);
    assert.equal(controller.stats().streams, 4);
    // As many as are allowed may start at once.
    const other = connect("bob");
    for (let uid = 1; uid <= 5; uid++) other.send({ type: "slow", uid });
    await turns(10);
    assert.deepEqual(other.take().filter(({ status }) => status !== "next").map(({ status }) => status).sort(), [
      "error",
      ...Array(4).fill("open"),
    ]);
  });

  it("aborts the signal of a handler that has not returned when its client cancels", async () => {
    const { connect, controller } = create();
    const reasons: unknown[] = [];
    controller.handle("wait", v.object({}), ({ signal }) =>
      new Promise((_, reject) =>
        signal.addEventListener("abort", () => {
          reasons.push(signal.reason.code);
          reject(signal.reason);
        })
      ), { resumable: true });
    const client = connect();
    client.send({ type: "wait", uid: 1 });
    await turns();
    client.send({ type: "stream.cancel", uid: 1 });
    await turns();
    assert.deepEqual([reasons, client.take().map(({ error }) => error.code)], [["CANCELLED"], ["CANCELLED"]]);
  });

  it("ends with the error of an engine that throws", async () => {
    class Full extends MemoryEngine {
      override publish(...args: Parameters<MemoryEngine["publish"]>): ReturnType<MemoryEngine["publish"]> {
        if (args[1].data.includes("2")) throw new WebSocketError("engine", "LIMIT_EXCEEDED", "Too large");
        return super.publish(...args);
      }
    }
    const { connect, controller } = create({ engine: new Full() });
    const client = connect();
    client.send({ type: "count", uid: 1, steps: 3 });
    await turns(10);
    assert.deepEqual(client.take().map(({ data, error }) => error?.code ?? data), [undefined, 1, "LIMIT_EXCEEDED"]);
    assert.equal(controller.stats().streams, 0);
  });

  it("is not driven on by a client that only claims to have read", async () => {
    const { connect, counts } = create({ resumable: { size: 4 } });
    const client = connect(undefined, "noroshi.v1");
    client.send({ type: "count", uid: 1 });
    await turns(10);
    const [{ id }] = client.take();
    client.lose();
    await turns(10);
    const { yielded } = counts;
    for (let uid = 2; uid < 6; uid++) connect().send({ type: "stream.resume", uid, id, after: Number.MAX_SAFE_INTEGER });
    await turns(10);
    assert.ok(counts.yielded <= yielded + 1, `${counts.yielded} instead of ${yielded}`);
  });

  it("is not stopped by its id while the credentials of the client are expired", async () => {
    const { connect, clock, stallAt } = create();
    const stall = stallAt(2);
    const reader = connect();
    reader.send({ type: "count", uid: 1, steps: 2 });
    await turns();
    const [{ id }] = reader.take();
    const expiring = connect("ann", null, (clock.now() + 1_000) / 1_000);
    clock.advance(1_500);
    expiring.send({ type: "stream.cancel", id });
    await turns();
    assert.deepEqual(reader.take(), []);
    stall.resolve();
    await turns();
    assert.deepEqual(reader.take().map(({ status }) => status), ["next", "ok"]);
  });

  it("is resumed page by page, however large the history is", async () => {
    const { connect, controller } = create();
    const stalled = new Stall();
    controller.handle("large", v.object({}), async function* () {
      for (let n = 1; n <= 30; n++) yield `${n} ${"x".repeat(20_000)}`;
      await stalled.promise;
    }, { resumable: true });
    const reader = connect();
    reader.send({ type: "large", uid: 1 });
    await turns(20);
    const [{ id }] = reader.take();
    const limits: number[] = [];
    const { engine } = controller;
    const read = engine.read.bind(engine);
    engine.read = (...args) => {
      limits.push(args[3]);
      return read(...args);
    };
    const other = connect();
    other.send({ type: "stream.resume", uid: 2, id });
    await turns(20);
    assert.deepEqual(other.take().slice(1).map(({ data }) => parseInt(data)), Array.from({ length: 30 }, (_, n) => n + 1));
    assert.ok(limits.length > 3, `${limits.length} reads`); // 600 kB, of which a page has 128 KiB.
    stalled.resolve();
  });

  it("reads at most four times what a client has missed, and 64 items at least", async () => {
    const { connect, controller, stallAt } = create();
    const stall = stallAt(2_001);
    const reader = connect();
    reader.send({ type: "count", uid: 1, steps: 2_001 });
    await turns(20);
    const [{ id }] = reader.take();
    const { engine } = controller;
    const read = engine.read.bind(engine);
    const limits: number[] = [];
    engine.read = (...args) => {
      limits.push(args[3]);
      return read(...args);
    };
    for (const [after, expected] of [[1_990, [64]], [1_900, [64, 256]], [0, [64, 256, 1_024, 4_096]]] as const) {
      limits.length = 0;
      const other = connect();
      other.send({ type: "stream.resume", uid: 2, id, after });
      await turns(20);
      assert.deepEqual(
        other.take().slice(1).map(({ data }) => data),
        Array.from({ length: 2_000 - after }, (_, n) => after + n + 1),
      );
      // Pages that follow begin at a position.
      assert.deepEqual(limits.filter((limit) => limit < Infinity), expected);
    }
    stall.resolve();
  });

  it("keeps by default what the engine keeps, and is refused if it names more", async () => {
    class Small extends MemoryEngine {
      readonly maxHistory = { size: 10, ttl: 30_000 };
      check({ size, ttl }: HistoryOptions): void {
        if (size > 10 || ttl > 30_000) throw new TypeError("Cannot keep the history: too large");
      }
    }
    const { connect, counts } = create({ engine: new Small() });
    const client = connect("ann", "noroshi.v1");
    client.send({ type: "count", uid: 1 });
    await turns(20);
    client.lose();
    await turns(20);
    assert.equal(counts.yielded, 63 + 9); // What the client has been sent, and what is kept.
    for (const resumable of [{ size: 11 }, { ttl: 60_000 }]) {
      assert.throws(() => create({ engine: new Small(), resumable }), /Cannot keep the history/);
    }
    create({ engine: new Small(), resumable: { size: 10, ttl: 30_000 } });
  });

  it("is declared with the defaults of every engine", () => {
    const engine = natsEngine({ servers: "nats://127.0.0.1:1" });
    assert.deepEqual(engine.maxHistory, { size: 1_000, ttl: 3_600_000 });
    const declare = (resumable: ResumableOptions | true) => {
      const controller = new WebSocketController({ engine, logger: false });
      controller.handle("count", v.object({}), async function* () {}, { resumable });
    };
    declare(true);
    declare({ ttl: 3_600_000, size: 1_000 });
    assert.throws(() => declare({ size: 1_001 }), /raise history.maxSize or history.maxTtl/);
    assert.throws(() => declare({ ttl: 3_600_001 }), /raise history.maxSize or history.maxTtl/);
  });

  it("is refused with invalid options", () => {
    const { controller } = create();
    const handle = (resumable: unknown) => () =>
      controller.handle("other", v.object({}), async function* () {}, { resumable: resumable as ResumableOptions });
    assert.throws(handle({ ttl: 0 }), /Cannot handle "other": resumable.ttl must be a whole number of ms/);
    assert.throws(handle({ size: 1 }), /resumable.size must be a whole number from 2/);
    assert.throws(handle({ marge: () => [] }), /unknown option "resumable.marge", use one of ttl, size, merge/);
    assert.throws(handle("yes"), /resumable must be true or an object/);
    assert.throws(
      () => controller.handle("other", v.object({}), () => 1, { resume: true } as object),
      /unknown option "resume", use resumable/,
    );
    assert.throws(
      () => controller.handle("other", { stream: { input: v.string() } }, async function* () {}, { resumable: true }),
      /a stream with input cannot be resumed, leave out resumable/,
    );
  });
});
