/** `npm run chat-ai:nodes` in a browser: three nodes at Redis, of which the one that serves a page and the one that writes are killed. */
import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { dirname, join } from "node:path";
import process from "node:process";
import { createInterface } from "node:readline";
import { after, before, describe, it } from "node:test";
import { fileURLToPath } from "node:url";
import type { Browser, Page } from "playwright-core";
import { findViolations } from "../support/axe.ts";
import { BrokerProcess, lacks } from "../support/brokers.ts";
import { launchBrowser, noBrowser } from "../support/browser.ts";
import { TYPESCRIPT } from "../support/typescript.ts";

const elsewhere = "Bun" in globalThis || "Deno" in globalThis ? "the browser is driven from Node" : false;
const root = join(dirname(fileURLToPath(import.meta.url)), "../..");

/** Words of the model for tests, as far as a page shows them. */
const wordsOf = async (page: Page) => (await page.locator(".assistant").textContent() ?? "").trim().split(/\s+/).length;

/** Resolves once the page shows so many words of the answer. */
const hasWords = (page: Page, count: number) =>
  page.waitForFunction((count) => {
    // deno-lint-ignore no-explicit-any -- it runs in the page, whose types are not those of tests
    const { document } = globalThis as any;
    return (document.querySelector(".assistant")?.textContent ?? "").trim().split(/\s+/).length >= count;
  }, count);

/** The names of the node that serves a page, and of the one that writes its answer. */
const nodeOf = (page: Page, which: "node" | "writer") => page.locator(`main[data-${which}]`).getAttribute(`data-${which}`);

describe("npm run chat-ai:nodes", { skip: elsewhere || noBrowser || lacks("redis-server") }, () => {
  let broker: BrokerProcess;
  let browser: Browser;
  let nodes: ChildProcess;
  let url = "";
  const pids = new Map<string, number>();

  before(async () => {
    const { build } = await import("esbuild");
    await build({
      entryPoints: [join(root, "examples/chat-ai/page/main.ts")],
      tsconfig: join(root, "tsconfig.json"),
      bundle: true,
      format: "esm",
      outfile: join(root, "examples/chat-ai/public/main.js"),
      logLevel: "error",
    });
    broker = await BrokerProcess.redis();
    // It starts its nodes with the same options.
    const options = [...TYPESCRIPT, "--import", new URL("../support/source.mjs", import.meta.url).href];
    nodes = spawn(process.execPath, [...options, "examples/chat-ai/nodes.ts"], {
      cwd: root,
      // Slow: an answer outlives the steps of a browser on a busy machine.
      env: { ...process.env, PORT: "0", NO_COLOR: "1", AI_DELAY: "3000", REDIS_URL: `redis://127.0.0.1:${broker.port}` },
      stdio: ["ignore", "pipe", "inherit"],
    });
    const lines = createInterface({ input: nodes.stdout! }); // Piped.
    await new Promise<void>((resolve, reject) => {
      nodes.on("exit", (code) => reject(new Error(`The nodes ended with ${code}`)));
      lines.on("line", (line) => {
        const [, name, pid] = line.match(/^(\S+) +pid (\d+)$/) ?? [];
        if (name) pids.set(name, Number(pid));
        url ||= line.match(/http:\/\/localhost:\d+/)?.[0] ?? "";
        if (url) resolve();
      });
    });
    browser = await launchBrowser();
  });
  after(async () => {
    await browser?.close();
    if (nodes?.exitCode === null) {
      nodes.kill("SIGINT");
      await once(nodes, "exit");
    }
    await broker?.close();
  });

  it("goes on when the node of a page is killed, and keeps what was written when the node that writes is", async () => {
    const context = await browser.newContext();
    const page = await context.newPage();
    page.on("pageerror", (error) => console.error(error));
    await page.goto(url);
    await page.locator("main[data-node]").waitFor();
    await page.getByLabel("Your question").fill("Is it raining?");
    await page.getByRole("button", { name: "Send" }).click();
    await hasWords(page, 2);
    const writer = await nodeOf(page, "writer");
    assert.equal(await nodeOf(page, "node"), writer);

    const second = await context.newPage();
    await second.goto(url);
    // The front takes the nodes in turn.
    while (await nodeOf(second, "node") === writer) await second.reload();
    await hasWords(second, 3);
    const served = await nodeOf(second, "node");
    const before = await wordsOf(second);
    process.kill(pids.get(served!)!, "SIGKILL");
    await second.locator(`main[data-node]:not([data-node="${served}"])`).waitFor();
    await hasWords(second, before + 1);
    assert.deepEqual(await second.locator(".error").count(), 0);

    process.kill(pids.get(writer!)!, "SIGKILL");
    for (const tab of [page, second]) {
      await tab.locator(".error").waitFor();
      assert.match(await tab.locator(".error").textContent() ?? "", /^The stream is lost: its node has gone/);
      const text = await tab.locator(".assistant").textContent() ?? "";
      assert.match(text, /^I am a model/);
      assert.ok(text.split(" ").length > before, text);
      await tab.getByRole("button", { name: "Send" }).waitFor();
    }
    assert.equal(await page.locator(".assistant").textContent(), await second.locator(".assistant").textContent());
    assert.deepEqual(await findViolations(page), []);

    // Both go on with the nodes that are left.
    await page.getByLabel("Your question").fill("And now?");
    await page.getByRole("button", { name: "Send" }).click();
    for (const tab of [page, second]) {
      await tab.locator(".user", { hasText: "And now?" }).waitFor();
      await tab.locator(".assistant", { hasText: /^I am a model/ }).last().waitFor();
    }
    await context.close();
  });
});
