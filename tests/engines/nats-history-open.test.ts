import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { NatsHistory } from "../../src/engines/nats/history.ts";
import { JetStreamError } from "../../src/engines/nats/jetstream.ts";

const STREAM_NOT_FOUND = 10_059;

/** A history whose stream is deleted `deletions` times, each time between its creation and the first read. */
function create(deletions: number) {
  const state = { first_seq: 1, last_seq: 1, last_ts: new Date(0).toISOString() };
  const info = { created: "", state, config: { subjects: ["noroshi.shop.history.generation.*"] } };
  let opened = 0;
  const jetstream = {
    open: () => Promise.resolve(++opened && info),
    last: () =>
      opened > deletions ? Promise.resolve(null) : Promise.reject(new JetStreamError(STREAM_NOT_FOUND, "stream not found")),
    publish: () => Promise.resolve(1),
    info: () => Promise.resolve(info),
  };
  const bounds = { maxSize: 1, maxTtl: 1, maxBytes: [1], storage: "memory", replicas: 1 } as const;
  const options = { namespace: "shop", slack: 0, positions: () => [] };
  const memory = { epoch: "", sequence: 0, offset: 0 };
  const history = new NatsHistory(jetstream as never, options as never, bounds, memory); // With all that `open` calls.
  return { history, opened: () => opened };
}

describe("The stream of histories, when it is deleted while it is opened", () => {
  it("is created again", async () => {
    const { history, opened } = create(1);
    await history.open();
    assert.match(history.epoch, /^1\./);
    assert.equal(opened(), 2);
  });

  it("is not created again and again", async () => {
    const { history, opened } = create(Infinity);
    await assert.rejects(history.open(), { code: STREAM_NOT_FOUND });
    assert.equal(opened(), 2);
  });
});
