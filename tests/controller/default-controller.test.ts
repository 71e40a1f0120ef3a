/** The part of `src/controller/controller.ts` that installs a default, for `new WebSocketService()` to find. */
import assert from "node:assert/strict";
import { afterEach, describe, it } from "node:test";
import { WebSocketController } from "../../src/controller/controller.ts";
import { createWebSocketController, getWebSocketController } from "../../src/controller/default-controller.ts";
import { WebSocketError } from "../../src/protocol/errors.ts";
import { WebSocketService } from "../../src/controller/service.ts";
import { open } from "../support/fake-transport.ts";

describe("createWebSocketController", () => {
  afterEach(async () => {
    try {
      await getWebSocketController().close();
    } catch (error) {
      if (!(error instanceof WebSocketError)) throw error; // None is installed.
    }
  });

  it("makes the controller that getWebSocketController and new WebSocketService find", () => {
    const controller = createWebSocketController({ logger: false });
    assert.ok(controller instanceof WebSocketController);
    assert.equal(getWebSocketController(), controller);
    const { client, connection } = open(controller);
    assert.deepEqual([...new WebSocketService().clients()], [client]);
    connection.closed(1000, "", true);
  });

  it("throws TypeError with the remedy when one is installed, which stays", () => {
    const controller = createWebSocketController();
    assert.throws(() => createWebSocketController(), {
      name: "TypeError",
      message:
        "Cannot create the controller: one is installed already, close() it first or make another with new WebSocketController()",
    });
    assert.equal(getWebSocketController(), controller);
  });

  it("installs nothing when the options are bad", () => {
    assert.throws(() => createWebSocketController({ timeout: 0 }), TypeError);
    assert.throws(() => getWebSocketController(), WebSocketError);
  });

  it("may be called again once the one before was closed", async () => {
    await createWebSocketController().close();
    const second = createWebSocketController();
    assert.equal(getWebSocketController(), second);
  });

  it("is not found in a controller that was made with new, whose close uninstalls nothing", async () => {
    const other = new WebSocketController();
    assert.throws(() => getWebSocketController(), WebSocketError);
    const controller = createWebSocketController();
    await other.close();
    assert.equal(getWebSocketController(), controller);
  });
});

describe("getWebSocketController", () => {
  it("throws SERVICE_UNAVAILABLE naming both remedies when there is none", () => {
    for (const get of [getWebSocketController, () => new WebSocketService()]) {
      assert.throws(get, (error) => {
        assert.ok(error instanceof WebSocketError);
        assert.deepEqual([error.type, error.code], ["server", "SERVICE_UNAVAILABLE"]);
        assert.match(
          error.message,
          /call createWebSocketController\(\) first, or pass one to new WebSocketService\(controller\)/,
        );
        return true;
      });
    }
  });
});
