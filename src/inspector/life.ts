import { Ring } from "./ring.ts";
import type { Entry, EntryKind } from "./shown.ts";

/** Maximum number of entries of one client, beside its start. */
const MAX_ENTRIES = 100;

/** What happened to one client. A quiet one costs three fields. */
export class Life {
  readonly openedAt: number;
  admittedAt = 0;
  #entries: Ring<Entry> | undefined;
  /** Number of entries that are not kept any more. */
  forgotten = 0;

  /** @param openedAt of the wall clock, in ms. */
  constructor(openedAt: number) {
    this.openedAt = openedAt;
  }

  /** Adds an entry, or counts it with the last one if that is the same. */
  add(at: number, kind: EntryKind, text: string): void {
    const entries = this.#entries ??= new Ring(MAX_ENTRIES);
    const { last } = entries;
    if (last?.kind === kind && last.text === text) entries.replaceLast({ ...last, until: at, count: last.count + 1 });
    else if (entries.push({ kind, text, at, until: at, count: 1 })) this.forgotten++;
  }

  /** Oldest first. */
  list(): Entry[] {
    const once = (kind: EntryKind, text: string, at: number): Entry => ({ kind, text, at, until: at, count: 1 });
    return [
      once("opened", "The upgrade was accepted", this.openedAt),
      ...this.admittedAt > 0 ? [once("admitted", "The client was admitted", this.admittedAt)] : [],
      ...this.#entries?.list() ?? [],
    ];
  }
}
