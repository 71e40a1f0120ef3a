/** The works of the bench: what the generator does, and which figure of it counts. */

export type WorkName =
  | "echo"
  | "fanout"
  | "fanout-10k"
  | "fanout-16"
  | "fanout-10k-16"
  | "filtered-10k"
  | "filtered-50k"
  | "connect"
  | "connect-stay"
  | "idle"
  | "beats"
  | "slow"
  | "publish"
  | "publish-16"
  | "subscribe"
  | "subscribed"
  | "recover"
  | "cross-node"
  | "cross-node-16"
  | "cross-node-one";

/** The figure by which servers are compared. */
export type Figure = "cpu" | "memory" | "peak";

export interface Work {
  name: WorkName;
  title: string;
  /** What is counted. */
  unit: "deliveries" | "requests" | "handshakes" | "connections" | "pings" | "subscriptions";
  figure: Figure;
  /** The generator's work and its settings. */
  load: string;
  settings: Record<string, string | number>;
  /** Fewer in a quick run. Absent: the work is not part of it. */
  quickCount?: number;
  /** Only for the servers that are for it by name: the others have no channels. */
  channels?: boolean;
  /** Only for the servers that are for it by name: the others ping nobody. */
  isHeartbeat?: boolean;
  /** On two nodes that meet at a broker: who publishes is on one, all others are on the other. Only for the servers that are for it by name. */
  isCrossNode?: boolean;
  /** Filters or sees who is slow, which the peers' servers are not written for. */
  ownOnly?: boolean;
}

/** Their counts are so large that a fifth warms up: with fewer, a part of what is measured is JavaScript being compiled. */
export const WORKS: readonly Work[] = [
  {
    name: "echo",
    title: "Echo: 100 clients, 300,000 requests",
    unit: "requests",
    figure: "cpu",
    load: "echo",
    settings: { clients: 100, count: 300_000 },
    quickCount: 30_000,
  },
  {
    name: "fanout",
    title: "Fan-out to 1,000 clients, one at a time",
    unit: "deliveries",
    figure: "cpu",
    load: "fanout",
    settings: { clients: 1000, count: 600 },
    quickCount: 100,
  },
  {
    name: "fanout-10k",
    title: "Fan-out to 10,000 clients, one at a time",
    unit: "deliveries",
    figure: "cpu",
    load: "fanout",
    settings: { clients: 10_000, count: 80 },
  },
  {
    name: "fanout-16",
    title: "Fan-out to 1,000 clients, 16 under way",
    unit: "deliveries",
    figure: "cpu",
    load: "fanout",
    settings: { clients: 1000, window: 16, count: 480 },
    quickCount: 320,
  },
  {
    name: "fanout-10k-16",
    title: "Fan-out to 10,000 clients, 16 under way",
    unit: "deliveries",
    figure: "cpu",
    load: "fanout",
    settings: { clients: 10_000, window: 16, count: 64 },
  },
  {
    name: "filtered-10k",
    title: "Filtered: 10 of 10,000 clients",
    unit: "deliveries",
    figure: "cpu",
    load: "fanout",
    settings: {
      clients: 10_000,
      few: 10,
      expect: 10,
      say: "say-few",
      count: 60_000,
    },
    ownOnly: true,
  },
  {
    name: "filtered-50k",
    title: "Filtered: 10 of 50,000 clients",
    unit: "deliveries",
    figure: "cpu",
    load: "fanout",
    settings: {
      clients: 50_000,
      few: 10,
      expect: 10,
      say: "say-few",
      count: 60_000,
    },
    ownOnly: true,
  },
  {
    name: "connect",
    title: "Connect: 3,000 handshakes, 50 under way",
    unit: "handshakes",
    figure: "cpu",
    load: "connect",
    settings: { window: 50, count: 3000 },
  },
  {
    name: "connect-stay",
    title: "Connect: 60,000 handshakes, 50 under way, 5,000 stay open",
    unit: "handshakes",
    figure: "cpu",
    load: "connect",
    settings: { window: 50, count: 60_000, stay: 5_000 },
  },
  {
    name: "idle",
    title: "Idle: 10,000 connections",
    unit: "connections",
    figure: "memory",
    load: "idle",
    settings: { clients: 10_000 },
  },
  {
    name: "beats",
    title: "Heartbeat: 10,000 idle connections, 10,000 pings",
    unit: "pings",
    figure: "cpu",
    load: "beats",
    settings: { clients: 10_000, count: 10_000 },
    isHeartbeat: true,
  },
  {
    name: "slow",
    title: "Slow consumer: 240 × 1 MiB to one that never reads, beside 999 that do",
    unit: "deliveries",
    figure: "peak",
    load: "slow",
    settings: { clients: 1000, expect: 999, say: "say-slow", count: 200 },
    ownOnly: true,
  },
  {
    name: "publish",
    title: "Publication to 1,000 subscriptions, one at a time",
    unit: "deliveries",
    figure: "cpu",
    load: "fanout",
    settings: { clients: 1000, join: "load", count: 300 },
    channels: true,
  },
  {
    name: "publish-16",
    title: "Publication to 1,000 subscriptions, 16 under way",
    unit: "deliveries",
    figure: "cpu",
    load: "fanout",
    settings: { clients: 1000, join: "load", window: 16, count: 1600 },
    channels: true,
  },
  {
    name: "subscribe",
    title: "Subscribe and unsubscribe: 100 clients, 100,000 times",
    unit: "subscriptions",
    figure: "cpu",
    load: "subscribe",
    settings: { clients: 100, count: 100_000 },
    channels: true,
  },
  {
    name: "subscribed",
    title: "Idle: 10,000 connections with a subscription",
    unit: "connections",
    figure: "memory",
    load: "idle",
    settings: { clients: 10_000 },
    channels: true,
  },
  {
    name: "recover",
    title: "Recovery: 1,000 clients, 50 missed publications each",
    unit: "deliveries",
    figure: "cpu",
    load: "recover",
    settings: { clients: 1000, join: "kept", epoch: "bench.1", count: 50 },
    channels: true,
  },
  {
    name: "cross-node",
    title: "Across nodes to 1,000 clients, one at a time",
    unit: "deliveries",
    figure: "cpu",
    load: "fanout",
    settings: { clients: 1000, count: 200 },
    isCrossNode: true,
  },
  {
    name: "cross-node-16",
    title: "Across nodes to 1,000 clients, 16 under way",
    unit: "deliveries",
    figure: "cpu",
    load: "fanout",
    settings: { clients: 1000, window: 16, count: 960 },
    isCrossNode: true,
  },
  {
    name: "cross-node-one",
    title: "Across nodes to one client, 16 under way",
    unit: "deliveries",
    figure: "cpu",
    load: "fanout",
    settings: { clients: 1, window: 16, count: 20_000 },
    isCrossNode: true,
  },
];

/** The works as this machine can do them: each process may hold so many descriptors. */
export function fitWorks(works: readonly Work[], maxDescriptors: number): Work[] {
  // Some are needed for other things, and for files.
  const most = maxDescriptors - 500;
  return works.map((work) => {
    const clients = Number(work.settings.clients ?? 0);
    if (clients <= most) return work;
    const title = work.title.replace(clients.toLocaleString("en"), most.toLocaleString("en"));
    return {
      ...work,
      title: `${title} (all that the descriptor limit of ${maxDescriptors} allows)`,
      settings: { ...work.settings, clients: most },
    };
  });
}

/** The work with another count, which its title may name. */
export function withCount(work: Work, count: number): Work {
  const title = work.title.replace(Number(work.settings.count).toLocaleString("en"), count.toLocaleString("en"));
  return { ...work, title, settings: { ...work.settings, count } };
}
