/** Removes types with esbuild, and keeps the result in node_modules/.cache. */
import { createHash, randomUUID } from "node:crypto";
import { mkdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

const modules = new URL("../node_modules/", import.meta.url);
const cache = new URL(".cache/typescript/", modules);
const { version } = JSON.parse(readFileSync(new URL("esbuild/package.json", modules), "utf8"));

export async function load(url, context, nextLoad) {
  const [, loader] = url.match(/^file:[^?#]*\.(tsx?)(?:[?#]|$)/) ?? [];
  if (!loader) return nextLoad(url, context);
  const text = readFileSync(new URL(url), "utf8");
  const file = new URL(createHash("sha1").update(`${version}\n${url}\n${text}`).digest("hex"), cache);
  return { format: "module", source: read(file) ?? await compile(text, loader, url, file), shortCircuit: true };
}

function read(file) {
  try {
    return readFileSync(file, "utf8");
  } catch {
    return undefined; // Not compiled yet.
  }
}

async function compile(text, loader, url, file) {
  const { transform } = await import("esbuild");
  const { code } = await transform(text, {
    loader,
    format: "esm",
    target: "node20",
    sourcemap: "inline",
    sourcesContent: false,
    sourcefile: fileURLToPath(url),
  });
  mkdirSync(cache, { recursive: true });
  // Renamed, so that a process that runs at the same time reads all of it or nothing. Worker threads have the same process id.
  const partial = new URL(`${file.href}.${randomUUID()}`);
  writeFileSync(partial, code);
  renameSync(partial, file);
  return code;
}
