/** A client that has left takes part in nothing, whatever was awaited for it meanwhile. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import * as v from "valibot";
import { createChannels, kept } from "../support/channels-fixture.ts";
import { Stall, turn } from "../support/waiting.ts";

const MESSAGES = [
  { type: "subscribe", channel: "a", uid: 1, presence: true },
  { type: "subscribe", channel: "a", uid: 2 },
  { type: "unsubscribe", uid: 1 },
  { type: "publish", channel: "a", event: "e", data: 1 },
  { type: "work" },
];
async function turns() {
  for (let n = 0; n < 8; n++) await turn();
}

describe("A client that has left", () => {
  for (const how of ["lost", "closed by itself", "closed by the server", "closing"] as const) {
    for (const count of [1, 2]) {
      it(`leaves nothing behind: ${how}, ${count} middleware`, async () => {
        const stall = new Stall();
        const worked: unknown[] = [];
        const { join, channels, controller } = createChannels({ a: { ...kept, presence: true } });
        controller.handle("work", v.looseObject({}), () => void worked.push(1));
        const listened: unknown[] = [];
        let isOn = false;
        for (let n = 0; n < count; n++) {
          controller.use(async (_, next) => {
            if (n === 0) await stall.promise;
            await next();
          });
        }
        const peer = join("ann");
        controller.on("message", ({ message }) => {
          if (isOn) listened.push(message);
        });
        isOn = true;
        for (const message of MESSAGES) peer.send(message);
        await turns();
        if (how === "closing" || how === "closed by the server") peer.client.close(1000, "x");
        if (how !== "closing") peer.leave(how === "closed by itself");
        stall.resolve();
        await turns();
        assert.deepEqual([worked, listened], [[], []]);
        assert.deepEqual(channels.stats(), { channels: 0, subscriptions: 0, subscribers: 0 });
        assert.deepEqual((await channels.history("a")).publications, []);
        assert.deepEqual(await channels.presence("a"), []);
      });
    }
  }
});
