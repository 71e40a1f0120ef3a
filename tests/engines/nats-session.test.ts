import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { NatsConnection } from "@nats-io/nats-core";
import { NatsSession } from "../../src/engines/nats/session.ts";
import { Stall, turn } from "../support/waiting.ts";

/** A session over a connection whose flushes the test resolves. */
function create() {
  const did: string[] = [];
  const flushes: Stall[] = [];
  const connection = {
    info: { max_payload: 1_000_000 },
    publish: (_subject: string, text: string) => void did.push(text),
    flush() {
      const stall = new Stall();
      flushes.push(stall);
      did.push(`flush ${flushes.length}`);
      return stall.promise;
    },
  } as unknown as NatsConnection; // All that `send` needs of it.
  const bounds = { maxSize: 1, maxTtl: 1, maxBytes: [1], storage: "memory", replicas: 1 } as const;
  const nothing = () => {};
  const listener = { live: nothing, mark: nothing, message: nothing, member: nothing, ended: nothing, malformed: nothing };
  const options = { node: "node", namespace: "test", lease: 1, slack: 0, timeout: 1, now: () => 0, positions: () => [] };
  const session = new NatsSession(connection, false, bounds, listener, options, { epoch: "", sequence: 0, offset: 0 });
  /** Sends a message, and notes how the call ended. */
  const send = (text: string) => {
    session.send(text).then(() => did.push(`${text} arrived`), () => did.push(`${text} is lost`));
  };
  return { did, flushes, send };
}

describe("NatsSession.send", () => {
  it("flushes once at a time, and again for what was sent during a flush", async () => {
    const { did, flushes, send } = create();
    for (const text of ["a", "b", "c"]) send(text);
    await turn();
    assert.deepEqual(did.splice(0), ["a", "flush 1", "b", "c"]);
    flushes[0]!.resolve();
    await turn();
    assert.deepEqual(did.splice(0), ["flush 2", "a arrived"]);
    send("d");
    flushes[1]!.resolve();
    await turn();
    assert.deepEqual(did.splice(0), ["d", "flush 3", "b arrived", "c arrived"]);
    flushes[2]!.resolve();
    await turn();
    assert.deepEqual(did, ["d arrived"]);
  });

  it("flushes again after a flush has failed", async () => {
    const { did, flushes, send } = create();
    for (const text of ["a", "b"]) send(text);
    flushes[0]!.reject(new Error("Cannot flush"));
    await turn();
    assert.deepEqual(did.splice(0), ["a", "flush 1", "b", "flush 2", "a is lost"]);
    flushes[1]!.resolve();
    await turn();
    assert.deepEqual(did, ["b arrived"]);
  });
});
