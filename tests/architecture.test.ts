/** What keeps the source readable from one end to the other, held by a machine: rooms, cycles, entries, sizes. */
import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { dirname, join, posix } from "node:path";
import { describe, it } from "node:test";
import { fileURLToPath } from "node:url";

/**
 * The rooms, in order, and the main file of each, which opens with what the room is for. A file imports from its own room and from
 * the rooms above it only, types included, so that no two rooms form a cycle.
 */
const ROOMS: Record<string, string> = {
  "src/protocol": "protocol.ts",
  "src/base": "clock.ts",
  "src/engines": "engine.ts",
  "src/engines/broker": "broker.ts",
  "src/engines/nats": "nats.ts",
  "src/engines/redis": "redis.ts",
  "src/engines/postgres": "postgres.ts",
  "src/engines/broadcast-channel": "broadcast-channel.ts",
  "src/engines/shards": "shards.ts",
  "src/delivery": "delivery.ts",
  "src/application": "options.ts",
  "src/connection": "connection.ts",
  "src/streams": "streams.ts",
  "src/runtimes": "runtime.ts",
  "src/controller": "controller.ts",
  "src/channels": "channels.ts",
  "src/once": "once.ts",
  "src/serve": "serve.ts",
  "src/client": "client.ts",
  "src/publisher": "publisher.ts",
  "src/testing": "testkit.ts",
  "src/asyncapi": "asyncapi.ts",
  "src/http": "http.ts",
  "src/otel": "otel.ts",
  "src/inspector": "inspector.ts",
  "src/inspector/page": "main.ts",
  "src/ai": "ai.ts",
};

/** The folders of tests beside those of the rooms: of the whole product, of the documentation, of the public types, of a simulated cluster, and what only tests need. */
const OTHER_TESTS = ["product", "docs", "types", "simulation", "support"];

/** The files that run on Node only. */
const NODE_ONLY = [
  "src/runtimes/node-pass.ts",
  "src/runtimes/node-transport.ts",
  "src/runtimes/node-upgrade.ts",
  "src/asyncapi/command.ts",
];

/** What the main entry may load: it runs where neither `ws` nor `node:*` is. */
const EVERYWHERE = ["hono", "valibot", "mitt"];

const MAX_LINES = 400;

const root = join(dirname(fileURLToPath(import.meta.url)), "..");

interface Import {
  specifier: string;
  kind: "value" | "type" | "dynamic";
  isReexport: boolean;
}

interface Manifest {
  version: string;
  exports: Record<string, string>;
  imports: Record<string, string>;
  dependencies: Record<string, string>;
  peerDependencies: Record<string, string>;
}

const deno = readManifest("deno.json");
const npm = readManifest("package.json");
const entries = Object.values(deno.exports).map((path) => posix.normalize(path));
const sources = new Map(["mod.ts", ...listSources("src")].map((path) => [path, readFileSync(join(root, path), "utf8")]));
const imports = new Map([...sources].map(([path, text]) => [path, readImports(text)]));

describe("The source", () => {
  it("imports its own files by their name, .ts included", () => {
    for (const [path, { specifier }] of eachImport()) {
      if (!specifier.startsWith(".")) continue;
      assert.ok(sources.has(resolve(path, specifier)), `${path} imports "${specifier}", which is no file of the source`);
    }
  });

  it("exports nothing named then, which import() would call", () => {
    for (const [path, text] of sources) {
      assert.doesNotMatch(text, /^export (?:async )?(?:function\*?|const|let|class) then\b|^export \{[^}]*\bthen\b/m, path);
    }
  });

  it("imports from its own room and the rooms above it only", () => {
    for (const path of sources.keys()) {
      if (path === "mod.ts") continue;
      for (const imported of ownImports(path)) {
        assert.ok(roomOf(imported) <= roomOf(path), `${path} imports ${imported}, a room below its own`);
      }
    }
  });

  it("says what each room is for, in the sentence that opens its main file", () => {
    for (const [room, main] of Object.entries(ROOMS)) {
      const path = `${room}/${main}`;
      const text = sources.get(path);
      assert.ok(text, `${path} is no file of the source: change ROOMS in tests/architecture.test.ts`);
      const comment = text.match(/^\/\*\*([^]*?)\*\/\nimport /)?.[1]?.replace(/^ \* ?/gm, "").trim() ?? "";
      assert.match(
        comment,
        /^[A-Z`][^]{20,}?\.(?:\s|$)/,
        `${path} must open with a comment: one sentence that says what ${room} is for`,
      );
    }
  });

  it("has the rooms that its page and its picture show", () => {
    const rooms = readdirSync(join(root, "src")).sort();
    const picture = readFileSync(join(root, "docs/public/architecture.svg"), "utf8");
    const page = readFileSync(join(root, "docs/internals/architecture.md"), "utf8");
    assert.deepEqual([...picture.matchAll(/class="name room"[^>]*>([\w-]+)</g)].map(([, name]) => name).sort(), rooms);
    assert.deepEqual(
      [...page.matchAll(/^\| `([\w-]+)`[^|]*\|[^|]*\|$/gm)].map(([, name]) => name).slice(0, rooms.length).sort(),
      rooms,
    );
  });

  it("has the files and functions that the page names for each way of a message", () => {
    const page = readFileSync(join(root, "docs/internals/architecture.md"), "utf8");
    const rows = [...page.matchAll(/^\| \d+ +\| ([^|]*) \| ([^|]*) \|/gm)];
    assert.ok(rows.length > 20, "the page lists no ways");
    let source = "";
    for (const [row, files, functions] of rows) {
      // "the same" stands for the file of the row before.
      const file = /`([\w/-]+\.ts)`/.exec(files!)?.[1];
      if (file) source = readFileSync(join(root, "src", file), "utf8");
      for (const [, name] of functions!.matchAll(/`(\w+)\(\)`/g)) {
        assert.match(source, new RegExp(`\\b${name}\\b[^\\n]*\\(`), row);
      }
    }
  });

  it("has its tests in the folders of the rooms", () => {
    const names = [...Object.keys(ROOMS).map((room) => room.split("/")[1]), ...OTHER_TESTS];
    for (const { name } of readdirSync(join(root, "tests"), { withFileTypes: true })) {
      if (name === "architecture.test.ts") continue;
      assert.ok(names.includes(name), `tests/${name} is the folder of no room: a test of src/<room>/ is in tests/<room>/`);
    }
  });

  it("has no import cycle, but that a class and its parts may name each other's types", () => {
    const isNoPart = ({ kind, specifier }: Import) => kind !== "type" || !specifier.startsWith("./");
    const done = new Set<string>();
    const visit = (path: string, trail: string[]): void => {
      assert.ok(!trail.includes(path), `An import cycle: ${[...trail.slice(trail.indexOf(path)), path].join(" → ")}`);
      if (done.has(path)) return;
      for (const imported of ownImports(path, isNoPart)) visit(imported, [...trail, path]);
      done.add(path);
    };
    for (const path of sources.keys()) visit(path, []);
  });

  it("re-exports from the declared entries only", () => {
    for (const [path, { specifier, isReexport }] of eachImport()) {
      if (!isReexport) continue;
      assert.ok(
        entries.includes(path),
        `${path} re-exports "${specifier}": only the entries of deno.json do that, no barrel does`,
      );
    }
  });

  it("needs Node only where it runs on Node", () => {
    for (const [path, { specifier, kind }] of eachImport()) {
      if (NODE_ONLY.includes(path) || kind !== "value") continue;
      const isNodeOnly = specifier.startsWith("node:") || ["ws", "@hono/node-server"].includes(packageOf(specifier));
      assert.ok(!isNodeOnly, `${path} imports "${specifier}": import its type, or import it dynamically where it is used`);
      assert.ok(!NODE_ONLY.includes(resolve(path, specifier)), `${path} imports "${specifier}", which loads on Node only`);
    }
  });

  it("loads from the main entry what runs everywhere", () => {
    const loaded = new Set(["mod.ts"]);
    for (const path of loaded) {
      for (const { specifier, kind } of imports.get(path) ?? []) {
        if (kind !== "value") continue;
        if (specifier.startsWith(".")) loaded.add(resolve(path, specifier));
        else assert.ok(EVERYWHERE.includes(packageOf(specifier)), `mod.ts loads "${specifier}", by ${path}`);
      }
    }
  });

  it("has a client that loads nothing but its own files, and React for its hooks", () => {
    for (const [path, { specifier, kind }] of eachImport()) {
      if (!path.startsWith("src/client/") || kind === "type") continue;
      const isOwn = specifier.startsWith(".") && resolve(path, specifier).startsWith("src/client/");
      assert.ok(
        isOwn || path === "src/client/react.ts" && specifier === "react",
        `${path} imports "${specifier}": the client may take types of the protocol only`,
      );
    }
  });

  it("imports declared dependencies only", () => {
    const declared = { ...npm.dependencies, ...npm.peerDependencies };
    for (const [path, { specifier }] of eachImport()) {
      if (/^(?:\.|node:|cloudflare:)/.test(specifier)) continue;
      assert.ok(packageOf(specifier) in declared, `${path} imports "${specifier}", which package.json does not list`);
    }
  });

  it(`has no file of more than ${MAX_LINES} lines`, () => {
    for (const [path, text] of sources) {
      const lines = text.trimEnd().split("\n").length;
      assert.ok(
        lines <= MAX_LINES,
        `${path} has ${lines} lines: past ${MAX_LINES} a file has two reasons to change, split it there`,
      );
    }
  });
});

describe("deno.json and package.json", () => {
  it("offer the same entries", () => {
    const built = Object.entries(deno.exports).map(([entry, path]) => [
      entry,
      path.replace(/^\.\//, "./dist/").replace(/\.ts$/, ".js"),
    ]);
    assert.deepEqual(npm.exports, Object.fromEntries(built));
    for (const path of entries) assert.ok(sources.has(path), `deno.json offers ${path}, which is no file of the source`);
  });

  it("have the same version", () => {
    assert.equal(npm.version, deno.version);
  });

  it("ask for the same versions", () => {
    const wanted = Object.entries({ ...npm.dependencies, ...npm.peerDependencies });
    assert.deepEqual(deno.imports, Object.fromEntries(wanted.map(([name, range]) => [name, `npm:${name}@${range}`])));
  });
});

function readManifest(name: string): Manifest {
  return JSON.parse(readFileSync(join(root, name), "utf8"));
}

function listSources(folder: string): string[] {
  return readdirSync(join(root, folder), { withFileTypes: true }).flatMap((entry) => {
    const path = posix.join(folder, entry.name);
    return entry.isDirectory() ? listSources(path) : path.endsWith(".ts") ? [path] : [];
  });
}

/** Reads imports as `deno fmt` leaves them: a statement starts its line, and a line of a comment starts with `*` or `//`. */
function readImports(text: string): Import[] {
  const code = text.replace(/^\s*(\/?\*|\/\/).*$/gm, "");
  const statements = code.matchAll(/^(import|export)\s(type\s)?(?:[^"'`;=()]*?\sfrom\s)?"([^"]+)"/gm);
  const dynamic = code.matchAll(/\bimport\(\s*"([^"]+)"/g);
  return [
    ...[...statements].map(([, keyword, type, specifier = ""]): Import => ({
      specifier,
      kind: type ? "type" : "value",
      isReexport: keyword === "export",
    })),
    ...[...dynamic].map(([, specifier = ""]): Import => ({ specifier, kind: "dynamic", isReexport: false })),
  ];
}

function* eachImport(): Generator<[path: string, Import]> {
  for (const [path, all] of imports) {
    for (const each of all) yield [path, each];
  }
}

/** The files of the source that a file imports. */
function ownImports(path: string, counts: (imported: Import) => boolean = () => true): string[] {
  return (imports.get(path) ?? []).filter((imported) => imported.specifier.startsWith(".") && counts(imported)).map((
    { specifier },
  ) => resolve(path, specifier));
}

function resolve(path: string, specifier: string): string {
  return posix.join(posix.dirname(path), specifier);
}

/** `hono` of `hono/jwt`, `@hono/node-server` of `@hono/node-server/conninfo`. */
function packageOf(specifier: string): string {
  return specifier.split("/").slice(0, specifier.startsWith("@") ? 2 : 1).join("/");
}

/** The index of the room in {@link ROOMS}. */
function roomOf(path: string): number {
  const folder = posix.dirname(path);
  const room = Object.keys(ROOMS).indexOf(folder);
  assert.notEqual(room, -1, `${path} is in no room: add ${folder} to ROOMS, below the rooms that it imports from`);
  return room;
}
