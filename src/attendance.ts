import type { ResolvedChannel } from "./channel-options.ts";
import type { ExtensionHost } from "./extension.ts";
import type { Presence, Watcher } from "./presence.ts";
import type { SubscribeMessage } from "./protocol.ts";
import type { WebSocketClient } from "./websocket-client.ts";

/** Whom a subscription makes a member; `data` is JSON text. */
interface Attendant {
  readonly user: string;
  readonly data: string | undefined;
}

/** What one subscription has to do with the members of its channel: it makes its user one, and may be told of the others. */
export class Attendance {
  readonly #client: WebSocketClient;
  readonly #host: ExtensionHost;
  readonly #presence: Presence;
  #attendant: Attendant | undefined;
  #watcher: Watcher | undefined;
  #hasEnded = false;

  constructor(client: WebSocketClient, presence: Presence, host: ExtensionHost) {
    this.#client = client;
    this.#presence = presence;
    this.#host = host;
  }

  /** What the member has beside its user, as JSON text. */
  get data(): string | undefined {
    return this.#attendant?.data;
  }

  /** The watcher was not told something. */
  get isStale(): boolean {
    return this.#watcher?.isStale ?? false;
  }

  /** Makes the user a member. */
  enter(data: string | undefined): void {
    if (this.#hasEnded) return;
    const user = this.#client.accountability.user ?? `uid:${this.#client.uid}`;
    const earlier = this.#attendant;
    this.#presence.enter(user, data);
    // After it, so that between the two nobody left.
    if (earlier) this.#presence.exit(earlier.user, false);
    this.#attendant = { user, data };
  }

  /** Takes over what an earlier subscription of the client made it, to {@link enter} later. */
  inherit(before: Attendance): void {
    this.#attendant ??= before.#handOver();
  }

  /** Tells the client who is there, and from then on who joins and leaves. It never rejects. */
  async watch(ending: string): Promise<void> {
    try {
      const watcher = await this.#presence.watch(this.#client, ending);
      if (this.#hasEnded) this.#presence.unwatch(watcher);
      else this.#watcher = watcher;
    } catch (error) {
      this.#host.report(error, this.#client);
    }
  }

  /** Tells the client anew, where it has missed something. */
  renew(): void {
    if (this.#watcher?.isStale) this.#presence.list(this.#watcher).catch((error) => this.#host.report(error, this.#client));
  }

  end(wasLost: boolean): void {
    this.#hasEnded = true;
    if (this.#watcher) this.#presence.unwatch(this.#watcher);
    this.#leave(wasLost);
  }

  #leave(wasLost: boolean): void {
    const attendant = this.#handOver();
    if (attendant) this.#presence.exit(attendant.user, wasLost);
  }

  #handOver(): Attendant | undefined {
    const attendant = this.#attendant;
    this.#attendant = undefined;
    return attendant;
  }
}

/** What the client's member is to have as data, as JSON text. */
export function attendantData(
  { presence }: ResolvedChannel,
  { channel, data }: SubscribeMessage,
  client: WebSocketClient,
  report: ExtensionHost["report"],
): string | undefined {
  const make = presence?.data;
  try {
    // What came in was JSON.
    const made = typeof make === "function"
      ? make({ client, channel, data: data as never })
      : make === "client"
      ? data
      : undefined;
    return made === undefined ? undefined : JSON.stringify(made);
  } catch (error) {
    report(error, client);
    return undefined;
  }
}
