import type { StoredOrders } from "../broker/broker.ts";
import type { StreamMessage } from "./jetstream.ts";

/** Orders stored per node. */
const MAX_ORDERS = 1_000;

/** The keys of all stored orders. They are in the bucket of the nodes, whose own keys have no dot. */
export const ORDER_KEYS = "order.*.*";

/** The key that an order is stored at, in place of the one {@link MAX_ORDERS} before it. @param number counts the node's orders, from 0. */
export function orderKey(node: string, number: number): string {
  return `order.${node}.${number % MAX_ORDERS}`;
}

/** The orders among the stored entries since a time, in ms of the server's clock. */
export function ordersSince(since: number, entries: readonly StreamMessage[]): StoredOrders {
  const orders = entries.filter(({ time, text }) => time >= since && text !== "");
  const counts = new Map<string, number>();
  for (const { subject } of orders) {
    const prefix = subject.slice(0, subject.lastIndexOf("."));
    counts.set(prefix, (counts.get(prefix) ?? 0) + 1);
  }
  return { envelopes: orders.map(({ text }) => text), isWhole: [...counts.values()].every((count) => count < MAX_ORDERS) };
}
