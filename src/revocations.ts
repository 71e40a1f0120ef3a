import { type BroadcastFilter, checkFilter } from "./broadcast.ts";
import type { Accountability } from "./websocket-client.ts";

/** Whose connections are ended: those of a user, of a role, both, or one client. */
export interface DisconnectFilter extends BroadcastFilter {
  /** Only the client with this `uid`. */
  uid?: string;
}

/** @throws {TypeError} for an empty filter, an unknown key or a value that is not a non-empty string. */
export function checkDisconnectFilter(filter: DisconnectFilter): void {
  const { uid, ...rest } = filter;
  const checked = checkFilter(rest);
  if ("uid" in filter ? typeof uid !== "string" || uid === "" : Object.keys(checked).length === 0) {
    throw new TypeError("Cannot disconnect: pass a user, a role or a uid; close() ends everybody");
  }
}

/** What was done to rights: they were ended, or are to be asked for anew. */
export type Revocation = "disconnected" | "refreshed";

/** Whose rights were taken or changed lately: an authentication that began before must not bring them back. */
export class Revocations {
  /** ms for which one is remembered. */
  readonly keep: number;
  #recent: { kind: Revocation; filter: BroadcastFilter; number: number; at: number }[] = [];
  #number = 0;

  constructor(keep: number) {
    this.keep = keep;
  }

  /** How many there have been. They are numbered, for two things may happen within one millisecond. */
  get number(): number {
    return this.#number;
  }

  /** @param now ms of the monotonic clock. */
  add(kind: Revocation, filter: BroadcastFilter, now: number): void {
    this.#recent = this.#recent.filter(({ at }) => now - at < this.keep);
    this.#recent.push({ kind, filter, number: ++this.#number, at: now });
  }

  /** Whether it was done to this user or role since there had been so many. */
  includes(kind: Revocation, { user, role }: Accountability, since: number): boolean {
    return this.#recent.some(({ kind: done, filter, number }) =>
      done === kind && number > since && (filter.user === undefined || filter.user === user) &&
      (filter.role === undefined || filter.role === role)
    );
  }
}
