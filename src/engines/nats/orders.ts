import type { StoredOrders } from "../broker/broker.ts";
import type { StreamMessage } from "./pull-consumer.ts";

/** Number of orders of each node that are stored. */
const MAX_ORDERS = 1_000;

/** Pattern of the keys of all stored orders. They are in the bucket of the nodes, whose keys have no dot. */
export const ORDER_KEYS = "order.*.*";

/** The key of an order. It overwrites the one {@link MAX_ORDERS} before it. @param number counts the node's orders, from 0. */
export function orderKey(node: string, number: number): string {
  return `order.${node}.${number % MAX_ORDERS}`;
}

/** The orders that were stored since a time, in ms of the server's clock. */
export function ordersSince(since: number, entries: readonly StreamMessage[]): StoredOrders {
  const orders = entries.filter(({ time, text }) => time >= since && text !== "");
  const counts = new Map<string, number>();
  for (const { subject } of orders) {
    const prefix = subject.slice(0, subject.lastIndexOf("."));
    counts.set(prefix, (counts.get(prefix) ?? 0) + 1);
  }
  return { envelopes: orders.map(({ text }) => text), isWhole: [...counts.values()].every((count) => count < MAX_ORDERS) };
}
