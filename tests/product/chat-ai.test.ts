/** examples/chat-ai in a browser: a reload in mid-answer, a second tab, and "Stop". */
import assert from "node:assert/strict";
import { dirname, join } from "node:path";
import process from "node:process";
import { after, before, describe, it } from "node:test";
import { fileURLToPath, pathToFileURL } from "node:url";
import { serveStatic } from "@hono/node-server/serve-static";
import type { LanguageModel } from "ai";
import { MockLanguageModelV4 } from "ai/test";
import type { Browser, Page } from "playwright-core";
import type * as ChatServer from "../../examples/chat-ai/chat.ts";
import type * as Serve from "../../src/serve/serve.ts";
import { findViolations } from "../support/axe.ts";
import { launchBrowser, noBrowser } from "../support/browser.ts";

const elsewhere = "Bun" in globalThis || "Deno" in globalThis ? "the browser is driven from Node" : false;
const root = join(dirname(fileURLToPath(import.meta.url)), "../..");

/** The example and what serves it, from one copy of the project: the example imports it by its name. */
async function loadServer(): Promise<typeof ChatServer & Pick<typeof Serve, "serve">> {
  const { build } = await import("esbuild");
  const outfile = join(root, "node_modules/.cache/chat-ai.mjs"); // Below the packages that it is to find.
  await build({
    stdin: {
      contents: 'export * from "./examples/chat-ai/chat.ts"; export { serve } from "noroshi/serve";',
      resolveDir: root,
    },
    tsconfig: join(root, "tsconfig.json"),
    bundle: true,
    packages: "external",
    platform: "node",
    format: "esm",
    outfile,
    logLevel: "error",
  });
  return await import(pathToFileURL(outfile).href);
}

/** A model that writes what the test says. */
class Model {
  aborted = 0;
  #calls = 0;
  #wake = () => {};
  #write: (part: object) => void = () => {};
  readonly model: LanguageModel = new MockLanguageModelV4({
    doStream: ({ abortSignal }) => {
      abortSignal?.addEventListener("abort", () => this.aborted++);
      const stream = new ReadableStream({
        start: (controller) => {
          this.#write = (part) => controller.enqueue(part);
        },
      });
      this.#write({ type: "stream-start", warnings: [] });
      this.#write({ type: "text-start", id: "t" });
      this.#calls++;
      this.#wake();
      return Promise.resolve({ stream: stream as never }); // The parts above and below.
    },
  });

  async asked(count: number): Promise<void> {
    while (this.#calls < count) await new Promise<void>((resolve) => this.#wake = resolve);
  }

  write(delta: string): void {
    this.#write({ type: "text-delta", id: "t", delta });
  }
}

describe("examples/chat-ai, in a browser", { skip: elsewhere || noBrowser }, () => {
  const model = new Model();
  let browser: Browser;
  let server: Awaited<ReturnType<typeof Serve.serve>>;
  let script: string;

  before(async () => {
    const { build } = await import("esbuild");
    const { outputFiles: [bundle] } = await build({
      entryPoints: [join(root, "examples/chat-ai/page/main.ts")],
      tsconfig: join(root, "tsconfig.json"),
      bundle: true,
      format: "esm",
      define: { "process.env.NODE_ENV": '"production"' },
      write: false,
    });
    script = bundle!.text; // There is one.
    const { createChatApp, serve } = await loadServer();
    const { app } = createChatApp(model.model);
    app.get("/main.js", (c) => c.body(script, 200, { "content-type": "text/javascript" }));
    app.use(serveStatic({ root: join(root, "examples/chat-ai/public") }));
    server = await serve(app, { port: 0, hostname: "127.0.0.1", onListen: false });
    browser = await launchBrowser();
  });
  after(async () => {
    await browser?.close();
    await server?.close();
  });

  const answers = (page: Page, text: string) => page.locator(".assistant", { hasText: new RegExp(`^${text}$`) }).waitFor();

  it("goes on after a reload, shows the answer in a second tab, and stops in both", async () => {
    const context = await browser.newContext({ colorScheme: "light" });
    const page = await context.newPage();
    page.on("pageerror", (error) => console.error(error));
    await page.goto(server.url);
    await page.getByLabel("Your question").fill("Is it raining?");
    await page.getByRole("button", { name: "Send" }).click();
    await page.getByRole("button", { name: "Stop" }).waitFor();
    await model.asked(1);
    model.write("It is ");
    await answers(page, "It is ");
    model.write("still ");
    await page.reload();
    await answers(page, "It is still ");

    const second = await context.newPage();
    await second.goto(server.url);
    await answers(second, "It is still ");
    assert.equal(await second.locator(".user").textContent(), "Is it raining?");
    model.write("raining.");
    for (const tab of [page, second]) await answers(tab, "It is still raining.");
    assert.deepEqual(await findViolations(page), []);
    for (const [name, options] of Object.entries({ light: {}, dark: { colorScheme: "dark" }, phone: {} } as const)) {
      if (!process.env["PICTURES"]) break;
      await page.emulateMedia(options);
      await page.setViewportSize(name === "phone" ? { width: 390, height: 844 } : { width: 1_100, height: 760 });
      await page.screenshot({ path: `${process.env["PICTURES"]}-${name}.png` });
    }

    await second.getByRole("button", { name: "Stop" }).click();
    for (const tab of [page, second]) await tab.getByRole("button", { name: "Send" }).waitFor();
    assert.equal(model.aborted, 1);

    // A tab that is open already shows what another asks.
    await page.getByLabel("Your question").fill("And now?");
    await page.getByRole("button", { name: "Send" }).click();
    await second.locator(".user", { hasText: "And now?" }).waitFor();
    await model.asked(2);
    model.write("Now too.");
    for (const tab of [page, second]) await answers(tab, "Now too.");
    await context.close();
  });
});
