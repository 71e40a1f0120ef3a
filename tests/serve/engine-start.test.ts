/** The engine starts with the server, and the first clients wait for it. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer } from "node:http";
import { describe, it } from "node:test";
import { Hono } from "hono";
import { WebSocketController } from "../../src/controller/controller.ts";
import { serve } from "../../src/serve/serve.ts";
import { freePort } from "../support/brokers.ts";
import { CountedEngine } from "../support/counted-engine.ts";

/** An engine that connects nodes, and counts its starts and ends. */
class SharedEngine extends CountedEngine {
  override readonly isAlone = false as never; // As one over a broker.
  starts = 0;

  override start(...args: Parameters<CountedEngine["start"]>): void {
    this.starts++;
    super.start(...args);
  }
}

function create() {
  const engine = new SharedEngine();
  const controller = new WebSocketController({ engine, logger: false });
  return { engine, controller };
}

describe("The engine", () => {
  it("starts when serve listens, for each controller whose route the app has", async () => {
    const [one, two, other] = [create(), create(), create()];
    const app = new Hono();
    const sub = new Hono();
    sub.onError((_, c) => c.text("of the sub-app", 500));
    sub.get("/two", two.controller.upgrade);
    app.get("/one", one.controller.upgrade).get("/again", one.controller.upgrade).route("/sub", sub);
    assert.deepEqual([one, two, other].map(({ engine }) => engine.starts), [0, 0, 0]);
    const server = await serve(app, { port: 0, hostname: "127.0.0.1", onListen: false });
    assert.deepEqual([one, two, other].map(({ engine }) => engine.starts), [1, 1, 0]);
    await server.close();
  });

  it("leaves the address free when it cannot start because it belongs to another controller", async () => {
    const { engine, controller } = create();
    controller.start();
    const app = new Hono();
    app.get("/", new WebSocketController({ engine, logger: false }).upgrade);
    const options = { port: await freePort(), hostname: "127.0.0.1", onListen: false } as const;
    await assert.rejects(serve(app, options), /another controller/);
    await (await serve(new Hono(), options)).close();
    await controller.close();
  });

  it("starts once when start is called repeatedly", async () => {
    const { engine, controller } = create();
    controller.start();
    controller.start();
    void controller.engine;
    assert.equal(engine.starts, 1);
    const alone = new WebSocketController({ logger: false });
    alone.start();
    await alone.close();
  });

  it("is closed once when it first starts while its controller closes, or later", async () => {
    for (const turns of [0, 1, 2, 3, 4, 5, Infinity]) {
      const { engine, controller } = create();
      const closed = controller.close();
      if (turns === Infinity) await closed;
      else for (let n = 0; n < turns; n++) await undefined;
      controller.start();
      await closed;
      assert.deepEqual([engine.starts, engine.closes], [1, 1], `after ${turns} turns`);
    }
  });

  const skip = "Bun" in globalThis && "Bun serves WebSockets without an http.Server";
  it("starts when a server with an attached app listens, or at once if it listens already", { skip }, async () => {
    const { attachWebSocket } = await import("../../src/runtimes/node.ts");
    for (const isEarly of [true, false]) {
      const { engine, controller } = create();
      const app = new Hono().get("/", controller.upgrade);
      const server = createServer();
      if (isEarly) attachWebSocket(server, app);
      assert.equal(engine.starts, 0);
      server.listen(0, "127.0.0.1");
      await once(server, "listening");
      if (!isEarly) attachWebSocket(server, app);
      assert.equal(engine.starts, 1);
      server.close();
      await once(server, "close");
    }
  });
});
