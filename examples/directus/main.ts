import { Hono } from "hono";
import process from "node:process";
import * as v from "valibot";
import { type Accountability, WebSocketController } from "../../mod.ts";
import { serve } from "../../src/serve/serve.ts";
import { openDatabase } from "./database.ts";
import { addItems } from "./items.ts";

// npx bun examples/directus/main.ts, npx deno run -A examples/directus/main.ts, node --import tsx examples/directus/main.ts
const { HOST = "127.0.0.1", PORT = "8055", DATABASE = "articles.db" } = process.env;
// Static tokens, as Directus calls them. Random ones where none are given.
const { EDITOR_TOKEN = crypto.randomUUID(), READER_TOKEN = crypto.randomUUID() } = process.env;

const accounts = new Map<string, Accountability>([
  [EDITOR_TOKEN, { user: "ed", role: "editor" }],
  [READER_TOKEN, { user: "rea", role: "reader" }],
]);

const database = await openDatabase(DATABASE);
database.exec(`
  CREATE TABLE IF NOT EXISTS articles (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    slug TEXT NOT NULL UNIQUE,
    title TEXT NOT NULL,
    status TEXT NOT NULL DEFAULT 'draft',
    rating REAL
  )
`);

const controller = new WebSocketController({
  authenticate: (credentials) => {
    const accountability = "access_token" in credentials ? accounts.get(credentials.access_token) : undefined;
    return accountability ? { accountability } : null;
  },
});

addItems(controller, database, {
  articles: {
    fields: {
      slug: v.pipe(v.string(), v.regex(/^[a-z0-9-]{1,64}$/)),
      title: v.pipe(v.string(), v.minLength(1), v.maxLength(200)),
      status: v.optional(v.picklist(["draft", "published"]), "draft"),
      rating: v.optional(v.nullable(v.pipe(v.number(), v.minValue(0), v.maxValue(5))), null),
    },
    may: ({ accountability: { role } }, action) => role === "editor" || action === "read",
  },
});

const app = new Hono().get("/websocket", controller.upgrade);
await serve(app, {
  port: Number(PORT),
  hostname: HOST,
  onListen: ({ port }) => {
    console.log(`Listening on http://${HOST}:${port}`);
    if (!process.env["EDITOR_TOKEN"]) console.log(`staticToken("${EDITOR_TOKEN}") writes, staticToken("${READER_TOKEN}") reads`);
  },
});
