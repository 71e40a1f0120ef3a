/** A publisher over PostgreSQL connects only to publish. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import pg from "pg";
import { postgresEngine } from "../../src/engines/postgres/postgres.ts";
import { createPublisher } from "../../src/publisher/publisher.ts";
import { lacksPostgres } from "../support/postgres.ts";
import { turn } from "../support/waiting.ts";
import { FAST, TIMEOUT, usePostgres } from "./postgres-fixture.ts";

const HISTORY = { size: 100, ttl: 300_000 };

describe("A publisher over PostgreSQL", { skip: lacksPostgres() }, () => {
  const on = usePostgres();

  /** A publisher, and its statements and connections. */
  function create(secret?: string) {
    const statements: string[] = [];
    let connections = 0;
    class Client extends pg.Client {
      constructor(options: pg.ClientConfig) {
        super(options);
        connections++;
      }

      override query(...query: unknown[]): never {
        statements.push(String((query[1] as unknown[] | undefined)?.[1] ?? query[0]));
        return (super.query as (...query: unknown[]) => never).apply(this, query);
      }
    }
    const pool = new pg.Pool({ connectionString: on.broker.url, application_name: "publisher" });
    const client = Object.assign(pool, { Client }) as unknown as pg.Pool; // The engine makes its connections with it.
    const engine = postgresEngine({ client, ...FAST, ...(secret !== undefined && { secret }) });
    const publisher = createPublisher({ engine, channels: { kept: { history: HISTORY }, "*": {} }, onError() {} });
    return { publisher, statements, connections: () => connections };
  }

  it("needs one connection and two statements for the first publication, and is not listed as a node", TIMEOUT, async () => {
    const { node } = on;
    await node.engine.subscribe("kept", HISTORY);
    await node.engine.subscribe("room", null);
    const { publisher, statements, connections } = create();
    const position = await publisher.publish("kept", "say", 1);
    assert.deepEqual([connections(), statements.map((text) => /^\[\["(\w+)"/.exec(text)?.[1])], [1, ["start", "append"]]);
    await publisher.publish("room", "say", 2);
    await publisher.broadcast({ type: "news" });
    await node.host.until(() => node.host.data("kept").at(-1) === 1 && node.host.data("room").at(-1) === 2);
    await node.host.until(() => node.host.messages.some((text) => text.includes("news")));
    assert.deepEqual(node.host.publications("kept").at(-1)?.position, position);
    assert.deepEqual(await node.engine.nodes(), [node.host.node]);
    await publisher.close();
    assert.equal(statements.some((text) => /listen|"beat"|"retire"/.test(text)), false);
  });

  it("listens on a second connection when it has a secret, because nodes ask it for its numbers", TIMEOUT, async () => {
    const { publisher, connections } = create("a secret of the tests");
    await publisher.publish("other", "say", 1);
    assert.equal(connections(), 2);
    await publisher.close();
  });

  it("reconnects after it has lost its connection", TIMEOUT, async () => {
    const { publisher, connections } = create();
    await publisher.publish("kept", "say", 1);
    await on.client.query("select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'publisher'");
    for (let isPublished = false; !isPublished;) {
      isPublished = await publisher.publish("kept", "say", 2).then(() => true, () => false);
      await turn();
    }
    assert.equal(connections() >= 2, true);
    await publisher.close();
  });
});
