/** Selects the clients of a broadcast. An absent key matches all. */
export interface BroadcastFilter {
  /** Only clients of this user. */
  user?: string;
  /** Only clients of this role. */
  role?: string;
}

/** The result of a broadcast. */
export interface BroadcastResult {
  /** Number of clients that the filter matched at the time of the call. */
  matched: number;
  /** Number of clients whose socket accepted the message. */
  sent: number;
  /** Number of the other clients, which were too slow or gone. */
  dropped: number;
}

/** Words for the errors about a filter. */
export interface FilterWords {
  readonly action: string;
  /** The keys that it may have. */
  readonly keys: string;
  /** What to write instead of an empty value, after "must be a non-empty string". */
  readonly remedy: string;
}

const BROADCAST: FilterWords = {
  action: "broadcast",
  keys: "user or role",
  remedy: "; leave the key out to reach everybody",
};

/**
 * Returns a checked copy of the filter. A key that is present must be a non-empty string, because `{ user: undefined }` must never mean
 * everybody.
 *
 * @throws {TypeError} for any other value and for an unknown key.
 */
export function checkFilter(
  filter: BroadcastFilter | undefined,
  { action, keys, remedy }: FilterWords = BROADCAST,
): BroadcastFilter {
  if (filter === undefined) return {};
  // A promise or a Map has no own keys, and would mean everybody.
  if (typeof filter !== "object" || filter === null || !PLAIN.has(Object.getPrototypeOf(filter))) {
    throw new TypeError(`Cannot ${action}: the filter must be an object such as { role: "editor" }`);
  }
  const checked: BroadcastFilter = {};
  for (const key of Object.keys(filter)) {
    if (key !== "user" && key !== "role") {
      throw new TypeError(`Cannot ${action}: unknown filter key "${key}", use ${keys}`);
    }
    const value: unknown = filter[key];
    if (typeof value !== "string" || value === "") {
      throw new TypeError(`Cannot ${action}: filter.${key} must be a non-empty string${remedy}`);
    }
    checked[key] = value;
  }
  return checked;
}

const PLAIN: ReadonlySet<unknown> = new Set([Object.prototype, null]);
