import * as v from "valibot";
import type { Member } from "../engine.ts";
import { isJson, parse } from "./envelope.ts";

const MemberBody = v.object({
  user: v.pipe(v.string(), v.minLength(1), v.maxLength(512)),
  data: v.optional(v.pipe(v.string(), v.check(isJson))),
  place: v.optional(v.pipe(v.number(), v.safeInteger(), v.minValue(0))),
  left: v.optional(v.boolean()),
});

/** A member, and where its data stands among those that the nodes have of the user. */
export interface PlacedMember extends Member {
  /** Greater for what came later, as far as its node knew: no clock is asked. Absent without data, and from nodes of an earlier version. */
  readonly place?: number;
}

/** Reads what nodes tell of a member; `null` for what is none. */
export function parseMember(body: string): { readonly member: PlacedMember; readonly left: boolean } | null {
  const told = parse(MemberBody, body);
  return told && { member: toPlaced(told), left: told.left === true };
}

/** A user in a channel on one node. */
export interface Present extends PlacedMember {
  readonly node: string;
}

/** Without the keys that are absent. */
export function toMember({ user, data }: { user: string; data?: string | undefined }): Member {
  return data === undefined ? { user } : { user, data };
}

/** As {@link toMember}, with its place. */
export function toPlaced({ place, ...told }: Parameters<typeof toMember>[0] & { place?: number | undefined }): PlacedMember {
  return place === undefined ? toMember(told) : { ...toMember(told), place };
}

/** Those that were found. */
export function rollOf(present: readonly Present[]): Roll {
  const roll = new Roll();
  roll.replace(present);
  return roll;
}

/** Who came, or has other data, and who left. */
export interface Difference {
  readonly joined: readonly Member[];
  readonly left: readonly string[];
}

/** Who is in one channel, on all nodes. A user on several nodes is one member, whose data is the newest of them. */
export class Roll {
  readonly #users = new Map<string, Map<string, PlacedMember>>();

  get size(): number {
    return this.#users.size;
  }

  get members(): Member[] {
    return [...this.#users.keys()].map((user) => this.member(user)!); // Of a user that is in it.
  }

  /** Each user on each node. */
  get present(): Present[] {
    return [...this.#users.values()].flatMap((on) => [...on].map(([node, member]) => ({ node, ...member })));
  }

  /** The place of data that is newer than all there is of the user. */
  nextPlace(user: string): number {
    return 1 + Math.max(0, ...[...this.#users.get(user)?.values() ?? []].map(({ place = 0 }) => place));
  }

  join(present: Present): Difference {
    return this.#change([present.user], () => this.#put(present));
  }

  leave(node: string, user: string): Difference {
    return this.#change([user], () => this.#remove(node, user));
  }

  /** Takes this for all there is. */
  replace(present: readonly Present[]): Difference {
    return this.#change([...this.#users.keys(), ...present.map(({ user }) => user)], () => {
      this.#users.clear();
      for (const each of present) this.#put(each);
    });
  }

  /** Those on other nodes than these are gone. */
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

  /** The same on all nodes, whoever tells last: of two that knew nothing of each other the greater name is the newer. */
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

/** A member of this node is none any more. */
export interface Leaving {
  readonly channel: string;
  readonly user: string;
}

/** The members that are on this node, and who has left it without the broker being told. */
export class OwnMembers {
  readonly #channels = new Map<string, Map<string, Member>>();
  readonly #left = new Map<string, Leaving>();
  /** Of their data. */
  readonly #places = new WeakMap<Member, number>();

  /** Channels that have some. */
  get channels(): Iterable<string> {
    return this.#channels.keys();
  }

  get all(): { channel: string; member: Member }[] {
    return [...this.#channels].flatMap(([channel, members]) => [...members.values()].map((member) => ({ channel, member })));
  }

  /** Those of a channel. */
  of(channel: string): Member[] {
    return [...this.#channels.get(channel)?.values() ?? []];
  }

  /** Whether it is this very one, with this data. */
  has(channel: string, member: Member): boolean {
    return this.#channels.get(channel)?.get(member.user) === member;
  }

  /** Whether its data has no place yet. It keeps the first: to announce it again makes it no newer. */
  needsPlace(member: Member): boolean {
    return member.data !== undefined && !this.#places.has(member);
  }

  /** What is announced of it. */
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

  /** The user's leaving, where it is to be told. */
  leavingOf(channel: string, user: string): Leaving | undefined {
    return this.#left.get(keyOf(channel, user));
  }

  /** Those whose leaving is to be told. */
  get left(): Leaving[] {
    return [...this.#left.values()];
  }

  join(channel: string, member: Member): void {
    let members = this.#channels.get(channel);
    if (!members) this.#channels.set(channel, members = new Map());
    members.set(member.user, member);
    this.#left.delete(keyOf(channel, member.user));
  }

  /** Absent: the user was not there. */
  leave(channel: string, user: string): Leaving | undefined {
    const members = this.#channels.get(channel);
    if (!members?.delete(user)) return undefined;
    if (members.size === 0) this.#channels.delete(channel);
    const leaving = { channel, user };
    this.#left.set(keyOf(channel, user), leaving);
    return leaving;
  }

  /** It need not be told again; another one of the same user, since then, has to be. */
  told(leaving: Leaving): void {
    const key = keyOf(leaving.channel, leaving.user);
    if (this.#left.get(key) === leaving) this.#left.delete(key);
  }

  clear(): void {
    this.#channels.clear();
    this.#left.clear();
  }
}

// A channel's name has no line.
const keyOf = (channel: string, user: string): string => `${channel}\n${user}`;
