/** Delivery: which clients receive a frame, and when it is written to their sockets. */
import { Audience, type Recipient } from "./audience.ts";
import type { BroadcastFilter, BroadcastResult } from "./broadcast.ts";
import type { Frame } from "../protocol/frame.ts";
import { Lap, SLICE, type Target } from "./lap.ts";
import { afterTurn, SLICE_MS } from "../base/turn.ts";

/** The user and role that a client is indexed by. */
export interface IndexKeys {
  readonly user: string | null;
  readonly role: string | null;
}

/** A connection that broadcasts can reach. */
export interface IndexedRecipient extends Recipient {
  /** Replaced, never changed. */
  readonly accountability: IndexKeys;
  /** The accountability that {@link Delivery} has indexed it by, which sets it. A map beside the index would take 50 bytes a connection. */
  indexedBy: IndexKeys | undefined;
  /** Hands the frame to its socket; `false` when the socket cannot take it. */
  send(frame: Frame): boolean;
}

/**
 * The admitted connections, indexed by user and by role so that a filter costs what it matches. Each index is made when a filter first needs
 * it: it takes 70 bytes a connection.
 */
export class Delivery {
  readonly #all = new Audience<IndexedRecipient>();
  readonly #indexes: Record<keyof BroadcastFilter, Index | undefined> = { user: undefined, role: undefined };
  /** The first is being sent, the others wait for it: each client receives broadcasts in the order of the calls. */
  readonly #laps: Lap[] = [];
  readonly #maxHeldBytes: number;
  readonly #defer: (callback: () => void) => void;

  /**
   * @param maxHeldBytes a client that may hold more is sent to by itself, not through a topic.
   * @param defer calls back when inbound messages have been handled. @default {@link afterTurn}
   */
  constructor(maxHeldBytes: number, defer: (callback: () => void) => void = afterTurn) {
    this.#maxHeldBytes = maxHeldBytes;
    this.#defer = defer;
  }

  get size(): number {
    return this.#all.size;
  }

  /** Adds a recipient, or indexes it again after its accountability was replaced. */
  add(recipient: IndexedRecipient): void {
    const { accountability } = recipient;
    if (recipient.indexedBy === accountability) return;
    this.remove(recipient);
    this.#all.add(recipient);
    recipient.indexedBy = accountability;
    insert(this.#indexes.user, accountability.user, recipient);
    insert(this.#indexes.role, accountability.role, recipient);
  }

  remove(recipient: IndexedRecipient): void {
    const { indexedBy } = recipient;
    if (!indexedBy) return;
    recipient.indexedBy = undefined;
    this.#all.delete(recipient);
    erase(this.#indexes.user, indexedBy.user, recipient);
    erase(this.#indexes.role, indexedBy.role, recipient);
  }

  /**
   * Sends one frame to all clients that the filter matches now: to a large audience in slices, between which inbound messages are handled.
   * Each client receives broadcasts in the order of the calls.
   */
  sendToMatching(frame: Frame, filter: BroadcastFilter): Promise<BroadcastResult> {
    const matching = this.#match(filter);
    // One group can be published to at once, without a copy of its members.
    if (this.#laps.length === 0 && matching instanceof Audience && matching.groups.length === 1) {
      const [group] = matching.groups;
      const matched = matching.size;
      if (group!.publish(frame, this.#maxHeldBytes)) return Promise.resolve({ matched, sent: matched, dropped: 0 });
    }
    return new Promise((resolve) => this.#start(matching, frame, resolve));
  }

  /** Sends one frame to these targets, in slices and in the order of the calls as {@link sendToMatching} does. The list must not change afterwards. */
  deliver(frame: Frame, targets: readonly Target[], resolve: (result: BroadcastResult) => void): void {
    this.#start(targets, frame, resolve);
  }

  /** Whether a broadcast or publication has not been sent to everybody yet. */
  get isBusy(): boolean {
    return this.#laps.length > 0;
  }

  #start(source: Iterable<Target>, frame: Frame, resolve: (result: BroadcastResult) => void): void {
    const last = this.#laps.at(-1);
    if (last?.accepts(source)) return last.add(frame, resolve);
    const lap = new Lap(source);
    lap.add(frame, resolve);
    // Before it is sent: what a recipient broadcasts in response comes after.
    if (lap.isDone || this.#laps.push(lap) > 1) return;
    lap.send(SLICE, this.#maxHeldBytes);
    if (lap.isDone) this.#laps.shift();
    if (this.#laps.length > 0) this.#defer(this.#continue);
  }

  readonly #continue = (): void => {
    const until = performance.now() + SLICE_MS;
    let left = SLICE;
    for (let lap = this.#laps[0]; lap && left > 0; lap = this.#laps[0]) {
      left = lap.send(left, this.#maxHeldBytes);
      if (!lap.isDone) break;
      this.#laps.shift();
      if (performance.now() > until) break;
    }
    if (this.#laps.length > 0) this.#defer(this.#continue);
  };

  #match({ user, role }: BroadcastFilter): Audience<IndexedRecipient> | Iterable<IndexedRecipient> {
    if (user === undefined && role === undefined) return this.#all;
    const ofUser = user === undefined ? undefined : membersOf(this.#index("user"), user);
    const ofRole = role === undefined ? undefined : membersOf(this.#index("role"), role);
    if (!ofUser || !ofRole) return ofUser ?? ofRole ?? NOBODY;
    const [few, many] = ofUser.size <= ofRole.size ? [ofUser, ofRole] : [ofRole, ofUser];
    return [...few].filter((recipient) => many.has(recipient));
  }

  #index(key: keyof BroadcastFilter): Index {
    let index = this.#indexes[key];
    if (index) return index;
    index = this.#indexes[key] = new Map();
    for (const recipient of this.#all) insert(index, recipient.indexedBy![key], recipient);
    return index;
  }
}

/** The recipients of each id. Most users have one connection, for which a set would take 200 bytes. */
type Index = Map<string, IndexedRecipient | Audience<IndexedRecipient>>;

const NOBODY: ReadonlySet<IndexedRecipient> = new Set();

function membersOf(index: Index, id: string): Audience<IndexedRecipient> | ReadonlySet<IndexedRecipient> {
  const members = index.get(id);
  return members instanceof Audience ? members : members ? new Set([members]) : NOBODY;
}

function insert(index: Index | undefined, id: string | null, recipient: IndexedRecipient): void {
  if (id === null || !index) return;
  const members = index.get(id);
  if (members instanceof Audience) members.add(recipient);
  else index.set(id, members ? new Audience<IndexedRecipient>().add(members).add(recipient) : recipient);
}

function erase(index: Index | undefined, id: string | null, recipient: IndexedRecipient): void {
  if (id === null || !index) return;
  const members = index.get(id);
  if (members === recipient || (members instanceof Audience && members.delete(recipient) && members.size === 0)) {
    index.delete(id);
  }
}
