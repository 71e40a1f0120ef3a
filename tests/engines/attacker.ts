/** Somebody who can read and write everything at a broker, and has no secret. */
import { connect } from "@nats-io/transport-node";
import { connectToRedis } from "../support/redis.ts";

/** A message as it went over the broker. */
export interface Captured {
  readonly subject: string;
  readonly text: string;
  /** Writes it again, elsewhere where told. */
  again(rewrite?: (subject: string) => string): Promise<void>;
}

export interface Attacker {
  /** Live messages, the oldest first. */
  readonly captured: readonly Captured[];
  /** Resolves when all that was sent before is captured. */
  hear(): Promise<void>;
  /** Writes everything that the history of the channel holds into it once more, as if it were new. */
  copyHistory(channel: string): Promise<void>;
  /** Takes a copy of who is where; returns what writes it back. */
  copyMembers(): Promise<() => Promise<void>>;
  /** Writes the orders that are kept once more, as if they were new. */
  copyOrders(): Promise<void>;
  close(): Promise<void>;
}

/** What `XRANGE` answers. */
interface Entry {
  id: string;
  message: Record<string, string>;
}

export async function attackRedis(port: number): Promise<Attacker> {
  const [client, subscriber] = [await connectToRedis(port), await connectToRedis(port)];
  for (const each of [client, subscriber]) each.on("error", () => {});
  const captured: Captured[] = [];
  await subscriber.pSubscribe("noroshi:*", (text, subject) => {
    const again = async (rewrite = (subject: string) => subject) => void await client.publish(rewrite(subject), text);
    if (!/:node:/.test(subject)) captured.push({ subject, text, again });
  });
  return {
    captured,
    hear: async () => void await subscriber.ping(),
    async copyHistory(channel) {
      const [meta, stream] = [`noroshi:h:${channel}`, `noroshi:s:${channel}`];
      for (const { id, message } of (await client.xRange(stream, "-", "+")) as Entry[]) {
        const [epoch, offset] = await client.hmGet(meta, ["epoch", "offset"]);
        const next = Number(offset) + 500_000;
        const place = `${next}-${id.split("-")[1]!.slice(0, -6)}500000`; // It has two parts.
        // With the time of the one that is copied, as it is harder to see; at once, for a history without its end begins anew.
        await client.multi().xAdd(stream, place, message).hSet(meta, "offset", `${next}`)
          .publish(`noroshi:ch:${channel}`, `${epoch}\n${next} 500000\n${message["e"]}`).exec();
      }
    },
    async copyMembers() {
      const copies: [key: string, dump: Buffer][] = [];
      for (const pattern of ["noroshi:m:*", "noroshi:c:*", "noroshi:w:*"]) {
        for (const key of await client.keys(pattern)) {
          copies.push([key, await client.sendCommand(["DUMP", key], { typeMapping: { 36: Buffer } }) as unknown as Buffer]);
        }
      }
      return async () => {
        for (const [key, dump] of copies) {
          await client.sendCommand(["RESTORE", key, "0", dump, "REPLACE"]);
        }
      };
    },
    async copyOrders() {
      const orders = (await client.xRange("noroshi:orders", "-", "+")) as Entry[];
      for (const { message } of orders) {
        await client.xAdd("noroshi:orders", "*", message);
      }
    },
    async close() {
      client.destroy();
      subscriber.destroy();
      await Promise.resolve();
    },
  };
}

export async function attackNats(port: number): Promise<Attacker> {
  const connection = await connect({ servers: `127.0.0.1:${port}` });
  const captured: Captured[] = [];
  const stored: Captured[] = [];
  const members = new Map<string, Uint8Array>();
  const copied: Captured[] = [];
  const orders = new Map<string, Uint8Array>();
  connection.subscribe(">", {
    callback: (_, message) => {
      const { subject, data, headers } = message;
      const again = async (rewrite = (subject: string) => subject) => {
        connection.publish(rewrite(subject), data, headers ? { headers } : {});
        await connection.flush();
      };
      const one = { subject, text: message.string(), again };
      if (subject.startsWith("noroshi.")) {
        (subject.includes(".history.") ? stored : captured).push(one);
      }
      if (subject.startsWith("$KV.noroshi-noroshi-nodes.order.")) {
        orders.set(subject, data);
      }
      if (
        subject.startsWith("$KV.noroshi-noroshi-members.") && data.length > 0
      ) members.set(subject, data);
    },
  });
  await connection.flush();
  return {
    captured,
    hear: () => connection.flush(),
    async copyHistory(channel) {
      await connection.flush(); // The nodes may have been answered before this connection has read.
      for (const each of stored.filter(({ subject }) => subject.endsWith(`.${channel}`))) {
        if (!copied.includes(each)) await each.again();
        copied.push(each);
      }
    },
    async copyMembers() {
      await connection.flush();
      const copies = [...members];
      return async () => {
        for (const [subject, data] of copies) {
          await connection.request(subject, data);
        }
      };
    },
    async copyOrders() {
      await connection.flush();
      for (const [subject, data] of [...orders]) {
        await connection.request(`${subject}0`, data);
      }
    },
    close: () => connection.close(),
  };
}
