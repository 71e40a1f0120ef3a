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
 * The filter, checked: a key that is present must be a non-empty string, for `{ user: undefined }` must never mean everybody.
 *
 * @throws {TypeError} for any other value and for an unknown key.
 */
export function checkFilter(filter: BroadcastFilter | undefined): BroadcastFilter {
  if (filter === undefined) return {};
  // A promise or a Map has no own keys: it would mean everybody.
  if (typeof filter !== "object" || filter === null || !PLAIN.has(Object.getPrototypeOf(filter))) {
    throw new TypeError('Cannot broadcast: the filter must be an object such as { role: "editor" }');
  }
  for (const key of Object.keys(filter)) {
    const value: unknown = filter[key as keyof BroadcastFilter]; // Or it is refused.
    if (key !== "user" && key !== "role") {
      throw new TypeError(`Cannot broadcast: unknown filter key "${key}", use user or role`);
    }
    if (typeof value !== "string" || value === "") {
      throw new TypeError(`Cannot broadcast: filter.${key} must be a non-empty string; leave the key out to reach everybody`);
    }
  }
  return filter;
}

const PLAIN: ReadonlySet<unknown> = new Set([Object.prototype, null]);

/** A broadcast or publication that goes on in later turns of the event loop. */
interface Job {
  readonly frame: Frame;
  readonly parts: readonly Part[];
  part: number;
  sent: number;
  resolve(result: BroadcastResult): void;
}

/** Some of an audience, as it was when the broadcast was called. */
interface Part {
  readonly recipients: readonly Pick<Recipient, "send">[];
  next: number;
  /** What they were the members of, when so many had joined. */
  readonly shard?: Shard<Recipient>;
  readonly joined?: number;
}

/** Clients that are sent to before inbound messages have their turn again. */
const SLICE_CLIENTS = 2_000;

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
    const parts = partsOf(matching);
    return new Promise((resolve) => this.#start({ frame, parts, part: 0, sent: 0, resolve }));
  }

  /** Sends one frame to these, in slices and in the order of the calls as {@link broadcast} does. The list must not change afterwards. */
  deliver(frame: Frame, recipients: readonly Pick<Recipient, "send">[], resolve: (result: BroadcastResult) => void): void {
    this.#start({ frame, parts: [{ recipients, next: 0 }], part: 0, sent: 0, resolve });
  }

  /** Whether something that was broadcast or published has not been sent to everybody yet. */
  get isBusy(): boolean {
    return this.#jobs.length > 0;
  }

  #start(job: Job): void {
    if (this.#jobs.length > 0 || !this.#send(job)) this.#jobs.push(job);
    if (this.#jobs.length === 1 && this.#jobs[0] === job) this.#defer(this.#advance);
  }

  readonly #advance = (): void => {
    const until = performance.now() + SLICE_MS;
    while (this.#jobs.length > 0 && this.#send(this.#jobs[0]!)) {
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

  /** Sends to a slice of the audience; whether it was the last. */
  #send(job: Job): boolean {
    const { frame, parts } = job;
    for (let left = SLICE_CLIENTS; left > 0 && job.part < parts.length;) {
      const part = parts[job.part]!;
      const { recipients, shard } = part;
      if (shard && part.next === 0 && shard.joined === part.joined && shard.publish(frame, this.#maxHeldBytes)) {
        job.sent += shard.members.size;
        left -= recipients.length;
        job.part++;
        continue;
      }
      const end = Math.min(part.next + left, recipients.length);
      left -= end - part.next;
      for (; part.next < end; part.next++) if (recipients[part.next]!.send(frame)) job.sent++;
      if (part.next === recipients.length) job.part++;
    }
    if (job.part < parts.length) return false;
    let matched = 0;
    for (const { recipients } of parts) matched += recipients.length;
    job.resolve({ matched, sent: job.sent, dropped: matched - job.sent });
    return true;
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

/** Copies: who closes or is admitted while we send changes the sets, and a broadcast is for those who were there when it was called. */
function partsOf(matching: Audience<Recipient> | Iterable<Recipient>): Part[] {
  if (!(matching instanceof Audience)) return [{ recipients: [...matching], next: 0 }];
  return matching.shards.map((shard) => ({ recipients: [...shard.members], next: 0, shard, joined: shard.joined }));
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
