import type { Snapshot } from "../shown.ts";

/** How long a node that says nothing is shown, in ms. */
const PATIENCE = 5_000;

/** A node, as its last two snapshots show it. */
export interface NodeView {
  readonly snapshot: Snapshot;
  readonly rates: Readonly<Record<"opened" | "closed" | "received" | "sent" | "published", number>>;
  /** Of the clock of the page, in ms. */
  readonly seenAt: number;
}

/** Takes a snapshot, unless it is known, and removes nodes that say nothing. @param seenAt of the clock of the page, in ms. */
export function takeSnapshot(nodes: Map<string, NodeView>, snapshot: Snapshot, seenAt: number): void {
  const before = nodes.get(snapshot.node);
  if (!before || before.snapshot.seq < snapshot.seq) {
    nodes.set(snapshot.node, { snapshot, seenAt, rates: ratesOf(before?.snapshot, snapshot) });
  }
  for (const [node, view] of nodes) if (seenAt - view.seenAt > PATIENCE) nodes.delete(node);
}

function ratesOf(before: Snapshot | undefined, now: Snapshot): NodeView["rates"] {
  const seconds = before ? (now.at - before.at) / 1_000 : 0;
  const rate = (read: (snapshot: Snapshot) => number) =>
    before && seconds > 0 ? Math.max(0, (read(now) - read(before)) / seconds) : 0;
  return {
    opened: rate(({ stats }) => stats.opened),
    closed: rate(({ stats }) => stats.closed),
    received: rate(({ received }) => received),
    sent: rate(({ sent }) => sent),
    published: rate(({ published }) => published),
  };
}
