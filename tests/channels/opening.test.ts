/** A channel on one node: opened once for all its subscriptions, whatever they do meanwhile, and closed after the last. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { MemoryEngine } from "../../src/engines/memory-engine.ts";
import { anybody, createChannels, kept, type TestPeer } from "../support/channels-fixture.ts";
import { LossyEngine } from "../support/lossy-engine.ts";
import { Stall, turn } from "../support/waiting.ts";

const subscribe = (rest: Record<string, unknown> = {}) => ({ type: "subscribe", channel: "a", ...rest });
const events = async (peer: TestPeer) => (await peer.take()).map(({ event, error, data }) => error?.code ?? data ?? event);

/** An engine in memory that subscribes when the test lets it, and records the calls of `subscribe` and `unsubscribe`. */
class LateEngine extends MemoryEngine {
  readonly asked: string[] = [];
  opening = new Stall();
  host!: Parameters<MemoryEngine["start"]>[0];

  override start(host: Parameters<MemoryEngine["start"]>[0]): void {
    super.start(this.host = host);
  }

  // @ts-expect-error -- its answer is a promise, as the interface lets it be
  override async subscribe(...args: Parameters<MemoryEngine["subscribe"]>) {
    this.asked.push("subscribe");
    await this.opening.promise;
    return super.subscribe(...args);
  }

  override unsubscribe(channel: string): void {
    this.asked.push("unsubscribe");
    super.unsubscribe(channel);
  }
}

describe("Channel", () => {
  it("is opened once for all subscriptions, and closed after the last", async () => {
    const engine = new LateEngine();
    const { join, channels } = createChannels({ a: anybody }, { engine });
    const [peer, other] = [join(), join()];
    await peer.ask(subscribe(), subscribe({ uid: 1 }));
    await other.ask(subscribe());
    engine.opening.resolve();
    assert.deepEqual([await events(peer), await events(other)], [["init", "init"], ["init"]]);
    await peer.ask(subscribe({ uid: 2 }));
    assert.deepEqual(engine.asked, ["subscribe"]);
    await peer.ask({ type: "unsubscribe" });
    assert.deepEqual(engine.asked, ["subscribe"]);
    await other.ask({ type: "unsubscribe" });
    assert.deepEqual(engine.asked, ["subscribe", "unsubscribe"]);
    assert.equal(channels.stats().channels, 0);
  });

  it("is closed once it is open if nobody wants it any more, and stays open for whoever has come meanwhile", async () => {
    for (const isWanted of [false, true]) {
      const engine = new LateEngine();
      const { join, channels } = createChannels({ a: anybody }, { engine });
      const peer = join();
      await peer.ask(subscribe());
      await peer.ask({ type: "unsubscribe" });
      if (isWanted) await peer.ask(subscribe());
      engine.opening.resolve();
      assert.deepEqual(await events(peer), isWanted ? ["init"] : []);
      assert.equal(engine.asked.includes("unsubscribe"), !isWanted);
      assert.equal(channels.stats().channels, isWanted ? 1 : 0);
      await channels.publish("a", "e", 1);
      assert.deepEqual(await events(peer), isWanted ? [1] : []);
    }
  });

  it("is opened again at the next subscribe, and not closed, if it could not be opened", async () => {
    const engine = new LateEngine();
    const { join, channels } = createChannels({ a: anybody }, { engine });
    const peer = join();
    await peer.ask(subscribe());
    engine.opening.reject(new Error("away"));
    assert.deepEqual(await events(peer), ["INTERNAL_ERROR"]);
    assert.deepEqual([engine.asked, channels.stats().channels], [["subscribe"], 0]);
    engine.opening = new Stall();
    engine.opening.resolve();
    assert.deepEqual((await peer.ask(subscribe())).map(({ event }) => event), ["init"]);
    assert.deepEqual(engine.asked, ["subscribe", "subscribe"]);
  });

  it("begins at the publication that arrives while it is opened", async () => {
    const engine = new LateEngine();
    const { join, channels } = createChannels({ a: kept }, { engine });
    const peer = join();
    await peer.ask(subscribe());
    engine.host.published("a", { event: "e", data: "1", position: { epoch: "x", offset: 7 } });
    engine.opening.resolve();
    const [init] = await peer.take();
    assert.deepEqual([init.epoch, init.offset], ["x", 7]);
    assert.equal(channels.stats().channels, 1);
  });

  it("reads the history anew after a gap, and does not use a read that was under way", async () => {
    class LateHistory extends LossyEngine {
      answer = new Stall();

      // @ts-expect-error -- its answer is a promise, as the interface lets it be
      override async read(...args: Parameters<MemoryEngine["read"]>) {
        const page = super.read(...args);
        await this.answer.promise;
        return page;
      }
    }
    const engine = new LateHistory();
    const { join, channels } = createChannels({ a: kept }, { engine });
    const [peer, other] = [join(), join()];
    const [{ epoch }] = await peer.ask(subscribe());
    engine.loses = true;
    for (const n of [1, 2]) {
      await channels.publish("a", "e", n);
      engine.host.gap("a");
      await turn();
    }
    // From the position whose read is under way, which lacks the second one.
    await other.ask(subscribe({ recover: { epoch, offset: 0 } }));
    engine.answer.resolve();
    assert.deepEqual([await events(peer), await events(other)], [[1, 2], ["init", 1, 2]]);
  });
});
