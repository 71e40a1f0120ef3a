/** The documentation: its generated pages are current, its links lead somewhere, and the site works in a browser without asking anybody else. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { dirname, extname, join, normalize } from "node:path";
import { after, before, describe, it } from "node:test";
import process from "node:process";
import { fileURLToPath } from "node:url";
import type { Browser, BrowserContextOptions, Page } from "playwright-core";
import { CloseCode } from "../../mod.ts";
import { slugify } from "../../scripts/docs/links.ts";
import { llms } from "../../scripts/docs/llms.ts";
import { listSections } from "../../scripts/docs/pages.ts";
import { optionsPage, optionsReference } from "../../scripts/docs/reference.ts";
import { launchBrowser, noBrowser } from "../support/browser.ts";

const root = join(dirname(fileURLToPath(import.meta.url)), "../..");
const vitepress = join(root, "docs/node_modules/vitepress/bin/vitepress.js");
const noSite = existsSync(vitepress) ? false : "the packages of the site are not installed: npm ci --prefix docs";

/** Pages that a reader looks things up in may be longer. */
const LONGEST_GUIDE = 900;

/** With its snippets. */
const LONGEST_README = 1_000;

/** The words of a text, as `wc -w` counts them. */
const wordsOf = (text: string): string[] => text.split(/\s+/).filter((word) => word !== "");

describe("The pages of the documentation", () => {
  const pages = listSections().flatMap(({ pages }) => pages);

  it("have options that are those of the source", async () => {
    const page = (await readFile(optionsPage, "utf8")).replaceAll("\r\n", "\n");
    assert.ok(page === optionsReference(), "The options have changed: run npm run docs:reference"); // Without both texts.
  });

  it("are at most 900 words long where they answer one question", () => {
    const long = pages.filter(({ path }) => /^(?:start|tutorial|guides|migrate)\//.test(path) || path === "performance").map(
      ({ path, text }) => {
        const words = wordsOf(text).filter((word) => /\w/.test(word)).length;
        return { path, words };
      },
    ).filter(({ words }) => words > LONGEST_GUIDE);
    assert.deepEqual(long, []);
  });

  it("are at most 900 words long with their code, where they are guides, and the README has at most 1,000", async () => {
    const files = [
      "README.md",
      ...pages.filter(({ path }) => /^(?:start|guides|migrate)\//.test(path)).map(({ path }) => `docs/${path}.md`),
    ];
    const counts = await Promise.all(
      files.map(async (path) => ({ path, words: wordsOf(await readFile(join(root, path), "utf8")).length })),
    );
    assert.deepEqual(counts.filter(({ path, words }) => words > (path === "README.md" ? LONGEST_README : LONGEST_GUIDE)), []);
  });

  it("answer six questions in the words of the README", async () => {
    const plain = (text: string) => wordsOf(text.replaceAll(/\[([^\]]+)\]\([^)]+\)/g, "$1")).join(" ");
    const readme = plain(await readFile(join(root, "README.md"), "utf8"));
    const page = await readFile(join(root, "docs/internals/readme.md"), "utf8");
    const quotations = [...page.matchAll(/(?:^> .*\n)+/gm)].map(([lines]) => plain(lines.replaceAll(/^> /gm, "")));
    assert.equal(page.match(/^## .*\?$/gm)?.length, 6);
    assert.ok(quotations.length > 6);
    assert.deepEqual(quotations.filter((words) => !readme.includes(words)), []);
  });

  it("begin with a title, and each has one of its own", () => {
    const titles = pages.map(({ title }) => title);
    assert.deepEqual(pages.filter(({ path, title }) => title === path).map(({ path }) => path), []);
    assert.equal(new Set(titles).size, titles.length);
  });

  it("say what to do about every close code and every error", async () => {
    const page = await readFile(join(root, "docs/reference/errors.md"), "utf8");
    const files = await readdir(join(root, "src"), { recursive: true });
    const source = await readFile(join(root, "src", files.find((name) => /(?:^|[\\/])errors\.ts$/.test(name))!), "utf8");
    const [, codes = ""] = source.match(/export type ErrorCode =([^;]+?)\| \(string/) ?? [];
    const listed = [...codes.matchAll(/"(\w+)"/g)].map(([, code]) => code!);
    assert.ok(listed.length > 10);
    const rows = [
      ...listed.map((code) => new RegExp(`^\\| \`${code}\` `, "m")),
      ...Object.entries(CloseCode).map(([name, code]) => new RegExp(`^\\| ${code} +\\| \`${name}\` `, "m")),
    ];
    assert.deepEqual(rows.filter((row) => !row.test(page)), []);
  });

  it("are all in llms.txt, each with a sentence", () => {
    const lines = llms().split("\n").filter((line) => line.startsWith("- "));
    assert.equal(lines.length, pages.length);
    assert.deepEqual(lines.filter((line) => !/\): \S.{10,}\.$/.test(line)), []);
  });
});

describe("slugify", () => {
  it("makes the ids that GitHub makes", () => {
    const made = ["4 Channels", "`Deno.serve` cannot be bounded", "Node's patch releases", "A – B", "What `serve` bounds"].map(
      slugify,
    );
    assert.deepEqual(made, ["4-channels", "denoserve-cannot-be-bounded", "nodes-patch-releases", "a--b", "what-serve-bounds"]);
  });
});

describe("The site", { skip: noSite }, () => {
  let out: string;
  let pages: { path: string; html: string }[];

  before(async () => {
    out = await mkdtemp(join(tmpdir(), "noroshi-docs-"));
    await build(out);
    const names = (await readdir(out, { recursive: true })).map((name) => name.replaceAll("\\", "/")).sort();
    const ours = names.filter((name) => name.endsWith(".html") && !name.startsWith("api/") && name !== "404.html");
    pages = await Promise.all(ours.map(async (path) => ({ path, html: await readFile(join(out, path), "utf8") })));
  }, { timeout: 300_000 });
  after(() => rm(out, { recursive: true, force: true }));

  it("has every page, the files for language models, and the pages of the API", () => {
    for (const { pages } of listSections()) for (const { path } of pages) assert.ok(existsSync(join(out, `${path}.html`)), path);
    for (const name of ["index.html", "llms.txt", "llms-full.txt", "api/index.html"]) {
      assert.ok(existsSync(join(out, name)), name);
    }
  });

  it("asks for nothing from another address", async () => {
    const asked =
      /<(?:script|img|source|iframe|video|audio)\b[^>]*\b(?:src|srcset)="(?:https?:)?\/\/|<link\b[^>]*\bhref="(?:https?:)?\/\//;
    const styles = (await readdir(join(out, "assets"))).filter((name) => name.endsWith(".css"));
    assert.ok(styles.length > 0);
    const css = await Promise.all(
      styles.map(async (path) => ({ path, text: await readFile(join(out, "assets", path), "utf8") })),
    );
    const askers = [
      ...pages.filter(({ html }) => asked.test(html)),
      ...css.filter(({ text }) => /url\(["']?(?:https?:)?\/\/|@import/.test(text)),
    ];
    assert.deepEqual(askers.map(({ path }) => path), []);
  });

  it("has links that lead to a page, and to a heading of it", () => {
    const ids = new Map(
      pages.map(({ path, html }) => [`/${path}`, new Set([...html.matchAll(/\bid="([^"]+)"/g)].map(([, id]) => id!))]),
    );
    const dead: string[] = [];
    for (const { path, html } of pages) {
      for (const [, href] of html.matchAll(/<a\b[^>]*\bhref="([^"]+)"/g)) {
        const { pathname, hash, host } = new URL(href!, `http://site/${path}`);
        if (host !== "site" || pathname.startsWith("/api/")) continue;
        const target = pathname.endsWith("/") ? `${pathname}index.html` : pathname;
        const headings = ids.get(target);
        if (!headings || (hash !== "" && !headings.has(decodeURIComponent(hash.slice(1))))) dead.push(`${path}: ${href}`);
      }
    }
    assert.deepEqual([...new Set(dead)], []);
  });

  describe("in a browser", { skip: noBrowser }, () => {
    let browser: Browser;
    let server: Server;
    let origin: string;

    before(async () => {
      server = serveFolder(out);
      await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
      origin = `http://127.0.0.1:${(server.address() as AddressInfo).port}`; // It listens on TCP.
      browser = await launchBrowser();
    });
    after(async () => {
      await browser?.close();
      server?.close();
    });

    /** Opens pages one after the other, lets the test look at each, and fails when one asked another address or an error was shown. */
    async function visit(
      paths: readonly string[],
      options: BrowserContextOptions,
      look: (page: Page, path: string) => Promise<void>,
    ): Promise<void> {
      const context = await browser.newContext(options);
      try {
        const page = await context.newPage();
        const faults: string[] = [];
        page.on("request", (request) => {
          const url = request.url();
          if (!url.startsWith(origin) && !url.startsWith("data:")) faults.push(`asked for ${url}`);
        });
        page.on("pageerror", (error) => faults.push(String(error)));
        for (const path of paths) {
          await page.goto(`${origin}${path}`, { waitUntil: "networkidle" });
          await look(page, path);
        }
        assert.deepEqual(faults, []);
      } finally {
        await context.close();
      }
    }

    it("finds a page by the search", () =>
      visit(["/"], {}, async (page) => {
        await page.click(".DocSearch-Button");
        await page.fill(".search-input", "slowConsumer");
        const first = page.locator(".result").first();
        await first.waitFor();
        await first.click();
        await page.waitForURL(/\.html/);
        // The address changes before the page does.
        await page.locator(".vp-doc", { hasText: "4508" }).waitFor();
      }));

    for (const colorScheme of ["light", "dark"] as const) {
      it(`is ${colorScheme} where the system is`, () =>
        visit(["/guides/authenticate.html"], { colorScheme }, async (page) => {
          const background = await page.evaluate(() => getComputedStyle(document.body).backgroundColor);
          const [red = 0] = background.match(/\d+/g)?.map(Number) ?? [];
          assert.equal(red > 127, colorScheme === "light", background);
        }));
    }

    it("fits a phone: no page scrolls sideways", () =>
      visit(
        [
          "/",
          "/start/bun.html",
          "/tutorial/set-up.html",
          "/guides/limits.html",
          "/reference/options.html",
          "/reference/errors.html",
          "/performance.html",
        ],
        { viewport: { width: 360, height: 740 } },
        async (page, path) => {
          const [scroll, width] = await page.evaluate(() => [document.documentElement.scrollWidth, innerWidth]);
          assert.ok(scroll! <= width!, `${path}: ${scroll} px`);
        },
      ));
  });
});

/** Builds the site into a folder of the test, so that it disturbs nobody's own. Rejects with what the build printed. */
function build(outDir: string): Promise<void> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [vitepress, "build", "docs", "--outDir", outDir], { cwd: root, stdio: "pipe" });
    let output = "";
    for (const stream of [child.stdout, child.stderr]) stream.setEncoding("utf8").on("data", (text) => output += text);
    child.on("error", reject);
    child.on("close", (code) => code === 0 ? resolve() : reject(new Error(output)));
  });
}

const TYPES: Record<string, string> = {
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript",
  ".css": "text/css",
  ".svg": "image/svg+xml",
  ".woff2": "font/woff2",
};

/** Serves the files of a folder, and nothing outside of it. */
function serveFolder(folder: string): Server {
  return createServer(async (request, response) => {
    const path = normalize(decodeURIComponent(new URL(request.url ?? "/", "http://site").pathname));
    try {
      const file = await readFile(join(folder, path.endsWith("/") ? `${path}index.html` : path));
      response.setHeader("content-type", TYPES[extname(path) || ".html"] ?? "application/octet-stream").end(file);
    } catch {
      response.writeHead(404).end("Not found"); // There is no such file.
    }
  });
}
