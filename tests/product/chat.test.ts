/**
 * examples/chat, the project of the tutorial: alone, as two nodes at Redis, and behind the nginx of its configuration.
 *
 * Replaced in the configuration: the ports, and where the certificate is.
 */
import assert from "node:assert/strict";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { request } from "node:https";
import { dirname, join } from "node:path";
import { after, afterEach, before, describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import type { Browser, BrowserContextOptions, Page } from "playwright-core";
import { WebSocket } from "ws";
import { type Client, createClient } from "../../src/client/client.ts";
import { Nginx } from "../runtimes/nginx.ts";
import { findViolations } from "../support/axe.ts";
import { launchBrowser, noBrowser } from "../support/browser.ts";
import { BrokerProcess, freePort, lacks } from "../support/brokers.ts";
import { ChatNode, ChatProject, logIn, PASSWORD } from "../support/chat-project.ts";
import { PATIENT } from "../support/patient.ts";
import { inTime, until } from "../support/waiting.ts";

const root = join(dirname(fileURLToPath(import.meta.url)), "../..");

/** Bun and Deno run it in the test of the tutorial. */
const elsewhere = "Bun" in globalThis || "Deno" in globalThis ? "the chat is tested from Node" : false;

/** As `ws`, and takes the certificate of the test for good. */
class TestSocket extends WebSocket {
  constructor(url: string, protocols: string[]) {
    super(url, protocols, { rejectUnauthorized: false });
  }
}

/** A message, as the contract of the chat has it. */
interface Said {
  text: string;
}

/** Somebody in the garden, with all that is heard there. */
class Listener {
  readonly heard: string[] = [];
  present = "";
  gaps = 0;
  readonly client: Client;
  #wake = () => {};

  constructor(url: string, token: string | undefined) {
    const client = this.client = createClient(`${url}/websocket`, {
      token,
      tokenIn: "protocol",
      backoff: { base: 100, cap: 1_000 },
      ...PATIENT,
      WebSocket: TestSocket as unknown as typeof globalThis.WebSocket, // As far as the client uses one.
    });
    client.subscribe("room:garden", {
      onInit: ({ data }) => {
        for (const { text } of data as Said[]) if (!this.heard.includes(text)) this.heard.push(text);
        this.#wake();
      },
      onEvent: ({ data }) => {
        this.heard.push((data as Said).text);
        this.#wake();
      },
      onGap: () => this.gaps++,
      onPresence: ({ present }) => {
        this.present = present.map(({ user }) => user).sort().join(" ");
        this.#wake();
      },
    });
  }

  say(text: string): Promise<unknown> {
    return this.client.request("say", { room: "garden", text });
  }

  /** Resolves when it is so, after anything that was heard. */
  async until(isSo: (listener: Listener) => boolean): Promise<void> {
    const so = async () => {
      while (!isSo(this)) await new Promise<void>((resolve) => this.#wake = resolve);
    };
    await inTime(isSo, () => {
      const { heard, present, gaps, client: { status } } = this;
      return { status, heard, present, gaps };
    }, so());
  }
}

describe("examples/chat", { skip: elsewhere }, () => {
  const project = new ChatProject();
  before(() => project.make("ann", "ben"), { timeout: 300_000 });
  after(() => project.remove());

  test("lets two clients that have logged in talk, and nobody else", { timeout: 300_000 }, async (t) => {
    const node = await ChatNode.start(project, {});
    t.after(() => node.stop());
    const [ann, ben] = [await logIn(node.url, "ann"), await logIn(node.url, "ben")];
    assert.match(ann.cookie, /; HttpOnly/);
    assert.match(ann.cookie, /; SameSite=Strict/);
    for (const [user, password] of [["ann", "a guess"], ["nobody", PASSWORD]] as const) {
      assert.equal((await logIn(node.url, user, password)).token, undefined);
    }
    const refused = createClient(`${node.url}/websocket`, { reconnect: false, WebSocket: TestSocket as never }); // As above.
    await assert.rejects(refused.ready);

    const [first, second] = [new Listener(node.url, ann.token), new Listener(node.url, ben.token)];
    t.after(() => Promise.all([first.client.close(), second.client.close()]));
    await Promise.all([first, second].map((listener) => listener.until(({ present }) => present === "ann ben")));
    await first.say("Is it raining?");
    await second.until(({ heard }) => heard.includes("Is it raining?"));

    // A log-out ends the connections of the user, and no other.
    const closed = new Promise((resolve) => first.client.on("status", ({ status }) => status === "closed" && resolve(status)));
    const headers = { "content-type": "application/json", cookie: `session=${ann.token}` };
    assert.equal((await fetch(`${node.url}/logout`, { method: "POST", headers, body: "{}" })).status, 200);
    await closed;
    await second.until(({ present }) => present === "ben");
  });

  describe("as two nodes behind nginx", { skip: lacks("nginx") || lacks("redis-server") || lacks("openssl") }, () => {
    const nginx = new Nginx();
    const nodes: ChatNode[] = [];
    let redis: BrokerProcess;
    let env: Record<string, string>;
    let ports: { http: number; https: number };
    let url: string;
    let browser: Browser | undefined;

    before(async () => {
      redis = await BrokerProcess.redis();
      env = {
        NODE_ENV: "production",
        PROXIES: "1",
        REDIS_URL: `redis://127.0.0.1:${redis.port}`,
        SECRET: "a secret of the sessions of the test",
        NODE_SECRET: "a secret of the nodes of the test",
      };
      nodes.push(await ChatNode.start(project, env), await ChatNode.start(project, env));
      ports = { http: await freePort(), https: await freePort() };
      url = `https://127.0.0.1:${ports.https}`;
      nginx.createCertificate("chat.example.com");
      await nginx.start(configuration());
      if (!noBrowser) {
        browser = await launchBrowser();
      }
    }, { timeout: 300_000 });
    after(async () => {
      await browser?.close();
      await Promise.all(nodes.map((node) => node.stop()));
      await nginx.stop();
      await redis.close();
    });

    /** The file of the tutorial. */
    function configuration(): string {
      const replaced = [
        ["listen 80;", `listen 127.0.0.1:${ports.http};`],
        ["listen 443 ssl;", `listen 127.0.0.1:${ports.https} ssl;`],
        ["/etc/letsencrypt/live/chat.example.com/fullchain.pem", "certificate.pem"],
        ["/etc/letsencrypt/live/chat.example.com/privkey.pem", "key.pem"],
        ["127.0.0.1:3001", `127.0.0.1:${nodes[0]!.port}`],
        ["127.0.0.1:3002", `127.0.0.1:${nodes[1]!.port}`],
      ] as const;
      return replaced.reduce((text, [from, to]) => {
        assert.ok(text.includes(from), `deploy/nginx.conf has no ${from}`);
        return text.replace(from, to);
      }, readFileSync(join(root, "examples/chat/deploy/nginx.conf"), "utf8"));
    }

    /** Starts a node that was killed, where nginx looks for it. */
    async function restart(index: number): Promise<void> {
      nodes[index] = await ChatNode.start(project, { ...env, PORT: `${nodes[index]!.port}` });
    }

    test("loses, doubles and reorders nothing when a node is killed", { timeout: 300_000 }, async (t) => {
      const [ann, ben] = [await logIn(nodes[0]!.url, "ann"), await logIn(nodes[1]!.url, "ben")];
      // One client of each user at each node, and one of each through nginx.
      const through = [new Listener(url, ann.token), new Listener(url, ben.token)];
      const [speaker, ...others] = [new Listener(nodes[1]!.url, ann.token), ...through];
      const listeners = [speaker!, ...others];
      t.after(() => Promise.all(listeners.map(({ client }) => client.close())));
      await Promise.all(listeners.map((listener) => listener.until(({ present }) => present === "ann ben")));

      const said: string[] = [];
      for (let count = 1; count <= 20; count++) {
        const text = `Message ${count}`;
        await speaker!.say(text);
        said.push(text);
        if (count === 7) await nodes[0]!.stop("SIGKILL");
      }
      await Promise.all(listeners.map((listener) => listener.until(({ heard }) => heard.includes("Message 20"))));
      for (const { heard, gaps } of listeners) assert.deepEqual([heard, gaps], [said, 0]);
      await restart(0);
    });

    test("sends a page to HTTPS, and its cookie over nothing else", async () => {
      const plain = await fetch(`http://127.0.0.1:${ports.http}/`, { redirect: "manual" });
      assert.deepEqual([plain.status, plain.headers.get("location")], [301, "https://127.0.0.1/"]);
      assert.match((await logIn(nodes[0]!.url, "ann")).cookie, /; Secure/);
    });

    describe("in a browser", { skip: noBrowser }, () => {
      const faults: string[] = [];
      const pages: Page[] = [];
      afterEach(async () => {
        await Promise.all(pages.splice(0).map((page) => page.context().close()));
        assert.deepEqual(faults.splice(0), []);
      });

      async function openAs(user: string, options: BrowserContextOptions = {}): Promise<Page> {
        const context = await browser!.newContext({ ignoreHTTPSErrors: true, reducedMotion: "reduce", ...options }); // There is one: see skip.
        const { token } = await logIn(nodes[0]!.url, user);
        // As a login through nginx would set it. How many there may be is tested below.
        await context.addCookies([{ name: "session", value: token!, url, httpOnly: true, secure: true, sameSite: "Strict" }]);
        const page = await context.newPage();
        pages.push(page);
        page.on("pageerror", (error) => faults.push(String(error)));
        page.on("console", (message) => {
          if (/content security policy/i.test(message.text())) faults.push(message.text());
        });
        await page.goto(`${url}/#garden`);
        await status(page, "open");
        return page;
      }

      const status = (page: Page, status: string) => page.locator(`body[data-status="${status}"]`).waitFor();
      const message = (page: Page, text: string) => page.locator("#messages li").filter({ hasText: text });
      const person = (page: Page, user: string) => page.locator("#people li").filter({ hasText: user });

      async function say(page: Page, text: string): Promise<void> {
        await page.getByLabel("Message").fill(text);
        await page.getByRole("button", { name: "Send" }).click();
        await message(page, text).waitFor();
      }

      test("logs in, shows what is said as text, and logs out", async () => {
        const context = await browser!.newContext({ ignoreHTTPSErrors: true });
        const page = await context.newPage();
        pages.push(page);
        await page.goto(`${url}/#kitchen`);
        await page.getByLabel("Name").fill("ben");
        await page.getByLabel("Password").fill("a guess");
        await page.getByRole("button", { name: "Log in" }).click();
        await page.getByRole("alert").filter({ hasText: "Wrong name or password" }).waitFor();
        await page.getByLabel("Password").fill(PASSWORD);
        await page.getByRole("button", { name: "Log in" }).click();
        await status(page, "open");
        const text = `<img src="x" onerror="document.title = 'taken'"> is text`;
        await say(page, text);
        assert.equal(await page.locator("#messages img").count(), 0);
        await page.getByRole("link", { name: "Lobby" }).click();
        await person(page, "ben").waitFor();
        assert.equal(await message(page, text).count(), 0);
        await page.getByRole("button", { name: "Log out" }).click();
        await page.getByLabel("Password").waitFor();
        await page.reload();
        await page.getByLabel("Password").waitFor();
      });

      test("says that the user is logged out when the browser has no cookie any more, and not before", async () => {
        const page = await openAs("ann");
        await page.route("**/logout", async (route) => {
          const answer = await route.fetch();
          await status(page, "closed"); // The server closes the connection before it answers.
          assert.equal(await page.locator("body").getAttribute("data-view"), "chat");
          await route.fulfill({ response: answer });
        });
        await page.getByRole("button", { name: "Log out" }).click();
        await page.getByLabel("Password").waitFor();
        assert.deepEqual(await page.context().cookies(), []);
      });

      test("says when a log-out has failed", async () => {
        const page = await openAs("ann");
        await page.route("**/logout", (route) => route.fulfill({ status: 502, body: "" }));
        await page.getByRole("button", { name: "Log out" }).click();
        await page.getByRole("alert").filter({ hasText: "You are still logged in" }).waitFor();
        await say(page, "Still here");
      });

      test("says once what is sent again, because its answer was lost with the connection", async () => {
        const page = await openAs("ann");
        let isLost = false;
        await page.routeWebSocket("**/websocket", (socket) => {
          const server = socket.connectToServer();
          server.onMessage(async (text) => {
            if (isLost || !/"type":"say"/.test(String(text))) return socket.send(text);
            isLost = true;
            await Promise.all([socket.close({ code: 4000 }), server.close()]);
          });
        });
        await page.reload();
        await status(page, "open");
        const send = page.getByRole("button", { name: "Send" });
        await page.getByLabel("Message").fill("Once");
        await send.click();
        await page.locator("#error").filter({ hasText: "may have been handled" }).waitFor();
        await status(page, "open");
        await send.click(); // The page has put the text back.
        await say(page, "Said later");
        const texts = await page.locator("#messages .text").allTextContents();
        assert.deepEqual(texts.filter((text) => /Once|Said later/.test(text)), ["Once", "Said later"]);
      });

      test("goes on at the other node when its own is killed, with what was said meanwhile", { timeout: 300_000 }, async () => {
        const [ann, ben] = [await openAs("ann"), await openAs("ben")];
        await Promise.all([person(ann, "ben").waitFor(), person(ben, "ann").waitFor()]);
        await say(ann, "Before");
        await message(ben, "Before").waitFor();
        const listener = new Listener(nodes[1]!.url, (await logIn(nodes[1]!.url, "ann")).token);
        await listener.client.ready;
        await nodes[0]!.stop("SIGKILL");
        await listener.say("Meanwhile");
        await Promise.all([message(ann, "Meanwhile").waitFor(), message(ben, "Meanwhile").waitFor()]);
        await Promise.all([status(ann, "open"), status(ben, "open")]);
        await say(ben, "After");
        await message(ann, "After").waitFor();
        const texts = await ann.locator("#messages .text").allTextContents();
        assert.deepEqual(texts.slice(-3), ["Before", "Meanwhile", "After"]);
        await listener.client.close();
        await restart(0);
      });

      test("fits a phone of 360 px, where a finger hits everything", async () => {
        const page = await openAs("ann", { viewport: { width: 360, height: 740 } });
        await say(page, `A long word: ${"a".repeat(80)}`);
        const faultsOnPhone = await page.evaluate(() => {
          const shown = [...document.querySelectorAll("a, button, input")].filter((each) => each.checkVisibility());
          const small = shown.filter((each) => {
            const { width, height } = each.getBoundingClientRect();
            return width < 44 || height < 44;
          });
          return [...small.map((each) => each.outerHTML), document.documentElement.scrollWidth - innerWidth];
        });
        assert.deepEqual(faultsOnPhone, [0]);
      });

      test("has nothing that axe finds wrong, in light and dark, on a desk and on a phone", { timeout: 300_000 }, async () => {
        const page = await openAs("ann");
        await say(page, "The kettle is on");
        await person(page, "ann").waitFor();
        assert.deepEqual(await findViolations(page), []);
        await page.getByRole("button", { name: "Log out" }).click();
        await page.getByLabel("Password").waitFor();
        assert.deepEqual(await findViolations(page), []);
      });
    });

    test("slows down who guesses passwords", async () => {
      const guess = async () => {
        const sent = request(`${url}/login`, {
          method: "POST",
          headers: { "content-type": "application/json" },
          rejectUnauthorized: false,
        });
        sent.end(JSON.stringify({ user: "ann", password: "a guess" }));
        const [response] = await once(sent, "response");
        response.resume();
        return response.statusCode as number; // Of an IncomingMessage.
      };
      const statuses: number[] = [];
      // A machine that stands still may spread the guesses over minutes, in which some are allowed again.
      await until(async () => {
        statuses.push(...await Promise.all(Array.from({ length: 12 }, guess)));
        return statuses.includes(429);
      }, () => statuses);
      assert.ok(statuses.every((status) => status === 401 || status === 429), statuses.join());
    });
  });
});
