import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { Backlog } from "../../src/channels/backlog.ts";
import { Feed } from "../../src/channels/feed.ts";
import { PublicationFrame } from "../../src/channels/publication-frame.ts";
import type { WebSocketClient } from "../../src/application/websocket-client.ts";

const frameAt = (offset: number) => new PublicationFrame("log", { event: "wrote", data: "1", position: { epoch: "a", offset } });

/** A feed that keeps publications while `room.isFree`. */
function create() {
  const room = { isFree: true };
  const backlog = { keep: () => room.isFree, release() {} } as unknown as Backlog; // With all that a feed uses here.
  const feed = new Feed({} as WebSocketClient, backlog, {}); // Nothing is sent.
  feed.hold();
  return { room, feed };
}

describe("What a subscription keeps while it cannot be sent any", () => {
  it("has no hole: after a publication without room it keeps no later one", () => {
    const { room, feed } = create();
    assert.ok(feed.keep(frameAt(1)));
    room.isFree = false;
    assert.ok(!feed.keep(frameAt(2)));
    room.isFree = true;
    assert.ok(!feed.keep(frameAt(3)));
    assert.equal(feed.first?.position?.offset, 1);
    feed.shift();
    assert.equal(feed.first, undefined);
    assert.ok(feed.hasOverflowed);
  });

  it("ends where the node has lost some", () => {
    const { feed } = create();
    assert.ok(feed.keep(frameAt(1)));
    feed.hasOverflowed = true; // As the subscription does.
    assert.ok(!feed.keep(frameAt(3)));
    feed.hold();
    assert.ok(feed.keep(frameAt(4)));
  });
});
