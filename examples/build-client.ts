/** Builds the client for the page of the demo. A browser reads no TypeScript, and the page has no build step of its own. */
import { writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));

/** `noroshi/client` and its fallback as one file of JavaScript. */
export async function buildClient(): Promise<string> {
  const { build, stop } = await import("esbuild");
  const { outputFiles: [bundle] } = await build({
    stdin: {
      contents: 'export * from "./src/client/client.ts"; export * from "./src/client/sse.ts";',
      resolveDir: join(here, ".."),
    },
    absWorkingDir: join(here, ".."),
    bundle: true,
    format: "esm",
    target: "es2022",
    write: false,
  });
  await stop(); // Its process would stay as long as the demo runs.
  return bundle!.text;
}

// As `npm run build:demo`, for the static assets of the Worker: wrangler runs it by itself.
if (process.argv[1] === fileURLToPath(import.meta.url)) await writeFile(join(here, "public/client.js"), await buildClient());
