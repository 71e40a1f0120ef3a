/** Makes the client that the page of the demo loads: the page is served as it is, and a browser reads no TypeScript. */
import { writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";

const here = dirname(fileURLToPath(import.meta.url));

/** `noroshi/client` as one file of JavaScript. */
export async function buildDemoClient(): Promise<string> {
  const { build } = await import("esbuild");
  const { outputFiles: [bundle] } = await build({
    entryPoints: [join(here, "../src/client/client.ts")],
    absWorkingDir: join(here, ".."),
    bundle: true,
    format: "esm",
    target: "es2022",
    write: false,
    banner: { js: "// noroshi/client, made by `npm run build:demo`." },
  });
  return bundle!.text;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  await writeFile(join(here, "../examples/public/client.js"), await buildDemoClient());
}
