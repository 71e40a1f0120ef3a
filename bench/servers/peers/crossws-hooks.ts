/** What crossws is measured with: one topic, and `publish`, which leaves the publisher out. */
import process from "node:process";
import { defineHooks } from "crossws";
import { redis, type SyncAdapter } from "crossws/sync";
import { createClient } from "redis";
import { type Asked, echo, say } from "./answers.ts";

/** With the URL of a Redis as its argument, it is one of several nodes. */
export async function sync(): Promise<{ sync?: SyncAdapter }> {
  const url = process.argv[2];
  if (!url) return {};
  const client = createClient({ url });
  await client.connect();
  return { sync: redis({ client, channel: "bench" }) };
}

export const hooks = defineHooks({
  open: (peer) => {
    peer.subscribe("all");
  },
  message: (peer, received) => {
    const message: Asked = received.json();
    if (message.type === "echo") {
      peer.send(echo(message));
      return;
    }
    const text = say(message);
    peer.send(text);
    peer.publish("all", text);
  },
});
