import type { Connection } from "./connection.ts";
import type { BroadcastFilter } from "./broadcast.ts";
import type { DisconnectFilter } from "./revocations.ts";

/** Open connections that can be ended together: those of a controller, or those of a server. */
export class Connections {
  readonly #open = new Set<Connection>();
  #whenEmpty: (() => void)[] = [];
  #closing: { code: number; reason: string } | undefined;

  get size(): number {
    return this.#open.size;
  }

  /** Holds it, as its server does, until it is closed. */
  add(connection: Connection): void {
    this.hold(connection);
    connection.onClosed(this);
  }

  /** Holds it until {@link delete} is called. */
  hold(connection: Connection): void {
    this.#open.add(connection);
    // It was being verified while the others were closed.
    if (this.#closing) connection.close(this.#closing.code, this.#closing.reason, "drain");
  }

  delete(connection: Connection): void {
    this.#open.delete(connection);
    if (this.#open.size > 0) return;
    for (const resolve of this.#whenEmpty.splice(0)) resolve();
  }

  [Symbol.iterator](): Iterator<Connection> {
    return this.#open[Symbol.iterator]();
  }

  /** Those of a user, of a role, of both, or of one client; a list, for what is done to them may close them. */
  matching({ user, role, uid }: DisconnectFilter): Connection[] {
    return [...this.#open].filter(({ accountability, client }) =>
      (user === undefined || accountability.user === user) && (role === undefined || accountability.role === role) &&
      (uid === undefined || client.uid === uid)
    );
  }

  /** Those clients of a filter that were admitted, as nodes tell each other. */
  admitted(filter: BroadcastFilter): { uid: string; user: string | null; role: string | null }[] {
    return this.matching(filter).filter(({ isPending }) => !isPending).map(({ client, accountability: { user, role } }) => ({
      uid: client.uid,
      user,
      role,
    }));
  }

  /** Closes all, and those that are added later; resolves when the last one is gone, at most the controller's `closeTimeout` later. */
  closeAll(code: number, reason: string): Promise<void> {
    this.#closing = { code, reason };
    for (const connection of [...this.#open]) connection.close(code, reason, "drain");
    return new Promise((resolve) => {
      if (this.#open.size === 0) resolve();
      else this.#whenEmpty.push(resolve);
    });
  }
}
