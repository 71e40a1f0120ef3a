import type { Position } from "../engine.ts";
import type { BrokerListener } from "../broker/broker.ts";

/** A publication that a notification has named. */
export interface NamedPublication {
  readonly channel: string;
  readonly position: Position;
}

/** Mail that a notification has named: to all nodes, or an event or a member of a channel. */
export interface NamedMail {
  readonly kind: string;
  readonly channel: string;
  readonly id: number;
}

/** A row that a notification has named. */
export type Named = NamedPublication | NamedMail;

/** The rows of some names. */
export interface Rows {
  publication(named: NamedPublication): { readonly previous: number; readonly envelope: string } | undefined;
  mail(named: NamedMail): string | undefined;
}

/** What notifications need from their session. */
export interface NotificationsHost {
  readonly listener: BrokerListener;
  /** Whether the session listens to the channel. */
  follows(channel: string): boolean;
  /** A node has notified itself of its heartbeat. */
  heartbeat(node: string, count: number): void;
  fetch(names: readonly Named[]): Promise<Rows>;
}

/** Names that one request reads. */
const MAX_NAMES = 500;

/** Number of mails remembered as delivered: the reply to the call that sent one may arrive later. */
const MAX_DELIVERED = 1_000;

/**
 * Reads the rows that notifications name, in the order of the commits. One request at a time: what is notified meanwhile shares the
 * next one.
 */
export class Notifications {
  readonly #host: NotificationsHost;
  #waiting: Named[] = [];
  #isReading = false;
  /** Ids of the mail delivered last, and callbacks that wait for other mail. */
  readonly #delivered = new Set<number>();
  readonly #awaited = new Map<number, () => void>();
  /** Numbers of names that were notified, and of those that were handled. */
  #notified = 0;
  #handled = 0;
  #settling: { readonly upTo: number; readonly resolve: () => void }[] = [];

  constructor(host: NotificationsHost) {
    this.#host = host;
  }

  receive(payload: string): void {
    const { listener, heartbeat, follows } = this.#host;
    const [kind, first = "", second = "", third = ""] = payload.split(" ");
    if (kind === "h") return heartbeat(second, Number(first) || 0);
    const number = Number(kind === "p" ? second : first);
    if ((kind !== "p" && kind !== "m") || !Number.isSafeInteger(number) || number < 1) return listener.malformed();
    if (kind === "p" ? !follows(third) : second !== "all" && !follows(third)) return;
    this.#notified++;
    this.#waiting.push(
      kind === "p"
        ? { channel: third, position: { epoch: first, offset: number } }
        : { kind: second, channel: third, id: number },
    );
    if (!this.#isReading) void this.#read();
  }

  /** Resolves when this mail of a channel was delivered here, so that a node sees its own change. */
  delivered(channel: string, id: number): Promise<void> {
    if (!this.#host.follows(channel) || this.#delivered.has(id)) return Promise.resolve();
    return new Promise((resolve) => this.#awaited.set(id, resolve));
  }

  /** Resolves when what was notified up to now is delivered. */
  settled(): Promise<void> {
    const upTo = this.#notified;
    if (this.#handled >= upTo) return Promise.resolve();
    return new Promise((resolve) => this.#settling.push({ upTo, resolve }));
  }

  /** The session no longer listens to some channels. */
  unfollowed(): void {
    // Rare. Calls that wait for mail of another channel resolve a little early.
    for (const resolve of this.#awaited.values()) resolve();
    this.#awaited.clear();
  }

  async #read(): Promise<void> {
    const { listener, fetch } = this.#host;
    this.#isReading = true;
    try {
      while (this.#waiting.length > 0) {
        const names = this.#waiting.splice(0, MAX_NAMES);
        const rows = await fetch(names);
        for (const named of names) this.#deliver(named, rows);
        this.#release(this.#handled += names.length);
      }
    } catch (error) {
      listener.ended(error); // The named rows would be missing: the next session catches up.
      this.#release(Infinity);
    }
    this.#isReading = false;
  }

  #release(handled: number): void {
    const settled = this.#settling.filter(({ upTo }) => upTo <= handled);
    this.#settling = this.#settling.filter(({ upTo }) => upTo > handled);
    for (const { resolve } of settled) resolve();
  }

  #deliver(named: Named, rows: Rows): void {
    const { listener } = this.#host;
    const { channel } = named;
    if ("position" in named) {
      const row = rows.publication(named);
      // The row is gone: a mark that follows no entry makes the subscription read the history.
      if (row) listener.live(channel, row.envelope, named.position, row.previous);
      else listener.mark(channel, named.position, -1);
      return;
    }
    this.#settle(named.id);
    const envelope = rows.mail(named);
    if (envelope === undefined) return; // It is removed after a minute, and this node was later.
    if (named.kind === "all") listener.message(envelope);
    else if (named.kind === "event") listener.live(channel, envelope, null, 0);
    else if (named.kind === "member") listener.member(channel, envelope);
    else listener.malformed();
  }

  #settle(id: number): void {
    this.#awaited.get(id)?.();
    this.#awaited.delete(id);
    this.#delivered.add(id);
    if (this.#delivered.size <= MAX_DELIVERED) return;
    for (const oldest of this.#delivered) return void this.#delivered.delete(oldest);
  }
}
