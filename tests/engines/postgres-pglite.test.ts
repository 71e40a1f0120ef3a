import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { connectPostgres } from "../../src/engines/postgres/client.ts";
import { postgresEngine } from "../../src/engines/postgres/postgres.ts";
import { createPGlite } from "../support/pglite.ts";
import { Stall } from "../support/waiting.ts";
import { brokerFixture, startNode } from "./broker-fixture.ts";
import { conformance } from "./conformance.ts";
import { FAST, TIMEOUT } from "./postgres-fixture.ts";

conformance("postgres, by PGlite", {
  nodes: 4,
  channels: 200,
  async create() {
    const client = await createPGlite();
    const fixture = brokerFixture(
      // A longer lease, because PGlite runs in this process with all nodes.
      () => postgresEngine({ client, ...FAST, lease: 12_000 }),
      async () => void await client.exec("truncate noroshi_channels, noroshi_publications"),
    );
    return {
      ...fixture,
      async close() {
        await fixture.close();
        await client.close();
      },
    };
  },
});

describe("The engine over PGlite", () => {
  it("lets timers run between consecutive calls", TIMEOUT, async () => {
    const client = await createPGlite();
    const { engine } = await startNode(postgresEngine({ client, ...FAST }));
    let turns = 0;
    const timer = setInterval(() => turns++, 1);
    for (let number = 0; number < 300; number++) await engine.publish("room", { event: "say", data: `${number}` }, null);
    clearInterval(timer);
    await engine.close();
    await client.close();
    assert.ok(turns > 1, `${turns} turns`);
  });

  it("stops listening when it is closed before its listen has resolved", TIMEOUT, async () => {
    const listening = new Stall<() => Promise<void>>();
    const did: string[] = [];
    const client = {
      waitReady: Promise.resolve(),
      query: () => Promise.resolve({ rows: [] }),
      exec: () => Promise.resolve(),
      listen: () => listening.promise,
    };
    const connection = await connectPostgres(client, client, () => {}, new AbortController().signal);
    const listened = connection.listen("channel", () => {});
    connection.close();
    listening.resolve(() => Promise.resolve(void did.push("unlisten")));
    await listened;
    assert.deepEqual(did, ["unlisten"]);
  });
});
