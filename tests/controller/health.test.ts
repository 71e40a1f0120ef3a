import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { Hono } from "hono";
import { WebSocketController } from "../../src/controller/controller.ts";
import { health } from "../../src/controller/health.ts";
import type { EngineStatus } from "../../src/engines/engine.ts";
import { MemoryEngine } from "../../src/engines/memory-engine.ts";

/** An app with both probes of controllers whose engines have these states. */
function create(...states: EngineStatus[]) {
  const controllers = states.map((status) => {
    const engine = new MemoryEngine();
    engine.status = status;
    return new WebSocketController({ engine, logger: false });
  });
  const { live, ready } = health(...controllers);
  const app = new Hono().get("/live", live).get("/ready", ready);
  const ask = async (path: string) => {
    const response = await app.request(path);
    assert.equal(response.headers.get("cache-control"), "no-store");
    return [response.status, await response.json()];
  };
  return { controllers, ask };
}

describe("health", () => {
  it("is ready while the controller runs and its engine is ready, and live in any case", async () => {
    const cases: [states: EngineStatus[], status: number, text: string][] = [
      [["ready"], 200, "ready"],
      [["connecting"], 503, "engine connecting"],
      [["unavailable"], 503, "engine unavailable"],
      [["ready", "ready"], 200, "ready"],
      [["ready", "unavailable"], 503, "engine unavailable"],
    ];
    for (const [states, code, status] of cases) {
      const { ask } = create(...states);
      assert.deepEqual(await ask("/ready"), [code, { status }]);
      assert.deepEqual(await ask("/live"), [200, { status: "live" }]);
    }
  });

  it("is not ready while the controller drains and when it is closed, and live all the same", async () => {
    const { controllers: [controller], ask } = create("ready");
    let release = () => {};
    const drained = controller!.drain({ stop: () => new Promise<void>((resolve) => release = resolve) });
    assert.deepEqual(await ask("/ready"), [503, { status: "draining" }]);
    assert.deepEqual(await ask("/live"), [200, { status: "live" }]);
    release();
    await drained;
    assert.deepEqual(await ask("/ready"), [503, { status: "closed" }]);
    assert.deepEqual(await ask("/live"), [200, { status: "live" }]);
  });

  it("throws TypeError without a controller", () => {
    for (const given of [[], [undefined], [{}], [null], [{ status: "running" }]]) {
      assert.throws(() => health(...given as never[]), {
        name: "TypeError",
        message: "Cannot create the probes: pass the controller, such as health(controller)",
      });
    }
  });
});
