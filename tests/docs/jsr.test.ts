/** The source as JSR serves it: documented, and free of type errors in a project that has none of our dev dependencies. */
import assert from "node:assert/strict";
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import process from "node:process";
import { after, describe, it } from "node:test";
import { fileURLToPath } from "node:url";
import { start } from "./projects.ts";
import { listPages, listProjects, type Project, readSnippets } from "./snippets.ts";

const root = join(dirname(fileURLToPath(import.meta.url)), "../..");
const tools = { path: [join(root, "node_modules/.bin")] };
const { exports, version }: { exports: Record<string, string>; version: string } = JSON.parse(
  readFileSync(join(root, "deno.json"), "utf8"),
);

/** Those whose tests Deno runs: `snippets.test.ts` runs them without the check, which would compile all of the package again. */
const tested = listPages(root).flatMap((page) => listProjects(readSnippets(root, page)))
  .filter(({ commands }) => /^deno test (?!.*--no-check)/.test(commands.at(-1)!));

const noShell = process.platform === "win32" && "the commands are those of a POSIX shell";

describe("The JSR package", { skip: noShell }, () => {
  const folder = mkdtempSync(join(tmpdir(), "noroshi-jsr-"));
  after(() => rmSync(folder, { recursive: true, force: true }));

  it("has a module comment on each entry", () => {
    const entries = Object.entries(exports);
    assert.deepEqual(
      entries.filter(([, file]) => !/^\/\*\*(?:(?!\*\/)[\s\S])*@module\s/.test(readFileSync(join(root, file), "utf8"))),
      [],
    );
  });

  it("documents every symbol", { timeout: 300_000 }, async () => {
    // Exits with 1, and says where.
    await start(`deno doc --lint ${Object.values(exports).join(" ")}`, root, tools).ended;
  });

  it("type-checks as a consumer sees it, and with it the tests of a guide", { timeout: 300_000 }, async (t) => {
    try {
      await start("npm view valibot version --prefer-online --fetch-retries=0", folder, tools).ended;
    } catch {
      return t.skip("no npm registry");
    }
    const unpacked = join(folder, "noroshi");
    for (const name of ["src", "mod.ts"]) cpSync(join(root, name), join(unpacked, name), { recursive: true });
    const config = JSON.parse(readFileSync(join(root, "deno.json"), "utf8"));
    // JSR knows nothing of the folder of dev dependencies.
    writeFileSync(join(unpacked, "deno.json"), JSON.stringify({ name: config.name, version, exports, imports: config.imports }));
    const consumer = join(folder, "consumer");
    mkdirSync(consumer);
    const imports = { noroshi: `jsr:${config.name}@^${version}`, ...Object.fromEntries(tested.flatMap(packagesOf)) };
    writeFileSync(join(consumer, "deno.json"), JSON.stringify({ imports, links: [unpacked] }));
    writeFileSync(
      join(consumer, "main.ts"),
      Object.keys(exports).map((entry) => `import "noroshi${entry.slice(1)}";`).join("\n"),
    );
    assert.notEqual(tested.length, 0);
    const tests = tested.map(({ commands, files }, index) => {
      mkdirSync(join(consumer, `${index}`));
      for (const [name, { code }] of files) writeFileSync(join(consumer, `${index}`, name), code);
      return `${index}/${commands.at(-1)!.split(" ").at(-1)}`;
    });
    await start(`deno check main.ts ${tests.join(" ")}`, consumer, tools).ended;
  });
});

/** What `deno add` makes of the packages of npm that a project adds, each by its name. */
function packagesOf({ commands }: Project): [name: string, specifier: string][] {
  const added = commands.filter((command) => command.startsWith("deno add ")).flatMap((command) => command.split(" "));
  return added.filter((word) => word.startsWith("npm:")).map((word) => [word.slice("npm:".length), word]);
}
