/** The servers of the bench: this project, what each runtime can do at best without it, and its peers. */
import { dirname, join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import type { WorkName } from "./works.ts";

export type RuntimeName = "bun" | "node" | "deno" | "durable-object";

export const RUNTIME_TITLES: Record<RuntimeName, string> = {
  bun: "Bun",
  node: "Node",
  deno: "Deno",
  "durable-object": "Durable Object",
};

export type BrokerName = "redis" | "nats";

export interface Server {
  name: string;
  runtime: RuntimeName;
  /** `floor`: a bare upgrade in a route of Hono. */
  kind: "noroshi" | "raw" | "floor" | "peer";
  /** Below `bench/servers`, then its arguments. */
  file: string;
  args?: string[];
  /** Part of the quick run, or of these works of it. */
  quick?: true | WorkName[];
  /** The works it is for. Absent: all that its kind does. */
  works?: WorkName[];
  /** At which its nodes meet: it is told the address as its last argument. */
  broker?: BrokerName;
  /** For the generator. */
  settings?: Record<string, string | number>;
}

export const root: string = join(dirname(fileURLToPath(import.meta.url)), "..");
const modules = join(root, "node_modules");

/** How a file is run; what Node runs is built before. A Durable Object's file starts Miniflare, whose child workerd is the server. */
export const COMMANDS: Record<RuntimeName, readonly string[]> = {
  bun: [join(modules, "bun/bin/bun.exe"), "run"], // Called so on every platform.
  node: [process.execPath],
  deno: [join(modules, "deno/deno"), "run", "-A", "--no-lock"],
  "durable-object": [process.execPath, "--import", "tsx"],
};

const SOCKET_IO = { socketio: 1, path: "/socket.io/?EIO=4&transport=websocket" };
const BATCHING = { protocol: "noroshi.v1" };

/** What a publication costs beside a broadcast of the same bytes, and the rest of what channels do. */
function channelServers(runtime: RuntimeName): Server[] {
  const file = "channels.ts";
  return [
    { name: "broadcast", runtime, kind: "raw", file, args: ["broadcast"], works: ["publish", "publish-16"] },
    {
      name: "publish",
      runtime,
      kind: "noroshi",
      file,
      args: ["publish"],
      works: ["publish", "publish-16", "subscribe", "recover"],
    },
    {
      name: "publish, with uids",
      runtime,
      kind: "noroshi",
      file,
      args: ["publish"],
      works: ["publish", "publish-16"],
      settings: { uids: 1 },
    },
    { name: "none", runtime, kind: "raw", file, args: ["publish"], works: ["subscribed"] },
    { name: "one", runtime, kind: "noroshi", file, args: ["publish"], works: ["subscribed"], settings: { join: "load" } },
  ];
}

const CROSS_NODE: WorkName[] = ["cross-node", "cross-node-16", "cross-node-one"];

/** One of two nodes. What it promises differs: a broadcast and a publication without a history are sent once, one with a history is kept. */
function nodeServers(runtime: RuntimeName): Server[] {
  const own = (broker: BrokerName, title: string): Server[] => {
    const common = { runtime, kind: "noroshi", file: "node.ts", broker, works: CROSS_NODE } as const;
    return [
      { ...common, name: `noroshi, ${title}: broadcast`, args: ["broadcast", broker] },
      {
        ...common,
        name: `noroshi, ${title}: broadcast, signed`,
        args: ["broadcast", broker, "signed"],
        works: ["cross-node-one"],
      },
      { ...common, name: `noroshi, ${title}: publish`, args: ["load", broker], settings: { join: "load" } },
      { ...common, name: `noroshi, ${title}: publish, history`, args: ["kept", broker], settings: { join: "kept" } },
    ];
  };
  const other = { runtime, broker: "redis", works: CROSS_NODE } as const;
  const raw = runtime === "bun"
    ? ["raw: publish", "raw-bun.ts", "publish"]
    : ["raw: ws, pre-built frames", "raw-node.ts", "frames"];
  const socketIo = { ...other, kind: "peer", file: `peers/socket-io-${runtime}.ts`, settings: SOCKET_IO } as const;
  return [
    ...own("redis", "Redis"),
    ...own("nats", "NATS"),
    { ...other, kind: "raw", name: raw[0]!, file: raw[1]!, args: [raw[2]!] },
    { ...other, kind: "peer", name: "crossws, sync", file: `peers/crossws-${runtime}.ts` },
    // It has none for Deno.
    ...runtime === "deno" ? [] : [
      { ...socketIo, name: "Socket.IO, redis-adapter", args: ["redis-adapter"] },
      { ...socketIo, name: "Socket.IO, redis-streams-adapter", args: ["redis-streams-adapter"] },
    ],
  ];
}

/** An echo with schemas of other libraries. Zod's compiled code runs only where no function of the application does. */
function schemaServers(runtime: RuntimeName): Server[] {
  const server: Omit<Server, "name"> = { runtime, kind: "noroshi", file: "noroshi.ts", works: ["echo"] };
  return [
    { ...server, name: "noroshi, Zod", args: ["zod"] },
    { ...server, name: "noroshi, Zod with a refinement", args: ["zod-checked"] },
    { ...server, name: "noroshi, ArkType", args: ["arktype"] },
  ];
}

/** An echo that is observed: compare it with `noroshi` by `pair.ts`. */
const observedServers = (runtime: RuntimeName): Server[] =>
  ["metrics", "traces", "unsampled", "diagnostics"].map((what) => ({
    name: `observed: ${what}`,
    runtime,
    kind: "noroshi",
    file: "noroshi.ts",
    args: ["", what],
    works: ["echo"],
  }));

/** What a handshake costs in a route of Hono that does nothing else, and with every check that there is. */
function connectServers(runtime: RuntimeName): Server[] {
  const works: WorkName[] = ["connect", "connect-stay"];
  const strict: Omit<Server, "name" | "file"> = {
    runtime,
    kind: "noroshi",
    args: ["", "strict"],
    works,
    settings: { page: "https://app.example" },
  };
  const floor: Server = { name: "floor", runtime, kind: "floor", file: `floor-${runtime}.ts`, works };
  const own: Server[] = [floor, { ...strict, name: "noroshi, strict", file: "noroshi.ts" }];
  if (runtime !== "deno") return own;
  return [
    ...own,
    { ...floor, name: "floor, ws", file: "floor-node.ts" },
    { ...strict, name: "noroshi, strict, Deno.serve", file: "noroshi-deno.ts" },
  ];
}

/** Those that ping: this project each 30 s, Socket.IO each 25. */
function heartbeatServers(runtime: RuntimeName): Server[] {
  const works: WorkName[] = ["beats"];
  const socketIo = { runtime, kind: "peer", file: `peers/socket-io-${runtime}.ts`, works, settings: SOCKET_IO } as const;
  return [
    { name: "noroshi", runtime, kind: "noroshi", file: "noroshi.ts", works },
    ...runtime === "deno" ? [] : [{ ...socketIo, name: "Socket.IO" }],
  ];
}

export const SERVERS: readonly Server[] = [
  ...(["bun", "node", "deno"] as const).flatMap(heartbeatServers),
  ...(["bun", "node", "deno"] as const).flatMap(channelServers),
  ...(["bun", "node", "deno"] as const).flatMap(nodeServers),
  ...(["bun", "node", "deno"] as const).flatMap(schemaServers),

  { name: "noroshi", runtime: "bun", kind: "noroshi", file: "noroshi.ts", quick: true },
  {
    name: "noroshi, noroshi.v1",
    runtime: "bun",
    kind: "noroshi",
    file: "noroshi.ts",
    works: ["fanout-16", "fanout-10k-16"],
    settings: BATCHING,
  },
  { name: "raw: publish", runtime: "bun", kind: "raw", file: "raw-bun.ts", args: ["publish"], quick: true },
  { name: "raw: send loop", runtime: "bun", kind: "raw", file: "raw-bun.ts", args: ["loop"] },
  { name: "hono/bun", runtime: "bun", kind: "peer", file: "peers/hono-bun.ts" },
  { name: "crossws", runtime: "bun", kind: "peer", file: "peers/crossws-bun.ts" },
  { name: "Socket.IO, bun-engine", runtime: "bun", kind: "peer", file: "peers/socket-io-bun.ts", settings: SOCKET_IO },

  { name: "noroshi", runtime: "node", kind: "noroshi", file: "noroshi.ts", quick: true },
  { name: "raw: ws, pre-built frames", runtime: "node", kind: "raw", file: "raw-node.ts", args: ["frames"], quick: true },
  { name: "raw: ws, send loop", runtime: "node", kind: "raw", file: "raw-node.ts", args: ["loop"] },
  { name: "@hono/node-server", runtime: "node", kind: "peer", file: "peers/hono-node.ts" },
  { name: "crossws", runtime: "node", kind: "peer", file: "peers/crossws-node.ts" },
  { name: "Socket.IO", runtime: "node", kind: "peer", file: "peers/socket-io-node.ts", settings: SOCKET_IO },

  { name: "noroshi", runtime: "deno", kind: "noroshi", file: "noroshi.ts", quick: true },
  { name: "noroshi, Deno.serve", runtime: "deno", kind: "noroshi", file: "noroshi-deno.ts" },
  {
    name: "noroshi, Deno.serve, noroshi.v1",
    runtime: "deno",
    kind: "noroshi",
    file: "noroshi-deno.ts",
    works: ["fanout-16", "fanout-10k-16"],
    settings: BATCHING,
  },
  {
    name: "raw: ws, pre-built frames",
    runtime: "deno",
    kind: "raw",
    file: "raw-node.ts",
    args: ["frames"],
    quick: ["fanout", "fanout-16"],
  },
  { name: "raw: Deno.upgradeWebSocket", runtime: "deno", kind: "raw", file: "raw-deno.ts", quick: ["echo"] },
  { name: "hono/deno", runtime: "deno", kind: "peer", file: "peers/hono-deno.ts" },
  { name: "crossws", runtime: "deno", kind: "peer", file: "peers/crossws-deno.ts" },

  { name: "noroshi", runtime: "durable-object", kind: "noroshi", file: "durable-object.ts", args: ["noroshi"] },
  {
    name: "noroshi, noroshi.v1",
    runtime: "durable-object",
    kind: "noroshi",
    file: "durable-object.ts",
    args: ["noroshi"],
    works: ["fanout-16", "fanout-10k-16", "slow"],
    settings: BATCHING,
  },
  { name: "raw: hibernation, send loop", runtime: "durable-object", kind: "raw", file: "durable-object.ts", args: ["raw"] },

  ...(["bun", "node", "deno"] as const).flatMap(connectServers),
  ...(["bun", "node", "deno"] as const).flatMap(observedServers),
];
