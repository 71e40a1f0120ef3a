import { type BroadcastFilter, checkFilter, type FilterWords } from "../delivery/broadcast.ts";
import type { Accountability } from "../application/websocket-client.ts";

/** Selects the clients to disconnect: by user, by role, by both, or one by its `uid`. */
export interface DisconnectFilter extends BroadcastFilter {
  /** Only the client with this `uid`. */
  uid?: string;
}

/** @throws {TypeError} for an empty filter, an unknown key or a value that is not a non-empty string. */
export function checkDisconnectFilter(filter: DisconnectFilter): void {
  const given = Object(filter) as DisconnectFilter; // `null` becomes an empty filter, which is refused.
  const { uid, ...rest } = given;
  const checked = checkFilter(rest, DISCONNECT);
  if ("uid" in given ? typeof uid !== "string" || uid === "" : Object.keys(checked).length === 0) {
    throw new TypeError("Cannot disconnect: pass a user, a role or a uid; close() disconnects everybody");
  }
}

const DISCONNECT: FilterWords = { action: "disconnect", keys: "user, role or uid", remedy: ", or absent" };

/** `disconnected` if the rights have ended, `refreshed` if they have to be read again. */
export type Revocation = "disconnected" | "refreshed";

/** Recent revocations. An authentication that began before one must not restore the old rights. */
export class Revocations {
  /** Time for which a revocation is kept, in ms. */
  readonly keep: number;
  #recent: { kind: Revocation; filter: BroadcastFilter; number: number; at: number }[] = [];
  #number = 0;

  constructor(keep: number) {
    this.keep = keep;
  }

  /** Number of the last revocation. Not a time, because two may be in the same millisecond. */
  get number(): number {
    return this.#number;
  }

  /** @param now the time, in ms of the monotonic clock. */
  add(kind: Revocation, filter: BroadcastFilter, now: number): void {
    this.#recent = this.#recent.filter(({ at }) => now - at < this.keep);
    this.#recent.push({ kind, filter, number: ++this.#number, at: now });
  }

  /** Whether a revocation after number `since` matches this user and role. */
  includes(kind: Revocation, { user, role }: Accountability, since: number): boolean {
    if (this.#recent.length === 0) return false; // The usual case.
    return this.#recent.some(({ kind: revoked, filter, number }) =>
      revoked === kind && number > since && (filter.user === undefined || filter.user === user) &&
      (filter.role === undefined || filter.role === role)
    );
  }
}
