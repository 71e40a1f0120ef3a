/** What Socket.IO is measured with: `io.emit`, and the same messages but for its own framing. */
import process from "node:process";
import { createAdapter } from "@socket.io/redis-adapter";
import { createAdapter as createStreamsAdapter } from "@socket.io/redis-streams-adapter";
import { createClient } from "redis";
import type { Server, ServerOptions } from "socket.io";
import { said } from "../message.ts";
import type { Asked } from "./answers.ts";

/** With the name of an adapter and the URL of a Redis as its arguments, it is one of several nodes. */
export async function adapter(): Promise<Partial<ServerOptions>> {
  const [name, url] = process.argv.slice(2);
  if (!url) return {};
  const client = createClient({ url });
  await client.connect();
  if (name === "redis-streams-adapter") return { adapter: createStreamsAdapter(client) };
  const subscriber = client.duplicate();
  await subscriber.connect();
  return { adapter: createAdapter(client, subscriber) };
}

export function answer(io: Server): void {
  io.on("connection", (socket) => {
    socket.on("echo", ({ uid, text }: Asked) => socket.emit("echo", { status: "ok", uid, data: text }));
    socket.on("say", ({ seq }: Asked) => io.emit("said", said(seq!)));
  });
}
