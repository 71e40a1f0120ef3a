/** What the brokers of the fault runs lose: each resolves when nodes can connect. */
import { cpSync, existsSync, rmSync } from "node:fs";
import { join } from "node:path";
import { connect } from "@nats-io/transport-node";
import { createClient, RESP_TYPES } from "redis";
import { encodeName } from "../../src/engines/broker/channel-name.ts";
import { BrokerProcess } from "../support/brokers.ts";
import { Proxy } from "../support/proxy.ts";
import type { Random } from "../support/random.ts";
import type { NodeProcess } from "./node-process.ts";

/** The broker that the nodes meet at by now. */
export interface Store {
  broker: BrokerProcess;
  readonly nodes: readonly NodeProcess[];
  readonly channels: readonly string[];
  readonly random: Random;
}

/** How it loses, and how many histories may begin anew by it. */
export interface StoreLoss {
  /** @default all */
  readonly channels?: number;
  run(store: Store): Promise<void>;
}

export const REDIS_FLAGS: readonly string[] = ["--appendonly", "yes", "--appendfsync", "always"];

const pause = (ms: number) => new Promise<void>((resolve) => void setTimeout(resolve, ms));

/** A second in which clients publish. */
const A_WHILE = 1_000;

async function askRedis<Answer>(
  { port }: BrokerProcess,
  ask: (client: ReturnType<typeof clientOf>) => Promise<Answer>,
): Promise<Answer> {
  const client = clientOf(port);
  await client.connect();
  try {
    return await ask(client);
  } finally {
    client.destroy();
  }
}

const clientOf = (port: number) => createClient({ url: `redis://127.0.0.1:${port}` }).on("error", () => {}); // Its calls reject.

/** Keys of a channel with a history, one or both. */
const keysOf = (channel: string, names: readonly string[]): string[] =>
  names.map((name) => `noroshi:${name}:${encodeName(channel)}`);

/** Stops the server, changes what it has kept, and starts it. */
async function restartWith({ broker }: Store, folder: string, copy?: string): Promise<void> {
  await broker.stop();
  rmSync(join(broker.folder, folder), { recursive: true, force: true });
  if (copy) cpSync(copy, join(broker.folder, folder), { recursive: true });
  await broker.start();
  if (copy) rmSync(copy, { recursive: true, force: true });
}

/** Goes back to what it had a while ago. The copy is made while it is stopped: one of files that change is no backup. */
async function restoreBackup(store: Store, folder: string): Promise<void> {
  const { broker } = store;
  const original = join(broker.folder, folder);
  const copy = `${broker.folder}-copy`;
  await broker.stop();
  // What another fault has just deleted is lost already.
  const isThere = existsSync(original);
  if (isThere) cpSync(original, copy, { recursive: true });
  await broker.start();
  if (!isThere) return;
  await pause(A_WHILE);
  await restartWith(store, folder, copy);
}

export const REDIS_LOSSES: Readonly<Record<string, StoreLoss>> = {
  "keys flushed": { run: ({ broker }) => askRedis(broker, async (client) => void await client.flushAll()) },
  "scripts flushed": { channels: 0, run: ({ broker }) => askRedis(broker, async (client) => void await client.scriptFlush()) },
  "keys of a channel lost": {
    channels: 1,
    run: ({ broker, channels, random }) =>
      askRedis(broker, async (client) => {
        const names = random.pick([["h"], ["s"], ["h", "s"]]);
        await client.del(keysOf(random.pick(channels), names));
      }),
  },
  "tail of a channel lost": {
    channels: 1,
    run: ({ broker, channels, random }) =>
      askRedis(broker, async (client) => {
        const keys = keysOf(random.pick(channels), random.pick([["h"], ["s"], ["h", "s"]]));
        const bytes = client.withTypeMapping({ [RESP_TYPES.BLOB_STRING]: Buffer });
        const copies = await Promise.all(keys.map((key) => bytes.dump(key) as unknown as Promise<Buffer | null>)); // As mapped.
        await pause(A_WHILE);
        for (const [number, key] of keys.entries()) {
          const copy = copies[number];
          if (copy) await client.restore(key, 60_000, copy, { REPLACE: true });
        }
      }),
  },
  "presence keys lost": {
    channels: 0,
    run: ({ broker, random }) =>
      askRedis(broker, async (client) => {
        const keys = await client.keys(random.pick(["noroshi:m:*", "noroshi:c:*", "noroshi:w:*", "noroshi:nodes"]));
        if (keys.length > 0) await client.del(keys);
      }),
  },
  "store emptied": { run: (store) => restartWith(store, "appendonlydir") },
  "backup restored": { run: (store) => restoreBackup(store, "appendonlydir") },
  "replica promoted": {
    async run(store) {
      const { broker, nodes } = store;
      const replica = await BrokerProcess.redis(...REDIS_FLAGS);
      const replication = await Proxy.open(broker.port);
      try {
        await askRedis(replica, async (client) => {
          await client.sendCommand(["REPLICAOF", "127.0.0.1", `${replication.port}`]);
          while (!/master_link_status:up/.test(await client.info("replication"))) await pause(50);
        });
        // From here on it is behind.
        replication.freeze();
        await pause(A_WHILE);
        await askRedis(replica, (client) => client.sendCommand(["REPLICAOF", "NO", "ONE"]));
      } finally {
        await replication.close();
      }
      store.broker = replica;
      for (const { back } of nodes) {
        back.target = replica.port;
        back.cut();
      }
      await broker.close();
    },
  },
};

async function askNats({ port }: BrokerProcess, questions: readonly [method: string, question?: object][]): Promise<void> {
  const connection = await connect({ servers: `127.0.0.1:${port}` });
  try {
    // One that is not there is as good as lost.
    for (const [method, question = {}] of questions) {
      const ask = () => connection.request(`$JS.API.STREAM.${method}`, JSON.stringify(question), { timeout: 20_000 });
      // A broker that is busy drops requests without an answer: "JetStream API queue limit reached".
      await ask().catch(ask).catch(ask);
    }
  } finally {
    await connection.close();
  }
}

export const NATS_LOSSES: Readonly<Record<string, StoreLoss>> = {
  "stream deleted": { run: ({ broker }) => askNats(broker, [["DELETE.NOROSHI_noroshi"]]) },
  "stream purged": { run: ({ broker }) => askNats(broker, [["PURGE.NOROSHI_noroshi"]]) },
  "bucket deleted": {
    channels: 0,
    run: ({ broker, random }) => askNats(broker, [[`DELETE.KV_noroshi-noroshi-${random.pick(["members", "nodes"])}`]]),
  },
  "all deleted": {
    run: ({ broker }) =>
      askNats(broker, [["DELETE.NOROSHI_noroshi"], ["DELETE.KV_noroshi-noroshi-members"], ["DELETE.KV_noroshi-noroshi-nodes"]]),
  },
  "store emptied": { run: (store) => restartWith(store, "jetstream") },
  "backup restored": { run: (store) => restoreBackup(store, "jetstream") },
  "tail of the stream lost": { run: (store) => restoreBackup(store, "jetstream/$G/streams/NOROSHI_noroshi") },
};
