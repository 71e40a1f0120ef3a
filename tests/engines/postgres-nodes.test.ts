import pg from "pg";
import { postgresEngine } from "../../src/engines/postgres/postgres.ts";
import { lacksPostgres, PostgresProcess } from "../support/postgres.ts";
import { FAST, nodes } from "./nodes.ts";

nodes("PostgreSQL", {
  skip: lacksPostgres(),
  start: () => PostgresProcess.postgres(),
  engine(port) {
    const client = new pg.Pool({ connectionString: `postgres://noroshi@127.0.0.1:${port}/postgres` });
    return postgresEngine({ client, ...FAST });
  },
});
