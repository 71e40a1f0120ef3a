import type { Position } from "../engine.ts";

/** Maximum number of channels whose last known position is kept. */
const MAX_KNOWN = 10_000;

/** The last known position of each channel. A broker that is behind it has lost data. */
export class KnownPositions {
  /** By channel, in the order of their last use. */
  readonly #positions = new Map<string, Position>();

  remember(channel: string, position: Position): void {
    this.#positions.delete(channel);
    this.#positions.set(channel, position);
    if (this.#positions.size <= MAX_KNOWN) return;
    for (const oldest of this.#positions.keys()) return void this.#positions.delete(oldest);
  }

  /** The latest position that the channel is known to have had. @param position the position of the subscription. */
  latest(channel: string, position: Position | undefined): Position | undefined {
    const remembered = this.#positions.get(channel);
    if (!position || !remembered) return position ?? remembered;
    return remembered.epoch === position.epoch && remembered.offset > position.offset ? remembered : position;
  }
}
