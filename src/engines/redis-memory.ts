import type { Position } from "../engine.ts";

/** Channels whose last known position a node remembers. */
const MAX_KNOWN = 10_000;

/** What a node knows of the store from one session to the next: where it finds less, something was lost. */
export class RedisMemory {
  /** The run of the server that it was connected to. */
  run = "";
  /** Publications to histories that are persistent, when the last of this node was acknowledged. */
  publications = 0;
  /** Where channels stood. Those used last come last. */
  readonly #positions = new Map<string, Position>();

  remember(channel: string, position: Position): void {
    this.#positions.delete(channel);
    this.#positions.set(channel, position);
    if (this.#positions.size <= MAX_KNOWN) return;
    for (const oldest of this.#positions.keys()) return void this.#positions.delete(oldest);
  }

  /** Where the channel has been for certain. @param position where a subscription is. */
  latest(channel: string, position: Position | undefined): Position | undefined {
    const remembered = this.#positions.get(channel);
    if (!position || !remembered) return position ?? remembered;
    return remembered.epoch === position.epoch && remembered.offset > position.offset ? remembered : position;
  }
}
