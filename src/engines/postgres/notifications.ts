import type { Position } from "../engine.ts";
import type { BrokerListener } from "../broker/broker.ts";

/** A publication that a notification has named. */
export interface NamedPublication {
  readonly channel: string;
  readonly position: Position;
}

/** A row of `noroshi_mail` that a notification has named: a message to all nodes, or a channel's event or member. */
export interface NamedMail {
  readonly kind: string;
  readonly channel: string;
  readonly id: number;
}

/** A row that a notification has named. */
export type Named = NamedPublication | NamedMail;

/** The rows that were read for some notifications. */
export interface Rows {
  publication(named: NamedPublication): { readonly previous: number; readonly envelope: string } | undefined;
  mail(named: NamedMail): string | undefined;
}

/** What {@link Notifications} needs from its session. */
export interface NotificationsHost {
  readonly listener: BrokerListener;
  /** Whether this node is subscribed to the channel. */
  follows(channel: string): boolean;
  /** Called with the heartbeats of all nodes, which tell each that its connection works. */
  heartbeat(node: string, count: number): void;
  fetch(names: readonly Named[]): Promise<Rows>;
}

/** Maximum number of rows that one request reads. */
const MAX_NAMES = 500;

/** Number of delivered mail ids that are kept, because mail may arrive before the reply to the call that has sent it. */
const MAX_DELIVERED = 1_000;

/**
 * Reads the rows that notifications name, in the order of the commits. It makes one request at a time; notifications that arrive during a
 * request share the next one.
 */
export class Notifications {
  readonly #host: NotificationsHost;
  #waiting: Named[] = [];
  #isReading = false;
  /** Ids of the latest delivered mail. */
  readonly #delivered = new Set<number>();
  /** By id of mail: the callback that waits for its delivery. */
  readonly #awaited = new Map<number, () => void>();
  /** Number of notifications received so far, and of those handled. */
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

  /** Resolves when this mail was delivered on this node, so that a node sees its own change. */
  delivered(channel: string, id: number): Promise<void> {
    if (!this.#host.follows(channel) || this.#delivered.has(id)) return Promise.resolve();
    return new Promise((resolve) => this.#awaited.set(id, resolve));
  }

  /** Resolves when all notifications received so far are handled. */
  settled(): Promise<void> {
    const upTo = this.#notified;
    if (this.#handled >= upTo) return Promise.resolve();
    return new Promise((resolve) => this.#settling.push({ upTo, resolve }));
  }

  /** Called when the node has unsubscribed from some channels. */
  unfollowed(): void {
    // Calls that wait for mail of other channels resolve early, too, which is harmless and rare.
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
      listener.ended(error); // The next session reads the missing rows.
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
      // The row was removed. A previous offset that fits no entry makes the subscription read the history.
      if (row) listener.live(channel, row.envelope, named.position, row.previous);
      else listener.mark(channel, named.position, -1);
      return;
    }
    this.#settle(named.id);
    const envelope = rows.mail(named);
    if (envelope === undefined) return; // This node was more than a minute late, after which mail is removed.
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
