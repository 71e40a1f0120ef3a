import type { Neighbours } from "./neighbours.ts";
import type { PlacedMember, Present } from "./presence.ts";

/** A member as the broker has it. */
export interface StoredMember extends Present {
  /** Of its envelope. */
  readonly number: number;
}

/** What a roll call needs of its node. */
export interface RollCallHost {
  readonly node: string;
  readonly neighbours: Neighbours;
  /** The members of this node. */
  members(channel: string): PlacedMember[];
  /** Whether the channel is followed, so that whoever leaves is heard of. */
  follows(channel: string): boolean;
  /** One was found that is none. */
  replayed(): void;
}

/** Channels in which members are suspected. */
const MAX_SUSPECTS = 1_000;

/** Confirms the members that a broker has: a copy of one that has left looks as good, so that its node is asked, once. */
export class RollCall {
  readonly #host: RollCallHost;
  /** The numbers of envelopes that are good, by channel and member. */
  readonly #confirmed = new Map<string, Map<string, number>>();
  /** What was stored at the last look and is on no node, by channel. It may have been on its way; what is there twice is a copy. */
  readonly #suspects = new Map<string, ReadonlySet<string>>();
  /** Channels with members whose node did not answer. */
  readonly #unanswered = new Set<string>();

  constructor(host: RollCallHost) {
    this.#host = host;
  }

  /** Whether the channel has members whose node did not answer. */
  isUnanswered(channel: string): boolean {
    return this.#unanswered.has(channel);
  }

  /** A node has said that the member is on it, or has left it. */
  told(channel: string, { node, user, number }: StoredMember, left: boolean): void {
    if (left) this.#confirmed.get(channel)?.delete(keyOf(node, user));
    else this.#of(channel).set(keyOf(node, user), number);
  }

  /** Nobody follows the channel any more, or somebody may have left unheard. */
  forget(channel?: string): void {
    if (channel === undefined) return this.#confirmed.clear();
    this.#confirmed.delete(channel);
    this.#unanswered.delete(channel);
  }

  /** The members among those that the broker has, with those of this node. */
  async confirm(channel: string, stored: readonly StoredMember[]): Promise<Present[]> {
    const { neighbours, node, replayed } = this.#host;
    const before = new Map(this.#confirmed.get(channel));
    const isConfirmed = ({ node, user, number }: StoredMember) => this.#confirmed.get(channel)?.get(keyOf(node, user)) === number;
    const others = stored.filter((member) => member.node !== node);
    const asked = [...new Set(others.filter((member) => !isConfirmed(member)).map((member) => member.node))];
    const answers = asked.length > 0 ? await neighbours.ask(channel, asked) : new Map<string, PlacedMember[]>();
    if (asked.every((node) => answers.has(node))) this.#unanswered.delete(channel);
    else if (this.#host.follows(channel)) this.#unanswered.add(channel);
    const suspects = new Set<string>();
    const present: Present[] = this.#host.members(channel).map((member) => ({ node, ...member }));
    for (const member of stored) {
      const { number, ...rest } = member;
      const said = member.node === node ? present : answers.get(member.node);
      if (!said) {
        if (isConfirmed(member)) present.push(rest);
        continue;
      }
      if (!said.some(({ user, data }) => user === member.user && data === member.data)) {
        const name = `${keyOf(member.node, member.user)}\n${number}`;
        suspects.add(name);
        if (this.#suspects.get(channel)?.has(name)) replayed();
      } else if (member.node !== node && this.#host.follows(channel)) {
        this.#of(channel).set(keyOf(member.node, member.user), number);
      }
    }
    this.#suspects.delete(channel);
    if (suspects.size > 0 && this.#suspects.size < MAX_SUSPECTS) this.#suspects.set(channel, suspects);
    const confirmed = this.#confirmed.get(channel);
    const kept = new Set(stored.map(({ node, user }) => keyOf(node, user)));
    for (const [key, number] of before) if (!kept.has(key) && confirmed?.get(key) === number) confirmed.delete(key);
    for (const [node, members] of answers) for (const member of members) present.push({ node, ...member });
    return present;
  }

  #of(channel: string): Map<string, number> {
    let confirmed = this.#confirmed.get(channel);
    if (!confirmed) this.#confirmed.set(channel, confirmed = new Map());
    return confirmed;
  }
}

// The name of a node has no line.
const keyOf = (node: string, user: string): string => `${node}\n${user}`;
