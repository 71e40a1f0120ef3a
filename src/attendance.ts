import type { Backlog } from "./backlog.ts";
import type { ResolvedChannel } from "./channel-options.ts";
import type { ExtensionHost } from "./extension.ts";
import { guard, isThenable } from "./guard.ts";
import type { Attendant, Presence, Watcher } from "./presence.ts";
import type { SavedSubscription, SubscriptionRequest } from "./saved-subscription.ts";
import { connectionOf, type WebSocketClient } from "./websocket-client.ts";

/** The subscription that it is part of. */
interface AttendanceOwner {
  readonly client: WebSocketClient;
  readonly host: ExtensionHost;
  readonly backlog: Backlog;
  /** What is to be kept of it has changed. */
  changed(): void;
}

/** What one subscription has to do with the members of its channel: it makes its user one, and may be told of the others. */
export class Attendance {
  readonly #owner: AttendanceOwner;
  readonly #presence: Presence;
  readonly #ending: string;
  #attendant: Attendant | undefined;
  #watcher: Watcher | undefined;
  /** The rest of {@link begin}. */
  #late: (() => void) | undefined;
  #hasEnded = false;

  /** @param ending how the messages of the subscription end. */
  constructor(owner: AttendanceOwner, presence: Presence, ending: string) {
    this.#owner = owner;
    this.#presence = presence;
    this.#ending = ending;
  }

  /** What outlives hibernation. */
  get saved(): Pick<SavedSubscription, "member" | "entry"> {
    if (!this.#attendant) return {};
    const { member: { data }, entry } = this.#attendant;
    return { ...(data === undefined ? {} : { member: data }), entry };
  }

  /** The watcher was not told something. */
  get isStale(): boolean {
    return this.#watcher?.isStale ?? false;
  }

  /** First who is there, then its own joining. */
  begin(options: ResolvedChannel, message: SubscriptionRequest): void {
    const { client, host } = this.#owner;
    const enter = () => {
      if (this.#hasEnded) return;
      // It joins when the client is let in again, if it is.
      if (connectionOf(client).isSuspended) return void (this.#late = enter);
      this.#enter(attendantData(options, message, client, host.report));
      if (!this.#hasEnded) this.#owner.changed();
    };
    if (message.presence) void this.#presence.list(this.#watch(false)).then(enter);
    else enter();
  }

  /** Goes on after hibernation: the client was told of the members before, and nobody came or went unnoticed. */
  restore(
    { presence }: SubscriptionRequest,
    { member, entry }: Pick<SavedSubscription, "member" | "entry">,
    isStale: boolean,
  ): void {
    this.#enter(member, entry);
    if (!presence) return;
    this.#watch(isStale);
    this.renew();
  }

  /** Takes over what an earlier subscription of the client made it, to {@link begin} later. */
  inherit(before: Attendance): void {
    this.#attendant ??= before.#handOver();
  }

  /** The client is admitted again: it joins if it has not yet, and gets the list again where it missed a change. */
  renew(): void {
    const late = this.#late;
    this.#late = undefined;
    late?.();
    if (this.#watcher?.isStale) void this.#presence.list(this.#watcher).then(() => this.#owner.changed());
  }

  end(wasLost: boolean): void {
    this.#hasEnded = true;
    if (this.#watcher) this.#presence.unwatch(this.#watcher);
    this.#leave(wasLost);
  }

  #enter(data: string | undefined, entry?: number): void {
    if (this.#hasEnded) return;
    const { client } = this.#owner;
    const user = client.accountability.user ?? `uid:${client.uid}`;
    const earlier = this.#attendant;
    this.#attendant = this.#presence.enter(user, data, entry);
    // After it, so that between the two nobody left.
    if (earlier) this.#presence.exit(earlier, false);
  }

  /** Has the client be told who joins and leaves from now on. */
  #watch(isStale: boolean): Watcher {
    const { client, backlog } = this.#owner;
    return this.#watcher = this.#presence.watch(client, backlog, this.#ending, () => this.#owner.changed(), isStale);
  }

  #leave(wasLost: boolean): void {
    const attendant = this.#handOver();
    if (attendant) this.#presence.exit(attendant, wasLost);
  }

  #handOver(): Attendant | undefined {
    const attendant = this.#attendant;
    this.#attendant = undefined;
    return attendant;
  }
}

/** What the client's member is to have as data, as JSON text. */
function attendantData(
  { presence }: ResolvedChannel,
  { channel, data: text }: SubscriptionRequest,
  client: WebSocketClient,
  report: ExtensionHost["report"],
): string | undefined {
  const make = presence?.data;
  if (make === "client") return text;
  if (typeof make !== "function") return undefined;
  const told = (error: unknown) => report(error, client);
  let json: string | undefined;
  guard(() => {
    const made: unknown = make({ client, channel, data: text === undefined ? undefined : JSON.parse(text) });
    if (!isThenable(made)) json = JSON.stringify(made);
    if (made !== undefined && json === undefined) {
      told(new TypeError("Cannot use what presence.data returned: it is a promise, or not JSON"));
    }
    return made;
  }, told);
  return json;
}
