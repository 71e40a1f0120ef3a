/**
 * The state of a subscription.
 *
 * | state | entered when | a publication is | next |
 * |---|---|---|---|
 * | `starting` | the client subscribes; `init` is not sent yet | kept, once the channel is open | `live`, `behind` |
 * | `live` | `init` is sent, or the subscription has caught up | sent, or kept while rights are checked | `behind` |
 * | `behind` | with a history: one could not be sent, or the client recovers from a position | read from the history later | `live` |
 * | `ended` | the client unsubscribes or leaves, or the server ends it; from any state | ignored | |
 */
export type SubscriptionState = "starting" | "live" | "behind" | "ended";

/**
 * What is known about the permission of a subscription. Without `granted`, nothing is sent; a refusal ends the subscription.
 *
 * | state | entered when | next |
 * |---|---|---|
 * | `unknown` | the subscription is new, its client's rights have changed, or its `ttl` is over | `asked` |
 * | `asked` | `authorize` is called | `granted`, `outdated`; `unknown` if the client is suspended at the answer |
 * | `outdated` | the rights change while `authorize` is running: its answer does not count | `asked`, or as above `unknown` |
 * | `granted` | `authorize` has allowed | `unknown` |
 */
export type PermissionState = "unknown" | "asked" | "outdated" | "granted";
