import type { Connection } from "./connection.ts";
import type { BroadcastFilter } from "../delivery/broadcast.ts";
import type { DisconnectFilter } from "./revocations.ts";
import type { WebSocketClient } from "../application/websocket-client.ts";

/** Open connections that can be closed together: those of a controller or of a server. */
export class Connections {
  /** Controllers that requests have reached so far, which a server closes when it closes. */
  readonly controllers: Set<object> = new Set();
  /** Called with each controller that a request reaches for the first time. */
  onReached: ((controller: object) => void) | undefined;
  readonly #open = new Set<Connection>();
  #whenEmpty: (() => void)[] = [];
  #closing: { code: number; reason: string } | undefined;

  get size(): number {
    return this.#open.size;
  }

  /** Whether {@link closeAll} has been called. */
  get isClosing(): boolean {
    return this.#closing !== undefined;
  }

  /** Called when a request has reached the controller. */
  reached(controller: object): void {
    if (this.controllers.has(controller)) return;
    this.controllers.add(controller);
    this.onReached?.(controller);
  }

  /** Adds a connection of the controller until it closes. */
  add(connection: Connection, controller?: object): void {
    if (controller) this.reached(controller);
    this.hold(connection);
    connection.onClosed(this);
  }

  /** Adds a connection until {@link delete} is called. */
  hold(connection: Connection): void {
    this.#open.add(connection);
    // The upgrade was under way during `closeAll`.
    if (this.#closing) connection.close(this.#closing.code, this.#closing.reason, "drain");
  }

  delete(connection: Connection): void {
    this.#open.delete(connection);
    if (this.#open.size > 0 || this.#whenEmpty.length === 0) return;
    for (const resolve of this.#whenEmpty.splice(0)) resolve();
  }

  [Symbol.iterator](): Iterator<Connection> {
    return this.#open[Symbol.iterator]();
  }

  /** The matching connections, as a copy, because the caller may close them. */
  matching({ user, role, uid }: DisconnectFilter): Connection[] {
    return [...this.#open].filter(({ accountability, client }) =>
      (user === undefined || accountability.user === user) && (role === undefined || accountability.role === role) &&
      (uid === undefined || client.uid === uid)
    );
  }

  /** The admitted clients that match. */
  admitted(filter: BroadcastFilter): WebSocketClient[] {
    return this.matching(filter).filter(({ isPending }) => !isPending).map(({ client }) => client);
  }

  /** Closes all connections, also those that are added later. Resolves when the last one is gone, within the controller's `closeTimeout`. */
  closeAll(code: number, reason: string): Promise<void> {
    this.#closing = { code, reason };
    for (const connection of [...this.#open]) connection.close(code, reason, "drain");
    return this.emptied();
  }

  /** Resolves when there is no connection. */
  emptied(): Promise<void> {
    return new Promise((resolve) => {
      if (this.#open.size === 0) resolve();
      else this.#whenEmpty.push(resolve);
    });
  }
}
