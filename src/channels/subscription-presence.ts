import type { Backlog } from "./backlog.ts";
import type { ResolvedChannel } from "./channel-options.ts";
import type { ExtensionHost } from "../application/extension.ts";
import { guard, isThenable } from "../base/guard.ts";
import type { Attendant, Presence, Watcher } from "./presence.ts";
import type { SavedSubscription, SubscriptionRequest } from "./saved-subscription.ts";
import { connectionOf, type WebSocketClient } from "../application/websocket-client.ts";

/** The subscription that the attendance belongs to. */
interface AttendanceOwner {
  readonly client: WebSocketClient;
  readonly host: ExtensionHost;
  readonly backlog: Backlog;
  /** Called when {@link Attendance.saved} or {@link Attendance.isStale} has changed. */
  changed(): void;
}

/** The part of one subscription in presence: makes its user a member, and sends it the members if it asked for them. */
export class Attendance {
  readonly #owner: AttendanceOwner;
  readonly #presence: Presence;
  readonly #ending: string;
  #attendant: Attendant | undefined;
  #watcher: Watcher | undefined;
  /** The rest of {@link begin}, set while the client is suspended. */
  #postponed: (() => void) | undefined;
  #hasEnded = false;

  /** @param ending end of the JSON of each message, with the `uid` */
  constructor(owner: AttendanceOwner, presence: Presence, ending: string) {
    this.#owner = owner;
    this.#presence = presence;
    this.#ending = ending;
  }

  /** The fields to save for hibernation. */
  get saved(): Pick<SavedSubscription, "member" | "entry"> {
    if (!this.#attendant) return {};
    const { member: { data }, entry } = this.#attendant;
    return { ...(data === undefined ? {} : { member: data }), entry };
  }

  /** Whether the client missed a change and needs a new list. */
  get isStale(): boolean {
    return this.#watcher?.isStale ?? false;
  }

  /** Sends the list of members, if asked for, and then joins. */
  begin(options: ResolvedChannel, message: SubscriptionRequest): void {
    const { client, host } = this.#owner;
    const enter = () => {
      if (this.#hasEnded) return;
      // Joins in `renew`, when the client is admitted again.
      if (connectionOf(client).isSuspended) return void (this.#postponed = enter);
      this.#enter(attendantData(options, message, client, host.report));
      if (!this.#hasEnded) this.#owner.changed();
    };
    if (message.presence) void this.#presence.list(this.#watch(false)).then(enter);
    else enter();
  }

  /** Continues after hibernation. The client has the current members, unless `isStale`. */
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

  /** Takes over the attendant of the replaced subscription; call before {@link begin}. */
  inherit(before: Attendance): void {
    this.#attendant ??= before.#handOver();
  }

  /** Continues after the client is admitted again: joins if it has not yet, and sends a new list if it missed a change. */
  renew(): void {
    const postponed = this.#postponed;
    this.#postponed = undefined;
    postponed?.();
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
    // Enters before it exits, so that the member does not leave in between.
    if (earlier) this.#presence.exit(earlier, false);
  }

  /** Sends joins and leaves to the client from now on. */
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

/** The data of the client's member, as JSON text. */
function attendantData(
  { presence }: ResolvedChannel,
  { channel, data: text }: SubscriptionRequest,
  client: WebSocketClient,
  report: ExtensionHost["report"],
): string | undefined {
  const make = presence?.data;
  if (make === "client") return text;
  if (typeof make !== "function") return undefined;
  const fail = (error: unknown) => report(error, client);
  let json: string | undefined;
  guard(() => {
    const made: unknown = make({ client, channel, data: text === undefined ? undefined : JSON.parse(text) });
    if (!isThenable(made)) json = JSON.stringify(made);
    if (made !== undefined && json === undefined) {
      fail(new TypeError("Cannot use what presence.data returned: it is a promise, or not JSON"));
    }
    return made;
  }, fail);
  return json;
}
