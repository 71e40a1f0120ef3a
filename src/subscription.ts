import { Attendance } from "./attendance.ts";
import type { Backlog } from "./backlog.ts";
import type { Channel, ChannelHost, ChannelRecipient } from "./channel.ts";
import type { ResolvedChannel } from "./channel-options.ts";
import type { Timed } from "./clock.ts";
import type { HistoryPage, Position } from "./engine.ts";
import { WebSocketError } from "./errors.ts";
import { expectBytes, expectedBytes, Feed } from "./feed.ts";
import { Frame } from "./frame.ts";
import { answerOf, contextOf, permit, shownError } from "./permission.ts";
import type { PublicationFrame } from "./publication-frame.ts";
import { type Grant, queryOf, type SavedSubscription, type SubscriptionRequest } from "./saved-subscription.ts";
import type { Transport } from "./transport.ts";
import { connectionOf, type WebSocketClient } from "./websocket-client.ts";

/** Snapshots that are asked for when more was published meanwhile than can be kept. */
const MAX_SNAPSHOTS = 3;

/** What a subscription needs of its client's. */
export interface SubscriptionOwner {
  readonly client: WebSocketClient;
  readonly host: ChannelHost;
  readonly backlog: Backlog;
  /** The channel on this node. */
  channel(name: string, options: ResolvedChannel): Channel;
  /** `init` was sent. */
  started(subscription: Subscription): void;
  /** It has ended by itself: the client is to be told why. */
  ended(subscription: Subscription, reason: WebSocketError): void;
  /** What is to be kept of it has changed. */
  changed(subscription: Subscription): void;
}

/**
 * One subscription of a client: *starting* until its `init` is sent, then *live*, or *behind* from the first publication that could not be
 * sent, until it has read the history from there. Each publication is sent, or kept, or read from the history later: never skipped.
 */
export class Subscription implements ChannelRecipient, Timed {
  readonly message: SubscriptionRequest;
  deadline = 0;
  place = -1;
  /** What this one takes the place of, until its `init` is sent. */
  replaces: Subscription | undefined;

  readonly #owner: SubscriptionOwner;
  readonly #options: ResolvedChannel;
  readonly #feed: Feed;
  #channel: Channel | undefined;
  /** Absent once the channel is open. */
  #opening: Promise<void> | undefined;
  #isStarted = false;
  #hasEnded = false;
  /** Counts what is done, for only the last of it may go on. */
  #run = 0;
  #attendance: Attendance | undefined;
  /** Absent where it is allowed for good. */
  #grant: Grant | undefined;

  constructor(message: SubscriptionRequest, options: ResolvedChannel, owner: SubscriptionOwner) {
    this.message = message;
    this.#options = options;
    this.#owner = owner;
    this.#feed = new Feed(owner.client, owner.backlog, message);
  }

  /** Whether its `init` was sent. */
  get isStarted(): boolean {
    return this.#isStarted;
  }

  /** Where the client is to be, where it can tell: it is sent all publications of a history, and nothing is on its way. */
  get position(): Position | null {
    const isCurrent = this.#isStarted && !this.#feed.isHeld && !this.#feed.isBehind && this.message.event === undefined;
    return isCurrent ? this.#channel?.position ?? null : null;
  }

  // The channel's side

  get transport(): Transport | undefined {
    return connectionOf(this.#owner.client).transport as Transport | undefined; // A connection's is a whole one.
  }

  get heldBytes(): number {
    return connectionOf(this.#owner.client).heldBytes;
  }

  send(frame: PublicationFrame): boolean {
    const feed = this.#feed;
    if (this.#hasEnded) return false;
    if (!feed.takes(frame)) return true;
    if (feed.isHeld) return feed.keep(frame);
    if (feed.isBehind) return false;
    if (feed.send(frame)) return true;
    this.#stop();
    return false;
  }

  suspend(): void {
    this.#feed.advance(this.#channel?.part(this) ?? null);
  }

  lag(): void {
    // As if more had come than it can keep.
    if (!this.#isStarted) return void (this.#feed.hasOverflowed = true);
    // Without a history there is nothing to be behind of, and nothing to catch up with: it would be sent nothing any more.
    if (!this.#options.history) return;
    this.#feed.isBehind = true;
    void this.#resume(false);
  }

  // The client's side

  /** Asks whether it may be, and begins with `init`. It never rejects. */
  async start(): Promise<void> {
    const run = ++this.#run;
    // It begins when the client is let in again.
    if (!this.#goesOn(run)) return;
    try {
      if (!await this.#isAllowed(run)) return;
      if (!this.#channel) {
        this.#channel = this.#owner.channel(this.message.channel, this.#options);
        this.#opening = this.#channel.enter();
      }
      if (this.#opening) await this.#opening;
      if (!this.#goesOn(run)) return;
      this.#opening = undefined;
      const { recover, event } = this.message;
      const fill = () => this.#fill(run);
      if (recover && this.#options.history) await this.#owner.backlog.run("engine", fill);
      else if (!this.#options.snapshot || event !== undefined) await fill();
      else await this.#owner.backlog.run("snapshot", fill, expectedBytes(this.#options));
    } catch (error) {
      this.#fail(run, error);
    }
  }

  async #fill(run: number): Promise<void> {
    if (!this.#goesOn(run)) return;
    const channel = this.#channel!; // It was entered.
    const { recover } = this.message;
    this.#feed.hold();
    channel.add(this);
    const page = recover && this.#options.history ? await channel.read(recover, false) : undefined;
    if (!this.#goesOn(run)) return;
    if (!recover || !page?.isComplete) return this.#begin(run, recover !== undefined);
    if (this.#init({ epoch: recover.epoch, offset: recover.offset, recovered: true })) return this.#catchUp(run, recover, page);
  }

  /** The client can be sent to again, or has other rights. */
  resume(hasChanged: boolean): void {
    if (!this.#isStarted) void this.start();
    else if (hasChanged || this.#feed.isBehind || this.#attendance?.isStale) void this.#resume(hasChanged);
  }

  /** Its rights are to be asked about again. */
  due(): void {
    this.resume(true);
  }

  /** Ends it, in silence. */
  end(wasLost = false): void {
    if (this.#hasEnded) return;
    this.#hasEnded = true;
    this.replaces?.end(wasLost);
    this.#owner.host.deadlines.delete(this);
    this.#feed.release();
    const channel = this.#channel;
    if (!channel) return;
    this.#attendance?.end(wasLost);
    channel.remove(this);
    channel.leave();
  }

  // Hibernation

  save(): SavedSubscription {
    const { recover: _recover, data: _data, query: _query, ...message } = this.message;
    const query = queryOf(this.message);
    return {
      ...message,
      ...(query && { query }),
      ...(this.#feed.isBehind && this.#feed.at ? { at: this.#feed.at } : {}),
      ...this.#attendance?.saved,
      ...(this.#attendance?.isStale ? { isStale: true } : {}),
      ...(this.#grant && { grant: this.#grant }),
    };
  }

  /** Goes on as it was, with no `init`. */
  restore({ at, isStale = false, grant, ...saved }: SavedSubscription): void {
    this.#isStarted = true;
    const { host } = this.#owner;
    this.#grant = grant;
    // A wall clock that was set back meanwhile must not prolong it.
    if (grant) host.deadlines.set(this, Math.max(0, Math.min(grant.until - host.now(), grant.ttl)));
    const channel = this.#channel = this.#owner.channel(this.message.channel, this.#options);
    const opening = channel.enter();
    channel.add(this);
    if (opening) this.#feed.hold();
    this.#feed.at = at ?? channel.position;
    this.#feed.isBehind = at !== undefined;
    if (opening) opening.then(() => this.#resume(false), (error) => this.#fail(this.#run, error));
    else if (at) void this.#resume(false);
    else this.#live();
    // An engine that answers later may have been told of members meanwhile.
    this.#attend(channel)?.restore(this.message, saved, isStale || opening !== undefined);
  }

  /** Whether this may take effect: to be asked after each `await`. What is suspended begins anew when the client is let in again. */
  #goesOn(run: number): boolean {
    return run === this.#run && !this.#hasEnded && !connectionOf(this.#owner.client).isSuspended;
  }

  /** `false` when this does not go on. It throws when the client may not. */
  async #isAllowed(run: number): Promise<boolean> {
    const { client, host } = this.#owner;
    const ttl = await permit(this.#options, contextOf(client, this.message), host);
    if (!this.#goesOn(run)) return false;
    const before = this.#grant;
    this.#grant = ttl === Infinity ? undefined : { ttl: Math.min(ttl, 2 ** 31 - 1), until: host.now() + ttl };
    if (this.#grant) host.deadlines.set(this, this.#grant.ttl);
    if (this.#isStarted && before !== this.#grant) this.#owner.changed(this);
    return true;
  }

  /** Begins with a snapshot. */
  async #begin(run: number, hasLost: boolean): Promise<void> {
    const { client, host } = this.#owner;
    const { channel, event } = this.message;
    const { snapshot } = this.#options;
    const feed = this.#feed;
    let data: unknown;
    let position: Position | null;
    for (let left = MAX_SNAPSHOTS;; left--) {
      feed.hold();
      position = this.#channel?.position ?? null;
      if (!snapshot || event !== undefined) break;
      data = await answerOf(() => snapshot({ client, channel, query: queryOf(this.message) ?? {} }), "subscribe", host);
      if (!this.#goesOn(run)) return;
      if (!feed.hasOverflowed) break;
      if (left === 1) throw new WebSocketError("subscribe", "SERVICE_UNAVAILABLE", "Cannot subscribe: too much is published");
    }
    while (!this.#owner.backlog.hasRoom) if (!await this.#drained(run)) return;
    // Until it is told it stays where it was: what comes in between, or finds that it cannot be sent to, has to begin anew.
    const { at, isBehind } = feed;
    feed.at = position;
    feed.isBehind = false;
    if (!this.#init({ data, ...position ?? {}, ...(hasLost ? { recovered: false } : {}) })) {
      feed.at = at;
      feed.isBehind = isBehind;
      return;
    }
    if (isBehind) this.#owner.changed(this);
    await this.#flush(run);
  }

  /** Whether the client was sent it; else it begins anew when it can be. */
  #init(fields: Record<string, unknown>): boolean {
    const { channel, uid } = this.message;
    const message = { type: "subscription", event: "init", channel, ...fields, ...(uid === undefined ? {} : { uid }) };
    const frame = Frame.of(message);
    const { client, host } = this.#owner;
    if (fields["data"] !== undefined) {
      expectBytes(this.#options, frame.bytes);
      host.rateGate?.spend(client, frame.bytes);
    }
    if (!connectionOf(client).send(frame)) return false;
    if (this.#isStarted) return true;
    this.#isStarted = true;
    this.#enter();
    this.#owner.started(this);
    return true;
  }

  /** Sends what was published since the position, a page at a time; `first` is the first of them. */
  async #catchUp(run: number, since: Position, first: HistoryPage): Promise<void> {
    const { client, host } = this.#owner;
    const feed = this.#feed;
    const channel = this.#channel!; // It was read from.
    feed.at = since;
    // As long as it has not been sent all.
    feed.isBehind = true;
    for (let page: HistoryPage | undefined = first;;) {
      const sent = feed.sendPage(page, channel);
      if (!sent) return this.#stop();
      host.rateGate?.spend(client, sent.bytes);
      if (sent.isWhole && !page.hasMore) {
        feed.at = page.position;
        break;
      }
      // Nobody holds it while the client reads: it is read again from there.
      page = undefined;
      while (!this.#owner.backlog.hasRoom) if (!await this.#drained(run)) return;
      page = await channel.read(feed.at, true);
      if (!this.#goesOn(run)) return;
      if (!page.isComplete) return await this.#begin(run, true);
    }
    feed.isBehind = false;
    this.#owner.changed(this);
    await this.#flush(run);
  }

  /** Sends what was kept, and is live. */
  async #flush(run: number): Promise<void> {
    const feed = this.#feed;
    for (;;) {
      // Nor is it sent what is published before the client has read most of what it begins with.
      while (!this.#owner.backlog.hasRoom) if (!await this.#drained(run)) return;
      const { first } = feed;
      if (!first) break;
      if (!feed.send(first)) return this.#stop();
      feed.shift();
    }
    if (feed.hasOverflowed) {
      if (!feed.at) throw new WebSocketError("subscribe", "SERVICE_UNAVAILABLE", "Cannot subscribe: too much is published");
      feed.isBehind = true;
      return this.#resume(false);
    }
    this.#live();
  }

  /** What is published is sent from now on. */
  #live(): void {
    this.#feed.release();
    const { uid, event } = this.message;
    if (uid === undefined && event === undefined) this.#channel?.join(this);
  }

  async #resume(hasChanged: boolean): Promise<void> {
    const run = ++this.#run;
    this.suspend();
    // What is published before it reads is in the history.
    if (this.#feed.isBehind) this.#feed.release();
    else if (!this.#feed.isHeld) this.#feed.hold();
    if (!this.#goesOn(run)) return;
    try {
      // Whose rights have changed is sent nothing until it is known that it may be.
      if (hasChanged && !await this.#isAllowed(run)) return;
      this.#attendance?.renew();
      if (!this.#feed.isBehind || !this.#feed.at) return await this.#flush(run);
      await this.#owner.backlog.run("engine", () => this.#readOn(run));
    } catch (error) {
      this.#fail(run, error);
    }
  }

  /** Goes on from where it is behind. */
  async #readOn(run: number): Promise<void> {
    if (!this.#goesOn(run)) return;
    const at = this.#feed.at!; // It is behind.
    this.#feed.hold();
    const page = await this.#channel!.read(at, false); // It was started.
    if (!this.#goesOn(run)) return;
    return page.isComplete ? this.#catchUp(run, at, page) : this.#begin(run, true);
  }

  /** It could not be sent something: with a history it is behind from there on. */
  #stop(): void {
    const feed = this.#feed;
    feed.release();
    this.suspend();
    feed.isBehind = feed.at !== null;
    feed.hasOverflowed = false;
    if (feed.isBehind) this.#owner.changed(this);
  }

  /** Waits until the client has read; `false` when this does not go on. Others have waited too: whether there is room is asked again. */
  async #drained(run: number): Promise<boolean> {
    if (this.#goesOn(run)) await this.#owner.backlog.drained();
    return this.#goesOn(run);
  }

  /** Its own answer first, then who is there, then its own joining. */
  #enter(): void {
    const attendance = this.#channel && this.#attend(this.#channel);
    if (!attendance) return;
    // In place of the one before: between the two nobody left.
    const { replaces } = this;
    if (replaces?.message.channel === this.message.channel && replaces.#attendance) attendance.inherit(replaces.#attendance);
    attendance.begin(this.#options, this.message);
  }

  #attend({ presence }: Channel): Attendance | undefined {
    const { client, host, backlog } = this.#owner;
    const owner = { client, host, backlog, changed: () => this.#owner.changed(this) };
    if (presence) this.#attendance = new Attendance(owner, presence, this.#feed.ending);
    return this.#attendance;
  }

  #fail(run: number, error: unknown): void {
    if (!this.#goesOn(run)) return;
    const reason = shownError(error, "subscribe", this.#owner);
    this.end();
    this.#owner.ended(this, reason);
  }
}
