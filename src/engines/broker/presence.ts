/** The members of channels: on all nodes ({@link PresenceSet}), on this node ({@link OwnMembers}), and in envelopes. */
import * as v from "valibot";
import type { Member } from "../engine.ts";
import { isJson, parse } from "./envelope.ts";

const MemberBody = v.object({
  user: v.pipe(v.string(), v.minLength(1), v.maxLength(512)),
  data: v.optional(v.pipe(v.string(), v.check(isJson))),
  place: v.optional(v.pipe(v.number(), v.safeInteger(), v.minValue(0))),
  left: v.optional(v.boolean()),
});

/** A member whose data has a rank among the data that all nodes have for the user. On the wire, the rank is called `place`. */
export interface RankedMember extends Member {
  /**
   * Greater for newer data, as far as the node knew. A logical clock, so that wall clocks of nodes are not compared. Absent without data,
   * and from nodes of an earlier version.
   */
  readonly rank?: number;
}

/** A member as nodes send it to each other. */
export interface WireMember {
  readonly user: string;
  readonly data?: string | undefined;
  readonly place?: number | undefined;
}

/** Parses the body of a `member` envelope. Returns `null` if it is malformed. */
export function parseMember(body: string): { readonly member: RankedMember; readonly left: boolean } | null {
  const parsed = parse(MemberBody, body);
  return parsed && { member: fromWire(parsed), left: parsed.left === true };
}

/** A user in a channel on one node. */
export interface NodeMember extends RankedMember {
  readonly node: string;
}

/** Copies `user`, and `data` unless it is `undefined`. */
function toMember({ user, data }: WireMember): Member {
  return data === undefined ? { user } : { user, data };
}

/** Converts a member that another node has sent. */
export function fromWire({ place, ...member }: WireMember): RankedMember {
  return place === undefined ? toMember(member) : { ...toMember(member), rank: place };
}

/** Converts a member to send it. */
export function toWire({ rank, ...member }: RankedMember): Member & { place?: number } {
  return rank === undefined ? member : { ...member, place: rank };
}

/** Creates a set of these members. */
export function presenceSetOf(members: readonly NodeMember[]): PresenceSet {
  const set = new PresenceSet();
  set.replace(members);
  return set;
}

/** Members that joined or changed their data, and users that left. */
export interface Difference {
  readonly joined: readonly Member[];
  readonly left: readonly string[];
}

/** The members of one channel on all nodes. A user on several nodes is one member, with the newest data. */
export class PresenceSet {
  readonly #users = new Map<string, Map<string, RankedMember>>();

  get size(): number {
    return this.#users.size;
  }

  get members(): Member[] {
    return [...this.#users.keys()].map((user) => this.member(user)!); // The user is in the set.
  }

  /** One entry per user and node. */
  get entries(): NodeMember[] {
    return [...this.#users.values()].flatMap((byNode) => [...byNode].map(([node, member]) => ({ node, ...member })));
  }

  /** Returns a rank greater than those of all data of the user. */
  nextRank(user: string): number {
    return 1 + Math.max(0, ...[...this.#users.get(user)?.values() ?? []].map(({ rank = 0 }) => rank));
  }

  join(member: NodeMember): Difference {
    return this.#change([member.user], () => this.#put(member));
  }

  leave(node: string, user: string): Difference {
    return this.#change([user], () => this.#remove(node, user));
  }

  /** Replaces the whole set. */
  replace(entries: readonly NodeMember[]): Difference {
    return this.#change([...this.#users.keys(), ...entries.map(({ user }) => user)], () => {
      this.#users.clear();
      for (const each of entries) this.#put(each);
    });
  }

  /** Removes the entries of all other nodes. */
  retainNodes(nodes: ReadonlySet<string>): Difference {
    const gone = [...this.#users].flatMap(([user, byNode]) =>
      [...byNode.keys()].filter((node) => !nodes.has(node)).map((node) => ({ user, node }))
    );
    return this.#change(gone.map(({ user }) => user), () => {
      for (const { user, node } of gone) this.#remove(node, user);
    });
  }

  #put({ node, ...member }: NodeMember): void {
    const { user } = member;
    let byNode = this.#users.get(user);
    if (!byNode) this.#users.set(user, byNode = new Map());
    byNode.set(node, member);
  }

  #remove(node: string, user: string): void {
    const byNode = this.#users.get(user);
    if (byNode?.delete(node) && byNode.size === 0) this.#users.delete(user);
  }

  /** The user with its newest data. If ranks are equal, the greater node name counts as newer, so that all nodes agree. */
  member(user: string): Member | undefined {
    const byNode = this.#users.get(user);
    if (!byNode) return undefined;
    const [newest] = [...byNode].filter(([, { data }]) => data !== undefined).sort(([a, one], [b, other]) =>
      (other.rank ?? 0) - (one.rank ?? 0) || (a < b ? 1 : -1)
    );
    return newest ? toMember(newest[1]) : { user };
  }

  #change(users: Iterable<string>, change: () => void): Difference {
    const before = new Map(Array.from(users, (user) => [user, this.member(user)]));
    change();
    const joined: Member[] = [];
    const left: string[] = [];
    for (const [user, old] of before) {
      const current = this.member(user);
      if (current && (!old || old.data !== current.data)) joined.push(current);
      if (old && !current) left.push(user);
    }
    return { joined, left };
  }
}

/** A user that has left this node, which the broker has not confirmed yet. */
export interface PendingLeave {
  readonly channel: string;
  readonly user: string;
}

/** The members on this node, and the leaves that the broker has not confirmed yet. */
export class OwnMembers {
  readonly #channels = new Map<string, Map<string, Member>>();
  readonly #pendingLeaves = new Map<string, PendingLeave>();
  /** By member: the rank of its data. */
  readonly #ranks = new WeakMap<Member, number>();

  /** Channels with members on this node. */
  get channels(): Iterable<string> {
    return this.#channels.keys();
  }

  get all(): { channel: string; member: Member }[] {
    return [...this.#channels].flatMap(([channel, members]) => [...members.values()].map((member) => ({ channel, member })));
  }

  /** The members of a channel on this node. */
  of(channel: string): Member[] {
    return [...this.#channels.get(channel)?.values() ?? []];
  }

  /** Whether this object is the user's current member, which a later `join` replaces. */
  has(channel: string, member: Member): boolean {
    return this.#channels.get(channel)?.get(member.user) === member;
  }

  /** Whether its data has no rank yet. A rank never changes, because announcing a member again does not make its data newer. */
  needsRank(member: Member): boolean {
    return member.data !== undefined && !this.#ranks.has(member);
  }

  /** The member with the rank of its data, as it is announced. @param rank used if the data has none yet. */
  ranked(member: Member, rank?: number): RankedMember {
    if (rank !== undefined && this.needsRank(member)) this.#ranks.set(member, rank);
    const known = this.#ranks.get(member);
    return known === undefined ? member : { ...member, rank: known };
  }

  hasUser(channel: string, user: string): boolean {
    return this.#channels.get(channel)?.has(user) === true;
  }

  isEmpty(channel: string): boolean {
    return !this.#channels.has(channel);
  }

  /** The user's leave, if it still has to be announced. */
  pendingLeave(channel: string, user: string): PendingLeave | undefined {
    return this.#pendingLeaves.get(keyOf(channel, user));
  }

  /** The leaves that still have to be announced. */
  get pendingLeaves(): PendingLeave[] {
    return [...this.#pendingLeaves.values()];
  }

  join(channel: string, member: Member): void {
    let members = this.#channels.get(channel);
    if (!members) this.#channels.set(channel, members = new Map());
    members.set(member.user, member);
    this.#pendingLeaves.delete(keyOf(channel, member.user));
  }

  /** Removes the user. Returns `undefined` if the user was not on this node. */
  leave(channel: string, user: string): PendingLeave | undefined {
    const members = this.#channels.get(channel);
    if (!members?.delete(user)) return undefined;
    if (members.size === 0) this.#channels.delete(channel);
    const leave = { channel, user };
    this.#pendingLeaves.set(keyOf(channel, user), leave);
    return leave;
  }

  /** Records that the broker has confirmed this leave, but not a later one of the same user. */
  confirmLeave(leave: PendingLeave): void {
    const key = keyOf(leave.channel, leave.user);
    if (this.#pendingLeaves.get(key) === leave) this.#pendingLeaves.delete(key);
  }

  clear(): void {
    this.#channels.clear();
    this.#pendingLeaves.clear();
  }
}

// Names of channels have no line break.
const keyOf = (channel: string, user: string): string => `${channel}\n${user}`;
