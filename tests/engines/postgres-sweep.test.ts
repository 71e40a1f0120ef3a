import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { BrokerListener } from "../../src/engines/broker/broker.ts";
import { KnownPositions } from "../../src/engines/broker/known-positions.ts";
import type { PostgresConnection } from "../../src/engines/postgres/client.ts";
import { PARTS, PostgresSession } from "../../src/engines/postgres/session.ts";
import { Stall, turn } from "../support/waiting.ts";

describe("A session of PostgreSQL", () => {
  it("removes all that has expired at the second heartbeat, and sweeps again only parts that may have more", async () => {
    const swept: string[][] = [];
    const over = new Stall();
    let notify = (_payload: string) => {};
    let beats = 0;
    const answer = (name: string, parts: string[]): unknown => {
      if (name === "start") return 1;
      if (name === "beat") {
        notify(`h ${++beats} a`);
        return [true, 1, "run", null];
      }
      swept.push(parts);
      if (swept.length === 1) return [];
      if (swept.length === 4) over.resolve();
      return swept.length < 4 ? parts.filter((part) => part === "ids" || part === "mail" && swept.length === 2) : [];
    };
    const connection: PostgresConnection = {
      query: (_text, [, calls]) => {
        const answers = (JSON.parse(calls!) as [string, string[]][]).map(([name, parts]) => answer(name, parts));
        return Promise.resolve([{ version: "1", answers: JSON.stringify(answers) }]);
      },
      script: () => Promise.resolve(),
      listen: (_channel, to) => {
        notify = to;
        return Promise.resolve();
      },
      close() {},
    };
    const ignore = () => {};
    const listener: BrokerListener = {
      live: ignore,
      mark: ignore,
      member: ignore,
      message: ignore,
      malformed: ignore,
      ended: (error) => over.reject(error),
    };
    const options = {
      node: "a",
      namespace: "noroshi",
      lease: 3_000,
      slack: 0,
      timeout: 1_000,
      now: Date.now,
      positions: () => [],
    };
    const session = new PostgresSession(connection, "public", listener, options, {
      positions: new KnownPositions(),
      run: "",
      lsn: null,
    });
    await session.start("noroshi", () => Promise.resolve(false));
    await session.heartbeat();
    await turn(); // The sweep of the first heartbeat has begun.
    await session.heartbeat();
    await over.promise;
    session.close();
    assert.deepEqual(swept, [["mail"], PARTS, ["mail", "ids"], ["ids"]]);
  });
});
