import { WebSocketError } from "../protocol/errors.ts";
import type { Position, PublishOnce } from "./engine.ts";

/** Maximum number of ids that an engine in this process keeps. */
export const MAX_IDS = 100_000;

/** The error of a publication whose id cannot be kept. Nothing was published. */
export function tooManyIds(): WebSocketError {
  return new WebSocketError("engine", "LIMIT_EXCEEDED", `Cannot publish once: ${MAX_IDS} ids are remembered, try again later`);
}

/** The ids of recent publications, in memory. */
export class PublishedIds {
  /** By channel and id, in the order of publication. */
  readonly #ids = new Map<string, { readonly position: Position | null; readonly until: number }>();

  /** Number of ids, including expired ones that are not removed yet. */
  get size(): number {
    return this.#ids.size;
  }

  /**
   * Returns the position of the publication with this id; `undefined` if there is none.
   *
   * @param now the wall clock in ms, also in the other methods.
   */
  find(channel: string, { id }: PublishOnce, now: number): Position | null | undefined {
    this.expire(now);
    const known = this.#ids.get(keyOf(channel, id));
    return known && known.until > now ? known.position : undefined;
  }

  /** @throws {WebSocketError} LIMIT_EXCEEDED if there is no room for another id. Dropping one could publish it twice. */
  checkRoom(): void {
    if (this.#ids.size >= MAX_IDS) throw tooManyIds();
  }

  add(channel: string, { id, window }: PublishOnce, position: Position | null, now: number): void {
    if (this.#ids.size < MAX_IDS) this.#ids.set(keyOf(channel, id), { position, until: now + window });
  }

  /** Removes expired ids from the oldest on, until one that has not expired. */
  expire(now: number): void {
    for (const [key, { until }] of this.#ids) {
      if (until > now) return;
      this.#ids.delete(key);
    }
  }

  clear(): void {
    this.#ids.clear();
  }
}

// Channel names have no space.
const keyOf = (channel: string, id: string): string => `${channel} ${id}`;
