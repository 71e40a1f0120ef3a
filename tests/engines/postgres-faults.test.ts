import pg from "pg";
import { postgresEngine } from "../../src/engines/postgres/postgres.ts";
import { lacksPostgres, PostgresProcess } from "../support/postgres.ts";
import { faults, NOWHERE } from "./faults.ts";

const urlOf = (port: number) => `postgres://noroshi@127.0.0.1:${port}/postgres`;

faults("postgres, by pg", {
  skip: lacksPostgres(),
  start: (keeps) => PostgresProcess.postgres({ keeps }),
  engine: (port, _, options) => postgresEngine({ client: new pg.Pool({ connectionString: urlOf(port) }), ...options }),
  async inject(port, texts) {
    const client = new pg.Client({ connectionString: urlOf(port) });
    await client.connect();
    for (const { to, channel, text, position: { epoch, offset } = NOWHERE } of texts) {
      // Text in PostgreSQL cannot contain NUL.
      const values = [channel, text.replaceAll("\u0000", "")];
      if (to === "publication") {
        // A notification that names a missing row.
        await client.query("select pg_notify(noroshi_subject('noroshi'), $1)", [`p ${epoch} ${offset} ${channel}`]);
      } else await client.query(`select noroshi_mail('noroshi', '${to}', $1, $2)`, values);
    }
    await client.end();
  },
});
