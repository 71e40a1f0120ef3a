import * as v from "valibot";

/** The parts of a `redis` (node-redis) client that the engine uses. */
export interface NodeRedisClient {
  /** The options that the client was created with. */
  readonly options?: { readonly socket?: object | undefined; readonly keyPrefix?: unknown } | undefined;
  /** Creates another connection, with other options. */
  // `never`, because the types of the options differ between versions of the library.
  duplicate(overrides: never): unknown;
}

/** The parts of an `ioredis` client that the engine uses. */
export interface IoRedisClient {
  /** The options that the client was created with. */
  readonly options?: { readonly keyPrefix?: unknown } | undefined;
  /** Sends a command. */
  call(command: string, ...args: never[]): Promise<unknown>;
  /** Creates another connection, with other options. */
  duplicate(overrides: never): unknown;
}

/** A client of `redis` 5 or later, or of `ioredis` 5 or later. */
export type RedisClient = NodeRedisClient | IoRedisClient;

/** A connection that ends instead of reconnecting. It queues no commands while it is down. */
export interface RedisConnection {
  command(...args: string[]): Promise<unknown>;
  subscribe(channels: string[]): Promise<unknown>;
  unsubscribe(channels: string[]): Promise<unknown>;
  close(): void;
}

/** Receives what a connection reads. */
export interface RedisConnectionListener {
  message(channel: string, text: string): void;
  /** Called when the connection has failed or was closed, maybe more than once. */
  ended(error: unknown): void;
}

/** The parts of a node-redis client that a connection uses, as `duplicate` returns it. */
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

/** @throws {TypeError} if the value is not a client of either library, or is a client of Redis Cluster. */
export function checkClient(client: RedisClient): void {
  // Cluster clients have `masters` in node-redis, `isCluster` in ioredis.
  if (typeof client === "object" && client !== null && ("masters" in client || ("isCluster" in client && client.isCluster))) {
    throw new TypeError("Cannot create the engine: Redis Cluster is not supported, pass a client of one server");
  }
  if (typeof client?.duplicate === "function" && ("call" in client || "sendCommand" in client)) return;
  throw new TypeError('Cannot create the engine: client must be one of "redis" (createClient) or "ioredis" (new Redis)');
}

/**
 * Opens a connection with the settings of the client. The client's own connection is not used, because depending on its options, it queues
 * commands, sends them twice, or stops reconnecting.
 */
export function connectRedis(client: RedisClient, listener: RedisConnectionListener, timeout: number): Promise<RedisConnection> {
  return "call" in client && !("sendCommand" in client && "isReady" in client)
    ? connectIoRedis(client as IoRedisClient, listener, timeout) // Only ioredis has `call`.
    : connectNodeRedis(client as NodeRedisClient, listener, timeout);
}

async function connectNodeRedis(
  client: NodeRedisClient,
  listener: RedisConnectionListener,
  timeout: number,
): Promise<RedisConnection> {
  const overrides = {
    // Copied, because the options differ between versions of the library.
    socket: { ...client.options?.socket, reconnectStrategy: false, connectTimeout: timeout },
    // The library prefixes the keys of commands, but not channels or keys built in scripts, so the engine adds the prefix itself.
    keyPrefix: undefined,
    // Maintenance notifications would move the connection to another server.
    maintNotifications: "disabled",
    clientSideCache: undefined,
    // The engine has a watchdog. A timeout for each command would take an abort signal and a timer, a quarter of the time to send.
    commandOptions: { timeout: 0 },
    disableOfflineQueue: true,
    commandsQueueMaxLength: undefined,
    pingInterval: 0,
  };
  const connection = client.duplicate(overrides as never) as NodeRedis; // `duplicate` returns a client.
  let isClosed = false;
  const close = () => {
    if (isClosed) return;
    isClosed = true;
    connection.destroy();
  };
  // `error` without a listener ends the process.
  connection.on("error", (error) => listener.ended(error));
  connection.on("end", () => listener.ended(new Error("Cannot use Redis: the connection was closed")));
  try {
    await connection.connect();
  } catch (error) {
    isClosed = true; // The connection has closed itself, and `destroy` would throw.
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
    keyPrefix: "", // As for node-redis.
    stringNumbers: false,
    replyMapping: undefined,
  };
  const connection = client.duplicate(overrides as never) as IoRedis; // `duplicate` returns a client.
  connection.on("error", (error) => listener.ended(error));
  connection.on("end", () => listener.ended(new Error("Cannot use Redis: the connection was closed")));
  connection.on("message", (channel, text) => listener.message(channel, text));
  await connection.connect();
  return {
    command: (command = "", ...args) => connection.call(command, ...args),
    subscribe: (channels) => connection.subscribe(...channels),
    unsubscribe: (channels) => connection.unsubscribe(...channels),
    close: () => connection.disconnect(),
  };
}

/** The server behind a connection. */
export interface RedisServer {
  /** The server's `run_id`, which changes with each restart. */
  readonly run: string;
  /** Identifies the server's last promotion from replica to master; `""` if it was never promoted. */
  readonly promotion: string;
  /** Number of the selected database. */
  readonly database: number;
}

/** The client's `keyPrefix`, or `""`. */
export function readKeyPrefix({ options }: RedisClient): string {
  return `${options?.keyPrefix ?? ""}`;
}

/** Reads the replies of `INFO` and `CLIENT INFO`. @throws {TypeError} if one is malformed, or the server is a replica or part of a cluster. */
export function readServer(server: unknown, replication: unknown, connection: unknown): RedisServer {
  const field = (info: unknown, name: string) =>
    v.is(v.string(), info) ? info.match(new RegExp(`^${name}:(\\S+)`, "m"))?.[1] : undefined;
  const run = field(server, "run_id");
  if (!run) throw new TypeError('Cannot read the answer of Redis: "INFO server" has no run_id');
  if (field(server, "redis_mode") === "cluster") {
    throw new TypeError(
      "Cannot use Redis Cluster: the engine needs channels and scripts of one server, connect to one without cluster-enabled",
    );
  }
  if (field(replication, "role") === "slave") throw new TypeError("Cannot use a replica of Redis: connect to its master");
  const former = field(replication, "master_replid2") ?? "";
  const promotion = /^0*$/.test(former) ? "" : `${former}:${field(replication, "second_repl_offset")}`;
  const database = v.is(v.string(), connection) ? Number(connection.match(/(?:^| )db=(\d+)/)?.[1] ?? 0) : 0;
  return { run, promotion, database };
}
