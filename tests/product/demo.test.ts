import assert from "node:assert/strict";
import { execSync, spawn } from "node:child_process";
import { readFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import process from "node:process";
import { createInterface } from "node:readline";
import { after, afterEach, before, describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import type { Browser, BrowserContext, Page } from "playwright-core";
import { WebSocket } from "ws";
import { findViolations } from "../support/axe.ts";
import { freePort } from "../support/brokers.ts";
import { launchBrowser, noBrowser } from "../support/browser.ts";
import { TYPESCRIPT } from "../support/typescript.ts";

const root = join(dirname(fileURLToPath(import.meta.url)), "../..");
const bin = (name: string): string => join(root, "node_modules/.bin", name);

/** A demo that listens. */
interface Demo {
  readonly url: string;
  /** Throws the Durable Object out of memory. Absent elsewhere. */
  evict?(): Promise<void>;
  stop(): Promise<unknown>;
}

const COMMANDS = {
  bun: [bin("bun"), "run"],
  deno: [bin("deno"), "run", "-A", "--no-lock"],
  node: [process.execPath, ...TYPESCRIPT],
};

/** Starts the demo of a runtime and resolves with the address that it prints. */
async function start(
  runtime: keyof typeof COMMANDS,
  { port = 0, secret = "a secret of the test, 32 bytes long" } = {},
): Promise<Demo> {
  const [command = "", ...args] = COMMANDS[runtime];
  // Without HOST it listens on this machine alone, and prints that address.
  const { HOST: _, ...rest } = process.env;
  const env = { ...rest, PORT: String(port), JWT_SECRET: secret, NO_COLOR: "1" };
  const child = spawn(command, [...args, `examples/${runtime}/main.ts`], { cwd: root, env, stdio: ["ignore", "pipe", "pipe"] });
  const exited = new Promise<number | null>((resolve) => child.on("exit", resolve));
  const said: string[] = [];
  const url = await new Promise<string>((resolve, reject) => {
    for (const input of [child.stdout, child.stderr]) {
      createInterface({ input }).on("line", (line) => {
        said.push(line);
        const [address] = line.match(/http:\/\/127\.0\.0\.1:\d+/) ?? [];
        if (address) resolve(address);
      });
    }
    void exited.then((code) => reject(new Error(`The demo exited with ${code}: ${said.join("\n")}`)));
  });
  return {
    url,
    stop: () => {
      child.kill("SIGTERM");
      return exited;
    },
  };
}

/** Starts the Worker under Miniflare, with what wrangler.jsonc says. */
async function startCloudflare(): Promise<Demo> {
  const [{ build }, { Miniflare }] = await Promise.all([import("esbuild"), import("miniflare")]);
  const folder = join(root, "examples/cloudflare");
  const text = await readFile(join(folder, "wrangler.jsonc"), "utf8");
  const config = JSON.parse(text.replace(/^\s*\/\/.*$/gm, ""));
  const { outputFiles } = await build({
    entryPoints: [join(folder, config.main)],
    bundle: true,
    format: "esm",
    target: "es2024",
    write: false,
    logLevel: "warning",
    // Loaded on other runtimes only.
    external: ["node:*", "ws", "@hono/node-server"],
  });
  execSync(config.build.command, { cwd: root, stdio: "pipe" });
  const classes: string[] = config.migrations[0].new_sqlite_classes;
  const miniflare = new Miniflare({
    name: config.name,
    modules: true,
    script: outputFiles[0]!.text,
    compatibilityDate: config.compatibility_date,
    host: "127.0.0.1",
    port: 0,
    bindings: { JWT_SECRET: "a secret of the test, 32 bytes long" },
    durableObjects: Object.fromEntries(
      config.durable_objects.bindings.map(({ name, class_name }: { name: string; class_name: string }) => [
        name,
        { className: class_name, useSQLite: classes.includes(class_name) },
      ]),
    ),
    assets: {
      workerName: config.name,
      directory: join(folder, config.assets.directory),
      binding: config.assets.binding,
      routerConfig: { has_user_worker: true, invoke_user_worker_ahead_of_assets: config.assets.run_worker_first },
      assetConfig: { html_handling: config.assets.html_handling },
    },
  });
  const { origin } = await miniflare.ready;
  return {
    url: origin,
    evict: () => miniflare.unsafeEvictDurableObject(config.name, classes[0]!, { name: "main", webSockets: "hibernate" }),
    stop: () => miniflare.dispose(),
  };
}

/** Bun and Deno run the demo here, as Node's children; that they run this file too would show nothing more. */
const elsewhere = "Bun" in globalThis || "Deno" in globalThis ? "the demo is tested from Node" : false;

describe("createNewsroom", { skip: elsewhere }, () => {
  const starts = {
    bun: () => start("bun"),
    deno: () => start("deno"),
    node: () => start("node"),
    cloudflare: startCloudflare,
  };
  for (const [runtime, startDemo] of Object.entries(starts)) {
    test(`createNewsroom serves its page, its login and its wire on ${runtime}`, { timeout: 300_000 }, async (t) => {
      const { url, stop } = await startDemo();
      t.after(stop);

      const page = await fetch(url);
      assert.equal(page.status, 200);
      assert.match(await page.text(), /<title>Newsroom/);
      assert.match(page.headers.get("content-security-policy") ?? "", /default-src 'none'; script-src 'self'/);
      const scripts = ["app", "client", "elements", "nodes", "ridge", "room"].map((name) => [`/${name}.js`, "text/javascript"]);
      for (const [path, type] of [["/app.css", "text/css"], ...scripts] as [path: string, type: string][]) {
        const file = await fetch(url + path);
        assert.equal(file.headers.get("content-type")?.split(";")[0], type);
        assert.ok((await file.text()).length > 1000);
        assert.equal(file.headers.get("x-content-type-options"), "nosniff");
      }

      const described = await fetch(`${url}/asyncapi`);
      assert.equal(described.status, 200);
      assert.match(await described.text(), /Request “post”/);

      const refused = await logIn(url, "mika", "wrong");
      assert.equal(refused.status, 401);
      assert.equal((await refused.json()).error.code, "AUTH_FAILED");

      const signedOut = await fetch(`${url}/login`, { method: "DELETE" });
      assert.equal(signedOut.status, 204);
      assert.match(signedOut.headers.get("set-cookie")!, /^newsroom-inspector=; Max-Age=0; Path=\/inspector/);

      const mika = await enter(url, "mika", "beacon");
      const lena = await enter(url, "lena", "ember");
      mika.send({ type: "post", uid: 1, text: "From the quay", to: { user: "lena" } });
      assert.deepEqual((await lena.next("news")).news.from, { user: "mika", name: "Mika", role: "editor" });
      assert.equal((await mika.next("post")).data.reached, 1);

      lena.send({ type: "subscribe", uid: 2, channel: "room:harbour", presence: true });
      assert.deepEqual((await lena.next("presence")).members, []);
      mika.send({ type: "say", uid: 3, room: "harbour", text: "The ferry is in" });
      assert.equal((await mika.next("say")).data.heard, 1);
      assert.equal((await lena.next("subscription")).event, "init");
      const { event, data } = await lena.next("subscription");
      assert.deepEqual({ event, from: data.from.user, text: data.text }, { event: "say", from: "mika", text: "The ferry is in" });
      lena.send({ type: "say", uid: 4, room: "night-desk", text: "Let me in" });
      assert.equal((await lena.next("say")).error.code, "FORBIDDEN");

      const forged = await connect(url, "not.a.token");
      assert.equal((await forged.next("auth")).error.code, "AUTH_FAILED");
      assert.equal(await forged.closed, 4401);
      mika.close();
      lena.close();
    });
  }
});

describe("createNewsroom on cloudflare", { skip: elsewhere }, () => {
  test(
    "createNewsroom keeps the wire, what was said in a room, and its clients there, while the object sleeps",
    { timeout: 300_000 },
    async (t) => {
      const { url, evict, stop } = await startCloudflare();
      t.after(stop);
      const [mika, lena] = [await enter(url, "mika", "beacon"), await enter(url, "lena", "ember")];
      const subscribe = { type: "subscribe", uid: 1, channel: "room:harbour" };
      lena.send(subscribe);
      assert.deepEqual((await lena.next("subscription")).data, []);
      mika.send({ type: "say", uid: 1, room: "harbour", text: "Before the sleep" });
      assert.equal((await mika.next("say")).status, "ok");
      assert.equal((await lena.next("subscription")).data.text, "Before the sleep");
      mika.send({ type: "post", uid: 3, text: "Over the wire" });
      assert.equal((await mika.next("post")).data.reached, 1);

      await evict!();
      const noor = await connect(url, (await (await logIn(url, "noor", "kindling")).json()).access_token);
      assert.deepEqual((await noor.next("welcome")).news.map(({ text }: { text: string }) => text), ["Over the wire"]);
      noor.close();
      mika.send({ type: "say", uid: 2, room: "harbour", text: "After the sleep" });
      assert.equal((await mika.next("say")).status, "ok");
      assert.equal((await lena.next("subscription")).data.text, "After the sleep");
      mika.send(subscribe);
      const { data } = await mika.next("subscription");
      assert.deepEqual(data.map((said: { data: { text: string } }) => said.data.text), ["Before the sleep", "After the sleep"]);
      mika.close();
      lena.close();
    },
  );
});

function logIn(url: string, user: string, password: string): Promise<Response> {
  return fetch(`${url}/login`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ user, password }),
  });
}

/** A client as the page is one. */
interface Client {
  send(message: object): void;
  // deno-lint-ignore no-explicit-any -- a test reads what it expects and fails on the rest
  next(type: string): Promise<any>;
  close(): void;
  closed: Promise<number>;
}

async function enter(url: string, user: string, password: string): Promise<Client> {
  const { access_token } = await (await logIn(url, user, password)).json();
  const client = await connect(url, access_token);
  await client.next("welcome");
  return client;
}

async function connect(url: string, access_token: string): Promise<Client> {
  const socket = new WebSocket(`${url.replace("http", "ws")}/websocket`);
  const arrived: { type: string }[] = [];
  let wake = () => {};
  socket.on("message", (data) => {
    arrived.push(JSON.parse(String(data)));
    wake();
  });
  const closed = new Promise<number>((resolve) => socket.on("close", resolve));
  await new Promise((resolve, reject) => socket.on("open", resolve).on("error", reject));
  const send = (message: object) => socket.send(JSON.stringify(message));
  send({ type: "auth", access_token });
  return {
    send,
    async next(type) {
      for (;;) {
        const index = arrived.findIndex((message) => message.type === type);
        if (index >= 0) return arrived.splice(index, 1)[0];
        await new Promise<void>((resolve) => wake = resolve);
      }
    },
    close: () => socket.close(),
    closed,
  };
}

// In a browser

describe("the newsroom page", { skip: elsewhere || noBrowser }, () => {
  let demo: Demo;
  let browser: Browser;
  let contexts: BrowserContext[] = [];
  const faults: string[] = [];

  before(async () => {
    // A port on which it can be started again.
    [demo, browser] = await Promise.all([start("node", { port: await freePort() }), launchBrowser()]);
  });
  afterEach(async () => {
    await Promise.all(contexts.map((context) => context.close()));
    contexts = [];
    assert.deepEqual(faults.splice(0), []);
  });
  after(async () => {
    await browser?.close();
    await demo?.stop();
  });

  async function open(): Promise<Page> {
    // Without a GPU the browser draws animations that never end by the CPU.
    const context = await browser.newContext({ viewport: { width: 1180, height: 820 }, reducedMotion: "reduce" });
    contexts.push(context);
    const page = await context.newPage();
    page.on("pageerror", (error) => faults.push(String(error)));
    page.on("console", (message) => {
      if (/content security policy/i.test(message.text())) faults.push(message.text());
    });
    await page.goto(demo.url);
    await page.locator("#accounts button").first().waitFor();
    return page;
  }

  async function signIn(page: Page, user: string, password: string): Promise<void> {
    await page.getByLabel("Name").fill(user);
    await page.getByLabel("Password").fill(password);
    await page.getByRole("button", { name: "Sign in" }).click();
  }

  async function openAs(user: string, password: string): Promise<Page> {
    const page = await open();
    await signIn(page, user, password);
    await status(page, "live");
    return page;
  }

  const status = (page: Page, status: string) => page.locator(`html[data-status="${status}"]`).waitFor();
  const news = (page: Page, text: string) => page.locator("#news li").filter({ hasText: text });
  const error = (page: Page, code: string) => page.getByRole("alert").filter({ hasText: code });

  /** Sends and waits until the server has answered, so that what is sent next comes after it everywhere. */
  async function send(page: Page, text: string, to?: string): Promise<void> {
    if (to) await page.getByLabel("To", { exact: true }).selectOption({ label: to });
    await page.getByLabel("Message").fill(text);
    await page.getByRole("button", { name: "Send" }).click();
    await page.locator("#note").filter({ hasText: "Sent" }).waitFor();
  }

  /** With SCREENSHOTS=folder: the page by day, by night and on a phone. */
  async function picture(page: Page, name: string): Promise<void> {
    const folder = process.env["SCREENSHOTS"];
    if (!folder) return;
    const take = (look: string) => page.screenshot({ path: join(folder, `${name}-${look}.png`), animations: "disabled" });
    const viewport = page.viewportSize()!;
    await take("light");
    await page.emulateMedia({ colorScheme: "dark" });
    await take("dark");
    await page.emulateMedia({ colorScheme: "light" });
    if (viewport.width > 390) {
      await page.setViewportSize({ width: 390, height: 844 });
      await take("phone");
    }
    await page.setViewportSize(viewport);
  }

  test("the page shows what was wrong when a password is", async () => {
    const page = await open();
    await picture(page, "login");
    await signIn(page, "mika", "wrong");
    await error(page, "AUTH_FAILED").waitFor();
    await picture(page, "login-error");
    assert.equal(await page.locator("#newsroom").isVisible(), false);
  });

  test("a message to everybody arrives in the page of another account, as text", async () => {
    const [mika, noor] = await Promise.all([openAs("mika", "beacon"), openAs("noor", "kindling")]);
    const text = `<img src="x" onerror="document.title = 'taken'"> is text`;
    await send(mika, text);
    await news(noor, text).waitFor();
    assert.equal(await noor.locator("#news img").count(), 0);
    assert.equal(await news(mika, text).count(), 1);
    await picture(noor, "newsroom");
  });

  test("a message to one role or one user arrives there and at its sender, and nowhere else", async () => {
    const [mika, noor, tomas, lena] = await Promise.all([
      openAs("mika", "beacon"),
      openAs("noor", "kindling"),
      openAs("tomas", "cinder"),
      openAs("lena", "ember"),
    ]);
    await send(mika, "For the desk of reporters", "Reporters");
    await send(mika, "For Noor alone", "Noor");
    // Messages of one sender arrive in order: who has this one has been passed over by those before.
    await send(mika, "Now for all of you", "Everybody");
    const pages = { mika, noor, tomas, lena };
    const seen = await Promise.all(
      Object.entries(pages).map(async ([name, page]) => {
        await news(page, "Now for all of you").waitFor();
        const counts = ["For the desk of reporters", "For Noor alone"].map((text) => news(page, text).count());
        return [name, await Promise.all(counts)];
      }),
    );
    assert.deepEqual(Object.fromEntries(seen), { mika: [1, 1], noor: [1, 1], tomas: [1, 0], lena: [0, 0] });

    await picture(noor, "directed");
    // Nor does the memory tell a newcomer what was not for them.
    const kofi = await openAs("kofi", "tinder");
    await news(kofi, "Now for all of you").waitFor();
    assert.equal(await news(kofi, "For the desk of reporters").count(), 0);
    assert.equal(await news(kofi, "For Noor alone").count(), 0);
  });

  test("an editor has the inspector, and a reader has not", async () => {
    const [mika, lena] = await Promise.all([openAs("mika", "beacon"), openAs("lena", "ember")]);
    assert.equal(await lena.getByRole("link", { name: "Inspector" }).count(), 0);
    await lena.goto(`${demo.url}/inspector`);
    await status(lena, "live"); // It leads back to the newsroom.
    await mika.getByRole("link", { name: "Inspector" }).click();
    await mika.getByText("Live, one node").waitFor();
    await mika.getByRole("link", { name: "Clients" }).click();
    await mika.locator(".row").filter({ hasText: "lena" }).waitFor();
    await picture(mika, "inspector");
    await mika.goto(demo.url);
    await status(mika, "live");
    const signedOut = mika.waitForResponse((response) => response.request().method() === "DELETE");
    await mika.getByRole("button", { name: "Sign out" }).click();
    await signedOut;
    await mika.goto(`${demo.url}/inspector`);
    await status(mika, "signed-out");
  });

  test("the list of people counts the tabs of one user and forgets who left", async () => {
    const noor = await openAs("noor", "kindling");
    const person = (user: string) => noor.locator(`#people li[data-user="${user}"]`);
    const [first, second] = [await openAs("mika", "beacon"), await openAs("mika", "beacon")];
    await person("mika").filter({ hasText: "2 tabs" }).waitFor();
    assert.equal(await person("mika").count(), 1);
    await first.close();
    await person("mika").filter({ hasNotText: "tabs" }).waitFor();
    await second.getByRole("button", { name: "Sign out" }).click();
    await person("mika").waitFor({ state: "detached" });
  });

  /** What is said in the open room, the newest first; a line that is drawn in it stands for itself. */
  const said = (page: Page) =>
    page.locator("#said li").evaluateAll((all) =>
      all.map((each) => each.getAttribute("data-kind") ?? each.querySelector(".text")?.textContent)
    );
  const members = (page: Page) =>
    page.locator("#people li").evaluateAll((all) => all.map((each) => each.getAttribute("data-user")));
  const inRoom = (page: Page, text: string) => page.locator("#said li").filter({ hasText: text });
  const member = (page: Page, user: string) => page.locator(`#people li[data-user="${user}"]`);

  async function goTo(page: Page, place: string): Promise<void> {
    await page.getByRole("link", { name: place }).click();
    await page.locator("#places a[aria-current]").filter({ hasText: place }).waitFor();
  }

  /** Says it without a page, in order. */
  async function say(room: string, ...texts: string[]): Promise<void> {
    const { send, next, close } = await enter(demo.url, "tomas", "cinder");
    for (const [uid, text] of texts.entries()) {
      send({ type: "say", uid, room, text });
      assert.equal((await next("say")).status, "ok");
    }
    close();
  }

  test("a room shows who is in it, what was said before, and nothing of it at the wire", async () => {
    const mika = await openAs("mika", "beacon");
    await goTo(mika, "Harbour");
    await member(mika, "mika").waitFor();
    await send(mika, "The ferry is late");
    await send(mika, "It is in sight");

    const lena = await openAs("lena", "ember");
    await member(lena, "mika").waitFor();
    assert.equal(await lena.locator("#people li").count(), 2);
    await goTo(lena, "Harbour");
    await inRoom(lena, "It is in sight").waitFor();
    assert.deepEqual((await said(lena)).slice(0, 2), ["It is in sight", "The ferry is late"]);
    await Promise.all([member(mika, "lena").waitFor(), member(lena, "mika").waitFor()]);
    assert.deepEqual([await members(mika), await members(lena)], [["lena", "mika"], ["lena", "mika"]]);
    await send(lena, "I can see it too");
    await inRoom(mika, "I can see it too").waitFor();
    await picture(lena, "room");

    await goTo(lena, "The wire");
    assert.equal(await news(lena, "I can see it too").count(), 0);
    await member(mika, "lena").waitFor({ state: "detached" });
    await send(mika, "She has gone");
    await goTo(lena, "Night desk");
    await goTo(mika, "The wire");
    await send(mika, "For everybody", "Everybody");
    await lena.getByRole("link", { name: "The wire 1 new" }).waitFor();
    await goTo(lena, "Harbour");
    await inRoom(lena, "She has gone").waitFor();
    assert.equal(await inRoom(lena, "I can see it too").count(), 1);
  });

  test("a page that was offline shows what was said in its room meanwhile, in order, each once", async () => {
    const [mika, noor] = await Promise.all([openAs("mika", "beacon"), openAs("noor", "kindling")]);
    await Promise.all([goTo(mika, "Town hall"), goTo(noor, "Town hall")]);
    await Promise.all([member(mika, "noor").waitFor(), member(noor, "mika").waitFor()]);
    await send(mika, "Before");
    await inRoom(noor, "Before").waitFor();

    for (const round of ["first", "second"]) {
      await noor.context().setOffline(true);
      await status(noor, "waiting");
      await noor.locator("#status-text").filter({ hasText: "You are offline" }).waitFor();
      const missed = Array.from({ length: 12 }, (_, index) => `Missed ${index} of the ${round}`);
      await say("town-hall", ...missed);
      await inRoom(mika, missed.at(-1)!).waitFor();
      const before = await said(noor);
      await picture(noor, "offline");

      await noor.context().setOffline(false);
      await status(noor, "live");
      await inRoom(noor, missed.at(-1)!).waitFor();
      await send(mika, `After the ${round}`);
      await inRoom(noor, `After the ${round}`).waitFor();
      assert.deepEqual(await said(noor), [`After the ${round}`, ...[...missed].reverse(), "away", ...before]);
      await member(noor, "mika").waitFor();
      await noor.getByText("Connection lost at").first().scrollIntoViewIfNeeded();
      await picture(noor, "recovered");
    }
    await Promise.all([mika, noor].map((page) => member(page, "noor").waitFor()));
  });

  test("a page that was offline for longer than the newsroom remembers says that something is missing", async () => {
    const noor = await openAs("noor", "kindling");
    await goTo(noor, "Night desk");
    await member(noor, "noor").waitFor();
    await send(noor, "Anybody up?");
    await noor.context().setOffline(true);
    await status(noor, "waiting");
    const missed = Array.from({ length: 60 }, (_, index) => `Night ${index}`);
    await say("night-desk", ...missed);
    await noor.context().setOffline(false);
    await inRoom(noor, missed.at(-1)!).waitFor();
    assert.deepEqual(await said(noor), [...missed.slice(-50).reverse(), "gap", "Anybody up?"]);
    await noor.getByText("does not remember all").scrollIntoViewIfNeeded();
    await picture(noor, "gap");
  });

  test("the button takes the page offline and back, and what was said in its room meanwhile is there", async () => {
    const [mika, noor] = await Promise.all([openAs("mika", "beacon"), openAs("noor", "kindling")]);
    await Promise.all([goTo(mika, "Town hall"), goTo(noor, "Town hall")]);
    await send(mika, "Before the button");
    await inRoom(noor, "Before the button").waitFor();
    await noor.getByRole("button", { name: "Go offline" }).click();
    await noor.locator("#status-text").filter({ hasText: "You are offline" }).waitFor();
    assert.equal(await noor.getByRole("button", { name: "Try now" }).isVisible(), false);
    await send(mika, "While the button was pressed");
    assert.equal(await inRoom(noor, "While the button was pressed").count(), 0);
    await picture(noor, "button");
    await noor.getByRole("button", { name: "Go online" }).click();
    await status(noor, "live");
    await inRoom(noor, "While the button was pressed").waitFor();
    assert.deepEqual((await said(noor)).slice(0, 3), ["While the button was pressed", "away", "Before the button"]);
  });

  /** Controls that are smaller than 44 px, and how far the page is wider than the screen. */
  const faultsOnPhone = (page: Page) =>
    page.evaluate(() => {
      const shown = [...document.querySelectorAll("a, button, input, select, textarea")].filter((each) => each.checkVisibility());
      const small = shown.filter((each) => {
        const { width, height } = each.getBoundingClientRect();
        return width < 44 || height < 44;
      });
      return [...small.map((each) => each.outerHTML), document.documentElement.scrollWidth - innerWidth];
    });
  for (const [width, height] of [[390, 844], [320, 640]] as const) {
    test(`on a phone ${width} px wide the accounts and the conversation come first, and a finger hits everything`, async () => {
      const page = await open();
      await page.setViewportSize({ width, height });
      const accounts = (await page.locator("#accounts").boundingBox())!;
      assert.ok(accounts.y + accounts.height <= height, "the accounts are above the fold");
      assert.deepEqual(await faultsOnPhone(page), [0]);
      await picture(page, `login-${width}`);
      await signIn(page, "mika", "beacon");
      await status(page, "live");
      await send(page, `From a screen of ${width} px`);
      await news(page, `From a screen of ${width} px`).waitFor();
      assert.ok((await page.locator(".wire").boundingBox())!.y < (await page.locator(".people").boundingBox())!.y);
      assert.deepEqual(await faultsOnPhone(page), [0]);
      await picture(page, `phone-${width}`);
    });
  }

  test("axe finds nothing wrong, in light and dark, on a desk and on a phone", { timeout: 300_000 }, async () => {
    const page = await open();
    await signIn(page, "lena", "wrong");
    await error(page, "AUTH_FAILED").waitFor();
    assert.deepEqual(await findViolations(page), []);
    await signIn(page, "lena", "ember");
    await status(page, "live");
    await send(page, "Is anybody there?");
    assert.deepEqual(await findViolations(page), []);
    await goTo(page, "Harbour");
    await send(page, "I am at the quay");
    await page.getByRole("button", { name: "Go offline" }).click();
    await page.locator("#status-text").filter({ hasText: "You are offline" }).waitFor();
    assert.deepEqual(await findViolations(page), []);
    await page.getByRole("button", { name: "Go online" }).click();
    await status(page, "live");
    await goTo(page, "Night desk");
    await error(page, "FORBIDDEN").waitFor();
    assert.deepEqual(await findViolations(page), []);
  });

  test("a room that is not for a reader says so, and takes nothing from them", async () => {
    const lena = await openAs("lena", "ember");
    await goTo(lena, "Night desk");
    await error(lena, "FORBIDDEN").waitFor();
    assert.equal(await lena.getByRole("button", { name: "Send" }).isDisabled(), true);
    assert.equal(await lena.locator("#people li").count(), 0);
    await picture(lena, "forbidden-room");
    await goTo(lena, "The wire");
    assert.equal(await lena.getByRole("button", { name: "Send" }).isDisabled(), false);
  });

  test("the page shows the server's error and keeps the text when a message is refused", async () => {
    const lena = await openAs("lena", "ember");
    await lena.getByLabel("To", { exact: true }).selectOption({ label: "Everybody" });
    await lena.getByLabel("Message").fill("Does anybody hear me?");
    await lena.getByLabel("Message").press("Enter");
    await error(lena, "FORBIDDEN").waitFor();
    await picture(lena, "refused");
    assert.equal(await lena.getByLabel("Message").inputValue(), "Does anybody hear me?");

    await lena.getByLabel("To", { exact: true }).selectOption({ label: "Editors" });
    await lena.getByLabel("Message").fill("a".repeat(501));
    await lena.getByRole("button", { name: "Send" }).click();
    await error(lena, "INVALID_PAYLOAD").waitFor();
  });

  test("the page comes back by itself when the server was away, and asks anew for a token it no longer takes", async () => {
    const [mika, noor] = await Promise.all([openAs("mika", "beacon"), openAs("noor", "kindling")]);
    await send(mika, "Before the silence");
    await news(noor, "Before the silence").waitFor();
    const port = Number(new URL(demo.url).port);

    assert.equal(await demo.stop(), 0);
    await Promise.all([status(mika, "waiting"), status(noor, "waiting")]);
    assert.equal(await mika.getByRole("button", { name: "Send" }).isDisabled(), true);
    await picture(mika, "lost");

    demo = await start("node", { port });
    await Promise.all([status(mika, "live"), status(noor, "live")]);
    await send(mika, "After the silence");
    await news(noor, "After the silence").waitFor();
    assert.equal(await news(noor, "Before the silence").count(), 1);

    await demo.stop();
    demo = await start("node", { port, secret: "another secret of the test, as long" });
    await error(noor, "AUTH_FAILED").waitFor();
    assert.equal(await noor.locator("#newsroom").isVisible(), false);
    assert.equal(await noor.locator("#news li").count(), 0);
  });
});
