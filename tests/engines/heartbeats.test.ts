/** A node publishes its heartbeats to itself: they show whether the connection that receives is alive. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { BrokerListener, BrokerSession } from "../../src/engines/broker/broker.ts";
import { KnownPositions } from "../../src/engines/broker/known-positions.ts";
import type { PostgresConnection } from "../../src/engines/postgres/client.ts";
import { PostgresSession } from "../../src/engines/postgres/session.ts";
import type { RedisConnection } from "../../src/engines/redis/client.ts";
import { RedisMemory } from "../../src/engines/redis/memory.ts";
import { RedisSession } from "../../src/engines/redis/session.ts";

const OPTIONS = {
  node: "a",
  namespace: "noroshi",
  lease: 3_000,
  slack: 0,
  timeout: 1_000,
  now: () => 0,
  positions: () => [],
};

/** Creates a session. @param answering called before a heartbeat is answered. */
type Create = (listener: BrokerListener, answering: () => void) => Promise<{
  session: Pick<BrokerSession, "heartbeat" | "close">;
  /** A heartbeat of the node arrives. */
  receive(count: number): void;
}>;

const SESSIONS: Record<string, Create> = {
  Redis(listener, answering) {
    const connection: RedisConnection = {
      command(name) {
        if (name === "TIME") return Promise.resolve(["1", "0"]);
        answering();
        return Promise.resolve(1);
      },
      subscribe: () => Promise.resolve(),
      unsubscribe: () => Promise.resolve(),
      close() {},
    };
    const session = new RedisSession(connection, connection, "", new RedisMemory(), listener, OPTIONS);
    return Promise.resolve({ session, receive: (count) => session.receive("noroshi:node:a", `${count}`) });
  },
  async PostgreSQL(listener, answering) {
    let notify = (_payload: string) => {};
    const answer = (name: string) => {
      if (name !== "beat") return name === "start" ? 1 : [];
      answering();
      return [true, 1, "run", null];
    };
    const connection: PostgresConnection = {
      query(_text, [, calls]) {
        const answers = (JSON.parse(calls!) as [string][]).map(([name]) => answer(name));
        return Promise.resolve([{ version: "1", answers: JSON.stringify(answers) }]);
      },
      script: () => Promise.resolve(),
      listen(_channel, to) {
        notify = to;
        return Promise.resolve();
      },
      close() {},
    };
    const memory = { positions: new KnownPositions(), run: "", lsn: null };
    const session = new PostgresSession(connection, "public", listener, OPTIONS, memory);
    await session.start("noroshi", () => Promise.resolve(false));
    return { session, receive: (count) => notify(`h ${count} a`) };
  },
};

for (const [name, createSession] of Object.entries(SESSIONS)) {
  describe(`A session with ${name}`, () => {
    /** @param reads whether the node reads its heartbeats, each before the next one is answered. */
    async function create(reads: boolean) {
      const ended: unknown[] = [];
      const ignore = () => {};
      const others = { live: ignore, mark: ignore, member: ignore, message: ignore, malformed: ignore };
      let sent = 0;
      const { session, receive } = await createSession({ ...others, ended: (error) => void ended.push(error) }, () => {
        if (reads) receive(sent);
        sent++;
      });
      return { session, ended };
    }

    it("goes on when a heartbeat is read after the next one is due, as by a process that stood still", async () => {
      const { session, ended } = await create(true);
      for (let count = 0; count < 3; count++) assert.equal(await session.heartbeat(), true);
      assert.deepEqual(ended, []);
      session.close();
    });

    it("ends when a heartbeat has not arrived by the answer to the next one", async () => {
      const { session, ended } = await create(false);
      await session.heartbeat();
      await assert.rejects(session.heartbeat(), /arrives/);
      assert.deepEqual(ended.map(String), [String(ended[0])]);
      session.close();
    });
  });
}
