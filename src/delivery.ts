import type { Accountability } from "./websocket-client.ts";

/** Who a broadcast is for. It is data, so that it can travel to another node; a key that is absent does not restrict. */
export interface BroadcastFilter {
  /** Only clients of this user. */
  user?: string;
  /** Only clients of this role. */
  role?: string;
}

/** A connection that can receive. */
export interface Recipient {
  readonly accountability: Accountability;
  send(frame: string): void;
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

/** Who receives what: the admitted connections, indexed by user and role so that a filter costs what it matches. */
export class Delivery {
  readonly #all = new Set<Recipient>();
  readonly #users = new Map<string, Set<Recipient>>();
  readonly #roles = new Map<string, Set<Recipient>>();
  // What each was indexed under: its accountability may have changed by the time it is removed.
  readonly #indexed = new Map<Recipient, Accountability>();

  get size(): number {
    return this.#all.size;
  }

  /** Adds a recipient, or indexes it anew after its accountability changed. */
  add(recipient: Recipient): void {
    this.remove(recipient);
    const { accountability } = recipient;
    this.#all.add(recipient);
    this.#indexed.set(recipient, accountability);
    insert(this.#users, accountability.user, recipient);
    insert(this.#roles, accountability.role, recipient);
  }

  remove(recipient: Recipient): void {
    if (!this.#all.delete(recipient)) return;
    const accountability = this.#indexed.get(recipient);
    this.#indexed.delete(recipient);
    if (!accountability) return;
    erase(this.#users, accountability.user, recipient);
    erase(this.#roles, accountability.role, recipient);
  }

  /** Those whom the filter matches now. */
  matching(filter: BroadcastFilter): Recipient[] {
    return [...this.#match(filter)];
  }

  /** Sends one frame, encoded once by the caller, to all whom the filter matches. */
  broadcast(frame: string, filter: BroadcastFilter): void {
    // A listener may close or admit clients while we send: a Set's iteration skips what was deleted, but would reach
    // what was added, and a broadcast is for those who were connected when it was called.
    for (const recipient of this.matching(filter)) recipient.send(frame);
  }

  #match({ user, role }: BroadcastFilter): Iterable<Recipient> {
    if (user === undefined && role === undefined) return this.#all;
    const ofUser = user === undefined ? undefined : this.#users.get(user) ?? nobody;
    const ofRole = role === undefined ? undefined : this.#roles.get(role) ?? nobody;
    if (!ofUser || !ofRole) return ofUser ?? ofRole ?? nobody;
    const [few, many] = ofUser.size <= ofRole.size ? [ofUser, ofRole] : [ofRole, ofUser];
    return [...few].filter((recipient) => many.has(recipient));
  }
}

const nobody: ReadonlySet<Recipient> = new Set();

function insert(index: Map<string, Set<Recipient>>, key: string | null, recipient: Recipient): void {
  if (key === null) return;
  const set = index.get(key);
  if (set) set.add(recipient);
  else index.set(key, new Set([recipient]));
}

function erase(index: Map<string, Set<Recipient>>, key: string | null, recipient: Recipient): void {
  if (key === null) return;
  const set = index.get(key);
  if (set?.delete(recipient) && set.size === 0) index.delete(key);
}
