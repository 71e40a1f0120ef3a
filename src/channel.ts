import { Audience, type Recipient } from "./audience.ts";
import type { ResolvedChannel } from "./channel-options.ts";
import { type HistoryPage, PAGE_BYTES, type Position, type Publication } from "./engine.ts";
import type { ExtensionHost } from "./extension.ts";
import { guard } from "./guard.ts";
import { Presence } from "./presence.ts";
import { PublicationFrame } from "./publication-frame.ts";

/** A subscription, as its channel sees it. */
export interface ChannelRecipient extends Recipient {
  /** Hands the publication to the client, or remembers that it is behind; `false` when it could not be sent. */
  send(frame: PublicationFrame): boolean;
  /** Publications may be missing: it is to read the history from where it is. */
  lag(): void;
}

/** What channels need of their node. */
export interface ChannelHost extends ExtensionHost {
  /** Nobody on this node needs the channel any more. */
  closed(channel: Channel): void;
}

const ignore = () => {};

/** One channel, as long as somebody on this node is subscribed to it. */
export class Channel {
  readonly name: string;
  readonly options: ResolvedChannel;
  /** Absent where the channel keeps no members. */
  readonly presence: Presence | null;
  /** Up to where this node has been handed publications; `null` without a history. */
  position: Position | null = null;

  readonly #host: ChannelHost;
  readonly #subscriptions = new Set<ChannelRecipient>();
  /** Those of them that take every publication as it is: the runtime may send it to all of them at once. */
  readonly #together = new Audience<ChannelRecipient>();
  /** What they were sent last in that way. */
  #sentTogether: Position | null = null;
  /** The subscriptions as a list that does not change: a copy for each publication took a third of its time. */
  #list: readonly ChannelRecipient[] | undefined;
  #holders = 0;
  #isOpen = false;
  #opening: Promise<void> | undefined;
  /** Reads of the history under way: after a gap all subscriptions want the same. */
  readonly #reads = new Map<string, Promise<HistoryPage>>();
  /** What is sent of a publication that is in the history, for who asks for it next. */
  readonly #frames = new WeakMap<Publication, PublicationFrame>();

  constructor(name: string, options: ResolvedChannel, host: ChannelHost) {
    this.name = name;
    this.options = options;
    this.#host = host;
    const { presence } = options;
    this.presence = presence &&
      new Presence(name, presence.grace, host, { enter: () => this.enter(), leave: () => this.leave() });
  }

  /** Subscriptions that are sent to. */
  get size(): number {
    return this.#subscriptions.size;
  }

  /** Keeps the channel open until {@link leave}. The promise, if there is one, resolves when it is, and rejects when it cannot be. */
  enter(): Promise<void> | undefined {
    this.#holders++;
    if (this.#isOpen || this.#opening) return this.#opening;
    try {
      const opened = this.#host.engine.subscribe(this.name, this.options.history);
      if (opened instanceof Promise) return this.#opening = this.#open(opened);
      this.#opened(opened);
      return undefined;
    } catch (error) {
      return this.#opening = this.#open(Promise.reject(error));
    }
  }

  leave(): void {
    this.#holders--;
    if (!this.#opening) this.#closeUnused();
  }

  add(subscription: ChannelRecipient): void {
    this.#subscriptions.add(subscription);
    this.#list = undefined;
  }

  /** From now on it may be sent to together with others. */
  join(subscription: ChannelRecipient): void {
    if (subscription.transport?.publisher && !this.#together.has(subscription)) this.#together.add(subscription);
  }

  /** Not from now on. Where those stand that were sent to together. */
  part(subscription: ChannelRecipient): Position | null {
    return this.#together.delete(subscription) ? this.#sentTogether : null;
  }

  remove(subscription: ChannelRecipient): void {
    this.#together.delete(subscription);
    if (this.#subscriptions.delete(subscription)) this.#list = undefined;
  }

  /** The engine hands a publication over. */
  published(publication: Publication): void {
    const { position } = publication;
    // Whoever is added after this would find it neither in a page that was read before it nor among what it is sent.
    this.#reads.clear();
    if (position && this.position && position.epoch !== this.position.epoch) {
      // What was kept is lost: everybody has to begin anew.
      this.position = position;
      return this.gap();
    }
    if (position) this.position = position;
    if (this.#subscriptions.size === 0) return;
    const frame = this.frameOf(publication);
    const { delivery, maxBufferedBytes } = this.#host;
    // Those of one group: more at once would keep inbound messages waiting.
    const [group] = this.#together.groups;
    if (group && !delivery.isBusy && group.publish(frame, maxBufferedBytes)) {
      this.#sentTogether = position;
      if (group.members.size === this.#subscriptions.size) return;
      const others = [...this.#subscriptions].filter((subscription) => !group.members.has(subscription));
      return delivery.deliver(frame, others, ignore);
    }
    this.#list ??= [...this.#subscriptions];
    delivery.deliver(frame, this.#list, ignore);
  }

  /** Publications may have been lost on their way to this node. */
  gap(position: Position | null = this.position): void {
    this.position = position;
    this.#reads.clear();
    for (const subscription of [...this.#subscriptions]) subscription.lag();
  }

  /**
   * A page of the publications since the position. Those of a channel with a history only.
   *
   * @param isNext whether another page ended there.
   */
  read(after: Position, isNext: boolean): HistoryPage | Promise<HistoryPage> {
    const history = this.options.history!; // As above.
    const key = `${after.epoch} ${after.offset} ${isNext}`;
    const underWay = this.#reads.get(key);
    if (underWay) return underWay;
    const maxBytes = Math.min(PAGE_BYTES, this.#host.maxBufferedBytes / 2);
    const page = this.#host.engine.read(this.name, history, after, isNext ? Infinity : history.maxRecover, maxBytes);
    if (!(page instanceof Promise)) return page;
    const read = page.finally(() => {
      if (this.#reads.get(key) === read) this.#reads.delete(key);
    });
    this.#reads.set(key, read);
    return read;
  }

  frameOf(publication: Publication): PublicationFrame {
    let frame = this.#frames.get(publication);
    if (!frame) this.#frames.set(publication, frame = new PublicationFrame(this.name, publication));
    return frame;
  }

  async #open(opened: Promise<Position | null>): Promise<void> {
    try {
      this.#opened(await opened);
    } finally {
      this.#opening = undefined;
      this.#closeUnused();
    }
  }

  #opened(position: Position | null): void {
    this.#isOpen = true;
    // The engine may have handed over something meanwhile.
    this.position ??= position;
  }

  #closeUnused(): void {
    if (this.#holders > 0) return;
    if (this.#isOpen) guard(() => this.#host.engine.unsubscribe(this.name), (error) => this.#host.report(error));
    this.#isOpen = false;
    this.#host.closed(this);
  }
}
