import type { EngineHost, HistoryOptions, HistoryPage, Member, Position, Publication } from "../engine.ts";
import { GapDetector, type GapDetectorHost, type PositionedPublication } from "./gap-detector.ts";
import { type Difference, type NodeMember, PresenceSet, type RankedMember } from "./presence.ts";

/** Maximum number of changes that are kept for the next read. */
const MAX_UNREAD = 1_000;

/** What a {@link NodeSubscription} needs from its engine. */
export interface NodeSubscriptionSource extends Pick<GapDetectorHost, "follows"> {
  /** Reads one page of the history after a position. */
  read(after: Position, limit: number): Promise<HistoryPage>;
  members(): Promise<NodeMember[]>;
  /** Number of checks for which a member stays after the broker no longer lists it. @default {0} */
  readonly checksUntilRemoval?: number;
  /** Called when a publication arrived that is not in the history. */
  unknown(): void;
  /** Called when the history could not be read; the next check or session reads it again. */
  failed(error: unknown): void;
}

/** A member that has joined, changed its data, or left its node. */
interface Change {
  readonly node: string;
  readonly member: RankedMember;
  readonly left: boolean;
}

/** This node's subscription to one channel. Delivers publications without gaps, and tracks members once {@link members} is called. */
export class NodeSubscription {
  readonly channel: string;
  readonly history: HistoryOptions | null;
  readonly #host: EngineHost;
  readonly #source: NodeSubscriptionSource;
  readonly #gaps: GapDetector | undefined;
  #members: PresenceSet | undefined;
  /** Users that were read before `members` was called, and so not reported. Their join is reported if it arrives later. */
  readonly #unreported = new Set<string>();
  /**
   * Members missing from the last read. They stay until a later read, because Redis may have evicted their keys, and their node announces
   * them again.
   */
  #missing = new Set<string>();
  /** Checks left until the members in `#missing` are read again. */
  #checksLeft = 0;
  /** Changes that arrived during the read under way; `undefined` without one. */
  #changes: Change[] | undefined;
  /** Changes that arrived during a failed read. The next check reads again. */
  #unread: Change[] = [];
  #reading: Promise<PresenceSet> | undefined;
  /** Nodes that have announced a member since the last `retainNodes`. */
  #announcedBy = new Set<string>();
  /** Whether an announcement was dropped because its node is unknown. */
  #isStale = false;
  #stopped = false;
  /** The position when a publication without a position arrived, which the history lacks. */
  #incompleteAt: Position | undefined;

  constructor(channel: string, history: HistoryOptions | null, host: EngineHost, source: NodeSubscriptionSource) {
    this.channel = channel;
    this.history = history;
    this.#host = host;
    this.#source = source;
    this.#gaps = history ? this.#follow() : undefined;
  }

  start(position: Position): void {
    this.#gaps?.start(position);
  }

  stop(): void {
    this.#stopped = true;
    this.#gaps?.stop();
  }

  receive(publication: Publication, previous: number): void {
    if (this.#stopped) return;
    if (publication.position && this.#gaps) this.#gaps.receive(publication as PositionedPublication, previous); // It has a position.
    else {
      this.#incompleteAt = this.position;
      this.#host.published(this.channel, publication);
    }
  }

  /** Handles an entry of the history that is not a publication. */
  advance(position: Position, previous: number): void {
    this.#gaps?.receive({ position }, previous);
  }

  /** Position up to which everything was received; `undefined` without a history. */
  get position(): Position | undefined {
    return this.#gaps?.position;
  }

  /**
   * Compares the position with the end of the history.
   *
   * @param latest the end, as the broker reports it.
   * @param before {@link position} at the time of the request.
   */
  check(latest: Position | null, before: Position | undefined): void {
    this.#gaps?.check(latest, before);
  }

  /** Whether the history lacks a publication, because a node that declares no history failed to end it. */
  get isHistoryIncomplete(): boolean {
    return this.#incompleteAt !== undefined;
  }

  /** Ends a history that lacks a publication. @param end ends it up to a position. */
  async endIncompleteHistory(end: (upTo: Position) => Promise<unknown>): Promise<void> {
    const position = this.#incompleteAt;
    if (!position) return;
    await end(position);
    if (this.#incompleteAt === position) this.#incompleteAt = undefined;
  }

  /** Catches up after a reconnect, or reports a gap if there is no history. */
  async resume(): Promise<void> {
    if (this.#gaps) await this.#gaps.resume();
    else if (!this.#stopped) this.#host.gap(this.channel);
  }

  /** Returns the members on all nodes. They are tracked from the first call on. */
  async members(): Promise<Member[]> {
    const set = this.#members ?? await this.#read();
    this.#unreported.clear();
    return set.members;
  }

  /** Returns a rank greater than those of all data of the user. Members are tracked from the first call on. */
  async nextRank(user: string): Promise<number> {
    return (this.#members ?? await this.#read()).nextRank(user);
  }

  /** Applies a change that a node announced. */
  changed(node: string, member: RankedMember, left: boolean): void {
    const change = { node, member, left };
    // Its node has just announced it.
    if (!left) {
      this.#missing.delete(keyOf({ node, user: member.user }));
      this.#announcedBy.add(node);
    }
    if (this.#changes) this.#changes.push(change);
    else if (this.#members) this.#applyAndReport(this.#members, change);
    else {
      const reading = this.#read();
      this.#changes!.push(change); // Set by `#read`.
      reading.catch((error) => this.#host.report(error));
    }
  }

  /** Marks the members to be read again at the next check, because an announcement was dropped whose node is unknown. */
  markStale(): void {
    this.#isStale = true;
  }

  get isStale(): boolean {
    return this.#isStale;
  }

  /**
   * Removes the members of all other nodes, and reports users without a node as left. Members of a node that has announced one since the
   * last call stay, because the list may be older than the node's first heartbeat.
   */
  retainNodes(nodes: ReadonlySet<string>): void {
    if (!this.#members || this.#changes) return;
    const difference = this.#members.retainNodes(new Set([...nodes, ...this.#announcedBy]));
    this.#announcedBy.clear();
    this.#report(difference);
  }

  /** Counts a check. Returns whether the members have to be read again. */
  countCheck(): boolean {
    return this.#unread.length > 0 || this.#missing.size > 0 && --this.#checksLeft <= 0;
  }

  /** Reads the members again, if they are tracked. */
  async renew(): Promise<void> {
    if (this.#members || this.#reading || this.#unread.length > 0) await this.#read();
    else this.#isStale = false;
  }

  #read(): Promise<PresenceSet> {
    return this.#reading ??= this.#load().finally(() => {
      this.#reading = this.#changes = undefined;
    });
  }

  async #load(): Promise<PresenceSet> {
    this.#changes = this.#unread;
    this.#unread = [];
    // Reset before the request, whose answer may lack members whose announcements are dropped meanwhile.
    const isStale = this.#isStale;
    this.#isStale = false;
    let present: NodeMember[];
    try {
      present = await this.#source.members();
    } catch (error) {
      this.#unread = this.#changes.slice(-MAX_UNREAD);
      this.#isStale ||= isStale;
      throw error;
    }
    const known = this.#members;
    const set = known ?? new PresenceSet();
    const found = new Set(present.map(keyOf));
    const isLastCheck = this.#missing.size > 0 && this.#checksLeft <= 0;
    const missing = set.entries.filter((each) => !found.has(keyOf(each)) && !(isLastCheck && this.#missing.has(keyOf(each))));
    if (isLastCheck || this.#missing.size === 0) this.#checksLeft = this.#source.checksUntilRemoval ?? 0;
    this.#missing = new Set(missing.map(keyOf));
    const difference = set.replace([...present, ...missing]);
    const changes = this.#changes;
    this.#changes = undefined;
    if (known) {
      this.#report(difference);
      for (const change of changes) this.#applyAndReport(set, change);
      return set;
    }
    // At the first read, only users named by a change are reported, in their current state. The others are no change.
    for (const change of changes) apply(set, change);
    const users = new Set(changes.map(({ member }) => member.user));
    const members = set.members;
    const joined = members.filter(({ user }) => users.has(user));
    for (const { user } of members) if (!users.delete(user)) this.#unreported.add(user);
    this.#members = set;
    this.#report({ joined, left: [...users] });
    return set;
  }

  #applyAndReport(set: PresenceSet, change: Change): void {
    const { member, left } = change;
    const difference = apply(set, change);
    const wasUnreported = this.#unreported.delete(member.user) && !left && difference.joined.length === 0;
    this.#report(wasUnreported ? { joined: [set.member(member.user)!], left: [] } : difference); // `apply` has just added it.
  }

  #report({ joined, left }: Difference): void {
    if (!this.#stopped && joined.length + left.length > 0) this.#host.present(this.channel, joined, left);
  }

  #follow(): GapDetector {
    const { channel } = this;
    return new GapDetector({
      follows: (offset, previous) => this.#source.follows(offset, previous),
      read: (after, isNext) => this.#source.read(after, isNext ? Infinity : this.history!.size), // Gaps are detected only with a history.
      deliver: (publication) => this.#host.published(channel, publication),
      gap: (position) => {
        this.#incompleteAt = undefined;
        this.#host.gap(channel, position);
      },
      unknown: () => this.#source.unknown(),
      failed: (error) => this.#source.failed(error),
    });
  }
}

function apply(set: PresenceSet, { node, member, left }: Change): Difference {
  return left ? set.leave(node, member.user) : set.join({ node, ...member });
}

// Names of nodes have no line break.
const keyOf = ({ node, user }: Pick<NodeMember, "node" | "user">): string => `${node}\n${user}`;
