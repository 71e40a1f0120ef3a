import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { BrokerListener } from "../../src/engines/broker/broker.ts";
import { Notifications, type Rows } from "../../src/engines/postgres/notifications.ts";
import { turn } from "../support/waiting.ts";

describe("Notifications of PostgreSQL", () => {
  it("settle when earlier publications are delivered, and do not wait for later ones", async () => {
    const requests: ((rows: Rows) => void)[] = [];
    const delivered: number[] = [];
    const listener = { live: (_channel: string, _envelope: string, { offset }: { offset: number }) => delivered.push(offset) };
    const notifications = new Notifications({
      listener: listener as unknown as BrokerListener, // Nothing else is called.
      follows: () => true,
      heartbeat() {},
      fetch: () => new Promise((resolve) => requests.push(resolve)),
    });
    const rows: Rows = { publication: () => ({ previous: 0, envelope: "" }), mail: () => undefined };
    await notifications.settled();

    notifications.receive("p epoch 1 news");
    const settled: string[] = [];
    void notifications.settled().then(() => settled.push("first"));
    notifications.receive("p epoch 2 news");
    void notifications.settled().then(() => settled.push("second"));
    await turn();
    assert.deepEqual([delivered, settled], [[], []]);
    requests.shift()!(rows);
    await turn();
    assert.deepEqual([delivered, settled], [[1], ["first"]]);
    requests.shift()!(rows);
    await turn();
    assert.deepEqual([delivered, settled], [[1, 2], ["first", "second"]]);
  });

  it("settle when the session has ended", async () => {
    let ended = 0;
    const notifications = new Notifications({
      listener: { ended: () => void ended++ } as unknown as BrokerListener, // Nothing else is called.
      follows: () => true,
      heartbeat() {},
      fetch: () => Promise.reject(new Error("lost")),
    });
    notifications.receive("p epoch 1 news");
    await notifications.settled();
    assert.equal(ended, 1);
  });
});
