import { Attendance } from "./attendance.ts";
import type { Channel, ChannelHost, ChannelRecipient } from "./channel.ts";
import type { ResolvedChannel } from "./channel-options.ts";
import type { Timed } from "./clock.ts";
import type { HistoryPage, Position } from "./engine.ts";
import { WebSocketError } from "./errors.ts";
import { Frame } from "./frame.ts";
import { afterTurn } from "./outbox.ts";
import { answerOf, contextOf, permit, shownError } from "./permission.ts";
import type { SubscribeMessage } from "./protocol.ts";
import { endingOf, type PublicationFrame } from "./publication-frame.ts";
import type { Grant, SavedSubscription } from "./saved-subscription.ts";
import { OPEN, type Transport } from "./transport.ts";
import { connectionOf, type WebSocketClient } from "./websocket-client.ts";

/** Publications that are kept for a subscription that cannot be sent any yet. */
const MAX_KEPT = 1_000;

/** Snapshots that are asked for when more was published meanwhile than can be kept. */
const MAX_SNAPSHOTS = 3;

/** Between two looks whether a client has read what it was sent of a history, in ms. */
const DRAIN_PERIOD = 20;

/** What a subscription needs of its client's. */
export interface SubscriptionOwner {
  readonly client: WebSocketClient;
  readonly host: ChannelHost;
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
  readonly message: SubscribeMessage;
  deadline = 0;
  place = -1;
  /** What this one takes the place of, until its `init` is sent. */
  replaces: Subscription | undefined;

  readonly #owner: SubscriptionOwner;
  readonly #options: ResolvedChannel;
  readonly #ending: string;
  #channel: Channel | undefined;
  /** Absent once the channel is open. */
  #opening: Promise<void> | undefined;
  /** What was published while nothing can be sent. */
  #kept: PublicationFrame[] | undefined = [];
  /** More came than is kept. */
  #overflowed = false;
  /** Up to here the client has been sent everything. */
  #at: Position | null = null;
  #isBehind = false;
  #isStarted = false;
  #hasEnded = false;
  /** Counts what is done, for only the last of it may go on. */
  #run = 0;
  #attendance: Attendance | undefined;
  /** Absent where it is allowed for good. */
  #grant: Grant | undefined;

  constructor(message: SubscribeMessage, options: ResolvedChannel, owner: SubscriptionOwner) {
    this.message = message;
    this.#options = options;
    this.#owner = owner;
    this.#ending = endingOf(message.uid);
  }

  /** Whether its `init` was sent. */
  get isStarted(): boolean {
    return this.#isStarted;
  }

  /** Where the client is to be, where it can tell: it is sent all publications of a history, and nothing is on its way. */
  get position(): Position | null {
    const isCurrent = this.#isStarted && !this.#kept && !this.#isBehind && this.message.event === undefined;
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
    if (this.#hasEnded) return false;
    const { event } = this.message;
    if (event !== undefined && frame.event !== event) return true;
    if (this.#kept) return this.#keep(frame);
    return !this.#isBehind && this.#hand(frame);
  }

  suspend(): void {
    const position = this.#channel?.part(this) ?? null;
    if (position && (position.epoch !== this.#at?.epoch || position.offset > this.#at.offset)) this.#at = position;
  }

  lag(): void {
    // As if more had come than it can keep.
    if (!this.#isStarted) return void (this.#overflowed = true);
    // Without a history there is nothing to be behind of, and nothing to catch up with: it would be sent nothing any more.
    if (!this.#options.history) return;
    this.#isBehind = true;
    void this.#resume(false);
  }

  // The client's side

  /** Asks whether it may be, and begins with `init`. It never rejects. */
  async start(): Promise<void> {
    const { client, host } = this.#owner;
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
      this.#channel.add(this);
      const { recover } = this.message;
      const page = recover && this.#options.history ? await this.#channel.read(recover) : undefined;
      if (page) host.rateGate?.spend(client, page.publications.reduce((sum, { data }) => sum + data.length, 0));
      if (!this.#goesOn(run)) return;
      if (!recover || !page?.isComplete) await this.#begin(run, recover !== undefined);
      else if (this.#init({ epoch: recover.epoch, offset: recover.offset, recovered: true })) {
        await this.#catchUp(run, recover, page);
      }
    } catch (error) {
      this.#fail(run, error);
    }
  }

  /** The client can be sent to again, or has other rights. */
  resume(hasChanged: boolean): void {
    if (!this.#isStarted) void this.start();
    else if (hasChanged || this.#isBehind || this.#attendance?.isStale) void this.#resume(hasChanged);
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
    const channel = this.#channel;
    if (!channel) return;
    this.#attendance?.end(wasLost);
    channel.remove(this);
    channel.leave();
  }

  // Hibernation

  save(): SavedSubscription {
    const { recover: _recover, data: _data, ...message } = this.message;
    return {
      ...message,
      ...(this.#isBehind && this.#at ? { at: this.#at } : {}),
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
    this.#at = at ?? channel.position;
    this.#isBehind = at !== undefined;
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
    const { channel, event, query = {} } = this.message;
    const { snapshot } = this.#options;
    let data: unknown;
    let position: Position | null;
    for (let left = MAX_SNAPSHOTS;; left--) {
      this.#kept = [];
      this.#overflowed = false;
      position = this.#channel?.position ?? null;
      if (!snapshot || event !== undefined) break;
      data = await answerOf(() => snapshot({ client, channel, query }), "subscribe", host);
      if (!this.#goesOn(run)) return;
      if (!this.#overflowed) break;
      if (left === 1) throw new WebSocketError("subscribe", "SERVICE_UNAVAILABLE", "Cannot subscribe: too much is published");
    }
    // Until it is told it stays where it was: what comes in between, or finds that it cannot be sent to, has to begin anew.
    const [at, wasBehind] = [this.#at, this.#isBehind];
    this.#at = position;
    this.#isBehind = false;
    if (!this.#init({ data, ...position ?? {}, ...(hasLost ? { recovered: false } : {}) })) {
      this.#at = at;
      this.#isBehind = wasBehind;
      return;
    }
    if (wasBehind) this.#owner.changed(this);
    await this.#flush(run);
  }

  /** Whether the client was sent it; else it begins anew when it can be. */
  #init(fields: Record<string, unknown>): boolean {
    const { channel, uid } = this.message;
    const message = { type: "subscription", event: "init", channel, ...fields, ...(uid === undefined ? {} : { uid }) };
    const frame = Frame.of(message);
    const { client, host } = this.#owner;
    if (fields["data"] !== undefined) host.rateGate?.spend(client, frame.bytes);
    if (!connectionOf(client).send(frame)) return false;
    if (this.#isStarted) return true;
    this.#isStarted = true;
    this.#enter();
    this.#owner.started(this);
    return true;
  }

  /** Sends what was published since the position; `page` is that. */
  async #catchUp(run: number, since: Position, page: HistoryPage): Promise<void> {
    const channel = this.#channel!; // It was read from.
    this.#at = since;
    // As long as it has not been sent all.
    this.#isBehind = true;
    this.#kept ??= [];
    this.#overflowed = false;
    for (const publication of page.publications) {
      if (!this.#hasRoom && !await this.#drained(run)) return;
      const { event } = this.message;
      if (event !== undefined && publication.event !== event) this.#at = publication.position;
      else if (!this.#hand(channel.frameOf(publication))) return this.#stop();
    }
    this.#at = page.position;
    this.#isBehind = false;
    this.#owner.changed(this);
    await this.#flush(run);
  }

  /** Sends what was kept, and is live. */
  async #flush(run: number): Promise<void> {
    const kept = this.#kept ?? [];
    while (kept.length > 0) {
      if (!this.#hasRoom && !await this.#drained(run)) return;
      if (!this.#hand(kept[0]!)) return this.#stop();
      kept.shift();
    }
    if (this.#overflowed) {
      if (!this.#at) throw new WebSocketError("subscribe", "SERVICE_UNAVAILABLE", "Cannot subscribe: too much is published");
      this.#isBehind = true;
      return this.#resume(false);
    }
    this.#live();
  }

  /** What is published is sent from now on. */
  #live(): void {
    this.#kept = undefined;
    const { uid, event } = this.message;
    if (uid === undefined && event === undefined) this.#channel?.join(this);
  }

  async #resume(hasChanged: boolean): Promise<void> {
    const run = ++this.#run;
    this.suspend();
    this.#kept ??= [];
    if (!this.#goesOn(run)) return;
    try {
      // Whose rights have changed is sent nothing until it is known that it may be.
      if (hasChanged && !await this.#isAllowed(run)) return;
      const channel = this.#channel!; // It was started.
      this.#attendance?.renew();
      if (!this.#isBehind || !this.#at) return await this.#flush(run);
      const at = this.#at;
      const page = await channel.read(at);
      if (!this.#goesOn(run)) return;
      if (page.isComplete) await this.#catchUp(run, at, page);
      else await this.#begin(run, true);
    } catch (error) {
      this.#fail(run, error);
    }
  }

  /** It could not be sent something: with a history it is behind from there on. */
  #stop(): void {
    this.#kept = undefined;
    this.suspend();
    this.#isBehind = this.#at !== null;
    this.#overflowed = false;
    if (this.#isBehind) this.#owner.changed(this);
  }

  /** Sends one publication, unless it was. */
  #hand(frame: PublicationFrame): boolean {
    const { position } = frame;
    if (position && this.#at && position.epoch === this.#at.epoch && position.offset <= this.#at.offset) return true;
    if (!connectionOf(this.#owner.client).send(frame.ending(this.#ending))) {
      if (!this.#kept) this.#stop();
      return false;
    }
    if (position) this.#at = position;
    return true;
  }

  #keep(frame: PublicationFrame): boolean {
    if (this.#kept!.length < MAX_KEPT) return this.#kept!.push(frame) > 0;
    this.#overflowed = true;
    return false;
  }

  /** Whether the client has read most of what it was sent. Looked at before each publication: a promise for each took a third of a recovery on Bun. */
  get #hasRoom(): boolean {
    return connectionOf(this.#owner.client).bufferedAmount <= this.#owner.host.maxBufferedBytes / 2;
  }

  /** Waits until it has; `false` when this does not go on. */
  async #drained(run: number): Promise<boolean> {
    const { client, host } = this.#owner;
    await new Promise<void>((resolve) => afterTurn(resolve));
    while (this.#goesOn(run) && client.readyState === OPEN && !this.#hasRoom) {
      await new Promise<void>((due) => host.deadlines.set({ deadline: 0, place: -1, due }, DRAIN_PERIOD));
    }
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
    const { client, host } = this.#owner;
    const owner = { client, host, changed: () => this.#owner.changed(this) };
    if (presence) this.#attendance = new Attendance(owner, presence, this.#ending);
    return this.#attendance;
  }

  #fail(run: number, error: unknown): void {
    if (!this.#goesOn(run)) return;
    const reason = shownError(error, "subscribe", this.#owner);
    this.end();
    this.#owner.ended(this, reason);
  }
}
