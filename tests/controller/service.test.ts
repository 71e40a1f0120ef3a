import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { WebSocketController } from "../../src/controller/controller.ts";
import { WebSocketService } from "../../src/controller/service.ts";
import { open } from "../support/fake-transport.ts";

function create() {
  const controller = new WebSocketController({ logger: false });
  return { controller, service: new WebSocketService(controller) };
}

const as = (user: string, role: string) => ({ identity: { accountability: { user, role } } });

describe("WebSocketService", () => {
  it("on and off add and remove one callback", () => {
    const { controller, service } = create();
    const calls: string[] = [];
    const [kept, removed] = [() => calls.push("kept"), () => calls.push("removed")];
    service.on("connect", kept);
    service.on("connect", removed);
    service.off("connect", removed);
    const { connection } = open(controller);
    service.on("message", ({ client, message }) => client.send({ type: "echo", message }));
    connection.message('{"type":"x"}');
    assert.deepEqual(calls, ["kept"]);
  });

  it("on and off throw TypeError when the event is unknown or the callback is missing", () => {
    const { service } = create();
    for (const method of ["on", "off"] as const) {
      assert.throws(() => service[method]("connected" as never, () => {}), TypeError);
      assert.throws(() => service[method]("connect", undefined as never), TypeError);
    }
  });

  it("broadcast reaches everybody, or those the filter matches", () => {
    const { controller, service } = create();
    const [ann, bob] = [open(controller, as("ann", "editor")), open(controller, as("bob", "reader"))];
    service.broadcast({ type: "all" });
    service.broadcast("to editors", { role: "editor" });
    service.broadcast("to bob", { user: "bob", role: "reader" });
    assert.deepEqual([ann.transport.sent, bob.transport.sent], [['{"type":"all"}', "to editors"], ['{"type":"all"}', "to bob"]]);
    for (const filter of [{ user: undefined }, { users: "ann" }, () => true]) {
      assert.throws(() => service.broadcast("x", filter as never), TypeError);
    }
  });

  it("clients is the live set", () => {
    const { controller, service } = create();
    const clients = service.clients();
    assert.equal(clients.size, 0);
    const { client, connection } = open(controller);
    assert.deepEqual([...clients], [client]);
    connection.closed(1000, "", true);
    assert.equal(clients.size, 0);
  });

  it("shares clients and events with every other service of its controller, and with no other controller's", () => {
    const { controller, service } = create();
    const { service: foreign } = create();
    const heard: string[] = [];
    service.on("connect", () => heard.push("first"));
    new WebSocketService(controller).on("connect", () => heard.push("second"));
    foreign.on("connect", () => heard.push("foreign"));
    const { transport } = open(controller);
    foreign.broadcast("x");
    assert.deepEqual([heard, transport.sent, foreign.clients().size], [["first", "second"], [], 0]);
  });
});
