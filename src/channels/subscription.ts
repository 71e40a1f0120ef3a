import { SubscriptionPresence } from "./subscription-presence.ts";
import type { Channel, ChannelRecipient } from "./channel.ts";
import type { ResolvedChannel } from "./channel-options.ts";
import type { HistoryPage, Position } from "../engines/engine.ts";
import { WebSocketError } from "../protocol/errors.ts";
import { expectBytes, expectedBytes, Feed } from "./feed.ts";
import { Frame } from "../protocol/frame.ts";
import { permitSubscription, shownError } from "./permission.ts";
import type { PublicationFrame } from "./publication-frame.ts";
import { withUid } from "./refusal.ts";
import { takeSnapshot } from "./snapshot.ts";
import { SubscriptionPermission } from "./subscription-permission.ts";
import type { SubscriptionOwner } from "./subscription-owner.ts";
import type { SubscriptionState } from "./subscription-state.ts";
import { savedOf, type SavedSubscription, startingOf, type SubscriptionRequest } from "./saved-subscription.ts";
import type { Transport } from "../delivery/transport.ts";
import { connectionOf } from "../application/websocket-client.ts";

/** One subscription of a client. With a history no publication is skipped: each is sent, kept, or read later. */
export class Subscription implements ChannelRecipient {
  readonly message: SubscriptionRequest;
  /** The subscription of the same name, which continues until this one has sent `init`. */
  replaces: Subscription | undefined;

  readonly #owner: SubscriptionOwner;
  readonly #options: ResolvedChannel;
  readonly #feed: Feed;
  readonly #permission: SubscriptionPermission;
  #channel: Channel | undefined;
  #state: SubscriptionState = "starting";
  /** Number of the current run. Each start and resume begins a new run; an older one stops after its next `await`. */
  #run = 0;
  #presence: SubscriptionPresence | undefined;
  /** Whether the client has to catch up after hibernation: it is behind, or kept publications wait until it has read. */
  #isDelayed = false;

  constructor(message: SubscriptionRequest, options: ResolvedChannel, owner: SubscriptionOwner) {
    this.message = message;
    this.#options = options;
    this.#owner = owner;
    this.#feed = new Feed(owner.client, owner.backlog, message);
    this.#permission = new SubscriptionPermission(this, owner.host);
  }

  /** Whether `init` was sent. */
  get isStarted(): boolean {
    return this.#state === "live" || this.#state === "behind";
  }

  /** Whether it has not started, or `authorize` is running. */
  get isWaiting(): boolean {
    return this.#state === "starting" || (this.#state !== "ended" && this.#permission.isAsked);
  }

  /** Position that the client should have reached; `null` if that is unknown: with an `event`, or while publications are kept. */
  get position(): Position | null {
    const isCurrent = this.#state === "live" && !this.#feed.isHeld && this.message.event === undefined;
    return isCurrent ? this.#channel?.position ?? null : null;
  }

  // Called by the channel

  get transport(): Transport | undefined {
    return connectionOf(this.#owner.client).transport as Transport | undefined; // A connection has a complete `Transport`.
  }

  get heldBytes(): number {
    return connectionOf(this.#owner.client).heldBytes;
  }

  send(frame: PublicationFrame): boolean {
    const feed = this.#feed;
    if (this.#state === "ended") return false;
    if (!feed.accepts(frame)) return true;
    if (feed.isHeld) return feed.keep(frame);
    if (this.#state === "behind") return false;
    if (feed.send(frame)) return true;
    this.#fallBehind();
    return false;
  }

  suspend(): void {
    this.#feed.advance(this.#channel?.leaveGroup(this) ?? null);
  }

  lag(): void {
    // Handled like publications that did not fit: a new snapshot, or a read from the history.
    if (this.#state === "starting") return void (this.#feed.hasOverflowed = true);
    // Without a history there is nothing to catch up from: a subscription set to behind would stay so.
    if (!this.#options.history) return;
    this.#fallBehind();
    void this.#resume();
  }

  // Called by its permission and the client's subscriptions

  permissionChanged(): void {
    if (this.isStarted) this.#owner.changed(this);
  }

  /** Authorizes the subscription and sends `init`. Never rejects. */
  async start(): Promise<void> {
    // The run that waits for `authorize` continues with the newest rights.
    if (this.#permission.isAsked) return;
    const run = this.#newRun();
    // A suspended client starts again in `resume`.
    if (!this.#isCurrent(run)) return;
    try {
      if (!this.#permission.isGranted) await this.#ask(run);
      if (!this.#isAllowed(run)) return;
      // `open` again, because it may have failed while the client was suspended.
      const opening = this.#channel
        ? this.#channel.open()
        : (this.#channel = this.#owner.channel(this.message.channel, this.#options)).enter();
      if (opening) await opening;
      if (!this.#isCurrent(run)) return;
      const { recover, event } = this.message;
      const fill = () => this.#recoverOrBegin(run);
      if (recover && this.#options.history) await this.#owner.backlog.run("engine", this, fill);
      else if (!this.#options.snapshot || event !== undefined) await fill();
      else await this.#owner.backlog.run("snapshot", this, fill, expectedBytes(this.#options));
    } catch (error) {
      this.#fail(run, error);
    }
  }

  async #recoverOrBegin(run: number): Promise<void> {
    if (!this.#isCurrent(run)) return;
    const channel = this.#channel!; // Set by `start`.
    const { recover } = this.message;
    this.#feed.hold();
    channel.add(this);
    const page = recover && this.#options.history ? await channel.read(recover, false) : undefined;
    if (!this.#isCurrent(run)) return;
    if (!recover || !page?.isComplete) return this.#begin(run, recover !== undefined);
    this.#feed.at = recover;
    const fields = { epoch: recover.epoch, offset: recover.offset, recovered: true };
    if (this.#init(fields, "behind")) return this.#catchUp(run, page);
  }

  /** Continues when the client can receive messages again, or when its rights have changed. */
  resume(hasChanged: boolean): void {
    if (hasChanged) this.#permission.outdate();
    if (this.#state === "starting") void this.start();
    else if (!this.#permission.isGranted || this.#state === "behind" || this.#presence?.isStale) void this.#resume();
  }

  /** Ends the subscription without a message to the client. */
  end(mayReturn = false): void {
    if (this.#state === "ended") return;
    this.#enter("ended");
    this.replaces?.end(mayReturn);
    this.#permission.end();
    this.#owner.backlog.withdraw(this);
    this.#feed.release();
    const channel = this.#channel;
    if (!channel) return;
    this.#presence?.end(mayReturn);
    channel.remove(this);
    channel.leave();
  }

  /** Ends the subscription and sends the client the reason. */
  endWith(reason: WebSocketError): void {
    const { isStarted: wasStarted, replaces } = this;
    const kept = reason.code === "INVALID_PAYLOAD" ? replaces : undefined; // The replaced one continues (PROTOCOL.md 4.3).
    if (kept) this.replaces = undefined;
    this.end();
    this.#owner.ended(this, reason, wasStarted, kept);
  }

  // Hibernation

  save(): SavedSubscription {
    if (this.#state === "starting") {
      const next = startingOf(this.message);
      return this.replaces ? { ...this.replaces.save(), next } : next;
    }
    // Publications kept while `authorize` runs would be lost.
    const isBehind = this.#isDelayed || !this.#permission.isGranted;
    return savedOf(this.message, {
      ...(isBehind && this.#feed.at ? { at: this.#feed.at } : {}),
      ...this.#presence?.saved,
      ...this.#permission.saved,
    });
  }

  /** Continues a saved subscription without another `init`. */
  restore({ at, isStale = false, grant, isDoubtful = false, ...saved }: SavedSubscription): void {
    this.#enter(at ? "behind" : "live");
    this.#permission.restore(grant, isDoubtful);
    const channel = this.#channel = this.#owner.channel(this.message.channel, this.#options);
    const opening = channel.enter();
    channel.add(this);
    this.#feed.at = at ?? channel.position;
    // Members may have changed while the engine was subscribing.
    this.#createPresence()?.restore(this.#options, this.message, saved, isStale || opening !== undefined);
    if (opening) {
      this.#feed.hold();
      opening.then(() => this.#resume(), (error) => this.#fail(this.#run, error));
    } else if (at || isStale || !this.#permission.isGranted) void this.#resume();
    else this.#live();
  }

  #enter(state: SubscriptionState): void {
    if (this.#state !== "ended") this.#state = state;
    if (state === "behind") this.#isDelayed = true;
  }

  #setDelayed(isDelayed: boolean): void {
    this.#isDelayed = isDelayed;
    if (this.isStarted) this.#owner.changed(this);
  }

  /** Begins another run, and ends the waits of the previous one. */
  #newRun(): number {
    this.#owner.backlog.withdraw(this);
    return ++this.#run;
  }

  /** Whether the run may continue; checked after each `await`. Suspending the client ends the run, and `resume` begins another. */
  #isCurrent(run: number): boolean {
    return run === this.#run && this.#state !== "ended" && !connectionOf(this.#owner.client).isSuspended;
  }

  /** Asks for the permission. @throws {WebSocketError} if it is refused */
  #ask(run: number): Promise<void> {
    const { client, host } = this.#owner;
    this.#presence?.pause();
    return this.#permission.ask(
      () => permitSubscription(client, this.message, this.#options, host, this.#state === "starting"),
      () => this.#isCurrent(run),
    );
  }

  /** Whether the run may continue and the client is allowed. */
  #isAllowed(run: number): boolean {
    return this.#permission.isGranted && this.#isCurrent(run);
  }

  /** Sends `init` with a snapshot, then what was published since. */
  async #begin(run: number, hasLost: boolean): Promise<void> {
    const { client, host } = this.#owner;
    const feed = this.#feed;
    const isCurrent = () => this.#isCurrent(run);
    // `#channel` was set by `start` or `restore`.
    const begun = await takeSnapshot(
      { client, host, feed, channel: this.#channel!, message: this.message, isCurrent },
      this.#options,
    );
    if (!begun || !isCurrent()) return;
    const { data, position } = begun;
    while (!this.#owner.backlog.hasRoom) if (!await this.#drained(run)) return;
    const { at } = feed;
    feed.at = position;
    if (this.#init({ data, ...position, ...(hasLost ? { recovered: false } : {}) }, "live")) return await this.#flush(run);
    feed.at = at; // The client still has the earlier position.
  }

  /** Sends `init` and enters the state. `false` if the client cannot receive it now; then `resume` tries again. */
  #init(fields: { data?: unknown; recovered?: boolean; epoch?: string; offset?: number }, next: "live" | "behind"): boolean {
    const { channel } = this.message;
    const frame = Frame.of({ type: "subscription", event: "init", channel, ...fields, ...withUid(this.message.uid) });
    const { client, host } = this.#owner;
    if (fields.data !== undefined) {
      expectBytes(this.#options, frame.bytes);
      host.rateGate?.spend(client, frame.bytes);
    }
    if (!connectionOf(client).send(frame)) return false;
    if (fields.recovered !== undefined) host.observed.observer?.recovered?.(fields.recovered);
    const isFirst = this.#state === "starting";
    this.#enter(next);
    if (!isFirst) return true;
    this.#join();
    this.#owner.started(this);
    return true;
  }

  /** Sends the publications since `feed.at`, page by page, beginning with `first`. */
  async #catchUp(run: number, first: HistoryPage): Promise<void> {
    const { client, host } = this.#owner;
    const feed = this.#feed;
    const channel = this.#channel!; // `first` was read from it.
    for (let page: HistoryPage | undefined = first;;) {
      const sent = feed.sendPage(page, channel);
      if (!sent) return this.#fallBehind();
      host.rateGate?.spend(client, sent.bytes);
      if (sent.isAllSent && !page.hasMore) break;
      // Releases the page while the client reads; the rest is read again from `feed.at`.
      page = undefined;
      while (!this.#owner.backlog.hasRoom) if (!await this.#drained(run)) return;
      page = await channel.read(feed.at!, true); // Set while it is behind.
      if (!this.#isCurrent(run)) return;
      if (!page.isComplete) return await this.#begin(run, true);
    }
    this.#enter("live");
    await this.#flush(run);
  }

  /** Sends the kept publications and becomes live. */
  async #flush(run: number): Promise<void> {
    const feed = this.#feed;
    for (;;) {
      // Kept publications also wait until the client has read most of what was sent before.
      while (!this.#owner.backlog.hasRoom) if (!await this.#drained(run)) return;
      const { first } = feed;
      if (!first) break;
      if (!feed.send(first)) return this.#fallBehind();
      feed.shift();
    }
    if (feed.hasOverflowed) {
      if (!feed.at) throw new WebSocketError("subscribe", "SERVICE_UNAVAILABLE", "Cannot subscribe: too much is published");
      this.#fallBehind();
      // Not awaited: it may wait for the work in progress, which this is part of.
      return void this.#resume();
    }
    this.#live();
  }

  /** Sends publications directly from now on. */
  #live(): void {
    this.#feed.release();
    if (this.#isDelayed) this.#setDelayed(false);
    const { uid, event } = this.message;
    if (uid === undefined && event === undefined) this.#channel?.joinGroup(this);
  }

  async #resume(): Promise<void> {
    this.suspend();
    // Nothing is kept while behind: the history has it.
    if (this.#state === "behind") this.#feed.release();
    else if (!this.#feed.isHeld) this.#feed.hold();
    // The run that waits for `authorize` continues with the newest rights and the current state.
    if (this.#permission.isAsked) return;
    const run = this.#newRun();
    if (!this.#isCurrent(run)) return this.#setDelayed(true);
    try {
      // Publications are held, and members not sent, until the client is authorized with its new rights.
      if (!this.#permission.isGranted) {
        this.#owner.waits(this);
        await this.#ask(run);
      }
      if (!this.#isAllowed(run)) return;
      this.#presence?.renew();
      if (this.#state !== "behind" || !this.#feed.at) return await this.#flush(run);
      await this.#owner.backlog.run("engine", this, () => this.#recover(run));
    } catch (error) {
      this.#fail(run, error);
    }
  }

  /** Catches up from the history, or sends a new snapshot if the history does not go back that far. */
  async #recover(run: number): Promise<void> {
    if (!this.#isCurrent(run)) return;
    const at = this.#feed.at!; // Set while it is behind.
    this.#feed.hold();
    const page = await this.#channel!.read(at, false); // Set once it has started.
    if (!this.#isCurrent(run)) return;
    return page.isComplete ? this.#catchUp(run, page) : this.#begin(run, true);
  }

  /** Stops sending after a failed send. With a history, the subscription is behind from there on. */
  #fallBehind(): void {
    const feed = this.#feed;
    feed.release();
    this.suspend();
    feed.hasOverflowed = false;
    if (!feed.at) return;
    this.#enter("behind");
    this.#owner.changed(this);
  }

  /** Waits until the client has read. Resolves with `false` if the run has ended. Check for room again: other work may have used it. */
  async #drained(run: number): Promise<boolean> {
    if (!this.#isCurrent(run)) return false;
    this.#setDelayed(true);
    return await this.#owner.backlog.drained(this) && this.#isCurrent(run);
  }

  /** Joins the members, after `init` was sent. */
  #join(): void {
    const { replaces } = this;
    const before = replaces?.message.channel === this.message.channel ? replaces.#presence : undefined;
    this.#createPresence()?.begin(this.#options, this.message, before);
  }

  #createPresence(): SubscriptionPresence | undefined {
    const presence = this.#channel?.presence;
    const { client, host, backlog } = this.#owner;
    const owner = { client, host, backlog, changed: () => this.#owner.changed(this) };
    if (presence) this.#presence = new SubscriptionPresence(owner, presence, this.#feed.ending);
    return this.#presence;
  }

  #fail(run: number, error: unknown): void {
    if (this.#isCurrent(run)) this.endWith(shownError(error, "subscribe", this.#owner));
  }
}
