/** Removes types with esbuild, and keeps the result in node_modules/.cache. Tests get `limits.mjs` in place of `node:test`. */
import { createHash, randomUUID } from "node:crypto";
import { mkdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

const modules = new URL("../node_modules/", import.meta.url);
const cache = new URL(".cache/typescript/", modules);
const { version } = JSON.parse(readFileSync(new URL("esbuild/package.json", modules), "utf8"));

/** `limits.mjs` under the name of the test file, which reports then say a test is in. */
const LIMITS = "?limits";

export function resolve(specifier, context, nextResolve) {
  if (specifier !== "node:test" || !context.parentURL?.endsWith(".ts")) return nextResolve(specifier, context);
  return { url: context.parentURL + LIMITS, format: "module", shortCircuit: true };
}

export async function load(url, context, nextLoad) {
  if (url.endsWith(LIMITS)) {
    return { format: "module", source: readFileSync(new URL("limits.mjs", import.meta.url)), shortCircuit: true };
  }
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
