import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { Msg, NatsConnection } from "@nats-io/nats-core";
import { JetStream } from "../../src/engines/nats/jetstream.ts";
import { range } from "./conformance.ts";

/** A message of a consumer, or a status, which is acknowledged by nothing. */
const kept = (sequence: number) => ({
  reply: `$JS.ACK.S.c.1.${sequence}.${sequence}.1000000.0`,
  subject: "h.a",
  string: () => `${sequence}`,
});
const STATUS = { reply: "", subject: "inbox", string: () => "" };
const TOO_LARGE = { ...STATUS, headers: { code: 409 } };

/** A stream of ten messages whose consumer answers each question as the test says: with so many, and then perhaps with a status. */
function create(answers: [count: number, end: "status" | "silence" | "too large, twice"][]) {
  let delivered = 0;
  let deliver: (message: Msg) => void = () => {};
  const asked: number[] = [];
  const connection = {
    request: () => Promise.resolve({ json: () => ({ name: "c", num_pending: 10 }) }),
    closed: () => new Promise(() => {}),
    isClosed: () => false,
    subscribe(_: string, { callback }: { callback(error: null, message: Msg): void }) {
      deliver = (message) => callback(null, message);
      return { unsubscribe() {} };
    },
    publish(subject: string, text?: string) {
      if (!subject.includes("MSG.NEXT")) return;
      asked.push((JSON.parse(text!) as { batch: number }).batch);
      const [count, end] = answers.shift() ?? [0, "status"];
      queueMicrotask(() => {
        for (const _ of range(count)) {
          deliver(kept(++delivered) as unknown as Msg); // All that is read of one.
        }
        if (end === "status") deliver(STATUS as unknown as Msg); // As above.
        if (end === "too large, twice") { for (const _ of range(2)) deliver(TOO_LARGE as unknown as Msg); // As above.
         }
      });
    },
  } as unknown as NatsConnection; // All that `list` needs of it.
  const list = (maxBytes?: number) => new JetStream(connection, 20_000, "_INBOX").list("S", "h.a", 1, 100, maxBytes);
  return { asked, list };
}

describe("JetStream.list", () => {
  it("asks again where the time was over, whether the server says so or not", { timeout: 300_000 }, async () => {
    for (const end of ["status", "silence"] as const) {
      const { asked, list } = create([[4, end], [3, end], [3, end]]);
      const { messages, isWhole } = await list();
      assert.deepEqual([messages.map(({ sequence }) => sequence), isWhole], [range(10).map((number) => number + 1), true]);
      assert.deepEqual(asked, [10, 6, 3]);
    }
  });

  it("is not whole where nothing more comes", { timeout: 300_000 }, async () => {
    const { asked, list } = create([[4, "status"], [0, "status"]]);
    const { messages, isWhole } = await list();
    assert.deepEqual([messages.length, isWhole, asked], [4, false, [10, 6]]);
  });

  it("takes no more than has room where a busy server answers what was asked again, too", { timeout: 300_000 }, async () => {
    const { asked, list } = create([[0, "too large, twice"], [1, "silence"], [1, "silence"]]);
    const { messages } = await list(1);
    assert.deepEqual([messages.map(({ sequence }) => sequence), asked], [[1], [10, 1, 1]]);
  });
});
