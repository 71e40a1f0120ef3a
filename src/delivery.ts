import type { Frame } from "./frame.ts";
import { afterTurn, SLICE_MS } from "./outbox.ts";
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
export interface Recipient {
  readonly accountability: Accountability;
  /** What it is indexed under: its accountability may have changed by the time it is removed. Written by {@link Delivery} only. */
  indexed: Accountability | undefined;
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
  for (const [key, value] of Object.entries(filter)) {
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
  readonly recipients: readonly Pick<Recipient, "send">[];
  next: number;
  sent: number;
  resolve(result: BroadcastResult): void;
}

/** Clients that are sent to before inbound messages have their turn again. */
const SLICE_CLIENTS = 2_000;

/** Who receives what: the admitted connections, indexed by user and role so that a filter costs what it matches. */
export class Delivery {
  readonly #all = new Set<Recipient>();
  readonly #users: Index = new Map();
  readonly #roles: Index = new Map();
  readonly #jobs: Job[] = [];
  readonly #defer: (callback: () => void) => void;

  /** @param defer calls back when inbound messages have had their turn. @default {@link afterTurn} */
  constructor(defer: (callback: () => void) => void = afterTurn) {
    this.#defer = defer;
  }

  get size(): number {
    return this.#all.size;
  }

  /** Adds a recipient, or indexes it anew after its accountability changed. */
  add(recipient: Recipient): void {
    this.remove(recipient);
    const { accountability } = recipient;
    this.#all.add(recipient);
    recipient.indexed = accountability;
    insert(this.#users, accountability.user, recipient);
    insert(this.#roles, accountability.role, recipient);
  }

  remove(recipient: Recipient): void {
    const { indexed } = recipient;
    if (!indexed) return;
    recipient.indexed = undefined;
    this.#all.delete(recipient);
    erase(this.#users, indexed.user, recipient);
    erase(this.#roles, indexed.role, recipient);
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
    // A copy: who closes or is admitted while we send changes the sets, and a broadcast is for those who were there when it was called.
    const recipients = this.matching(filter);
    return new Promise((resolve) => this.deliver(frame, recipients, resolve));
  }

  /** Sends one frame to these, in slices and in the order of the calls as {@link broadcast} does. The list must not change afterwards. */
  deliver(frame: Frame, recipients: readonly Pick<Recipient, "send">[], resolve: (result: BroadcastResult) => void): void {
    const job = { frame, recipients, next: 0, sent: 0, resolve };
    if (this.#jobs.length > 0 || !advance(job)) this.#jobs.push(job);
    if (this.#jobs.length === 1 && this.#jobs[0] === job) this.#defer(this.#advance);
  }

  /** Whether something that was broadcast or published has not been sent to everybody yet. */
  get isBusy(): boolean {
    return this.#jobs.length > 0;
  }

  readonly #advance = (): void => {
    const until = performance.now() + SLICE_MS;
    while (this.#jobs.length > 0 && advance(this.#jobs[0]!)) {
      this.#jobs.shift();
      if (performance.now() > until) break;
    }
    if (this.#jobs.length > 0) this.#defer(this.#advance);
  };

  #match({ user, role }: BroadcastFilter): Iterable<Recipient> {
    if (user === undefined && role === undefined) return this.#all;
    const ofUser = user === undefined ? undefined : membersOf(this.#users, user);
    const ofRole = role === undefined ? undefined : membersOf(this.#roles, role);
    if (!ofUser || !ofRole) return ofUser ?? ofRole ?? nobody;
    const [few, many] = ofUser.size <= ofRole.size ? [ofUser, ofRole] : [ofRole, ofUser];
    return [...few].filter((recipient) => many.has(recipient));
  }
}

/** Sends to a slice of the audience; whether it was the last. */
function advance(job: Job): boolean {
  const { frame, recipients } = job;
  const end = Math.min(job.next + SLICE_CLIENTS, recipients.length);
  for (; job.next < end; job.next++) if (recipients[job.next]!.send(frame)) job.sent++;
  if (end < recipients.length) return false;
  job.resolve({ matched: recipients.length, sent: job.sent, dropped: recipients.length - job.sent });
  return true;
}

/** Who has an id: most users have one connection, for which a set would take 200 bytes. */
type Index = Map<string, Recipient | Set<Recipient>>;

const nobody: ReadonlySet<Recipient> = new Set();

function membersOf(index: Index, id: string): ReadonlySet<Recipient> {
  const members = index.get(id);
  return members instanceof Set ? members : members ? new Set([members]) : nobody;
}

function insert(index: Index, id: string | null, recipient: Recipient): void {
  if (id === null) return;
  const members = index.get(id);
  if (members instanceof Set) members.add(recipient);
  else index.set(id, members ? new Set([members, recipient]) : recipient);
}

function erase(index: Index, id: string | null, recipient: Recipient): void {
  if (id === null) return;
  const members = index.get(id);
  if (members === recipient || (members instanceof Set && members.delete(recipient) && members.size === 0)) index.delete(id);
}
