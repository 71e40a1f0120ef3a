import { mkdir, readdir, readFile, stat, writeFile } from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import { fileURLToPath } from "node:url";

export const RUNTIMES = /** @type {const} */ (["node", "bun", "deno", "cloudflare"]);
export const CLIENTS = /** @type {const} */ (["plain", "react"]);

/** @typedef {typeof RUNTIMES[number]} Runtime */
/** @typedef {typeof CLIENTS[number]} ClientKind */

/** The commands of a project, for its README and the last lines of the program. */
export const COMMANDS = {
  node: {
    install: "npm install",
    start: "npm start",
    dev: "npm run dev",
    test: "npm test",
    check: "npm run check",
  },
  bun: {
    install: "bun install",
    start: "bun run start",
    dev: "bun run dev",
    test: "bun run test",
    check: "bun run check",
  },
  deno: {
    install: "deno install",
    start: "deno task start",
    dev: "deno task dev",
    test: "deno task test",
    check: "deno task check",
  },
  cloudflare: {
    install: "npm install",
    start: "npm start",
    dev: "npm start",
    test: "npm test",
    check: "npm run check",
  },
};

const here = dirname(fileURLToPath(import.meta.url));

/**
 * Writes a project from its parts. A file of a later part replaces that of an earlier one; a JSON file is merged into it.
 *
 * @param {string} folder new, or empty
 * @param {{ runtime: Runtime, client: ClientKind }} options
 * @throws {Error} if the folder has files.
 */
export async function generate(folder, { runtime, client }) {
  await checkFolder(folder);
  const parts = [
    "shared",
    ...(runtime === "deno" ? [] : ["npm"]),
    runtime,
    client,
  ];
  /** @type {Map<string, string>} */
  const files = new Map();
  for (const part of parts) {
    for (const [path, text] of await readPart(join(here, "templates", part))) {
      // What a client adds to the manifest of its runtime, whichever that has.
      if (path === "merge.json") {
        for (const [path, addition] of Object.entries(JSON.parse(text))) {
          if (files.has(path)) add(files, path, addition);
        }
      } else if (path.endsWith(".json")) add(files, path, JSON.parse(text));
      else files.set(path, text);
    }
  }
  const { version } = JSON.parse(
    await readFile(join(here, "package.json"), "utf8"),
  );
  /** @type {Record<string, string>} */
  const values = {
    name: nameOf(folder),
    version,
    client: client === "react" ? "main.tsx" : "main.ts",
    ...COMMANDS[runtime],
  };
  for (const [path, text] of files) {
    // npm leaves a file called .gitignore out of a package.
    const target = join(folder, path === "gitignore" ? ".gitignore" : path);
    await mkdir(dirname(target), { recursive: true });
    await writeFile(
      target,
      text.replace(/\{\{(\w+)\}\}/g, (whole, key) => values[key] ?? whole),
    );
  }
}

/** @param {string} folder */
async function checkFolder(folder) {
  const found = await stat(folder).catch(() => undefined);
  if (!found) return;
  if (!found.isDirectory()) {
    throw new Error(
      `Cannot create the project: "${folder}" is a file, choose another name`,
    );
  }
  const [first] = await readdir(folder);
  if (first !== undefined) {
    throw new Error(
      `Cannot create the project: the folder "${folder}" is not empty, choose another`,
    );
  }
}

/**
 * @param {string} folder
 * @returns {Promise<[path: string, text: string][]>}
 */
async function readPart(folder) {
  const entries = await readdir(folder, {
    recursive: true,
    withFileTypes: true,
  });
  const paths = entries.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath ?? entry.path, entry.name)).sort();
  return await Promise.all(
    paths.map(async (
      path,
    ) => /** @type {[string, string]} */ ([
      path.slice(folder.length + 1).replaceAll("\\", "/"),
      await readFile(path, "utf8"),
    ])),
  );
}

/**
 * @param {Map<string, string>} files
 * @param {string} path
 * @param {unknown} addition
 */
function add(files, path, addition) {
  files.set(
    path,
    `${
      JSON.stringify(
        merge(JSON.parse(files.get(path) ?? "{}"), addition),
        null,
        2,
      )
    }\n`,
  );
}

/** Lists of packages, which are kept in the order of their names. */
const SORTED = new Set(["dependencies", "devDependencies", "imports"]);

/**
 * @param {any} before
 * @param {any} after
 * @returns {unknown}
 */
function merge(before, after) {
  if (
    typeof before !== "object" || typeof after !== "object" ||
    Array.isArray(after)
  ) return after;
  const merged = { ...before };
  for (const [key, value] of Object.entries(after)) {
    merged[key] = key in before ? merge(before[key], value) : value;
    if (SORTED.has(key)) {
      merged[key] = Object.fromEntries(
        Object.entries(merged[key]).sort(([a], [b]) => a < b ? -1 : 1),
      );
    }
  }
  return merged;
}

/**
 * A name that npm and wrangler accept.
 *
 * @param {string} folder
 */
function nameOf(folder) {
  const name = basename(resolve(folder)).toLowerCase().replace(
    /[^a-z0-9-]+/g,
    "-",
  ).replace(/^-+|-+$/g, "");
  return name || "chat";
}
