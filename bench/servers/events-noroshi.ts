/** Channels as event streams, the fallback and the socket of the project, behind `noroshi/serve`; with `native`, behind Deno's own server. */
import { Hono } from "hono";
import process from "node:process";
import * as v from "valibot";
import { WebSocketController } from "../../mod.ts";
import { Channels } from "../../src/channels/channels.ts";
import { channelsHttp, fallback } from "../../src/http/http.ts";
import { serve } from "../../src/serve/serve.ts";
import { publishItems } from "./stream-source.ts";

// Only Deno uses it.
const { Deno } = globalThis as unknown as {
  Deno: {
    serve(options: object, handler: (request: Request) => unknown): void;
  };
};

const controller = new WebSocketController({
  mode: "public",
  rateLimit: false,
  maxPending: Infinity,
});
controller.handle(
  "echo",
  v.object({ text: v.string() }),
  ({ message }) => message.text,
);
const channels = new Channels(controller, {
  news: { authorize: () => true },
  kept: { authorize: () => true, history: { size: 100, ttl: 60_000 } },
});
// The one that is measured.
let subscribed: "news" | "kept" = "news";
publishItems((item) => void channels.publish(subscribed, "item", item));
const app = new Hono();
app.use("/websocket", fallback());
app.get("/websocket", controller.upgrade);
app.use("/channels/kept", async (_c, next) => {
  subscribed = "kept";
  await next();
});
app.route("/channels", channelsHttp(channels));

const options = {
  port: 0,
  hostname: "127.0.0.1",
  onListen: ({ port }: { port: number }) => console.log(`PORT ${port}`),
};
if (process.argv.includes("native")) Deno.serve(options, app.fetch);
else await serve(app, options);
