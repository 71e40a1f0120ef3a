import { Ring } from "./ring.ts";
import type { Entry, EntryKind } from "./shown.ts";

/** Maximum number of entries of one client, without its start and its messages. */
const MAX_ENTRIES = 100;

/** Maximum number of entries about messages and streams of one client, one for each type. */
const MAX_MESSAGES = 20;

/** An entry about messages of one text, which is its key in the map. */
interface MessageEntry {
  readonly kind: EntryKind;
  readonly at: number;
  until: number;
  count: number;
}

/** The events of one client. Its lists are created with their first entry, because most clients have none. */
export class Timeline {
  readonly openedAt: number;
  admittedAt = 0;
  #entries: Ring<Entry> | undefined;
  /** By text. */
  #messages: Map<string, MessageEntry> | undefined;
  /** Number of entries that were dropped. */
  forgotten = 0;

  /** @param openedAt the time of the wall clock, in ms. */
  constructor(openedAt: number) {
    this.openedAt = openedAt;
  }

  /** Adds an entry, or increments the count of the last one if it is the same. */
  add(at: number, kind: EntryKind, text: string): void {
    const entries = this.#entries ??= new Ring(MAX_ENTRIES);
    const { last } = entries;
    if (last?.kind === kind && last.text === text) entries.replaceLast({ ...last, until: at, count: last.count + 1 });
    else if (entries.push({ kind, text, at, until: at, count: 1 })) this.forgotten++;
  }

  /** Adds a message or a stream, or increments the count of the entry with the same text. */
  count(at: number, kind: EntryKind, text: string): void {
    const messages = this.#messages ??= new Map();
    const same = messages.get(text);
    if (same) {
      same.until = at;
      return void same.count++;
    }
    if (messages.size === MAX_MESSAGES) {
      const [oldest] = messages.keys();
      messages.delete(oldest!); // It is full.
      this.forgotten++;
    }
    messages.set(text, { kind, at, until: at, count: 1 });
  }

  /** Drops messages and streams. */
  dropMessages(): void {
    this.#messages = undefined;
  }

  /** Oldest first. */
  list(): Entry[] {
    const once = (kind: EntryKind, text: string, at: number): Entry => ({ kind, text, at, until: at, count: 1 });
    const messages = Array.from(this.#messages ?? [], ([text, counted]) => ({ ...counted, text }));
    const entries = [...this.#entries?.list() ?? [], ...messages];
    return [
      once("opened", "The upgrade was accepted", this.openedAt),
      ...this.admittedAt > 0 ? [once("admitted", "The client was admitted", this.admittedAt)] : [],
      ...messages.length > 0 ? entries.sort((one, other) => one.at - other.at) : entries,
    ];
  }
}
