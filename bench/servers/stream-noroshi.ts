/** The project, behind `noroshi/serve`; with `native`, behind Deno's own server. */
import { Hono } from "hono";
import process from "node:process";
import * as v from "valibot";
import { WebSocketController } from "../../mod.ts";
import { serve } from "../../src/serve/serve.ts";
import { flat, paced } from "./stream-source.ts";

// Only Deno uses it.
const { Deno } = globalThis as unknown as { Deno: { serve(options: object, handler: (request: Request) => unknown): void } };

const controller = new WebSocketController({ mode: "public", rateLimit: false, maxPending: Infinity });
controller.handle("paced", v.object({}), paced);
controller.handle("flat", v.object({}), flat);
const app = new Hono().get("/websocket", controller.upgrade);

const options = { port: 0, hostname: "127.0.0.1", onListen: ({ port }: { port: number }) => console.log(`PORT ${port}`) };
if (process.argv.includes("native")) Deno.serve(options, app.fetch);
else await serve(app, options);
