/** Decides which clients receive a frame, and when it is written to their sockets. */
import { Audience, type Recipient, type TopicGroup } from "./audience.ts";
import type { BroadcastFilter, BroadcastResult } from "./broadcast.ts";
import type { Frame } from "../protocol/frame.ts";
import { afterTurn, SLICE_MS } from "../base/turn.ts";

/** Maximum number of sends before inbound messages are handled again, and of clients in one slice of an audience. */
const SLICE = 2_000;

/** A client that a frame is sent to separately. */
type Target = Pick<Recipient & { send(frame: Frame): boolean }, "send">;

/** The user and role that a client is indexed by. */
export interface IndexKeys {
  readonly user: string | null;
  readonly role: string | null;
}

/** A connection that broadcasts can reach. */
export interface IndexedRecipient extends Recipient {
  /** The object is replaced, never changed. */
  readonly accountability: IndexKeys;
  /** The accountability that {@link Delivery} has indexed it by. Only {@link Delivery} writes it. A map would take 50 bytes a connection. */
  indexedBy: IndexKeys | undefined;
  /** Sends the frame to its socket. Returns `false` if the socket cannot accept it. */
  send(frame: Frame): boolean;
}

/**
 * The admitted connections, indexed by user and by role, so that the cost of a filter depends on what it matches. An index takes 70 bytes a
 * connection, and is made when a filter first needs it.
 */
export class Delivery {
  readonly #all = new Audience<IndexedRecipient>();
  readonly #indexes: Record<keyof BroadcastFilter, Index | undefined> = { user: undefined, role: undefined };
  /** The first is being sent, and the others wait, so that each client receives broadcasts in the order of the calls. */
  readonly #laps: Lap[] = [];
  readonly #maxHeldBytes: number;
  readonly #defer: (callback: () => void) => void;
  /** Number of frames sent through topics, counted for each client. Connections do not count them. */
  published = 0;

  /**
   * @param maxHeldBytes frames are sent separately to a client that may have buffered more.
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
   * Sends one frame to all clients that the filter matches now. A large audience is sent to in slices, between which inbound messages are
   * handled. Each client receives broadcasts in the order of the calls.
   */
  sendToMatching(frame: Frame, filter: BroadcastFilter): Promise<BroadcastResult> {
    const matching = this.#match(filter);
    // A single group is published to without copying its members.
    if (this.#laps.length === 0 && matching instanceof Audience && matching.groups.length === 1) {
      const [group] = matching.groups;
      const matched = matching.size;
      if (group!.publish(frame, this.#maxHeldBytes)) {
        this.published += matched;
        return Promise.resolve({ matched, sent: matched, dropped: 0 });
      }
    }
    return new Promise((resolve) => this.#start(matching, frame, resolve));
  }

  /** Like {@link sendToMatching}, but sends to these targets. The list must not be changed afterwards. */
  deliver(frame: Frame, targets: readonly Target[], resolve: (result: BroadcastResult) => void): void {
    this.#start(targets, frame, resolve);
  }

  /** Whether a broadcast or publication has not been sent to all its clients yet. */
  get isBusy(): boolean {
    return this.#laps.length > 0;
  }

  #start(source: Iterable<Target>, frame: Frame, resolve: (result: BroadcastResult) => void): void {
    const last = this.#laps.at(-1);
    if (last?.accepts(source)) return last.add(frame, resolve);
    const lap = new Lap(source, this);
    lap.add(frame, resolve);
    // Queued before it is sent, so that broadcasts that recipients make in response come after it.
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
    if (user === undefined) return role === undefined ? this.#all : membersOf(this.#index("role"), role);
    const ofUser = membersOf(this.#index("user"), user);
    if (role === undefined) return ofUser;
    const ofRole = membersOf(this.#index("role"), role);
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

/** By id of a user or role: its recipients. Most users have one connection, for which a set would take 200 bytes. */
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

/** A broadcast or publication under way. */
interface Message {
  readonly frame: Frame;
  /** Number of slices that it has not been sent to yet. */
  slicesLeft: number;
  sent: number;
  readonly resolve: (result: BroadcastResult) => void;
}

/** A part of the audience, as it was when the lap began. */
interface Slice {
  readonly targets: readonly Target[];
  readonly start: number;
  readonly end: number;
  /** The group whose members the targets are, unless its {@link TopicGroup.joined} is no longer `joined`. */
  readonly group: TopicGroup<Recipient & Target> | undefined;
  readonly joined: number;
}

/**
 * Sends messages to one audience, slice after slice and round again. A message starts at the current slice and is complete after one lap,
 * so messages to the same audience go out together, as one write for each client:
 *
 * ```
 * slice       0    1    2    3    0    1
 * message A   ●────●────●────●            complete after 4 slices
 * message B             ●────●────●────●  joined at slice 2
 * ```
 */
class Lap {
  readonly #source: unknown;
  readonly #counter: Pick<Delivery, "published">;
  readonly #slices: readonly Slice[];
  /** Number of clients in all slices. */
  readonly #matched: number;
  /** Messages for the current slice. The first `#published` of them were published to the whole slice at once. */
  #messages: Message[] = [];
  #published = 0;
  /** Messages that start at the next slice. */
  #joining: Message[] = [];
  #slice = 0;
  /** Index of the next target of the current slice. */
  #next = 0;
  #hasBegun = false;

  /** Copies the audience, because a broadcast is for the clients at the time of the call, and sending may close or admit some. */
  constructor(source: Iterable<Target>, counter: Pick<Delivery, "published">) {
    this.#source = source;
    this.#counter = counter;
    this.#slices = slicesOf(source);
    this.#matched = matchedOf(this.#slices);
  }

  /** Whether every message is complete. */
  get isDone(): boolean {
    return this.#messages.length === 0;
  }

  /** Whether a message to this source may join, because the audience has not changed since it was copied. */
  accepts(source: unknown): boolean {
    if (source !== this.#source) return false;
    if (!(source instanceof Audience)) return Array.isArray(source);
    return source.size === this.#matched &&
      this.#slices.every(({ group, joined, targets }) =>
        group?.joined === joined && group.members.size === targets.length && source.groups.includes(group)
      );
  }

  add(frame: Frame, resolve: (result: BroadcastResult) => void): void {
    if (this.#slices.length === 0) return resolve({ matched: 0, sent: 0, dropped: 0 });
    (this.#hasBegun ? this.#joining : this.#messages).push({ frame, slicesLeft: this.#slices.length, sent: 0, resolve });
  }

  /** Makes at most `budget` sends. Returns how many are left. */
  send(budget: number, maxHeldBytes: number): number {
    this.#hasBegun = true;
    let left = budget;
    while (left > 0 && this.#messages.length > 0) {
      const { targets, start, end } = this.#slices[this.#slice]!;
      if (this.#next === start) left -= this.#publish(maxHeldBytes);
      const each = this.#messages.length - this.#published;
      const last = each > 0 ? Math.min(this.#next + Math.max(1, Math.floor(left / each)), end) : end;
      left -= (last - this.#next) * each;
      if (each === 1) sendTo(targets, this.#next, last, this.#messages.at(-1)!);
      else if (each > 1) sendAllTo(targets, this.#next, last, this.#messages.slice(this.#published));
      this.#next = last;
      if (last === end) this.#endSlice();
    }
    return left;
  }

  /** Publishes messages to the whole slice at once, if the group can. Returns the number of clients that were sent something. */
  #publish(maxHeldBytes: number): number {
    const { group, joined } = this.#slices[this.#slice]!;
    if (!group || group.joined !== joined) return 0;
    const messages = this.#messages;
    while (this.#published < messages.length && group.publish(messages[this.#published]!.frame, maxHeldBytes)) {
      messages[this.#published++]!.sent += group.members.size;
      this.#counter.published += group.members.size;
    }
    return this.#published > 0 ? group.members.size : 0;
  }

  /** Moves to the next slice, without the messages that are complete. */
  #endSlice(): void {
    const messages = this.#messages;
    const remaining = messages.filter((message) => --message.slicesLeft > 0);
    const complete = messages.slice(0, messages.length - remaining.length); // Messages complete in the order in which they began.
    this.#messages = this.#joining.length > 0 ? remaining.concat(this.#joining.splice(0)) : remaining;
    this.#published = 0;
    this.#slice = (this.#slice + 1) % this.#slices.length;
    this.#next = this.#slices[this.#slice]!.start;
    const matched = this.#matched;
    for (const { sent, resolve } of complete) resolve({ matched, sent, dropped: matched - sent });
  }
}

/** Sends one message, which is the most frequent case. */
function sendTo(targets: readonly Target[], start: number, end: number, message: Message): void {
  const { frame } = message;
  let sent = 0;
  for (let at = start; at < end; at++) if (targets[at]!.send(frame)) sent++;
  message.sent += sent;
}

/** Sends all messages to one client, then all to the next, so that they are one write for each client. */
function sendAllTo(targets: readonly Target[], start: number, end: number, messages: readonly Message[]): void {
  for (let at = start; at < end; at++) {
    const target = targets[at]!;
    for (const message of messages) if (target.send(message.frame)) message.sent++;
  }
}

function slicesOf(source: Iterable<Target>): Slice[] {
  if (!(source instanceof Audience)) return cut(Array.isArray(source) ? source : [...source], undefined);
  const groups: readonly TopicGroup<Recipient & Target>[] = source.groups; // An audience of targets, as the source is one.
  return groups.flatMap((group) => cut([...group.members], group));
}

function cut(targets: readonly Target[], group: TopicGroup<Recipient & Target> | undefined): Slice[] {
  const slices: Slice[] = [];
  for (let start = 0; start < targets.length; start += SLICE) {
    slices.push({ targets, start, end: Math.min(start + SLICE, targets.length), group, joined: group?.joined ?? 0 });
  }
  return slices;
}

function matchedOf(slices: readonly Slice[]): number {
  let matched = 0;
  for (const { start, end } of slices) matched += end - start;
  return matched;
}
