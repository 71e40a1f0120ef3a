/** A Durable Object under Miniflare: the project, or the hibernation API and a loop of `send`. `durable-object.ts noroshi|raw` */
import { dirname, join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";
import { Miniflare } from "miniflare";

const worker = process.argv[2] === "raw" ? "worker-raw.ts" : "worker-noroshi.ts";

const { outputFiles } = await build({
  entryPoints: [join(dirname(fileURLToPath(import.meta.url)), worker)],
  bundle: true,
  format: "esm",
  target: "es2024",
  write: false,
  logLevel: "warning",
  // Loaded on other runtimes only.
  external: ["node:*", "ws", "@hono/node-server", "cloudflare:*"],
});
const miniflare = new Miniflare({
  modules: true,
  script: outputFiles[0]!.text,
  compatibilityDate: "2026-07-01",
  compatibilityFlags: ["enable_request_signal"],
  host: "127.0.0.1",
  port: 0,
  durableObjects: { BENCH: { className: "Bench", useSQLite: true } },
});
const { port } = await miniflare.ready;
console.log(`PORT ${port}`);
