import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { toJsonSchema } from "@valibot/to-json-schema";
import { Hono } from "hono";
import * as v from "valibot";
import { asyncapi, asyncapiPage } from "../../src/asyncapi/asyncapi.ts";
import type { Contract } from "../../src/protocol/contract-types.ts";
import { contracts } from "./contracts.ts";

function appOf(contract: Contract, title = "Test"): { app: Hono; document: unknown } {
  const document = asyncapi(contract, { info: { title, version: "1.0.0" }, toJsonSchema });
  return { app: new Hono().get("/docs/asyncapi", asyncapiPage(document)), document };
}

describe("asyncapiPage", () => {
  it("serves the page, its style and the document from one path", async () => {
    const { app, document } = appOf(contracts["valibot"]!);
    const page = await app.request("/docs/asyncapi");
    assert.equal(page.headers.get("content-type"), "text/html; charset=UTF-8");
    const style = await app.request("/docs/asyncapi?style");
    assert.match(style.headers.get("content-type") ?? "", /^text\/css/);
    assert.match(await style.text(), /prefers-color-scheme: dark/);
    const json = await app.request("/docs/asyncapi?document");
    assert.match(json.headers.get("content-type") ?? "", /^application\/json/);
    assert.deepEqual(await json.json(), document);
  });

  it("ends a recursive schema where it comes back to itself, with many alternatives too", async () => {
    const node: v.GenericSchema = v.union(
      Array.from(
        { length: 12 },
        (_, kind) =>
          v.object({
            kind: v.literal(kind),
            left: v.lazy(() => node),
            right: v.lazy(() => node),
            all: v.array(v.lazy(() => node)),
          }),
      ),
    );
    const page = await appOf({ requests: { grow: { payload: v.object({ node }) } } }).app.request("/docs/asyncapi");
    const text = await page.text();
    assert.match(text, /<code>left<\/code>/);
    assert.ok(text.length < 300_000, `${text.length} characters`);
  });

  it("has no script, no inline style and no address of another host", async () => {
    const { app } = appOf(contracts["odd schemas"]!);
    const page = await app.request("/docs/asyncapi");
    const text = await page.text();
    assert.doesNotMatch(text, /<script|<style|\sstyle=|\son\w+=|(?:src|href)="(?!\?|#|data:,)/);
    assert.equal(
      page.headers.get("content-security-policy"),
      "default-src 'none'; style-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    );
  });

  it("shows each operation, error and close code", async () => {
    for (const contract of Object.values(contracts)) {
      const document = asyncapi(contract, { info: { title: "Test", version: "1" }, toJsonSchema });
      const text = await (await new Hono().get("/", asyncapiPage(document)).request("/")).text();
      assert.equal(text.match(/<details>/g)?.length, Object.keys(document.operations).length);
      for (const { code } of document["x-errors"]) assert.ok(text.includes(`<code>${code}</code>`), code);
      for (const { code, name } of document["x-close-codes"]) assert.ok(text.includes(`<code>${code} ${name}</code>`), name);
    }
  });

  it("escapes what the contract and the application say", async () => {
    const attack = `<img src=x onerror="alert(1)">'`;
    const { app } = appOf(
      { requests: { [attack]: {} }, messages: { [attack]: contracts["valibot"]!.messages!["news"] } },
      attack,
    );
    const text = await (await app.request("/docs/asyncapi")).text();
    assert.ok(!text.includes("<img"));
    assert.ok(text.includes("&lt;img src=x onerror=&quot;alert(1)&quot;&gt;&#39;"));
  });
});
