import * as v from "valibot";
import type { Member } from "../engine.ts";
import { isJson, parse } from "./envelope.ts";

const MemberBody = v.object({
  user: v.pipe(v.string(), v.minLength(1), v.maxLength(512)),
  data: v.optional(v.pipe(v.string(), v.check(isJson))),
  place: v.optional(v.pipe(v.number(), v.safeInteger(), v.minValue(0))),
  left: v.optional(v.boolean()),
});

/** A member with the order of its data among the data that all nodes hold for the user. */
export interface PlacedMember extends Member {
  /**
   * Greater for newer data, as far as the node knew: a logical clock, so that no wall clocks are compared. Absent without data, and
   * from nodes of an earlier version.
   */
  readonly place?: number;
}

/** Parses the body of a `member` envelope; `null` when it is malformed. */
export function parseMember(body: string): { readonly member: PlacedMember; readonly left: boolean } | null {
  const parsed = parse(MemberBody, body);
  return parsed && { member: toPlaced(parsed), left: parsed.left === true };
}

/** A user in a channel on one node. */
export interface Present extends PlacedMember {
  readonly node: string;
}

/** Copies `user`, and `data` unless it is `undefined`. */
export function toMember({ user, data }: { user: string; data?: string | undefined }): Member {
  return data === undefined ? { user } : { user, data };
}

/** Like {@link toMember}, with its place. */
export function toPlaced({ place, ...member }: Parameters<typeof toMember>[0] & { place?: number | undefined }): PlacedMember {
  return place === undefined ? toMember(member) : { ...toMember(member), place };
}

/** Makes a set of these members. */
export function presenceSetOf(present: readonly Present[]): PresenceSet {
  const set = new PresenceSet();
  set.replace(present);
  return set;
}

/** Members that joined or changed their data, and users that left. */
export interface Difference {
  readonly joined: readonly Member[];
  readonly left: readonly string[];
}

/** The members of one channel on all nodes. A user on several nodes is one member, with the newest data. */
export class PresenceSet {
  readonly #users = new Map<string, Map<string, PlacedMember>>();

  get size(): number {
    return this.#users.size;
  }

  get members(): Member[] {
    return [...this.#users.keys()].map((user) => this.member(user)!); // The user is in the set.
  }

  /** One entry per user and node. */
  get present(): Present[] {
    return [...this.#users.values()].flatMap((on) => [...on].map(([node, member]) => ({ node, ...member })));
  }

  /** A place greater than those of all data of the user. */
  nextPlace(user: string): number {
    return 1 + Math.max(0, ...[...this.#users.get(user)?.values() ?? []].map(({ place = 0 }) => place));
  }

  join(present: Present): Difference {
    return this.#change([present.user], () => this.#put(present));
  }

  leave(node: string, user: string): Difference {
    return this.#change([user], () => this.#remove(node, user));
  }

  /** Replaces the whole set. */
  replace(present: readonly Present[]): Difference {
    return this.#change([...this.#users.keys(), ...present.map(({ user }) => user)], () => {
      this.#users.clear();
      for (const each of present) this.#put(each);
    });
  }

  /** Removes the entries of all other nodes. */
  keep(nodes: ReadonlySet<string>): Difference {
    const gone = [...this.#users].flatMap(([user, on]) =>
      [...on.keys()].filter((node) => !nodes.has(node)).map((node) => ({ user, node }))
    );
    return this.#change(gone.map(({ user }) => user), () => {
      for (const { user, node } of gone) this.#remove(node, user);
    });
  }

  #put({ node, ...member }: Present): void {
    const { user } = member;
    let on = this.#users.get(user);
    if (!on) this.#users.set(user, on = new Map());
    on.set(node, member);
  }

  #remove(node: string, user: string): void {
    const on = this.#users.get(user);
    if (on?.delete(node) && on.size === 0) this.#users.delete(user);
  }

  /** Independent of the order of arrival, so that all nodes agree: of equal places, the greater node name counts as newer. */
  member(user: string): Member | undefined {
    const on = this.#users.get(user);
    if (!on) return undefined;
    const [newest] = [...on].filter(([, { data }]) => data !== undefined).sort(([a, one], [b, other]) =>
      (other.place ?? 0) - (one.place ?? 0) || (a < b ? 1 : -1)
    );
    return newest ? toMember(newest[1]) : { user };
  }

  #change(users: Iterable<string>, change: () => void): Difference {
    const before = new Map(Array.from(users, (user) => [user, this.member(user)]));
    change();
    const joined: Member[] = [];
    const left: string[] = [];
    for (const [user, was] of before) {
      const is = this.member(user);
      if (is && (!was || was.data !== is.data)) joined.push(is);
      if (was && !is) left.push(user);
    }
    return { joined, left };
  }
}

/** A user that has left this node. */
export interface Leaving {
  readonly channel: string;
  readonly user: string;
}

/** The members on this node, and the leaves that the broker has not confirmed yet. */
export class OwnMembers {
  readonly #channels = new Map<string, Map<string, Member>>();
  readonly #left = new Map<string, Leaving>();
  /** The place of each member's data. */
  readonly #places = new WeakMap<Member, number>();

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

  /** Whether this object is the current one: a later `join` of the user replaces it. */
  has(channel: string, member: Member): boolean {
    return this.#channels.get(channel)?.get(member.user) === member;
  }

  /** Whether its data has no place yet. The first place stays: announcing a member again does not make its data newer. */
  needsPlace(member: Member): boolean {
    return member.data !== undefined && !this.#places.has(member);
  }

  /** The member as it is announced, with its place. @param place used when its data has none yet. */
  placed(member: Member, place?: number): PlacedMember {
    if (place !== undefined && this.needsPlace(member)) this.#places.set(member, place);
    const known = this.#places.get(member);
    return known === undefined ? member : { ...member, place: known };
  }

  hasUser(channel: string, user: string): boolean {
    return this.#channels.get(channel)?.has(user) === true;
  }

  isEmpty(channel: string): boolean {
    return !this.#channels.has(channel);
  }

  /** The user's leave, if it still has to be announced. */
  leavingOf(channel: string, user: string): Leaving | undefined {
    return this.#left.get(keyOf(channel, user));
  }

  /** The leaves that still have to be announced. */
  get left(): Leaving[] {
    return [...this.#left.values()];
  }

  join(channel: string, member: Member): void {
    let members = this.#channels.get(channel);
    if (!members) this.#channels.set(channel, members = new Map());
    members.set(member.user, member);
    this.#left.delete(keyOf(channel, member.user));
  }

  /** Removes the user. `undefined` when the user was not on this node. */
  leave(channel: string, user: string): Leaving | undefined {
    const members = this.#channels.get(channel);
    if (!members?.delete(user)) return undefined;
    if (members.size === 0) this.#channels.delete(channel);
    const leaving = { channel, user };
    this.#left.set(keyOf(channel, user), leaving);
    return leaving;
  }

  /** The broker has confirmed this leave. A later leave of the same user stays to be announced. */
  announced(leaving: Leaving): void {
    const key = keyOf(leaving.channel, leaving.user);
    if (this.#left.get(key) === leaving) this.#left.delete(key);
  }

  clear(): void {
    this.#channels.clear();
    this.#left.clear();
  }
}

// Names of channels have no line break.
const keyOf = (channel: string, user: string): string => `${channel}\n${user}`;
