import type { Backlog } from "./backlog.ts";
import type { Channel, ChannelHost } from "./channel.ts";
import type { ResolvedChannel } from "./channel-options.ts";
import type { WebSocketError } from "../protocol/errors.ts";
import type { Subscription } from "./subscription.ts";
import type { WebSocketClient } from "../application/websocket-client.ts";

/** The client that a subscription belongs to, with the callbacks of its {@link ClientSubscriptions}. */
export interface SubscriptionOwner {
  readonly client: WebSocketClient;
  readonly host: ChannelHost;
  readonly backlog: Backlog;
  /** The channel on this node, created if necessary. */
  channel(name: string, options: ResolvedChannel): Channel;
  /** Called when `init` was sent. */
  started(subscription: Subscription): void;
  /**
   * Called when the server has ended the subscription. The client is sent the reason.
   *
   * @param wasStarted whether `init` was sent.
   * @param kept the subscription that it was to replace, which continues.
   */
  ended(subscription: Subscription, reason: WebSocketError, wasStarted: boolean, kept?: Subscription): void;
  /** Called when it begins to wait for its client to read or for `authorize`: the Durable Object may hibernate meanwhile. */
  waits(subscription: Subscription): void;
  /** Called when the result of {@link Subscription.save} has changed. */
  changed(subscription: Subscription): void;
}
