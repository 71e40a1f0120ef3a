import type { Member } from "../engine.ts";
import { rowsOf, type Sql } from "../sqlite-histories.ts";
import { type Item, lengthOfMember, type MembersPage, type RelayMember, takeCall } from "./shards.ts";

/** Called with the users that have joined or left a channel over all objects. Returns whether relays have to receive the change. */
export type Changed = (channel: string, joined: readonly Member[], left: readonly string[]) => boolean;

interface MemberRow {
  user: string;
  data: string | null;
}

/** Maximum number of members in one page. */
const MEMBERS_PER_PAGE = 2_000;

/** Maximum number of changes that are stored for relays. Beyond it all earlier ones are dropped. */
const MAX_PENDING = 10_000;

/**
 * The members on all objects, in a table of the home object. A user on several objects is one member, with the newest data. Newer data has
 * a higher rank.
 *
 * A change is stored until all relays have received it: if the home object is evicted before that, it sends the change again.
 */
export class HomeMembers {
  readonly #sql: Sql;
  readonly #members: string;
  readonly #pending: string;
  readonly #changed: Changed;
  #newestRank = 0;
  /** Upper bound of the number of pending changes: a second change of the same member counts again. */
  #pendingCount = 0;

  constructor(sql: Sql, prefix: string, changed: Changed) {
    const table = (name: string) => `"${prefix.replaceAll('"', '""')}_${name}"`;
    this.#sql = sql;
    // Objects that exist have these names of tables and columns.
    this.#members = table("attendance");
    this.#pending = table("untold");
    this.#changed = changed;
  }

  start(): void {
    // `place`: the rank of the data.
    const [members, pending] = [this.#members, this.#pending];
    rowsOf(
      this.#sql,
      `CREATE TABLE IF NOT EXISTS ${members}
       (channel TEXT, user TEXT, relay TEXT, data TEXT, place INTEGER, PRIMARY KEY (channel, user, relay)) WITHOUT ROWID`,
    );
    rowsOf(this.#sql, `CREATE INDEX IF NOT EXISTS ${members.slice(0, -1)}_relay" ON ${members} (relay)`);
    rowsOf(
      this.#sql,
      `CREATE TABLE IF NOT EXISTS ${pending} (channel TEXT, user TEXT, PRIMARY KEY (channel, user)) WITHOUT ROWID`,
    );
    this.#newestRank = rowsOf<{ place: number | null }>(this.#sql, `SELECT MAX(place) AS place FROM ${members}`)[0]?.place ?? 0;
    this.#pendingCount = this.pending().length;
  }

  /** Returns the rank of the data. @param rank of data that was stored before, which keeps its rank. @default the highest */
  join(relay: string, channel: string, { user, data }: Member, rank: number = ++this.#newestRank): number {
    this.#change(channel, user, () => this.#put(relay, channel, user, data ?? null, rank));
    return rank;
  }

  leave(relay: string, channel: string, user: string): void {
    this.#change(channel, user, () => this.#remove(relay, channel, user));
  }

  /** Replaces all members of a relay. */
  replace(relay: string, members: readonly RelayMember[]): void {
    const before = rowsOf<{ channel: string; user: string; data: string | null }>(
      this.#sql,
      `SELECT channel, user, data FROM ${this.#members} WHERE relay = ?`,
      relay,
    );
    const now = new Set(members.map(keyOf));
    for (const each of before) if (!now.has(keyOf(each))) this.leave(relay, each.channel, each.user);
    const known = new Map(before.map((each) => [keyOf(each), each.data]));
    for (const { channel, user, data } of members) {
      // Known data keeps its rank.
      if (known.get(keyOf({ channel, user })) === (data ?? null)) continue;
      this.join(relay, channel, data === undefined ? { user } : { user, data });
    }
  }

  /** All members of a channel, in the order of their users. */
  members(channel: string): Member[] {
    const members: Member[] = [];
    let page: MembersPage;
    do {
      page = this.page(channel, members.at(-1)?.user);
      for (const member of page.members) members.push(member);
    } while (page.hasMore);
    return members;
  }

  /** As many members as fit into one call. @param after the last user of the previous page. */
  page(channel: string, after: string = ""): MembersPage {
    // Beside MAX(), SQLite reads the other columns from the row with the maximum: the newest data.
    const rows = rowsOf<MemberRow>(
      this.#sql,
      `SELECT user, data, MAX(CASE WHEN data IS NULL THEN -1 ELSE place END) FROM ${this.#members}
       WHERE channel = ? AND user > ? GROUP BY user ORDER BY user LIMIT ?`,
      channel,
      after,
      MEMBERS_PER_PAGE,
    );
    const members = takeCall(rows.map(memberOf), lengthOfMember);
    return { members, hasMore: rows.length === MEMBERS_PER_PAGE || members.length < rows.length };
  }

  /** Names of the relays that have members of the channel. */
  relays(channel: string): string[] {
    const rows = rowsOf<{ relay: string }>(this.#sql, `SELECT DISTINCT relay FROM ${this.#members} WHERE channel = ?`, channel);
    return rows.map(({ relay }) => relay);
  }

  /** The current member, or `undefined` if the user has left. */
  member(channel: string, user: string): Member | undefined {
    const [row] = rowsOf<MemberRow>(
      this.#sql,
      `SELECT user, data FROM ${this.#members} WHERE channel = ? AND user = ? ORDER BY data IS NULL, place DESC LIMIT 1`,
      channel,
      user,
    );
    return row && memberOf(row);
  }

  /** The current state of the changed members, as relays receive it. @param changes channel and user, with a line break between them. */
  itemsOf(changes: Iterable<string>): Extract<Item, { type: "presence" }>[] {
    return Array.from(changes, (change) => {
      const [channel, user] = [change.slice(0, change.indexOf("\n")), change.slice(change.indexOf("\n") + 1)];
      const member = this.member(channel, user);
      return { type: "presence", channel, joined: member ? [member] : [], left: member ? [] : [user] };
    });
  }

  /** Changes that some relays may not have received. */
  pending(): { channel: string; user: string }[] {
    return rowsOf(this.#sql, `SELECT channel, user FROM ${this.#pending}`);
  }

  /** Deletes the pending changes: all relays have received them. */
  confirmAll(): void {
    rowsOf(this.#sql, `DELETE FROM ${this.#pending}`);
    this.#pendingCount = 0;
  }

  #put(relay: string, channel: string, user: string, data: string | null, rank: number): void {
    rowsOf(
      this.#sql,
      `INSERT OR REPLACE INTO ${this.#members} (channel, user, relay, data, place) VALUES (?, ?, ?, ?, ?)`,
      channel,
      user,
      relay,
      data,
      rank,
    );
  }

  #remove(relay: string, channel: string, user: string): void {
    rowsOf(this.#sql, `DELETE FROM ${this.#members} WHERE channel = ? AND user = ? AND relay = ?`, channel, user, relay);
  }

  #change(channel: string, user: string, change: () => void): void {
    const before = this.member(channel, user);
    change();
    const now = this.member(channel, user);
    if (now ? before && before.data === now.data : !before) return;
    const hasRelays = this.#changed(channel, now ? [now] : [], now ? [] : [user]);
    if (!hasRelays) return;
    if (++this.#pendingCount > MAX_PENDING) this.confirmAll();
    rowsOf(this.#sql, `INSERT OR IGNORE INTO ${this.#pending} VALUES (?, ?)`, channel, user);
  }
}

const memberOf = ({ user, data }: MemberRow): Member => data === null ? { user } : { user, data };

// Names of channels have no line break.
const keyOf = ({ channel, user }: { channel: string; user: string }): string => `${channel}\n${user}`;
