import type { Backlog } from "./backlog.ts";
import type { ResolvedChannel } from "./channel-options.ts";
import type { ExtensionHost } from "../application/extension.ts";
import { guard, isThenable } from "../base/guard.ts";
import type { Presence, PresenceEntry, PresenceObserver } from "./presence.ts";
import type { SavedSubscription, SubscriptionRequest } from "./saved-subscription.ts";
import { connectionOf, type WebSocketClient } from "../application/websocket-client.ts";

/** The fields of the presence that are saved for hibernation. */
type SavedPresence = Pick<SavedSubscription, "member" | "entry" | "isStale" | "isJoining" | "data">;

/** The subscription that the presence belongs to. */
interface SubscriptionPresenceOwner {
  readonly client: WebSocketClient;
  readonly host: ExtensionHost;
  readonly backlog: Backlog;
  /** Called when {@link SubscriptionPresence.saved} or {@link SubscriptionPresence.isStale} has changed. */
  changed(): void;
}

/** The presence of one subscription: makes its user a member, and sends it the members if it asked for them. */
export class SubscriptionPresence {
  readonly #owner: SubscriptionPresenceOwner;
  readonly #presence: Presence;
  readonly #ending: string;
  #entry: PresenceEntry | undefined;
  #observer: PresenceObserver | undefined;
  /** Its request, from {@link begin} until it has joined. */
  #joining: SubscriptionRequest | undefined;
  /** Joins in {@link renew}, because the client was suspended. */
  #postponed: (() => void) | undefined;
  #hasEnded = false;

  /** @param ending end of the JSON of each message, with the `uid` */
  constructor(owner: SubscriptionPresenceOwner, presence: Presence, ending: string) {
    this.#owner = owner;
    this.#presence = presence;
    this.#ending = ending;
  }

  /** The fields to save for hibernation. */
  get saved(): SavedPresence {
    const entry = this.#entry;
    const joining = this.#joining;
    const data = entry?.member.data;
    return {
      ...(data === undefined ? {} : { member: data }),
      ...(entry && { entry: entry.number }),
      ...(this.isStale || this.#observer?.isHeld ? { isStale: true } : {}),
      ...(joining && { isJoining: true }),
      ...(joining?.data === undefined ? {} : { data: JSON.parse(joining.data) }),
    };
  }

  /** Whether the client missed a change and needs a new list. */
  get isStale(): boolean {
    return this.#observer?.isStale ?? false;
  }

  /**
   * Sends the list of members, if asked for, and then joins.
   *
   * @param before the presence of the replaced subscription, whose member is taken over so that no leave and join are sent.
   */
  begin(options: ResolvedChannel, message: SubscriptionRequest, before?: SubscriptionPresence): void {
    if (before) this.#entry = before.#handOver();
    this.#joining = message;
    const join = () => this.#join(options, message);
    if (message.presence) void this.#presence.list(this.#observe(false)).then(join);
    else join();
  }

  /**
   * Continues after hibernation. Call {@link renew} if `isStale`, because the client lacks changes, or if it has not joined yet.
   */
  restore(
    options: ResolvedChannel,
    message: SubscriptionRequest,
    { member, entry, isJoining = false }: SavedPresence,
    isStale: boolean,
  ): void {
    if (isJoining) {
      this.#joining = message;
      this.#postponed = () => this.#join(options, message);
    }
    // With `isJoining`, `entry` is that of the replaced subscription.
    if (!isJoining || entry !== undefined) this.#enter(member, entry);
    if (message.presence) this.#observe(isStale);
  }

  /** Sends nothing until {@link renew}, because the client's rights are being checked. */
  pause(): void {
    if (this.#observer) this.#observer.isPaused = true;
  }

  /** Continues after the client is admitted again: sends a new list if it missed a change, and joins if that was postponed. */
  renew(): void {
    if (this.#observer) this.#observer.isPaused = false;
    const postponed = this.#postponed;
    this.#postponed = undefined;
    if (!this.#observer?.isStale) return postponed?.();
    void this.#presence.list(this.#observer).then(() => {
      this.#owner.changed();
      postponed?.();
    });
  }

  end(mayReturn: boolean): void {
    this.#hasEnded = true;
    if (this.#observer) this.#presence.unobserve(this.#observer);
    this.#leave(mayReturn);
  }

  #join(options: ResolvedChannel, message: SubscriptionRequest): void {
    if (this.#hasEnded) return;
    const { client, host } = this.#owner;
    // Joins in `renew`, when the client is admitted again.
    if (connectionOf(client).isSuspended) return void (this.#postponed = () => this.#join(options, message));
    this.#joining = undefined;
    this.#enter(memberDataOf(options, message, client, host));
    if (!this.#hasEnded) this.#owner.changed();
  }

  #enter(data: string | undefined, entry?: number): void {
    if (this.#hasEnded) return;
    const { client } = this.#owner;
    const user = client.accountability.user ?? `uid:${client.uid}`;
    const earlier = this.#entry;
    this.#entry = this.#presence.enter(user, data, entry);
    // Enters before it exits, so that the member does not leave in between.
    if (earlier) this.#presence.exit(earlier, false);
  }

  /** Sends joins and leaves to the client from now on. */
  #observe(isStale: boolean): PresenceObserver {
    const { client, backlog } = this.#owner;
    return this.#observer = this.#presence.observe(client, backlog, this.#ending, () => this.#owner.changed(), isStale);
  }

  #leave(mayReturn: boolean): void {
    const entry = this.#handOver();
    if (entry) this.#presence.exit(entry, mayReturn);
  }

  #handOver(): PresenceEntry | undefined {
    const entry = this.#entry;
    this.#entry = undefined;
    return entry;
  }
}

/** The data of the client's member, as JSON text, checked against the contract. */
function memberDataOf(
  options: ResolvedChannel,
  request: SubscriptionRequest,
  client: WebSocketClient,
  { outbound, report }: ExtensionHost,
): string | undefined {
  const { name, presence } = options;
  const json = presence?.data === "client" ? request.data : computedDataOf(options, request, client, report);
  if (json !== undefined) outbound?.member(name, request.channel, json, client);
  return json;
}

/** The data that the function `presence.data` returns, as JSON text. */
function computedDataOf(
  { params, presence }: ResolvedChannel,
  { channel, data: text }: SubscriptionRequest,
  client: WebSocketClient,
  report: ExtensionHost["report"],
): string | undefined {
  const make = presence?.data;
  if (typeof make !== "function") return undefined;
  const fail = (error: unknown) => report(error, client);
  let json: string | undefined;
  guard(() => {
    const made: unknown = make({
      client,
      channel,
      params: params(channel),
      data: text === undefined ? undefined : JSON.parse(text),
    });
    if (!isThenable(made)) json = JSON.stringify(made);
    if (made !== undefined && json === undefined) {
      fail(new TypeError("Cannot use what presence.data returned: it is a promise, or not JSON"));
    }
    return made;
  }, fail);
  return json;
}
