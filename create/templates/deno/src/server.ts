import { serveStatic } from "hono/deno";
import { serve } from "noroshi/serve";
import process from "node:process";
import { createChat } from "./chat.ts";

// On this machine alone; set HOST=0.0.0.0 in a container.
const { HOST = "127.0.0.1", JWT_SECRET, PORT = "3000" } = process.env;

const { app } = createChat(JWT_SECRET);
app.use("*", serveStatic({ root: "./public" }));
await serve(app, { port: Number(PORT), hostname: HOST });
