import { Audience, type Recipient } from "../delivery/audience.ts";
import type { ResolvedChannel } from "./channel-options.ts";
import { type HistoryPage, PAGE_BYTES, type Position, type Publication } from "../engines/engine.ts";
import type { ExtensionHost } from "../application/extension.ts";
import { guard } from "../base/guard.ts";
import { Presence } from "./presence.ts";
import { PublicationFrame } from "./publication-frame.ts";

/** A subscription, as seen by its channel. */
export interface ChannelRecipient extends Recipient {
  /** Sends or keeps the publication; `false` if it could do neither and the subscription has to catch up. */
  send(frame: PublicationFrame): boolean;
  /** Called when publications may be missing: the subscription catches up from the history. */
  lag(): void;
}

/** The node that a channel belongs to. */
export interface ChannelHost extends ExtensionHost {
  /** Called when the channel has no holders left on this node. */
  closed(channel: Channel): void;
}

const ignore = () => {};

/** One channel on this node. It exists while a subscription or a local member holds it open. */
export class Channel {
  readonly name: string;
  readonly options: ResolvedChannel;
  /** `null` if the channel is declared without presence. */
  readonly presence: Presence | null;
  /** Position of the last publication that this node received; `null` without a history. */
  position: Position | null = null;

  readonly #host: ChannelHost;
  readonly #subscriptions = new Set<ChannelRecipient>();
  /** Live subscriptions without `event` and `uid`: they receive the same frames, which the runtime can send to all at once. */
  readonly #grouped = new Audience<ChannelRecipient>();
  /** Position of the last publication that was sent to the group at once. */
  #groupPosition: Position | null = null;
  /** A copy of the subscriptions for delivery, which must not change. Copying for each publication took a third of its time. */
  #list: readonly ChannelRecipient[] | undefined;
  #holders = 0;
  #isOpen = false;
  #opening: Promise<void> | undefined;
  /** History reads in progress. Shared, because after a gap all subscriptions ask for the same page. */
  readonly #reads = new Map<string, Promise<HistoryPage>>();
  /** Encoded frames by publication, shared by subscriptions that recover it. */
  readonly #frames = new WeakMap<Publication, PublicationFrame>();

  constructor(name: string, options: ResolvedChannel, host: ChannelHost) {
    this.name = name;
    this.options = options;
    this.#host = host;
    const { presence } = options;
    this.presence = presence &&
      new Presence(name, presence.grace, host, { enter: () => this.enter(), leave: () => this.leave() });
  }

  /** Number of subscriptions that receive publications. */
  get size(): number {
    return this.#subscriptions.size;
  }

  /** Holds the channel open until {@link leave}, and opens it. */
  enter(): Promise<void> | undefined {
    this.#holders++;
    return this.open();
  }

  /** Opens the channel unless it is open. Returns a promise while the engine subscribes, which rejects if that fails. */
  open(): Promise<void> | undefined {
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

  /** Adds a live subscription to the group, if its runtime can send one frame to many sockets. */
  joinGroup(subscription: ChannelRecipient): void {
    if (subscription.transport?.publisher && !this.#grouped.has(subscription)) this.#grouped.add(subscription);
  }

  /** Removes the subscription from the group. Returns the last position sent to the group; `null` if it was not a member. */
  leaveGroup(subscription: ChannelRecipient): Position | null {
    return this.#grouped.delete(subscription) ? this.#groupPosition : null;
  }

  remove(subscription: ChannelRecipient): void {
    this.#grouped.delete(subscription);
    if (this.#subscriptions.delete(subscription)) this.#list = undefined;
  }

  /** Delivers a publication from the engine. */
  deliver(publication: Publication): void {
    const { position } = publication;
    // A subscription added from now on must not reuse a page read before this publication: it would miss it.
    this.#reads.clear();
    if (position && this.position && position.epoch !== this.position.epoch) {
      // The history was lost, so every subscription has to start over.
      this.position = position;
      return this.gap();
    }
    if (position) this.position = position;
    if (this.#subscriptions.size === 0) return;
    const frame = this.frameOf(publication);
    const { delivery, maxBufferedBytes } = this.#host;
    // Only the first group: publishing to more at once would delay inbound messages.
    const [group] = this.#grouped.groups;
    if (group && !delivery.isBusy && group.publish(frame, maxBufferedBytes)) {
      this.#groupPosition = position;
      delivery.published += group.members.size;
      if (group.members.size === this.#subscriptions.size) return;
      const others = [...this.#subscriptions].filter((subscription) => !group.members.has(subscription));
      return delivery.deliver(frame, others, ignore);
    }
    this.#list ??= [...this.#subscriptions];
    delivery.deliver(frame, this.#list, ignore);
  }

  /** Makes all subscriptions catch up after publications may have been lost on their way to this node. */
  gap(position: Position | null = this.position): void {
    this.position = position;
    this.#reads.clear();
    for (const subscription of [...this.#subscriptions]) subscription.lag();
    // The group's position may be of an earlier epoch, which no subscription must return to.
    this.#groupPosition = null;
  }

  /**
   * Reads one page of publications after the position. Only for a channel with a history.
   *
   * @param isNext whether the position is the end of a previous page, to which `maxRecover` does not apply.
   */
  read(after: Position, isNext: boolean): HistoryPage | Promise<HistoryPage> {
    const history = this.options.history!; // Only called with a history.
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
    // A publication that arrived meanwhile has already set it.
    this.position ??= position;
  }

  #closeUnused(): void {
    if (this.#holders > 0) return;
    if (this.#isOpen) guard(() => this.#host.engine.unsubscribe(this.name), (error) => this.#host.report(error));
    this.#isOpen = false;
    this.#host.closed(this);
  }
}
