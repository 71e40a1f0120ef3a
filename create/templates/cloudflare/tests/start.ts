import { build } from "esbuild";
import { Miniflare } from "miniflare";

export { WebSocket } from "ws"; // Node 20 has none of its own.

/** Starts the Worker on a free port, under Miniflare. */
export async function start(): Promise<{ url: string; stop(): Promise<void> }> {
  const { outputFiles } = await build({
    entryPoints: ["src/server.ts"],
    bundle: true,
    format: "esm",
    target: "es2022",
    write: false,
    external: ["node:*"],
  });
  const miniflare = new Miniflare({
    modules: true,
    script: outputFiles[0]!.text,
    compatibilityDate: "2026-07-01",
    compatibilityFlags: ["enable_request_signal"],
    durableObjects: { CHAT: { className: "Chat", useSQLite: true } },
  });
  const { href } = await miniflare.ready;
  return { url: href, stop: () => miniflare.dispose() };
}
