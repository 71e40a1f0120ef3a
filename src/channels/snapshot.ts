import type { ExtensionHost } from "../application/extension.ts";
import type { WebSocketClient } from "../application/websocket-client.ts";
import type { Channel } from "./channel.ts";
import type { ResolvedChannel, SnapshotContext } from "./channel-options.ts";
import type { Feed } from "./feed.ts";
import { readHistory } from "./history-record.ts";
import { answerOf } from "./permission.ts";
import type { Position } from "../engines/engine.ts";
import { WebSocketError } from "../protocol/errors.ts";
import { queryOf, type SubscriptionRequest } from "./saved-subscription.ts";

/** Maximum number of snapshots for one start: the next is taken if more was published during the last than could be kept. */
const MAX_SNAPSHOTS = 3;

/** Where a subscription begins: the data of its `init`, and the position from which publications follow it. */
interface SubscriptionStart {
  readonly data?: unknown;
  readonly position: Position | null;
}

/** The subscription that the snapshot is for. */
interface StartingSubscription {
  readonly client: WebSocketClient;
  readonly host: ExtensionHost;
  readonly feed: Feed;
  readonly channel: Channel;
  readonly message: SubscriptionRequest;
  /** Whether it still waits for the snapshot. */
  isCurrent(): boolean;
}

/**
 * Begins to keep publications, then takes the snapshot that they follow. Resolves with `undefined` if nobody waits for it any more.
 *
 * @throws {WebSocketError} SERVICE_UNAVAILABLE if too much is published meanwhile, or what `snapshot` throws.
 */
export async function takeSnapshot(
  starting: StartingSubscription,
  options: ResolvedChannel,
): Promise<SubscriptionStart | undefined> {
  const { channel, feed, message } = starting;
  for (let left = MAX_SNAPSHOTS;; left--) {
    feed.hold();
    const { position } = channel;
    if (!options.snapshot || message.event !== undefined) return { position };
    const data = await snapshotOf(starting, message, options);
    if (!starting.isCurrent()) return undefined;
    if (!feed.hasOverflowed) return { data, position };
    if (left === 1) throw new WebSocketError("subscribe", "SERVICE_UNAVAILABLE", "Cannot subscribe: too much is published");
  }
}

/** Calls `snapshot`, and checks the data against the contract. */
async function snapshotOf(
  owner: { readonly client: WebSocketClient; readonly host: ExtensionHost },
  request: SubscriptionRequest,
  options: ResolvedChannel,
): Promise<unknown> {
  const { client, host } = owner;
  const data = await answerOf(() => options.snapshot?.(snapshotContextOf(owner, request, options)), "subscribe", host);
  host.outbound?.snapshot(options.name, request.channel, data, client);
  return data;
}

function snapshotContextOf(
  { client, host }: { readonly client: WebSocketClient; readonly host: ExtensionHost },
  request: SubscriptionRequest,
  { history, params }: ResolvedChannel,
): SnapshotContext {
  const { channel } = request;
  return {
    client,
    channel,
    params: params(channel),
    query: queryOf(request) ?? {},
    history: (query = {}) => readHistory(host.engine, channel, history, query),
  };
}
