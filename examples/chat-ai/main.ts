import { join } from "node:path";
import process from "node:process";
import { serveStatic } from "@hono/node-server/serve-static";
import { serve } from "noroshi/serve";
import { createChatApp } from "./chat.ts";
import { createModel } from "./model.ts";

const { app } = createChatApp(createModel());
app.use(serveStatic({ root: join(import.meta.dirname, "public") }));
await serve(app, { hostname: "127.0.0.1", port: Number(process.env["PORT"] ?? 3000) });
