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

/** Of one request, in ms. */
const TIMEOUT = 20_000;

/** A stream of ten messages whose consumer answers each question as the test says: with so many, and then perhaps with a status. */
function create(answers: [count: number, end: "status" | "silence" | "too large, twice" | "closed"][]) {
  let delivered = 0;
  let waiting = 0;
  let close = () => {};
  let deliver: (message: Msg) => void = () => {};
  const asked: number[] = [];
  const created: { inactive_threshold: number }[] = [];
  const connection = {
    request(_: string, text: string) {
      created.push(JSON.parse(text).config);
      return Promise.resolve({ json: () => ({ name: "c", num_pending: 10 }) });
    },
    closed() {
      waiting++;
      return new Promise(() => {});
    },
    isClosed: () => false,
    subscribe(_: string, { callback }: { callback(error: null, message: Msg): void }) {
      deliver = (message) => callback(null, message);
      const closed = new Promise<void>((resolve) => close = resolve);
      return { closed, unsubscribe: close };
    },
    publish(subject: string, text?: string) {
      if (!subject.includes("MSG.NEXT")) return;
      asked.push((JSON.parse(text!) as { batch: number }).batch);
      const [count, end] = answers.shift() ?? [0, "status"];
      queueMicrotask(() => {
        for (const _ of range(count)) {
          deliver(kept(++delivered) as unknown as Msg); // All that is read of one.
        }
        const statuses = end === "status" ? [STATUS] : end === "too large, twice" ? [TOO_LARGE, TOO_LARGE] : [];
        for (const status of statuses) deliver(status as unknown as Msg); // As above.
        if (end === "closed") close();
      });
    },
  } as unknown as NatsConnection; // All that `list` needs of it.
  const list = (maxBytes?: number) => new JetStream(connection, TIMEOUT, "_INBOX").list("S", "h.a", 1, 100, maxBytes);
  return { asked, created, list, waiting: () => waiting };
}

describe("JetStream.list", () => {
  it("requests again when a request expires, with or without a status", { timeout: 300_000 }, async () => {
    for (const end of ["status", "silence"] as const) {
      const { asked, list } = create([[4, end], [3, end], [3, end]]);
      const { messages, isWhole } = await list();
      assert.deepEqual([messages.map(({ sequence }) => sequence), isWhole], [range(10).map((number) => number + 1), true]);
      assert.deepEqual(asked, [10, 6, 3]);
    }
  });

  it("is not whole when no more messages arrive", { timeout: 300_000 }, async () => {
    const { asked, list } = create([[4, "status"], [0, "status"]]);
    const { messages, isWhole } = await list();
    assert.deepEqual([messages.length, isWhole, asked], [4, false, [10, 6]]);
  });

  it("ignores the second answer to a repeated request when the page is full", { timeout: 300_000 }, async () => {
    const { asked, list } = create([[0, "too large, twice"], [1, "silence"], [1, "silence"]]);
    const { messages } = await list(1);
    assert.deepEqual([messages.map(({ sequence }) => sequence), asked], [[1], [10, 1, 1]]);
  });

  it("keeps its consumer for as long as it waits for messages", { timeout: 300_000 }, async () => {
    const { created, list } = create([[10, "silence"]]);
    await list();
    assert.deepEqual(created.map(({ inactive_threshold }) => inactive_threshold), [TIMEOUT * 1e6]);
  });

  it("returns one message although there is room for none", { timeout: 300_000 }, async () => {
    const { list } = create([[4, "status"]]);
    const { messages } = await list(0);
    assert.deepEqual(messages.map(({ sequence }) => sequence), [1]);
  });

  it("ends with the connection, and leaves nothing that waits for its end", async () => {
    const { list, waiting } = create([[10, "status"], [4, "closed"]]);
    assert.equal((await list()).messages.length, 10);
    assert.equal(waiting(), 0);
    await assert.rejects(list(), { message: "Cannot read the stream: the connection was closed" });
  });
});
