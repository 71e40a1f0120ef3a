import * as v from "valibot";

/** What is used of a client of `redis` (node-redis). */
export interface NodeRedisClient {
  readonly options?: { readonly socket?: object | undefined; readonly keyPrefix?: unknown } | undefined;
  // The options that it takes differ by version: it is passed back what it has.
  duplicate(overrides: never): unknown;
}

/** What is used of a client of `ioredis`. */
export interface IoRedisClient {
  readonly options?: { readonly keyPrefix?: unknown } | undefined;
  call(command: string, ...args: never[]): Promise<unknown>;
  duplicate(overrides: never): unknown;
}

/** A client of `redis` 5 or later, or of `ioredis` 5 or later. */
export type RedisClient = NodeRedisClient | IoRedisClient;

/** A connection that ends rather than connecting again, and keeps no command for later. */
export interface RedisConnection {
  command(...args: string[]): Promise<unknown>;
  subscribe(channels: string[]): Promise<unknown>;
  unsubscribe(channels: string[]): Promise<unknown>;
  close(): void;
}

export interface RedisConnectionListener {
  message(channel: string, text: string): void;
  ended(error: unknown): void;
}

/** The part of a node-redis client that a connection uses; what `duplicate` returns is one. */
interface NodeRedis {
  on(event: string, listener: (error?: unknown) => void): unknown;
  connect(): Promise<unknown>;
  destroy(): void;
  sendCommand(args: string[]): Promise<unknown>;
  subscribe(channels: string[], listener: (message: string, channel: string) => void): Promise<unknown>;
  unsubscribe(channels: string[]): Promise<unknown>;
}

interface IoRedis {
  on(event: "message", listener: (channel: string, message: string) => void): unknown;
  on(event: "error" | "end", listener: (error?: unknown) => void): unknown;
  connect(): Promise<unknown>;
  disconnect(): void;
  call(command: string, ...args: string[]): Promise<unknown>;
  subscribe(...channels: string[]): Promise<unknown>;
  unsubscribe(...channels: string[]): Promise<unknown>;
}

/** @throws {TypeError} for what is no client, and one of Redis Cluster. */
export function checkClient(client: RedisClient): void {
  // By what the clusters of the two libraries have.
  if (typeof client === "object" && client !== null && ("masters" in client || ("isCluster" in client && client.isCluster))) {
    throw new TypeError("Cannot create the engine: Redis Cluster is not supported, pass a client of one server");
  }
  if (typeof client?.duplicate === "function" && ("call" in client || "sendCommand" in client)) return;
  throw new TypeError('Cannot create the engine: client must be one of "redis" (createClient) or "ioredis" (new Redis)');
}

/**
 * Connects as the client does, with a connection of its own: the client's may keep commands for later and send them twice, and give up
 * connecting, as its options say.
 */
export function connectRedis(client: RedisClient, listener: RedisConnectionListener, timeout: number): Promise<RedisConnection> {
  return "call" in client && !("sendCommand" in client && "isReady" in client)
    ? connectIoRedis(client as IoRedisClient, listener, timeout) // It has `call`, as node-redis has not.
    : connectNodeRedis(client as NodeRedisClient, listener, timeout);
}

async function connectNodeRedis(
  client: NodeRedisClient,
  listener: RedisConnectionListener,
  timeout: number,
): Promise<RedisConnection> {
  const overrides = {
    // Its own options, which differ by version.
    socket: { ...client.options?.socket, reconnectStrategy: false, connectTimeout: timeout },
    // It stands before the keys of commands, not before channels and keys that scripts make: the engine puts it there itself.
    keyPrefix: undefined,
    // It would move to another server by itself.
    maintNotifications: "disabled",
    clientSideCache: undefined,
    // The engine has one watchdog for all: a timeout of each command cost a signal and a timer, a quarter of what sending took.
    commandOptions: { timeout: 0 },
    disableOfflineQueue: true,
    commandsQueueMaxLength: undefined,
    pingInterval: 0,
  };
  const connection = client.duplicate(overrides as never) as NodeRedis; // As node-redis returns it.
  let isClosed = false;
  const close = () => {
    if (isClosed) return;
    isClosed = true;
    connection.destroy();
  };
  // Without a listener an error would end the process.
  connection.on("error", (error) => listener.ended(error));
  connection.on("end", () => listener.ended(new Error("Cannot go on: the connection was closed")));
  try {
    await connection.connect();
  } catch (error) {
    isClosed = true; // It has closed itself, and throws when it is closed again.
    throw error;
  }
  const onMessage = (text: string, channel: string) => listener.message(channel, text);
  return {
    command: (...args) => connection.sendCommand(args),
    subscribe: (channels) => connection.subscribe(channels, onMessage),
    unsubscribe: (channels) => connection.unsubscribe(channels),
    close,
  };
}

async function connectIoRedis(
  client: IoRedisClient,
  listener: RedisConnectionListener,
  timeout: number,
): Promise<RedisConnection> {
  const overrides = {
    lazyConnect: true,
    connectTimeout: timeout,
    enableOfflineQueue: false,
    autoResendUnfulfilledCommands: false,
    autoResubscribe: false,
    maxRetriesPerRequest: 0,
    retryStrategy: null,
    reconnectOnError: null,
    keyPrefix: "", // As above.
    stringNumbers: false,
    replyMapping: undefined,
  };
  const connection = client.duplicate(overrides as never) as IoRedis; // As ioredis returns it.
  connection.on("error", (error) => listener.ended(error));
  connection.on("end", () => listener.ended(new Error("Cannot go on: the connection was closed")));
  connection.on("message", (channel, text) => listener.message(channel, text));
  await connection.connect();
  return {
    command: (command = "", ...args) => connection.call(command, ...args),
    subscribe: (channels) => connection.subscribe(...channels),
    unsubscribe: (channels) => connection.unsubscribe(...channels),
    close: () => connection.disconnect(),
  };
}

/** The server that a connection is to. */
export interface RedisServer {
  /** Names one run of its process. */
  readonly run: string;
  /** Names its promotion, where it was a replica. */
  readonly promotion: string;
  /** The number of the database. */
  readonly database: number;
}

/** What the client has stand before its keys. */
export function readKeyPrefix({ options }: RedisClient): string {
  return `${options?.keyPrefix ?? ""}`;
}

/** @throws {TypeError} for an answer that is none of Redis, and a server that cannot be used. */
export function readServer(server: unknown, replication: unknown, connection: unknown): RedisServer {
  const field = (info: unknown, name: string) =>
    v.is(v.string(), info) ? info.match(new RegExp(`^${name}:(\\S+)`, "m"))?.[1] : undefined;
  const run = field(server, "run_id");
  if (!run) throw new TypeError('Cannot use the answer of Redis: "INFO server" has no run_id');
  if (field(server, "redis_mode") === "cluster") {
    throw new TypeError(
      "Cannot use Redis Cluster: its channels and scripts are of one server, connect to one without cluster-enabled",
    );
  }
  if (field(replication, "role") === "slave") throw new TypeError("Cannot use a replica of Redis: connect to its master");
  const former = field(replication, "master_replid2") ?? "";
  const promotion = /^0*$/.test(former) ? "" : `${former}:${field(replication, "second_repl_offset")}`;
  const database = v.is(v.string(), connection) ? Number(connection.match(/(?:^| )db=(\d+)/)?.[1] ?? 0) : 0;
  return { run, promotion, database };
}
