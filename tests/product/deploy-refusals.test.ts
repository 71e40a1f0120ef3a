/** The proxies of `examples/deploy/` in front of nodes that answer upgrades with 503. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { request } from "node:https";
import process from "node:process";
import { after, before, describe, it } from "node:test";
import { Hono } from "hono";
import { WebSocket } from "ws";
import { WebSocketController } from "../../src/controller/controller.ts";
import { health } from "../../src/controller/health.ts";
import { type RunningServer, serve } from "../../src/serve/serve.ts";
import { lacks } from "../support/brokers.ts";
import { type Front, SITE, startFront, toThisMachine } from "./front.ts";

const elsewhere = process.platform === "win32" && "the proxies need POSIX";

for (const proxy of ["nginx", "Caddy"] as const) {
  const skip = elsewhere || lacks(proxy.toLowerCase()) || (proxy === "nginx" && lacks("openssl"));

  describe(`${proxy}, in front of nodes that refuse upgrades`, { skip }, () => {
    const servers: RunningServer[] = [];
    let away = 3;
    let front: Front;

    before(async () => {
      for (let number = 0; number < 3; number++) {
        const controller = new WebSocketController({
          clientIp: 1,
          logger: false,
          authenticate: () => {
            if (number < away) throw new Error("The database is away");
            return { accountability: { user: "ann", role: null } };
          },
        });
        controller.on("error", () => {}); // The test causes them.
        const app = new Hono().get("/websocket", controller.upgrade).get("/ready", health(controller).ready);
        app.get("/", (c) => c.text("the site"));
        servers.push(await serve(app, { port: 0, hostname: "127.0.0.1", onListen: false, handleSignals: false }));
      }
      // Without time to try again, a page fails at once where no node is left.
      front = await startFront(proxy, servers.map(({ port }) => port), (text) => text.replace(/lb_try_duration \w+/, ""));
    });
    after(async () => {
      await front?.stop();
      for (const server of servers) await server.close();
    });

    /** Resolves with the status of an upgrade. */
    const upgrade = async (): Promise<number | undefined> => {
      const { port, certificate: ca } = front;
      const options = { ca, lookup: toThisMachine, origin: `https://${SITE}:${port}` };
      // Its types do not know the options of `https.request`.
      const socket = new WebSocket(`wss://${SITE}:${port}/websocket?access_token=x`, options as object);
      const status = await new Promise<number | undefined>((resolve, reject) => {
        socket.on("upgrade", ({ statusCode }) => resolve(statusCode));
        socket.on("unexpected-response", (_request, { statusCode }) => resolve(statusCode));
        socket.on("error", reject);
      });
      socket.terminate();
      return status;
    };

    const getPage = async (): Promise<number> => {
      const { port, certificate: ca } = front;
      const asked = request(`https://${SITE}:${port}/`, { ca, lookup: toThisMachine, agent: false }).end();
      const [response] = await once(asked, "response");
      response.resume();
      return response.statusCode;
    };

    it("serves the pages all the same", { timeout: 300_000 }, async () => {
      for (let count = 0; count < 6; count++) {
        assert.equal(await upgrade(), 503);
        for (const _ of servers) assert.equal(await getPage(), 200);
      }
    });

    if (proxy === "Caddy") return; // It passes the refusal on.
    it("passes an upgrade to a node that takes it", { timeout: 300_000 }, async () => {
      away = 2;
      for (let count = 0; count < 6; count++) assert.equal(await upgrade(), 101);
    });
  });
}
