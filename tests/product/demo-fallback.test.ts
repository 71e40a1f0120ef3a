/** `npm run demo:fallback`, in Chromium and Firefox: the newsroom behind an nginx that refuses upgrades. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { dirname, join } from "node:path";
import process from "node:process";
import { createInterface } from "node:readline";
import { after, before, describe, it } from "node:test";
import { fileURLToPath } from "node:url";
import type { Browser, Page } from "playwright-core";
import { launchBrowser, noBrowser } from "../support/browser.ts";
import { freePort, lacks } from "../support/brokers.ts";
import { Firefox, noFirefox } from "../support/firefox.ts";
import { TYPESCRIPT } from "../support/typescript.ts";

const elsewhere = "Bun" in globalThis || "Deno" in globalThis ? "the browser is driven from Node" : false;
const root = join(dirname(fileURLToPath(import.meta.url)), "../..");

describe("The newsroom, behind an nginx that refuses upgrades", {
  skip: elsewhere || lacks("nginx"),
}, () => {
  let url: string;
  let stop: () => Promise<unknown>;

  before(async () => {
    const env = { ...process.env, HOST: "127.0.0.1", PORT: String(await freePort()), NO_COLOR: "1" };
    const child = spawn(process.execPath, [...TYPESCRIPT, "examples/fallback/main.ts"], {
      cwd: root,
      env,
      stdio: ["ignore", "pipe", "inherit"],
    });
    const exited = once(child, "exit");
    stop = () => {
      child.kill("SIGTERM");
      return exited;
    };
    for await (const line of createInterface({ input: child.stdout })) {
      [url = ""] = line.match(/http:\/\/127\.0\.0\.1:\d+\//) ?? [];
      if (url) break;
    }
    child.stdout.resume();
  });
  after(() => stop?.());

  async function enter(browser: Browser, user: string, password: string): Promise<Page> {
    const page = await (await browser.newContext()).newPage();
    await page.goto(url);
    await page.locator("#accounts button").first().waitFor();
    await page.getByLabel("Name").fill(user);
    await page.getByLabel("Password").fill(password);
    await page.getByRole("button", { name: "Sign in" }).click();
    await page.locator('html[data-status="live"]').waitFor();
    return page;
  }

  it("brings what one writes to the other, goes offline and comes back to what was said", { skip: noBrowser }, async (t) => {
    const browser = await launchBrowser();
    t.after(() => browser.close());
    const [mika, noor] = await Promise.all([enter(browser, "mika", "beacon"), enter(browser, "noor", "kindling")]);
    const send = async (text: string) => {
      await mika.getByLabel("Message").fill(text);
      await mika.getByRole("button", { name: "Send" }).click();
    };
    const news = (text: string) => noor.locator("#news li").filter({ hasText: text });
    await send("The ferry is in");
    await news("The ferry is in").waitFor();
    await noor.getByRole("button", { name: "Go offline" }).click();
    await noor.locator('html[data-status="waiting"]').waitFor();
    await send("Nobody is at the quay");
    await mika.locator("#note").filter({ hasText: "Sent" }).waitFor();
    await noor.getByRole("button", { name: "Go online" }).click();
    await news("Nobody is at the quay").waitFor();
    if (process.env["SCREENSHOTS"]) await noor.screenshot({ path: join(process.env["SCREENSHOTS"], "fallback.png") });

    const sent = await mika.evaluate(() => performance.getEntriesByType("resource").map(({ name }) => name));
    assert.ok(sent.some((name) => name.includes("/websocket?connection=")), sent.join("\n"));
  });

  it("does in Firefox what it does in Chromium", { skip: noFirefox }, async (t) => {
    const firefox = await Firefox.launch();
    t.after(() => firefox.close());
    const isStatus = (status: string) => firefox.until(`document.documentElement.dataset.status === "${status}"`);
    const shows = (text: string) => firefox.until(`document.querySelector("#news").innerText.includes(${JSON.stringify(text)})`);
    const click = (selector: string) => firefox.evaluate(`() => document.querySelector("${selector}").click()`);
    const send = async (text: string) => {
      await firefox.evaluate(`() => document.querySelector("#text").focus()`);
      await firefox.press(...text);
      await click("#send");
    };
    await firefox.goto(url);
    await firefox.until(`document.querySelector("#accounts button")`);
    await firefox.evaluate(`() => {
      document.querySelector("#user").value = "tomas";
      document.querySelector("#password").value = "cinder";
      document.querySelector("#login-form").requestSubmit();
    }`);
    await isStatus("live");
    await send("The bridge is open");
    await shows("The bridge is open");
    await click("#network");
    await isStatus("waiting");
    await click("#network");
    await isStatus("live");
    await send("And closed again");
    await shows("And closed again");
    if (process.env["SCREENSHOTS"]) await firefox.screenshot(join(process.env["SCREENSHOTS"], "fallback-firefox.png"));
    const hasPosted = await firefox.evaluate(
      `() => performance.getEntriesByType("resource").some(({ name }) => name.includes("/websocket?connection="))`,
    );
    assert.equal(hasPosted, true);
  });
});
