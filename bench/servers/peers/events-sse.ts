/**
 * What `noroshi/http` does, by hand with `streamSSE` of Hono, on Bun, Deno and Node: the same items for all subscribers, by a set of streams
 * and a loop; and messages by POST that are answered on a stream, without any of the checks.
 */
import { Hono } from "hono";
import { type SSEStreamingApi, streamSSE } from "hono/streaming";
import { publishItems } from "../stream-source.ts";
import { listen } from "./stream-listen.ts";

const streams = new Set<SSEStreamingApi>();
publishItems((item) => {
  const data = JSON.stringify(item);
  for (const stream of streams) void stream.writeSSE({ event: "item", data });
});

const app = new Hono();
app.get("/news", (c) =>
  streamSSE(c, async (stream) => {
    streams.add(stream);
    await new Promise<void>((resolve) => stream.onAbort(resolve));
    streams.delete(stream);
  }));

const clients = new Map<string, SSEStreamingApi>();
app.get("/websocket", (c) =>
  streamSSE(c, async (stream) => {
    const connection = crypto.randomUUID();
    clients.set(connection, stream);
    await stream.writeSSE({
      event: "open",
      data: JSON.stringify({ connection, secret: "" }),
    });
    await new Promise<void>((resolve) => stream.onAbort(resolve));
    clients.delete(connection);
  }));
app.post("/websocket", async (c) => {
  const stream = clients.get(c.req.query("connection") ?? "");
  const { frames } = await c.req.json<{ frames: string[] }>();
  for (const frame of frames) {
    const { type, uid, text } = JSON.parse(frame) as {
      type: string;
      uid: number;
      text: string;
    };
    await stream?.writeSSE({
      data: JSON.stringify({ type, uid, status: "ok", data: text }),
    });
  }
  return c.body(null, 204);
});

listen(app.fetch);
