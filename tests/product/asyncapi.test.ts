/** Documents of `noroshi/asyncapi` before AsyncAPI's own parser, and their page in a real browser. */
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { after, before, describe, it } from "node:test";
import { Parser } from "@asyncapi/parser";
import { toJsonSchema } from "@valibot/to-json-schema";
import { Hono } from "hono";
import type { Browser } from "playwright-core";
import { contract as newsroom } from "../../examples/contract.ts";
import { asyncapi, type AsyncApiDocument, asyncapiPage } from "../../src/asyncapi/asyncapi.ts";
import type { Contract } from "../../src/protocol/contract-types.ts";
import { serve } from "../../src/serve/serve.ts";
import { contracts } from "../asyncapi/contracts.ts";
import { launchBrowser, noBrowser } from "../support/browser.ts";

/** The parser recommends a newer version of AsyncAPI: the document is one of 3.0. */
const RECOMMENDATION = "asyncapi-latest-version";

const documentOf = (contract: Contract): AsyncApiDocument =>
  asyncapi(contract, {
    info: { title: "Newsroom", version: "1.0.0", description: "What is new, and who is there." },
    servers: { production: { host: "example.com", pathname: "/websocket", protocol: "wss" } },
    securitySchemes: { token: { type: "http", scheme: "bearer" } },
    toJsonSchema,
  });

describe("The parser of AsyncAPI", () => {
  const parser = new Parser();

  for (const [name, contract] of Object.entries({ ...contracts, "the newsroom": newsroom })) {
    it(`finds nothing in the document of ${name}`, async () => {
      const document = documentOf(contract);
      const parsed = await parser.parse(JSON.stringify(document));
      const found = parsed.diagnostics.filter(({ code }) => code !== RECOMMENDATION);
      assert.deepEqual(found.map(({ message, path }) => ({ message, path })), []);
      assert.equal(parsed.document?.operations().all().length, Object.keys(document.operations).length);
    });
  }

  it("recommends nothing where the document names the newest version", async () => {
    const { diagnostics } = await parser.parse(
      JSON.stringify({ ...documentOf(newsroom), asyncapi: "3.1.0" }),
    );
    assert.deepEqual(diagnostics, []);
  });

  it("finds a reference to a message that is not there", async () => {
    const document = documentOf(newsroom);
    const [connection] = Object.values(document.channels);
    assert.ok(Reflect.deleteProperty(connection!.messages, "request say"));
    const { diagnostics } = await parser.parse(JSON.stringify(document));
    assert.ok(diagnostics.some(({ code }) => code !== RECOMMENDATION));
  });
});

describe("asyncapiPage, in a browser", { skip: noBrowser }, () => {
  const axe = readFileSync(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
  let browser: Browser;
  let server: Awaited<ReturnType<typeof serve>>;

  before(async () => {
    browser = await launchBrowser();
    const app = new Hono();
    for (const [index, contract] of [newsroom, contracts["odd schemas"]!].entries()) {
      app.get(`/asyncapi/${index}`, asyncapiPage(documentOf(contract)));
    }
    server = await serve(app, { port: 0, hostname: "127.0.0.1", onListen: false });
  });
  after(async () => {
    await browser?.close();
    await server?.close();
  });

  for (const [name, width] of [["a desk", 1280], ["a phone", 360]] as const) {
    for (const colorScheme of ["light", "dark"] as const) {
      it(`has no fault that axe finds, asks its own server only and does not overflow, on ${name}, ${colorScheme}`, async () => {
        // The policy of the page refuses the script of axe.
        const context = await browser.newContext({ viewport: { width, height: 800 }, colorScheme, bypassCSP: true });
        const page = await context.newPage();
        const requests: string[] = [];
        page.on("request", (request) => requests.push(request.url()));
        for (const index of [0, 1]) {
          await page.goto(`${server.url}asyncapi/${index}`);
          await page.evaluate(() => document.querySelectorAll("details").forEach((each) => each.open = true));
          assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), "it overflows");
          await page.evaluate(axe);
          const violations = await page.evaluate(
            "axe.run({ resultTypes: ['violations'] }).then(({ violations }) => violations.map(({ id, nodes }) => [id, nodes[0].html]))",
          );
          assert.deepEqual(violations, []);
        }
        assert.deepEqual(requests.filter((url) => !url.startsWith(server.url) && url !== "data:,"), []);
        await context.close();
      });
    }
  }

  it("breaks no rule of its own policy, and works without a script", async () => {
    const context = await browser.newContext({ javaScriptEnabled: false });
    const page = await context.newPage();
    const complaints: string[] = [];
    page.on("console", (message) => complaints.push(message.text()));
    await page.goto(`${server.url}asyncapi/0`);
    const details = page.locator("details", { hasText: "Handles “say”" });
    await details.locator("summary").click();
    assert.ok(await details.getByText("Request “say”").isVisible());
    // The style has arrived.
    assert.equal(await page.locator("nav ul").evaluate((list) => getComputedStyle(list).display), "flex");
    assert.deepEqual(complaints, []);
    await context.close();
  });
});
