import { Audience, type Member, type Shard } from "./audience.ts";
import type { Frame } from "./frame.ts";
import { afterTurn, SLICE_MS } from "./outbox.ts";
import { Roster } from "./roster.ts";
import type { Accountability } from "./websocket-client.ts";

/** Who a broadcast is for. It is data, so that it can travel to another node; a key that is absent does not restrict. */
export interface BroadcastFilter {
  /** Only clients of this user. */
  user?: string;
  /** Only clients of this role. */
  role?: string;
}

/** What became of a broadcast. */
export interface BroadcastResult {
  /** Clients that the filter matched when it was called. */
  matched: number;
  /** Those whose socket was handed it. */
  sent: number;
  /** The others: they were too slow, or gone by then. */
  dropped: number;
}

/** A connection that can receive. */
export interface Recipient extends Member {
  readonly accountability: Accountability;
  /** What it is indexed under: its accountability may have changed by the time it is removed. Written by {@link Delivery} only. */
  indexed: Accountability | undefined;
  /** Its place among all. Written by {@link Delivery} only. */
  seat: number;
  /** Hands the frame to its socket; `false` when that could not be. */
  send(frame: Frame): boolean;
}

/**
 * A copy of the filter, checked: what is changed in it later, or by a getter, would be checked by nobody. A key that is present must be a non-empty string, for `{ user: undefined }` must never mean everybody.
 *
 * @throws {TypeError} for any other value and for an unknown key.
 */
export function checkFilter(filter: BroadcastFilter | undefined): BroadcastFilter {
  if (filter === undefined) return {};
  // A promise or a Map has no own keys: it would mean everybody.
  if (typeof filter !== "object" || filter === null || !PLAIN.has(Object.getPrototypeOf(filter))) {
    throw new TypeError('Cannot broadcast: the filter must be an object such as { role: "editor" }');
  }
  const checked: BroadcastFilter = {};
  for (const key of Object.keys(filter)) {
    if (key !== "user" && key !== "role") {
      throw new TypeError(`Cannot broadcast: unknown filter key "${key}", use user or role`);
    }
    const value: unknown = filter[key];
    if (typeof value !== "string" || value === "") {
      throw new TypeError(`Cannot broadcast: filter.${key} must be a non-empty string; leave the key out to reach everybody`);
    }
    checked[key] = value;
  }
  return checked;
}

const PLAIN: ReadonlySet<unknown> = new Set([Object.prototype, null]);

/**
 * What is being sent to one audience, part after part and round again: a message joins where that is, and has been sent to everybody when it
 * is there once more. So what waits for the same clients goes out together, and each client's is one write.
 */
interface Job {
  /** What the audience was taken from. */
  readonly source: unknown;
  readonly parts: readonly Part[];
  /** Those that the current part is sent, of which it has been published so many, and those that join at the next part. */
  messages: Message[];
  published: number;
  joining: Message[];
  part: number;
  /** The place of the recipient who is next. */
  next: number;
  hasBegun: boolean;
}

/** A broadcast or publication. */
interface Message {
  readonly frame: Frame;
  /** Parts that it has not been sent to. */
  left: number;
  sent: number;
  resolve(result: BroadcastResult): void;
}

/** Some of an audience, as it was when the broadcast was called. */
interface Part {
  readonly recipients: readonly Pick<Recipient, "send">[];
  readonly start: number;
  readonly end: number;
  /** What they were the members of, when so many had joined. */
  readonly shard: Shard<Recipient> | undefined;
  readonly joined: number;
}

/** What is sent before inbound messages have their turn again, each to one client; and clients that are one part of an audience. */
const SLICE = 2_000;

/**
 * Who receives what: the admitted connections, indexed by user and by role so that a filter costs what it matches. An index is made when a
 * filter first asks for it: it takes 70 bytes a connection.
 */
export class Delivery {
  readonly #all = new Audience<Recipient>(() => new Roster("seat"));
  readonly #indexes: Record<keyof BroadcastFilter, Index | undefined> = { user: undefined, role: undefined };
  readonly #jobs: Job[] = [];
  readonly #maxHeldBytes: number;
  readonly #defer: (callback: () => void) => void;

  /**
   * @param maxHeldBytes nobody who may hold more is published to.
   * @param defer calls back when inbound messages have had their turn. @default {@link afterTurn}
   */
  constructor(maxHeldBytes: number, defer: (callback: () => void) => void = afterTurn) {
    this.#maxHeldBytes = maxHeldBytes;
    this.#defer = defer;
  }

  get size(): number {
    return this.#all.size;
  }

  /** Adds a recipient, or indexes it anew after its accountability changed. */
  add(recipient: Recipient): void {
    const { accountability } = recipient;
    if (recipient.indexed === accountability) return;
    this.remove(recipient);
    this.#all.add(recipient);
    recipient.indexed = accountability;
    insert(this.#indexes.user, accountability.user, recipient);
    insert(this.#indexes.role, accountability.role, recipient);
  }

  remove(recipient: Recipient): void {
    const { indexed } = recipient;
    if (!indexed) return;
    recipient.indexed = undefined;
    this.#all.delete(recipient);
    erase(this.#indexes.user, indexed.user, recipient);
    erase(this.#indexes.role, indexed.role, recipient);
  }

  /** Those whom the filter matches now. */
  matching(filter: BroadcastFilter): Recipient[] {
    return [...this.#match(filter)];
  }

  /**
   * Sends one frame, encoded once by the caller, to all whom the filter matches now: a larger audience in slices, between which inbound
   * messages are handled. Broadcasts reach each client in the order of the calls.
   */
  broadcast(frame: Frame, filter: BroadcastFilter): Promise<BroadcastResult> {
    const matching = this.#match(filter);
    // Nothing to copy where it is done at once.
    if (this.#jobs.length === 0 && matching instanceof Audience && matching.shards.length === 1) {
      const [shard] = matching.shards;
      const matched = matching.size;
      if (shard!.publish(frame, this.#maxHeldBytes)) return Promise.resolve({ matched, sent: matched, dropped: 0 });
    }
    return new Promise((resolve) => this.#start(matching, { frame, left: 0, sent: 0, resolve }));
  }

  /** Sends one frame to these, in slices and in the order of the calls as {@link broadcast} does. The list must not change afterwards. */
  deliver(frame: Frame, recipients: readonly Pick<Recipient, "send">[], resolve: (result: BroadcastResult) => void): void {
    this.#start(recipients, { frame, left: 0, sent: 0, resolve });
  }

  /** Whether something that was broadcast or published has not been sent to everybody yet. */
  get isBusy(): boolean {
    return this.#jobs.length > 0;
  }

  #start(source: Iterable<Pick<Recipient, "send">>, message: Message): void {
    const last = this.#jobs.at(-1);
    if (last && last.source === source && isStill(last.parts, source)) return join(last, message);
    const job: Job = {
      source,
      parts: partsOf(source),
      messages: [],
      published: 0,
      joining: [],
      part: 0,
      next: 0,
      hasBegun: false,
    };
    if (job.parts.length === 0) return message.resolve({ matched: 0, sent: 0, dropped: 0 });
    join(job, message);
    // First: what a recipient broadcasts while it is sent to comes after.
    if (this.#jobs.push(job) > 1) return;
    this.#send(job, SLICE);
    if (job.messages.length === 0) this.#jobs.shift();
    if (this.#jobs.length > 0) this.#defer(this.#advance);
  }

  readonly #advance = (): void => {
    const until = performance.now() + SLICE_MS;
    let left = SLICE;
    for (let job = this.#jobs[0]; job && left > 0; job = this.#jobs[0]) {
      left = this.#send(job, left);
      if (job.messages.length > 0) break;
      this.#jobs.shift();
      if (performance.now() > until) break;
    }
    if (this.#jobs.length > 0) this.#defer(this.#advance);
  };

  #index(key: keyof BroadcastFilter): Index {
    let index = this.#indexes[key];
    if (index) return index;
    index = this.#indexes[key] = new Map();
    for (const recipient of this.#all) insert(index, recipient.indexed![key], recipient);
    return index;
  }

  /** Sends no more than are left of a slice; returns what is left of it then. */
  #send(job: Job, left: number): number {
    job.hasBegun = true;
    while (left > 0 && job.messages.length > 0) {
      const { messages } = job;
      const { recipients, start, end } = job.parts[job.part]!;
      if (job.next === start) left -= this.#publish(job);
      const each = messages.length - job.published;
      const last = each > 0 ? Math.min(job.next + Math.max(1, Math.floor(left / each)), end) : end;
      left -= (last - job.next) * each;
      if (each === 1) sendTo(recipients, job.next, last, messages.at(-1)!);
      else if (each > 1) sendAllTo(recipients, job.next, last, messages.slice(job.published));
      job.next = last;
      if (job.next === end) endPart(job);
    }
    return left;
  }

  /** Publishes to all of the part at once, as long as that can be; the number of those who were written to. */
  #publish(job: Job): number {
    const { shard, joined, start, end } = job.parts[job.part]!;
    if (!shard || shard.joined !== joined) return 0;
    const { messages } = job;
    while (job.published < messages.length && shard.publish(messages[job.published]!.frame, this.#maxHeldBytes)) {
      messages[job.published++]!.sent += shard.members.size;
    }
    return job.published > 0 ? end - start : 0;
  }

  #match({ user, role }: BroadcastFilter): Audience<Recipient> | Iterable<Recipient> {
    if (user === undefined && role === undefined) return this.#all;
    const ofUser = user === undefined ? undefined : membersOf(this.#index("user"), user);
    const ofRole = role === undefined ? undefined : membersOf(this.#index("role"), role);
    if (!ofUser || !ofRole) return ofUser ?? ofRole ?? nobody;
    const [few, many] = ofUser.size <= ofRole.size ? [ofUser, ofRole] : [ofRole, ofUser];
    return [...few].filter((recipient) => many.has(recipient));
  }
}

function join({ hasBegun, messages, joining, parts }: Job, message: Message): void {
  message.left = parts.length;
  (hasBegun ? joining : messages).push(message);
}

/** What most broadcasts are, with nothing in the loop that it does not need. */
function sendTo(recipients: Part["recipients"], start: number, end: number, message: Message): void {
  const { frame } = message;
  let sent = 0;
  for (let at = start; at < end; at++) if (recipients[at]!.send(frame)) sent++;
  message.sent += sent;
}

/** All to one, then all to the next: what each is sent is one write. */
function sendAllTo(recipients: Part["recipients"], start: number, end: number, messages: readonly Message[]): void {
  for (let at = start; at < end; at++) {
    const recipient = recipients[at]!;
    for (const message of messages) if (recipient.send(message.frame)) message.sent++;
  }
}

/** Goes on to the next part, without those that have been everywhere. */
function endPart(job: Job): void {
  const { parts, messages, joining } = job;
  const remaining = messages.filter((message) => --message.left > 0);
  const ended = messages.slice(0, messages.length - remaining.length); // Who joins later ends later.
  job.messages = joining.length > 0 ? remaining.concat(joining.splice(0)) : remaining;
  job.published = 0;
  job.part = (job.part + 1) % parts.length;
  job.next = parts[job.part]!.start;
  if (ended.length === 0) return;
  const matched = matchedOf(parts);
  for (const { sent, resolve } of ended) resolve({ matched, sent, dropped: matched - sent });
}

function matchedOf(parts: readonly Part[]): number {
  let matched = 0;
  for (const { start, end } of parts) matched += end - start;
  return matched;
}

/** Copies: who closes or is admitted while we send changes the sets, and a broadcast is for those who were there when it was called. */
function partsOf(source: Iterable<Pick<Recipient, "send">>): Part[] {
  if (source instanceof Audience) return source.shards.flatMap((shard) => cut([...shard.members], shard));
  return cut(Array.isArray(source) ? source : [...source], undefined);
}

function cut(recipients: readonly Pick<Recipient, "send">[], shard: Shard<Recipient> | undefined): Part[] {
  const parts: Part[] = [];
  for (let start = 0; start < recipients.length; start += SLICE) {
    parts.push({ recipients, start, end: Math.min(start + SLICE, recipients.length), shard, joined: shard?.joined ?? 0 });
  }
  return parts;
}

/** Whether the source has the members of which the parts are. */
function isStill(parts: readonly Part[], source: unknown): boolean {
  if (!(source instanceof Audience)) return Array.isArray(source);
  return source.size === matchedOf(parts) &&
    parts.every(({ shard, joined, recipients }) =>
      shard?.joined === joined && shard.members.size === recipients.length && source.shards.includes(shard)
    );
}

/** Who has an id: most users have one connection, for which a set would take 200 bytes. */
type Index = Map<string, Recipient | Audience<Recipient>>;

const nobody: ReadonlySet<Recipient> = new Set();

function membersOf(index: Index, id: string): Audience<Recipient> | ReadonlySet<Recipient> {
  const members = index.get(id);
  return members instanceof Audience ? members : members ? new Set([members]) : nobody;
}

function insert(index: Index | undefined, id: string | null, recipient: Recipient): void {
  if (id === null || !index) return;
  const members = index.get(id);
  if (members instanceof Audience) members.add(recipient);
  else index.set(id, members ? new Audience<Recipient>().add(members).add(recipient) : recipient);
}

function erase(index: Index | undefined, id: string | null, recipient: Recipient): void {
  if (id === null || !index) return;
  const members = index.get(id);
  if (members === recipient || (members instanceof Audience && members.delete(recipient) && members.size === 0)) {
    index.delete(id);
  }
}
