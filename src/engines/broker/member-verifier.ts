import type { Neighbours } from "./neighbours.ts";
import type { NodeMember, RankedMember } from "./presence.ts";

/** A member that is stored at the broker. */
export interface StoredMember extends NodeMember {
  /** The number of its envelope. */
  readonly number: number;
}

/** What {@link MemberVerifier} needs from its engine. */
export interface MemberVerifierHost {
  readonly node: string;
  readonly neighbours: Neighbours;
  /** The members of a channel on this node. */
  members(channel: string): RankedMember[];
  /** Whether this node is subscribed to the channel, and so receives leaves. */
  follows(channel: string): boolean;
  /** Called when a stored member turned out to be a replayed copy. */
  replayed(): void;
}

/** Maximum number of channels with suspects. */
const MAX_SUSPECTS = 1_000;

/** Asks the nodes of stored members to confirm them, once each, because a replayed copy of a member that has left has a valid signature. */
export class MemberVerifier {
  readonly #host: MemberVerifierHost;
  /** By channel and member: the number of the confirmed envelope. */
  readonly #confirmed = new Map<string, Map<string, number>>();
  /** By channel: stored members that their node did not report at the last read. After a second time they count as copies; once may be due to a leave. */
  readonly #suspects = new Map<string, ReadonlySet<string>>();
  /** Channels with members whose node did not answer. */
  readonly #unanswered = new Set<string>();

  constructor(host: MemberVerifierHost) {
    this.#host = host;
  }

  /** Whether the channel has members whose node did not answer. */
  isUnanswered(channel: string): boolean {
    return this.#unanswered.has(channel);
  }

  /** Records that a node has announced a member or a leave. */
  changed(channel: string, { node, user, number }: StoredMember, left: boolean): void {
    if (left) this.#confirmed.get(channel)?.delete(keyOf(node, user));
    else this.#confirmedOf(channel).set(keyOf(node, user), number);
  }

  /** Forgets the confirmed members of a channel that is no longer subscribed to, or of all channels after leaves may have been lost. */
  forget(channel?: string): void {
    if (channel === undefined) return this.#confirmed.clear();
    this.#confirmed.delete(channel);
    this.#unanswered.delete(channel);
  }

  /** Returns the confirmed stored members, and the members that the queried nodes report. */
  async confirm(channel: string, stored: readonly StoredMember[]): Promise<NodeMember[]> {
    const { neighbours, node, replayed } = this.#host;
    const before = new Map(this.#confirmed.get(channel));
    const isConfirmed = ({ node, user, number }: StoredMember) => this.#confirmed.get(channel)?.get(keyOf(node, user)) === number;
    const others = stored.filter((member) => member.node !== node);
    const queried = [...new Set(others.filter((member) => !isConfirmed(member)).map((member) => member.node))];
    const answers = queried.length > 0 ? await neighbours.queryMembers(channel, queried) : new Map<string, RankedMember[]>();
    if (queried.every((node) => answers.has(node))) this.#unanswered.delete(channel);
    else if (this.#host.follows(channel)) this.#unanswered.add(channel);
    const suspects = new Set<string>();
    const confirmedMembers: NodeMember[] = this.#host.members(channel).map((member) => ({ node, ...member }));
    for (const member of stored) {
      const { number, ...rest } = member;
      const reported = member.node === node ? confirmedMembers : answers.get(member.node);
      if (!reported) {
        if (isConfirmed(member)) confirmedMembers.push(rest);
        continue;
      }
      if (!reported.some(({ user, data }) => user === member.user && data === member.data)) {
        const name = `${keyOf(member.node, member.user)}\n${number}`;
        suspects.add(name);
        if (this.#suspects.get(channel)?.has(name)) replayed();
      } else if (member.node !== node && this.#host.follows(channel)) {
        this.#confirmedOf(channel).set(keyOf(member.node, member.user), number);
      }
    }
    this.#suspects.delete(channel);
    if (suspects.size > 0 && this.#suspects.size < MAX_SUSPECTS) this.#suspects.set(channel, suspects);
    const confirmed = this.#confirmed.get(channel);
    const stillStored = new Set(stored.map(({ node, user }) => keyOf(node, user)));
    for (const [key, number] of before) if (!stillStored.has(key) && confirmed?.get(key) === number) confirmed.delete(key);
    for (const [node, members] of answers) for (const member of members) confirmedMembers.push({ node, ...member });
    return confirmedMembers;
  }

  #confirmedOf(channel: string): Map<string, number> {
    let confirmed = this.#confirmed.get(channel);
    if (!confirmed) this.#confirmed.set(channel, confirmed = new Map());
    return confirmed;
  }
}

// Names of nodes have no line break.
const keyOf = (node: string, user: string): string => `${node}\n${user}`;
