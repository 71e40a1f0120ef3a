/** What PostgreSQL can lose: everything, a channel, changes after a backup, and changes that a standby had not received. */
import { rmSync } from "node:fs";
import { join } from "node:path";
import pg from "pg";
import { postgresEngine } from "../../src/engines/postgres/postgres.ts";
import { lacksPostgres, PostgresProcess } from "../support/postgres.ts";
import { Proxy } from "../support/proxy.ts";
import { until } from "../support/waiting.ts";
import { type BrokerNode, startNode } from "./broker-fixture.ts";
import { type Loss, losses } from "./losses.ts";

/** Quick to notice all but silence: a busy machine keeps a server or a node silent for a while. */
const FAST = { lease: 6_000, checkInterval: 300, linger: 300, timeout: 10_000 };

const urlOf = (port: number) => `postgres://noroshi@127.0.0.1:${port}/postgres`;

/** Asks the server as an operator does. */
async function ask(server: PostgresProcess, text: string): Promise<Record<string, unknown>[]> {
  const client = new pg.Client({ connectionString: server.url });
  await client.connect();
  try {
    return (await client.query(text)).rows;
  } finally {
    await client.end();
  }
}

losses("postgres", {
  skip: lacksPostgres(),
  losses: ["all", "older", "behind", "channel", "empty"],
  async create(loss: Loss) {
    const nodes: BrokerNode[] = [];
    const server = await PostgresProcess.postgres({ keeps: loss !== "empty" });
    const [door, replication] = [await Proxy.open(server.port), await Proxy.open(server.port)];
    const standby = loss === "behind" ? await server.standby(replication.port) : undefined;
    const copy = join(server.folder, "copy");
    return {
      async node() {
        const client = new pg.Pool({ connectionString: urlOf(door.port) });
        const node = await startNode(postgresEngine({ client, ...FAST }));
        nodes.push(node);
        return node;
      },
      async copy() {
        if (loss === "older") await server.backup(copy);
        if (!standby) return;
        // The standby has everything so far, and receives nothing from here on.
        const [row] = await ask(server, "select pg_current_wal_flush_lsn()::text as lsn");
        const reached = `select pg_last_wal_replay_lsn() >= '${row!["lsn"]}'::pg_lsn as reached`; // It has one row.
        await until(async () => (await ask(standby, reached))[0]!["reached"] as boolean);
        replication.freeze();
      },
      async lose(channel) {
        if (loss === "all") {
          await ask(server, "truncate noroshi_state, noroshi_channels, noroshi_publications, noroshi_nodes, noroshi_members");
        } else if (loss === "channel") {
          await ask(server, `delete from noroshi_channels where name = '${channel}'`);
        } else if (standby) {
          await ask(standby, "select pg_promote()");
          door.target = standby.port;
          door.cut();
        } else {
          await server.stop();
          if (loss === "older") {
            rmSync(server.data, { recursive: true, force: true });
            await server.copy(copy, server.data);
          }
          await server.start();
        }
      },
      async close() {
        await Promise.all(nodes.map(({ engine }) => engine.close()));
        await Promise.all([door.close(), replication.close()]);
        await Promise.all([server.close(), standby?.close()]);
      },
    };
  },
});
