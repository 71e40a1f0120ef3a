import type { Member } from "../engine.ts";
import type { Item } from "./shards.ts";

type Change = Extract<Item, { type: "presence" }>;

/** Maximum number of members whose last change is kept. Beyond it all are forgotten. */
const MAX_MEMBERS = 10_000;

/** The last change of each member that a relay has reported. A home object that starts again repeats changes. */
export class LastChanges {
  /** By channel and user: the member's data, or {@link LEFT}. */
  readonly #last = new Map<string, Map<string, string | undefined | typeof LEFT>>();
  #count = 0;

  /**
   * Returns the part of the change that is new. Only repeated changes are filtered: before any other, the relay may have missed one, so
   * an equal state does not mean that nothing has changed.
   */
  filterNew({ channel, joined, left, isRepeated }: Change): { joined: readonly Member[]; left: readonly string[] } {
    if (this.#count + joined.length + left.length > MAX_MEMBERS) this.#clear();
    let last = this.#last.get(channel);
    if (!last) this.#last.set(channel, last = new Map());
    const isNew = (user: string, state: string | undefined | typeof LEFT) => {
      const isKnown = last.has(user);
      if (isKnown && isRepeated && last.get(user) === state) return false;
      if (!isKnown) this.#count++;
      last.set(user, state);
      return true;
    };
    return { joined: joined.filter(({ user, data }) => isNew(user, data)), left: left.filter((user) => isNew(user, LEFT)) };
  }

  /** Forgets a channel. Call it when its members are read again, and when its changes no longer arrive. */
  forget(channel: string): void {
    this.#count -= this.#last.get(channel)?.size ?? 0;
    this.#last.delete(channel);
  }

  #clear(): void {
    this.#last.clear();
    this.#count = 0;
  }
}

const LEFT: unique symbol = Symbol("left");
