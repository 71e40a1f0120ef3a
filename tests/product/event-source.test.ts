/** `channelsHttp` and the `EventSource` of browsers: when they come back, and when they stay away. */
import assert from "node:assert/strict";
import { describe, it, type TestContext } from "node:test";
import { Hono } from "hono";
import { WebSocketController } from "../../mod.ts";
import { Channels } from "../../src/channels/channels.ts";
import { channelsHttp } from "../../src/http/http.ts";
import { serve } from "../../src/serve/serve.ts";
import { launchBrowser, noBrowser } from "../support/browser.ts";
import { Firefox, noFirefox } from "../support/firefox.ts";

const elsewhere = "Bun" in globalThis || "Deno" in globalThis ? "the browser is driven from Node" : false;

/** What the page does; the tests look at what it writes down. */
const PAGE = `<!doctype html><title>EventSource</title><script type="module">
const watch = (path) => {
  const source = new EventSource(path);
  const seen = { source, log: [] };
  for (const name of ["init", "say", "close"]) source.addEventListener(name, ({ data }) => seen.log.push(name + " " + data));
  return seen;
};
window.room = watch("/channels/room:1?access_token=ann");
window.secret = watch("/channels/secret?access_token=ann");
</script>`;

/** A page in a browser. */
interface Driven {
  goto(url: string): Promise<unknown>;
  /** Resolves when the expression is true in the page. */
  until(expression: string): Promise<unknown>;
  /** Resolves with the value of the expression, a text. */
  read(expression: string): Promise<string>;
}

const BROWSERS: Record<string, { skip: string | false; launch(t: TestContext): Promise<Driven> }> = {
  Chromium: {
    skip: noBrowser,
    async launch(t) {
      const browser = await launchBrowser();
      t.after(() => browser.close());
      const page = await browser.newPage();
      return {
        goto: (url) => page.goto(url),
        until: (expression) => page.waitForFunction(expression),
        read: (expression) => page.evaluate(expression),
      };
    },
  },
  Firefox: {
    skip: noFirefox,
    async launch(t) {
      const firefox = await Firefox.launch();
      t.after(() => firefox.close());
      return {
        goto: (url) => firefox.goto(url),
        until: (expression) => firefox.until(expression),
        read: async (expression) => String(await firefox.evaluate(`() => ${expression}`)),
      };
    },
  },
};

// A browser waits for seconds before it comes back.
describe("EventSource", { concurrency: true }, () => {
  for (const [name, { skip, launch }] of Object.entries(BROWSERS)) {
    describe(`of ${name}`, { skip: elsewhere || skip, timeout: 300_000 }, () => {
      it("comes back from a server that is not ready and misses nothing, and stays away where it may not subscribe", async (t) => {
        let isDown = false;
        const controller = new WebSocketController({
          logger: false,
          authenticate: () => {
            if (isDown) throw new Error("The directory does not answer");
            return { accountability: { user: "ann", role: null } };
          },
        });
        controller.on("error", () => {}); // It says that.
        const channels = new Channels(controller, {
          "room:*": { authorize: () => true, history: { size: 100, ttl: 600_000 } },
          secret: { authorize: () => false },
        });
        const app = new Hono();
        app.get("/page", (c) => c.html(PAGE));
        app.route("/channels", channelsHttp(channels));
        const server = await serve(app, { port: 0, hostname: "127.0.0.1", onListen: false, handleSignals: false });
        t.after(async () => {
          await server.close();
          await controller.close();
        });
        const page = await launch(t);
        await page.goto(`${server.url}page`);
        await page.until(`window.secret?.source.readyState === EventSource.CLOSED && window.room.log.at(-1)?.startsWith("init")`);
        await channels.publish("room:1", "say", "before");
        await page.until(`window.room.log.includes('say "before"')`);

        isDown = true;
        await controller.disconnect({ user: "ann" }, 1013, "Restarting");
        await page.until(`window.room.log.at(-1) === 'close {"code":1013,"reason":"Authentication is unavailable"}'`);
        await channels.publish("room:1", "say", "meanwhile");
        isDown = false;
        await page.until(`window.room.log.includes('say "meanwhile"')`);
        const log = JSON.parse(await page.read(`JSON.stringify(window.room.log)`)) as string[]; // As the page keeps it.
        assert.equal(log.filter((line) => line === 'say "before"').length, 1);
        assert.equal(log.findLast((line) => line.startsWith("init")), 'init {"recovered":true}');
        assert.deepEqual(JSON.parse(await page.read(`JSON.stringify(window.secret.log)`)), []);
      });
    });
  }
});
