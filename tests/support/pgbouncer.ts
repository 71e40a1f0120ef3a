import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { BrokerProcess, findProgram, freePort, lacks } from "./brokers.ts";
import { asUser, giveTo, lacksPostgres } from "./postgres.ts";

/** Why a test that needs PgBouncer is skipped; `false` when it is there. */
export const lacksPgBouncer = (): string | false => lacksPostgres() || lacks("pgbouncer");

/** PgBouncer in transaction mode, before a PostgreSQL. */
export class PgBouncerProcess extends BrokerProcess {
  private constructor(port: number, server: number) {
    const [command] = asUser(findProgram("pgbouncer")!, []); // Checked by the caller.
    const args = (port: number, folder: string) => {
      writeFileSync(join(folder, "users.txt"), '"noroshi" ""\n');
      writeFileSync(
        join(folder, "pgbouncer.ini"),
        `
[databases]
postgres = host=127.0.0.1 port=${server}

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = ${port}
unix_socket_dir =
auth_type = trust
auth_file = ${join(folder, "users.txt")}
pool_mode = transaction
default_pool_size = 3
; After a restart of the server, in s.
server_login_retry = 1
`,
      );
      return asUser(findProgram("pgbouncer")!, [join(folder, "pgbouncer.ini")])[1]; // As above.
    };
    super(port, command, args, /process up/);
  }

  /** @param server the port of the PostgreSQL. */
  static async before(server: number): Promise<PgBouncerProcess> {
    const bouncer = new PgBouncerProcess(await freePort(), server);
    giveTo(bouncer.folder);
    await bouncer.start();
    return bouncer;
  }

  get url(): string {
    return `postgres://noroshi@127.0.0.1:${this.port}/postgres`;
  }
}
