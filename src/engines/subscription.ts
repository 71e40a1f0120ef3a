import type { EngineHost, HistoryOptions, HistoryPage, Member, Position, Publication } from "../engine.ts";
import { Continuity, type ContinuityHost, type Placed } from "./continuity.ts";
import { type Difference, type PlacedMember, type Present, Roll } from "./presence.ts";

/** What a subscription asks its engine. */
export interface SubscriptionSource extends Pick<ContinuityHost, "follows"> {
  /** What follows a position of the history, a page of it. */
  read(after: Position, limit: number): Promise<HistoryPage>;
  members(): Promise<Present[]>;
  /** Looks for which a member is kept that the broker does not name. @default {0} */
  readonly patience?: number;
  /** Something arrived that the history does not know. */
  unknown(): void;
  /** It could not be read, and is tried again. */
  failed(error: unknown): void;
}

/** A member came or has other data, or has left its node. */
interface Change {
  readonly node: string;
  readonly member: PlacedMember;
  readonly left: boolean;
}

/** A channel that this node wants to hear of: its publications without gap, and its members once somebody asks for them. */
export class Subscription {
  readonly channel: string;
  readonly history: HistoryOptions | null;
  readonly #host: EngineHost;
  readonly #source: SubscriptionSource;
  readonly #continuity: Continuity | undefined;
  #roll: Roll | undefined;
  /** Members that were found when nobody had asked for them: what says that they came may still be on its way, and is news then. */
  readonly #untold = new Set<string>();
  /** Members that a reading did not find. A broker may have given up their keys, and their node joins them again: a later one decides. */
  #missing = new Set<string>();
  /** Looks until then. */
  #patience = 0;
  /** While they are being read: what changes meanwhile. */
  #changes: Change[] | undefined;
  #reading: Promise<Roll> | undefined;
  #stopped = false;
  /** Where the channel stood when something arrived that is in no history, though this node keeps one. */
  #missed: Position | undefined;

  constructor(channel: string, history: HistoryOptions | null, host: EngineHost, source: SubscriptionSource) {
    this.channel = channel;
    this.history = history;
    this.#host = host;
    this.#source = source;
    this.#continuity = history ? this.#follow() : undefined;
  }

  start(position: Position): void {
    this.#continuity?.start(position);
  }

  stop(): void {
    this.#stopped = true;
    this.#continuity?.stop();
  }

  receive(publication: Publication, previous: number): void {
    if (this.#stopped) return;
    if (publication.position && this.#continuity) this.#continuity.receive(publication as Placed, previous); // As just looked at.
    else {
      this.#missed = this.position;
      this.#host.published(this.channel, publication);
    }
  }

  /** The history has gone on by something that is no publication. */
  passed(position: Position, previous: number): void {
    this.#continuity?.receive({ position }, previous);
  }

  /** Where it stands, with a history. */
  get position(): Position | undefined {
    return this.#continuity?.position;
  }

  /** @param asked where it stood when the broker was asked. */
  check(top: Position | null, asked: Position | undefined): void {
    this.#continuity?.check(top, asked);
  }

  /** Whether something was published that the history lacks: by a node that declares none, and has not ended it. */
  get hasMissed(): boolean {
    return this.#missed !== undefined;
  }

  /** Then it is ended. @param end ends it up to a position. */
  async endMissed(end: (upTo: Position) => Promise<unknown>): Promise<void> {
    const missed = this.#missed;
    if (!missed) return;
    await end(missed);
    if (this.#missed === missed) this.#missed = undefined;
  }

  /** Another session: what was lost before it is made up for. */
  async resume(): Promise<void> {
    if (this.#continuity) await this.#continuity.resume();
    else this.#host.gap(this.channel);
  }

  /** Those on all nodes; from now on they are followed. */
  async members(): Promise<Member[]> {
    const roll = this.#roll ?? await this.#read();
    this.#untold.clear();
    return roll.members;
  }

  /** The place of data that is newer than all that the nodes have of the user; from now on members are followed. */
  async nextPlace(user: string): Promise<number> {
    return (this.#roll ?? await this.#read()).nextPlace(user);
  }

  /** A member came or changed, or has left its node. */
  changed(node: string, member: PlacedMember, left: boolean): void {
    const change = { node, member, left };
    // Its node lives, and has just said that it is there.
    if (!left) this.#missing.delete(keyOf({ node, user: member.user }));
    if (this.#changes) this.#changes.push(change);
    else if (this.#roll) this.#hear(this.#roll, change);
    else {
      const reading = this.#read();
      this.#changes!.push(change); // Set by `#read`.
      reading.catch((error) => this.#host.report(error));
    }
  }

  /** Members of other nodes than these are gone. */
  keepNodes(nodes: ReadonlySet<string>): void {
    // Whoever is on none of them is told of as one who has left.
    if (this.#roll && !this.#changes) this.#tell(this.#roll.keep(nodes));
  }

  /** Time to look. Whether members are to be compared again. */
  look(): boolean {
    return this.#missing.size > 0 && --this.#patience <= 0;
  }

  /** Compares with what the broker says, where anybody has asked. */
  async renew(): Promise<void> {
    if (this.#roll) await this.#read();
  }

  #read(): Promise<Roll> {
    return this.#reading ??= this.#load().finally(() => {
      this.#reading = this.#changes = undefined;
    });
  }

  async #load(): Promise<Roll> {
    this.#changes = [];
    const present = await this.#source.members();
    const known = this.#roll;
    const roll = known ?? new Roll();
    const found = new Set(present.map(keyOf));
    const isLater = this.#missing.size > 0 && this.#patience <= 0;
    const missing = roll.present.filter((each) => !found.has(keyOf(each)) && !(isLater && this.#missing.has(keyOf(each))));
    if (isLater || this.#missing.size === 0) this.#patience = this.#source.patience ?? 0;
    this.#missing = new Set(missing.map(keyOf));
    const difference = roll.replace([...present, ...missing]);
    const changes = this.#changes;
    this.#changes = undefined;
    if (known) {
      this.#tell(difference);
      for (const change of changes) this.#hear(roll, change);
      return roll;
    }
    // Nobody knows those who were there: only whom something was said of is told of, as he is by now.
    for (const change of changes) apply(roll, change);
    const users = new Set(changes.map(({ member }) => member.user));
    const members = roll.members;
    const joined = members.filter(({ user }) => users.has(user));
    for (const { user } of members) if (!users.delete(user)) this.#untold.add(user);
    this.#roll = roll;
    this.#tell({ joined, left: [...users] });
    return roll;
  }

  #hear(roll: Roll, change: Change): void {
    const { member, left } = change;
    const difference = apply(roll, change);
    const isNews = this.#untold.delete(member.user) && !left && difference.joined.length === 0;
    this.#tell(isNews ? { joined: [roll.member(member.user)!], left: [] } : difference); // It has just come.
  }

  #tell({ joined, left }: Difference): void {
    if (!this.#stopped && joined.length + left.length > 0) this.#host.present(this.channel, joined, left);
  }

  #follow(): Continuity {
    const { channel } = this;
    return new Continuity({
      follows: (offset, previous) => this.#source.follows(offset, previous),
      read: (after, isNext) => this.#source.read(after, isNext ? Infinity : this.history!.size), // As it has one.
      published: (publication) => this.#host.published(channel, publication),
      gap: (position) => {
        this.#missed = undefined;
        this.#host.gap(channel, position);
      },
      unknown: () => this.#source.unknown(),
      failed: (error) => this.#source.failed(error),
    });
  }
}

function apply(roll: Roll, { node, member, left }: Change): Difference {
  return left ? roll.leave(node, member.user) : roll.join({ node, ...member });
}

// The name of a node has no line.
const keyOf = ({ node, user }: Pick<Present, "node" | "user">): string => `${node}\n${user}`;
