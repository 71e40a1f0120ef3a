/**
 * The snippets of README.md and docs/: those marked as runnable run in an empty project with the packed package and the install lines shown,
 * and the others are type-checked. `snippets.ts` describes the marks. The pages of the tutorial build one project: `tutorial.test.ts`.
 *
 * Replaced: the package itself (`projects.ts` says by what), and port 3000 by a free one.
 */
import assert from "node:assert/strict";
import { existsSync, readdirSync, readFileSync, symlinkSync } from "node:fs";
import { copyFile, cp, mkdir, mkdtemp, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import process from "node:process";
import { after, before, describe, it } from "node:test";
import { fileURLToPath } from "node:url";
import {
  type Change,
  endAll,
  findNode,
  Installations,
  removeFolder,
  runProject,
  start,
  type Tools,
  unpackPackage,
} from "./projects.ts";
import {
  isMarked,
  isProgram,
  listPages,
  listProjects,
  type Project,
  readOutput,
  readSnippets,
  type Snippet,
  where,
} from "./snippets.ts";

const root = join(dirname(fileURLToPath(import.meta.url)), "../..");
const modules = join(root, "node_modules");
const pages = listPages(root);
const snippets = pages.filter((page) => !page.startsWith("docs/tutorial/")).flatMap((page) => readSnippets(root, page));

const noShell = process.platform === "win32" && "the commands of the pages are those of a POSIX shell";

/** Other ways to install, on the projects that begin with the first word. */
const VARIANTS: Record<string, readonly (readonly [name: string, change: Change])[]> = {
  npm: [["with pnpm", (command) => command.replace(/^npm install/, "npm exec --yes --package=pnpm@10 -- pnpm add")]],
  bun: [["with Bun's isolated linker", (command) => command.replace(/^bun add/, "bun add --linker isolated")]],
};

describe("The snippets", { skip: noShell, concurrency: 2 }, () => {
  let folder: string;
  /** A project with every package, in which snippets are type-checked. */
  let consumer: string;
  let tools: Tools;
  let installations: Installations;
  let noRegistry: string | false = false;
  let hasNode = true;

  before(async () => {
    folder = await mkdtemp(join(tmpdir(), "noroshi-snippets-"));
    const programs = join(modules, ".bin");
    noRegistry = await start("npm view valibot version --prefer-online --fetch-retries=0", folder, { path: [] }).ended
      .then(() => false as const, () => "no npm registry");
    // Beside each other: the package is built, and Node may be fetched.
    const [packed, node] = await Promise.all([unpackPackage(folder), noRegistry ? undefined : findNode(folder)]);
    hasNode = node !== undefined;
    tools = { ...packed, path: node === undefined ? [programs] : [node, programs] };
    installations = new Installations(folder, tools);
    consumer = join(folder, "consumer");
    await linkModules(join(consumer, "node_modules"));
    await cp(packed.unpacked, join(consumer, "node_modules/noroshi"), { recursive: true });
    await writeFile(join(consumer, "package.json"), JSON.stringify({ private: true, type: "module" }));
    await copyFile(join(root, "tests/docs/given.d.ts"), join(consumer, "given.d.ts"));
  }, { timeout: 300_000 });
  after(async () => {
    endAll();
    await removeFolder(folder);
  });

  it("are all marked on a page that marks one", (t) => {
    const marking = new Set(snippets.filter(isMarked).map(({ page }) => page));
    assert.ok(marking.has("README.md"));
    const unmarked = snippets.filter((snippet) => isProgram(snippet) && !isMarked(snippet));
    assert.deepEqual(unmarked.filter(({ page }) => marking.has(page)).map(where), []);
    for (const page of new Set(unmarked.map(({ page }) => page))) t.diagnostic(`not tested: ${page}`);
  });

  it("type-check", { timeout: 300_000 }, async () => {
    const written = new Map<string, Snippet>();
    for (const [index, snippet] of snippets.filter((snippet) => isProgram(snippet) && isMarked(snippet)).entries()) {
      // The files of a project import each other; the files of other headings have the same names.
      const sibling = snippet.file === undefined ? `snippet-${index}.${snippet.language}` : snippet.file;
      for (const place of placesOf(snippet)) {
        const name = `${place}/${sibling}`;
        await mkdir(dirname(join(consumer, name)), { recursive: true });
        await writeFile(
          join(consumer, name),
          `${snippet.given.trim().replaceAll("\n", " ")}${snippet.given ? "\n" : ""}${snippet.code}\nexport {};\n`,
        );
        written.set(name, snippet);
      }
    }
    await copyFile(join(root, "examples/deploy/main.ts"), join(consumer, "deploy.ts"));
    await writeFile(
      join(consumer, "tsconfig.json"),
      JSON.stringify({
        compilerOptions: {
          ...{
            target: "es2023",
            lib: ["es2023", "esnext.disposable", "dom", "dom.iterable", "dom.asynciterable"],
            module: "nodenext",
          },
          ...{ moduleResolution: "nodenext", moduleDetection: "force", strict: true, noEmit: true, skipLibCheck: true },
          ...{ allowImportingTsExtensions: true, jsx: "react-jsx", types: ["node"], allowJs: true, checkJs: false },
        },
        files: ["given.d.ts", "deploy.ts", ...written.keys()],
      }),
    );
    const tsc = join(modules, "typescript/bin/tsc");
    await start(`"${process.execPath}" "${tsc}" -p . --pretty false`, consumer, tools).ended.catch((error: Error) => {
      // With the line of the page, not of the file that was made of it.
      const text = error.message.replaceAll(/^(\S+?)\((\d+),(\d+)\)/gm, (match, name: string, line: string) => {
        const snippet = written.get(name);
        return snippet ? `${snippet.page}:${snippet.line + Number(line) - (snippet.given ? 1 : 0)}` : match;
      });
      throw new Error(text);
    });
  });

  const projects = pages.flatMap((page) => listProjects(snippets.filter((snippet) => snippet.page === page)));
  // The longest ones first: two run beside each other.
  for (const project of projects.sort((a, b) => Number(isForNode(a)) - Number(isForNode(b)))) {
    const expected = [...project.files.values()].flatMap(({ code }) => readOutput(code));
    const [tool = ""] = project.commands[0]!.split(" ");
    for (const [name, change] of [["", undefined] as const, ...VARIANTS[isForNode(project) ? tool : ""] ?? []]) {
      const title = [project.page, project.heading, name].filter((word) => word !== "").join(", ");
      it(`run: ${title}`, { timeout: 300_000 }, async (t) => {
        if (noRegistry) return t.skip(noRegistry);
        if (tool === "npm" && !hasNode) return t.skip("no Node 22.18 or newer, and the npm package node@24 cannot be had");
        const place = join(folder, title.replaceAll(/\W+/g, "-"));
        const last = project.commands.at(-1)!;
        if (/\b(?:test|vitest)\b/.test(last)) {
          // A test runner prints what it likes, on either stream. It must have run some. By itself some leave a test 5 s.
          const patient = last.replace(/^bun test/, "$& --timeout=60000").replace(/^npx vitest run/, "$& --testTimeout=60000")
            .replace(/^deno test(?!.*--no-check)/, "$& --no-check"); // `jsr.test.ts` checks its types.
          const tested = { ...project, commands: [...project.commands.slice(0, -1), `${patient} 2>&1`] };
          const printed = await runProject(tested, place, tools, { change, installations });
          return assert.match(printed.join("\n"), /\bpass [1-9]|\b[1-9]\d* pass/);
        }
        assert.notDeepEqual(expected, [], "The snippets do not say what they print");
        assert.deepEqual(await runProject(project, place, tools, { change, deploys: true, installations }), expected);
      });
    }
  }

  for (const snippet of snippets.filter(({ language, words, file }) => language === "ts" && words.includes("run") && !file)) {
    it(`run: ${where(snippet)}`, { timeout: 300_000 }, async () => {
      const name = join(consumer, `${where(snippet).replaceAll(/\W+/g, "-")}.ts`);
      await writeFile(name, snippet.code);
      assert.deepEqual((await start(`bun "${name}"`, consumer, tools).ended).trim().split("\n"), readOutput(snippet.code));
    });
  }

  it("stand among links to pages and headings that exist", () => {
    const missing = pages.flatMap((page) => {
      const text = readFileSync(join(root, page), "utf8").replaceAll(FENCES, "");
      const links = [...text.matchAll(/\]\(([^)\s]+)\)|(?:src|srcset)="([^"]+)"/g)].map(([, link, source]) => link ?? source!);
      return links.filter((link) => !/^(?:[a-z]+:|\/)/.test(link)).filter((link) => !exists(page, link)).map((link) =>
        `${page}: ${link}`
      );
    });
    assert.deepEqual(missing, []);
  });

  /** Everything that the pages import is there, without installing it again. */
  async function linkModules(target: string): Promise<void> {
    await mkdir(target, { recursive: true });
    for (const name of readdirSync(modules)) if (!name.startsWith(".")) symlinkSync(join(modules, name), join(target, name));
  }
});

const FENCES = /^ *```[\s\S]*?^ *```/gm;

function exists(page: string, link: string): boolean {
  const [name = "", anchor] = link.split("#");
  const path = join(root, name === "" ? page : join(dirname(page), name));
  if (!existsSync(path)) return false;
  if (anchor === undefined || !path.endsWith(".md")) return true;
  const headings = readFileSync(path, "utf8").replaceAll(FENCES, "").matchAll(/^#+ (.*)$/gm);
  // As GitHub and VitePress make anchors, but for characters that no heading here has.
  return [...headings].some(([, heading]) =>
    heading!.toLowerCase().replaceAll(/[^\p{L}\p{N}\s_-]/gu, "").replaceAll(/\s/g, "-") === anchor
  );
}

/** Cloudflare's install line begins with npm too. */
function isForNode({ commands }: Project): boolean {
  return !commands.some((command) => command.includes("wrangler"));
}

/** The folders in which a snippet is type-checked: one for each project that it is a file of. */
function placesOf(snippet: Snippet): string[] {
  const page = snippet.page.replaceAll(/\W+/g, "-");
  const projects = listProjects(snippets.filter(({ page }) => page === snippet.page));
  const ofFile = projects.filter(({ files }) => snippet.file !== undefined && files.get(snippet.file) === snippet);
  return ofFile.length === 0 ? [page] : ofFile.map(({ heading }) => `${page}/${heading.replaceAll(/\W+/g, "-")}`);
}
