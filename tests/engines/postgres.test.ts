import pg from "pg";
import postgres from "postgres";
import { postgresEngine, type PostgresEngineOptions } from "../../src/engines/postgres/postgres.ts";
import { lacksPostgres, PostgresProcess } from "../support/postgres.ts";
import { brokerFixture } from "./broker-fixture.ts";
import { conformance } from "./conformance.ts";
import { FAST } from "./postgres-fixture.ts";

/** The client of one node, with a way to end it. */
interface Client {
  options: PostgresEngineOptions;
  end(): Promise<unknown>;
}

const CLIENTS: Record<string, (url: string) => Client> = {
  "pg, a pool": (url) => {
    const client = new pg.Pool({ connectionString: url });
    return { options: { client }, end: () => client.end() };
  },
  "pg, a client, signed, in a schema of its own": (url) => {
    const client = new pg.Client({ connectionString: url });
    return { options: { client, secret: "a secret of the tests", schema: "chat" }, end: () => Promise.resolve() };
  },
  "postgres": (url) => {
    const client = postgres(url, { onnotice: () => {} });
    return { options: { client }, end: () => client.end({ timeout: 0 }) };
  },
};

for (const [library, clientOf] of Object.entries(CLIENTS)) {
  conformance(`postgres, by ${library}`, {
    nodes: 4,
    skip: lacksPostgres(),
    async create() {
      const broker = await PostgresProcess.postgres();
      const ends: Client["end"][] = [];
      const fixture = brokerFixture(() => {
        const { options, end } = clientOf(broker.url);
        ends.push(end);
        return postgresEngine({ ...options, ...FAST });
      }, () => broker.restart());
      return {
        ...fixture,
        async close() {
          await fixture.close();
          await Promise.all(ends.map((end) => end()));
          await broker.close();
        },
      };
    },
  });
}
