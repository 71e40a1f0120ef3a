import assert from "node:assert/strict";
import { describe, it } from "node:test";
import * as v from "valibot";
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
  const connect = (user: string | null = "ann", protocol: string | null = null) => {
    const transport = new FakeTransport();
    const identity = { accountability: { user, role: null }, expires_at: null };
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

async function turns(count = 5): Promise<void> {
  for (let n = 0; n < count; n++) await turn();
}

const next = (n: number, type = "stream.resume", uid = 2) => ({ type, status: "next", uid, data: n, offset: n });
const fails = (
  message: { uid?: unknown; status: string; error: { code: string } },
) => [message.uid, message.status, message.error.code];

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
});
