import type { ChannelHost } from "./channel.ts";
import type { Timed } from "../base/clock.ts";
import type { Grant, SavedSubscription } from "./saved-subscription.ts";
import type { PermissionState } from "./subscription-state.ts";

/** The subscription that a permission belongs to. */
interface PermittedSubscription {
  /** Called when {@link SubscriptionPermission.saved} has changed. */
  permissionChanged(): void;
  /** Called when the time limit of the permission is over. */
  resume(hasChanged: false): void;
}

/** The permission of one subscription: whether `authorize` has to be called, is running, or has allowed it. */
export class SubscriptionPermission implements Timed {
  readonly deadline: number = 0;
  readonly heapIndex: number = -1;
  readonly #subscription: PermittedSubscription;
  readonly #host: ChannelHost;
  #state: PermissionState = "unknown";
  /** Absent if the permission has no time limit. */
  #grant: Grant | undefined;

  constructor(subscription: PermittedSubscription, host: ChannelHost) {
    this.#subscription = subscription;
    this.#host = host;
  }

  get isGranted(): boolean {
    return this.#state === "granted";
  }

  /** Whether {@link ask} is waiting for `authorize`. */
  get isAsked(): boolean {
    return this.#state === "asked" || this.#isOutdated;
  }

  /** The fields to save for hibernation. */
  get saved(): Pick<SavedSubscription, "grant" | "isDoubtful"> {
    return { ...(this.#grant && { grant: this.#grant }), ...(this.isGranted ? {} : { isDoubtful: true }) };
  }

  /** Continues after hibernation with what was {@link saved}. */
  restore(grant: Grant | undefined, isDoubtful: boolean): void {
    const host = this.#host;
    this.#grant = grant;
    // A wall clock that was set back must not extend the permission.
    const left = grant ? Math.min(grant.until - host.now(), grant.ttl) : Infinity;
    if (isDoubtful || left <= 0) return;
    this.#state = "granted";
    if (grant) host.deadlines.set(this, left);
  }

  /** Discards the answer of `authorize`, also of a call under way, because the client's rights have changed. */
  outdate(): void {
    const { isGranted } = this;
    this.#invalidate();
    if (isGranted) this.#subscription.permissionChanged();
  }

  due(): void {
    this.#invalidate();
    this.#subscription.resume(false);
  }

  /**
   * Authorizes the client, again if its rights change meanwhile: one call of `authorize` at a time. Check {@link isGranted} after it.
   *
   * @param authorize resolves with the time that the permission lasts, in ms
   * @param isWanted whether the caller still waits; checked when `authorize` has answered.
   * @throws {WebSocketError} if it is not allowed
   */
  async ask(authorize: () => Promise<number>, isWanted: () => boolean): Promise<void> {
    this.#host.deadlines.delete(this);
    let ttl = 0;
    do {
      this.#state = "asked";
      try {
        ttl = await authorize();
      } catch (error) {
        if (isWanted() && !this.#isOutdated) {
          this.#state = "unknown";
          throw error;
        }
      }
    } while (this.#isOutdated && isWanted());
    if (isWanted()) this.#allow(ttl);
    else this.#state = "unknown";
  }

  end(): void {
    this.#host.deadlines.delete(this);
  }

  get #isOutdated(): boolean {
    return this.#state === "outdated";
  }

  #invalidate(): void {
    this.#state = this.isAsked ? "outdated" : "unknown";
  }

  #allow(ttl: number): void {
    const host = this.#host;
    this.#state = "granted";
    this.#grant = ttl === Infinity ? undefined : { ttl: Math.min(ttl, 2 ** 31 - 1), until: host.now() + ttl };
    if (this.#grant) host.deadlines.set(this, this.#grant.ttl);
    this.#subscription.permissionChanged();
  }
}
