import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { Deadlines } from "../../src/base/clock.ts";
import { Listening } from "../../src/engines/broker/listening.ts";
import type { Reconnection } from "../../src/engines/broker/reconnection.ts";
import { TestClock } from "../support/test-clock.ts";

const LINGER = 1_000;

/** A session that holds its answers until the test releases them. `listened` has the channels that the broker would send. */
class HeldSession {
  readonly listened = new Set<string>();
  readonly #waiting: (() => void)[] = [];

  listen(channels: readonly string[]): Promise<void> {
    return this.#held(() => channels.forEach((channel) => this.listened.add(channel)));
  }

  unlisten(channels: readonly string[]): Promise<void> {
    return this.#held(() => channels.forEach((channel) => this.listened.delete(channel)));
  }

  /** Answers one request after the other until there is none. */
  async answerAll(): Promise<void> {
    for (let answer = this.#waiting.shift(); answer; answer = this.#waiting.shift()) {
      answer();
      await new Promise<void>((resolve) => setImmediate(resolve));
    }
  }

  #held(effect: () => void): Promise<void> {
    return new Promise((resolve) =>
      this.#waiting.push(() => {
        effect();
        resolve();
      })
    );
  }
}

/** A node that listens through such a session to the channels in `wanted`. */
function create() {
  const clock = new TestClock();
  const session = new HeldSession();
  const link = { call: (_: string, ask: (session: HeldSession) => Promise<unknown>) => ask(session) };
  const wanted = new Set<string>();
  const deadlines = new Deadlines(clock, (error) => assert.fail(String(error)));
  // A reconnection is only called.
  const listening = new Listening(link as unknown as Reconnection, deadlines, LINGER, (channel) => wanted.has(channel));
  return {
    clock,
    session,
    wanted,
    listening,
    async listen(channel: string) {
      wanted.add(channel);
      const listened = listening.listen(channel);
      await session.answerAll();
      await listened;
    },
    leave(channel: string) {
      wanted.delete(channel);
      listening.linger(channel);
    },
  };
}

describe("Listening", () => {
  it("listens to a channel that is wanted again while an unsubscribe from others is under way", async () => {
    const { clock, session, wanted, listening, listen, leave } = create();
    await listen("first");
    await listen("second");
    leave("first");
    clock.advance(LINGER);
    leave("second");
    clock.advance(LINGER); // Unsubscribes from the first one.
    clock.advance(LINGER); // And from the second one, once that is answered.
    wanted.add("second");
    const listened = listening.listen("second");
    await session.answerAll();
    await listened;
    assert.deepEqual([...session.listened], ["second"]);
    assert.deepEqual([...listening.channels], ["second"]);
  });

  for (
    const [title, subscribe] of Object.entries({
      "a subscribe": (listening: Listening) => listening.listen("events"),
      "the subscribe of a new session": (listening: Listening) => listening.resume(["events"]),
    })
  ) {
    it(`unsubscribes from a channel whose last subscriber left during ${title}`, async () => {
      const { clock, session, wanted, listening, leave } = create();
      wanted.add("events");
      const listened = subscribe(listening);
      leave("events");
      clock.advance(2 * LINGER); // As long as a channel without subscribers is listened to.
      await session.answerAll();
      await listened;
      clock.advance(2 * LINGER);
      await session.answerAll();
      assert.deepEqual([[...session.listened], [...listening.channels]], [[], []]);
    });
  }
});
