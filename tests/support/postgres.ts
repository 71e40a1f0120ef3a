import { execFile } from "node:child_process";
import { chownSync, cpSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { promisify } from "node:util";
import { BrokerProcess, findProgram, freePort } from "./brokers.ts";
import { sharedPath } from "./shared.ts";

const run = promisify(execFile);

/** Debian keeps its programs out of the PATH, a folder for each version. */
function findPostgres(name: string): string | undefined {
  const all = "/usr/lib/postgresql";
  const versions = existsSync(all) ? readdirSync(all).sort((one, other) => Number(other) - Number(one)) : [];
  return versions.map((version) => join(all, version, "bin", name)).find((path) => existsSync(path)) ?? findProgram(name);
}

/** Why a test that needs PostgreSQL is skipped; `false` when it is there. */
export const lacksPostgres = (): string | false =>
  findPostgres("postgres") === undefined && "PostgreSQL is not installed: on Debian, apt-get install postgresql";

/** It refuses to run as root: then it runs as the user that Debian's package has made. */
export function asUser(command: string, args: readonly string[]): [command: string, args: string[]] {
  if (process.getuid?.() !== 0) return [command, [...args]];
  return ["setpriv", ["--reuid=postgres", "--regid=postgres", "--clear-groups", command, ...args]];
}

export function giveTo(folder: string): void {
  if (process.getuid?.() !== 0) return;
  const [, , uid, gid] = /^postgres:.*$/m.exec(readFileSync("/etc/passwd", "utf8"))![0].split(":"); // Of Debian's package.
  chownSync(folder, Number(uid), Number(gid));
}

/** An empty cluster, which each server copies: to make one takes a second or more. */
const findTemplate = (): Promise<string> => sharedPath("postgres", makeTemplate);

async function makeTemplate(path: string): Promise<void> {
  // Its user may not enter the shared folder.
  const folder = mkdtempSync(join(tmpdir(), "noroshi-postgres-"));
  giveTo(folder);
  const data = join(folder, "data");
  const args = ["-D", data, "-U", "noroshi", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"];
  await run(...asUser(findPostgres("initdb")!, args)); // Checked by the caller.
  await copyFolder(data, path);
  rmSync(folder, { recursive: true, force: true });
}

/** Copies a data folder, with its owner. */
async function copyFolder(from: string, to: string): Promise<void> {
  if (process.getuid?.() === 0) await run("cp", ["-a", from, to]);
  else cpSync(from, to, { recursive: true });
}

/** PostgreSQL, on a port that was free, in a folder of its own. */
export class PostgresProcess extends BrokerProcess {
  readonly #keeps: boolean;

  private constructor(port: number, keeps: boolean, flags: readonly string[]) {
    const settings = {
      listen_addresses: "127.0.0.1",
      unix_socket_directories: "",
      max_connections: "200",
      // A process that is killed loses nothing that the system has.
      fsync: "off",
      // Its own words, whatever the locale.
      lc_messages: "C",
    };
    const args = (port: number, folder: string) => {
      const all = Object.entries(settings).flatMap(([name, value]) => ["-c", `${name}=${value}`]);
      return asUser(findPostgres("postgres")!, ["-D", join(folder, "data"), "-p", `${port}`, ...all, ...flags])[1]; // Checked by the caller.
    };
    super(port, asUser(findPostgres("postgres")!, [])[0], args, /database system is ready to accept (?:read-only )?connections/);
    this.#keeps = keeps;
  }

  /** @param keeps whether it outlives a restart; else another, empty one is there. @param flags more flags, such as `-c fsync=on`. */
  static async postgres(
    { keeps = false, flags = [] }: { keeps?: boolean; flags?: readonly string[] } = {},
  ): Promise<PostgresProcess> {
    const broker = new PostgresProcess(await freePort(), keeps, flags);
    giveTo(broker.folder);
    await broker.start();
    return broker;
  }

  get url(): string {
    return `postgres://noroshi@127.0.0.1:${this.port}/postgres`;
  }

  /** Its data folder. */
  get data(): string {
    return join(this.folder, "data");
  }

  override async start(): Promise<void> {
    if (!this.#keeps || !existsSync(this.data)) {
      const from = await findTemplate();
      rmSync(this.data, { recursive: true, force: true });
      await this.copy(from, this.data);
    }
    rmSync(join(this.data, "postmaster.pid"), { force: true });
    await super.start();
  }

  /** A copy of the data as it is now, while it runs. @param flags more flags of pg_basebackup, such as of a standby. */
  async backup(to: string, port: number = this.port, flags: readonly string[] = []): Promise<void> {
    const args = ["-D", to, "-h", "127.0.0.1", "-p", `${port}`, "-U", "noroshi", "--checkpoint=fast", "--no-sync", ...flags];
    await run(...asUser(findPostgres("pg_basebackup")!, args)); // Beside the server.
  }

  /** A standby of it that follows by this port. */
  async standby(port: number): Promise<PostgresProcess> {
    const standby = new PostgresProcess(await freePort(), true, []);
    giveTo(standby.folder);
    await this.backup(standby.data, port, ["--write-recovery-conf"]);
    await standby.start();
    return standby;
  }

  /** Copies a data folder, with its owner. */
  async copy(from: string, to: string): Promise<void> {
    await copyFolder(from, to);
  }

  /** Of all its processes: it has one for each connection, which a signal to the first does not reach. */
  override signal(signal: NodeJS.Signals): void {
    for (const pid of [...childrenOf(this.pid), ...(this.pid === undefined ? [] : [this.pid])]) {
      try {
        process.kill(pid, signal);
      } catch {
        // It has ended meanwhile.
      }
    }
  }

  override async stop(signal: NodeJS.Signals = "SIGKILL"): Promise<void> {
    const { pid } = this;
    const children = childrenOf(pid);
    if (signal === "SIGKILL") this.signal("SIGKILL");
    await super.stop(signal);
    // The memory that they share is free once all are gone.
    while (children.some((pid) => existsSync(`/proc/${pid}`) && isAlive(pid))) {
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
    await this.#removeSegment(pid);
  }

  /** Removes the shared memory of a server that was killed. Linux has 4,096 such segments, and PostgreSQL does not start without a free one. */
  async #removeSegment(pid: number | undefined): Promise<void> {
    const file = join(this.data, "postmaster.pid"); // Removed by a server that shuts down.
    const lines = existsSync(file) ? readFileSync(file, "utf8").split("\n") : [];
    // A copy of another server's data has the file of that server.
    if (lines[0] !== `${pid}`) return;
    const id = lines[6]?.match(/\d+$/)?.[0];
    // A server that sees its processes end may have removed the segment already.
    if (id !== undefined) await run("ipcrm", ["-m", id]).catch(() => {});
  }
}

function childrenOf(pid: number | undefined): number[] {
  if (pid === undefined) return [];
  try {
    return readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8").trim().split(" ").filter(Boolean).map(Number);
  } catch {
    return []; // It has ended.
  }
}

/** Whether the process runs: one that nobody has waited for yet is in the list all the same. */
function isAlive(pid: number): boolean {
  try {
    return !/^State:\s+[ZX]/m.test(readFileSync(`/proc/${pid}/status`, "utf8"));
  } catch {
    return false; // It has ended.
  }
}
