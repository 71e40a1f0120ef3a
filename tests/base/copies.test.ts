/** Two copies of the package in one process: from a dependency, from a bundler, or after a module is loaded again. */
import assert from "node:assert/strict";
import { after, afterEach, describe, it } from "node:test";
import * as v from "valibot";
import { describeCopies } from "../../src/base/copies.ts";
import { Channels } from "../../src/channels/channels.ts";
import { ClientError } from "../../src/client/error.ts";
import { WebSocketController } from "../../src/controller/controller.ts";
import { createWebSocketController, getWebSocketController } from "../../src/controller/default-controller.ts";
import { WebSocketError } from "../../src/protocol/errors.ts";
import { MemoryEngine } from "../../src/engines/memory-engine.ts";
import { WebSocketService } from "../../src/controller/service.ts";
import { createChannels } from "../support/channels-fixture.ts";
import { createRoute } from "../support/fake-runtime.ts";
import { open } from "../support/fake-transport.ts";
import { observe } from "../support/observed.ts";
import { copyPackage } from "../support/second-copy.ts";
import { turn } from "../support/waiting.ts";

const copy = copyPackage();
const other = await copy.load<typeof import("../../mod.ts")>("mod.ts");
after(() => copy.remove());

const any = v.looseObject({});

const copies = (globalThis as unknown as Record<symbol, Map<string, number>>)[Symbol.for("noroshi.copies")]!; // By src/base/copies.ts.

/** An error of the other copy, and the frame that the client must receive. */
const full = () => new other.WebSocketError("join", "FULL", "The room is full", { details: { seats: 0 } });
const shown = { code: "FULL", message: "The room is full", seats: 0 };

describe("A WebSocketError of another copy", () => {
  it("is sent unchanged when a handler or a middleware throws or rejects with it", async () => {
    const { controller, takeNames } = observe({});
    controller.use(({ message }, next) => {
      if (message["early"]) throw full();
      return next();
    });
    controller.handle("throws", any, () => {
      throw full();
    });
    controller.handle("rejects", any, () => Promise.reject(full()));
    const { connection, transport } = open(controller);
    for (const message of [{ type: "throws" }, { type: "rejects" }, { type: "any", early: true }]) {
      connection.message(JSON.stringify({ ...message, uid: 3 }));
      await turn();
      assert.deepEqual(transport.take(), [{ type: "join", status: "error", error: shown, uid: 3 }]);
    }
    assert.equal(takeNames().includes("error"), false);
  });

  it("is the response to an upgrade whose authenticate throws it, and the error of auth.failure", async () => {
    const { controller, request } = createRoute({ mode: "strict", authenticate: () => Promise.reject(full()) });
    const failures: unknown[] = [];
    controller.on("auth.failure", ({ error }) => failures.push(error));
    controller.on("error", ({ error }) => assert.fail(String(error)));
    const response = await request("/websocket", { authorization: "Bearer some-token" });
    assert.equal(response.status, 401);
    assert.deepEqual(await response.json(), { error: { code: "FULL", message: "The room is full" } });
    assert.equal(failures.length, 1);
    assert.ok(failures[0] instanceof WebSocketError);
  });

  it("is the reply to an auth message whose authenticate throws it", async () => {
    for (const mode of ["public", "handshake"] as const) {
      const { controller, takeNames } = observe({ authenticate: () => Promise.reject(full()) });
      const { connection, transport } = open(controller, { mode });
      connection.message('{"type":"auth","access_token":"some-token","uid":1}');
      await turn();
      assert.deepEqual(transport.take(), [{ type: "join", status: "error", error: shown, uid: 1 }], mode);
      assert.equal(takeNames().includes("error"), false);
    }
  });

  it("is the reply to a subscribe and a publish that authorize refuses with it", async () => {
    const { join, takeNames } = createChannels({
      room: {
        authorize: () => {
          throw full();
        },
        schema: { say: any },
      },
    });
    const peer = join("ada");
    for (
      const message of [{ type: "subscribe", channel: "room" }, { type: "publish", channel: "room", event: "say", data: {} }]
    ) {
      const [answer] = await peer.ask({ ...message, uid: 5 });
      assert.deepEqual(answer.error, shown, message.type);
    }
    assert.equal(takeNames().includes("error"), false);
  });
});

describe("A ClientError of another copy", () => {
  it("is an instance of ClientError, but not of a subclass", async () => {
    const { ClientError: Other } = await copy.load<typeof import("../../src/client/error.ts")>("src/client/error.ts");
    class Mine extends ClientError {}
    const error: unknown = new Other("TIMEOUT", "No answer");
    assert.ok(error instanceof ClientError);
    assert.equal(error instanceof Mine, false);
    assert.ok(new Mine("TIMEOUT", "No answer") instanceof Mine);
    for (const value of [null, undefined, "TIMEOUT", {}, new Error("TIMEOUT"), { name: "ClientError", code: "TIMEOUT" }]) {
      assert.equal(value as unknown instanceof ClientError, false);
    }
  });
});

describe("The default controller of another copy", () => {
  afterEach(async () => {
    for (const get of [getWebSocketController, other.getWebSocketController]) {
      try {
        await get().close();
      } catch (error) {
        if (!(error instanceof WebSocketError)) throw error; // No default controller is installed.
      }
    }
  });

  it("is not found, and the error names both copies and the remedies", () => {
    const controller = other.createWebSocketController({ logger: false });
    for (const get of [getWebSocketController, () => new WebSocketService()]) {
      assert.throws(get, (error) => {
        assert.ok(error instanceof WebSocketError);
        assert.equal(error.code, "SERVICE_UNAVAILABLE");
        assert.match(error.message, /^Cannot find the controller: call createWebSocketController\(\) first, or pass one to /);
        assert.match(error.message, /The package is loaded more than once/);
        for (const path of [new URL("../../src/", import.meta.url).href, copy.folder]) {
          assert.ok(error.message.includes(path), path);
        }
        assert.doesNotMatch(error.message, /times\)/, "each was loaded once");
        return true;
      });
    }
    assert.equal(other.getWebSocketController(), controller);
  });

  it("is listed with a count when one URL was loaded several times, as by a hot reload or a bundle with two copies", () => {
    const place = [...copies.keys()].find((url) => url.includes(copy.folder))!;
    copies.set(place, 2);
    try {
      assert.throws(() => getWebSocketController(), (error) => String(error).includes(`${place} (2 times)`));
    } finally {
      copies.set(place, 1);
    }
  });

  it("is not mentioned when there is no other copy, unless this one was loaded several times", () => {
    const theirs = [...copies].filter(([url]) => url.includes(copy.folder));
    const [ours] = [...copies.keys()].filter((url) => !url.includes(copy.folder));
    for (const [url] of theirs) copies.delete(url);
    try {
      assert.equal(describeCopies(), "");
      copies.set(ours!, 2);
      assert.match(describeCopies(), /more than once.* \(2 times\)$/);
    } finally {
      copies.set(ours!, 1);
      for (const [url, times] of theirs) copies.set(url, times);
    }
  });

  it("does not prevent a default controller of this copy", () => {
    const theirs = other.createWebSocketController({ logger: false });
    const ours = createWebSocketController({ logger: false });
    assert.equal(getWebSocketController(), ours);
    assert.equal(other.getWebSocketController() as unknown, theirs);
  });

  it("serves a WebSocketService of this copy when it is passed explicitly", () => {
    const controller = new other.WebSocketController({ logger: false }) as unknown as WebSocketController; // The same version.
    const service = new WebSocketService(controller);
    const { client, connection, transport } = open(controller);
    assert.deepEqual([...service.clients()], [client]);
    service.broadcast({ type: "news" });
    assert.deepEqual(transport.take(), [{ type: "news" }]);
    connection.closed(1000, "", true);
  });

  it("accepts an engine of this copy", async () => {
    const controller = new other.WebSocketController({ logger: false, engine: new MemoryEngine() });
    assert.equal(controller.engine.status, "ready");
    await controller.close();
  });
});

describe("Channels", () => {
  it("refuses a controller of another copy at once, and names both copies", () => {
    const controller = new other.WebSocketController({ logger: false }) as unknown as WebSocketController; // The same version.
    assert.throws(() => new Channels(controller, {}), (error) => {
      assert.ok(error instanceof TypeError);
      assert.match(error.message, /^Cannot create the channels: the controller is of another copy of the package/);
      for (const path of [new URL("../../src/", import.meta.url).href, copy.folder]) {
        assert.ok(error.message.includes(path), path);
      }
      return true;
    });
  });

  it("refuses a value that is not a controller", () => {
    for (const value of [undefined, null, {}, new WebSocketService(new WebSocketController({ logger: false }))]) {
      assert.throws(() => new Channels(value as never, {}), {
        name: "TypeError",
        message: "Cannot create the channels: pass a WebSocketController first, such as createWebSocketController()",
      });
    }
  });
});
