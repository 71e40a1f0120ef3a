import type { Connection } from "./connection.ts";

/** Open connections that can be ended together: those of a controller, or those of a server. */
export class Connections {
  readonly #open = new Set<Connection>();
  #whenEmpty: (() => void)[] = [];

  get size(): number {
    return this.#open.size;
  }

  add(connection: Connection): void {
    this.#open.add(connection);
    connection.onClosed(this);
  }

  delete(connection: Connection): void {
    this.#open.delete(connection);
    if (this.#open.size > 0) return;
    for (const resolve of this.#whenEmpty.splice(0)) resolve();
  }

  [Symbol.iterator](): IterableIterator<Connection> {
    return this.#open.values();
  }

  /** Closes all; resolves when the last one is gone, which takes at most the controller's `closeTimeout`. */
  closeAll(code: number, reason: string): Promise<void> {
    for (const connection of [...this.#open]) connection.close(code, reason);
    return new Promise((resolve) => {
      if (this.#open.size === 0) resolve();
      else this.#whenEmpty.push(resolve);
    });
  }
}
