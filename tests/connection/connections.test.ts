import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { Connections } from "../../src/connection/connections.ts";
import { open } from "../support/fake-transport.ts";
import { observe } from "../support/observed.ts";
import { turn } from "../support/waiting.ts";

/** Connections, with a list of what has resolved so far. */
function create(count: number) {
  const observed = observe({ closeTimeout: 3000 });
  const connections = new Connections();
  const opened = Array.from({ length: count }, () => open(observed.controller));
  for (const { connection } of opened) connections.add(connection);
  return { ...observed, connections, opened };
}

describe("Connections", () => {
  it("holds a connection until it is closed", () => {
    const { connections, opened } = create(2);
    assert.deepEqual([...connections], opened.map(({ connection }) => connection));
    opened[0]!.connection.closed(1000, "", true);
    assert.deepEqual([...connections], [opened[1]!.connection]);
    assert.equal(connections.size, 1);
  });

  it("holds none that was closed before it was added", () => {
    const { connections, opened } = create(1);
    const [{ connection }] = opened as [typeof opened[0]];
    connection.closed(1000, "", true);
    connections.add(connection);
    assert.equal(connections.size, 0);
  });

  it("reports each controller once, with its first request or connection", () => {
    const { connections, controller } = create(1);
    const reached: object[] = [];
    connections.onReached = (controller) => void reached.push(controller);
    const other = {};
    connections.reached(other);
    for (let n = 0; n < 2; n++) connections.add(open(controller).connection, controller);
    connections.reached(other);
    assert.deepEqual([reached, [...connections.controllers]], [[other, controller], [other, controller]]);
  });

  it("closeAll closes each connection and resolves when the last one has closed", async () => {
    const { connections, opened } = create(3);
    const done: string[] = [];
    void connections.closeAll(1001, "bye").then(() => done.push("first"));
    void connections.closeAll(1012, "again").then(() => done.push("second"));
    for (const { transport } of opened) assert.deepEqual(transport.closes, [{ code: 1001, reason: "bye" }]);
    for (const { connection } of opened) {
      await turn();
      assert.deepEqual(done, []);
      connection.closed(1001, "", true);
    }
    await turn();
    assert.deepEqual(done, ["first", "second"]);
  });

  it("closeAll closes those that are added later too, as it closed the others", async () => {
    const { connections, opened, controller } = create(1);
    const closed = connections.closeAll(1012, "Restart");
    const late = open(controller);
    connections.add(late.connection);
    assert.deepEqual(late.transport.closes, [{ code: 1012, reason: "Restart" }]);
    for (const { connection } of [...opened, late]) connection.closed(1012, "", true);
    await closed;
  });

  it("closeAll resolves without connections, and when each closes within the call", async () => {
    await new Connections().closeAll(1001, "bye");
    const { connections, opened } = create(2);
    for (const { transport } of opened) transport.closeError = new Error("The socket is gone");
    await connections.closeAll(1001, "bye");
    assert.equal(connections.size, 0);
  });

  it("closeAll resolves at the close timeout when no peer answers", async () => {
    const { connections, clock } = create(2);
    const closed = connections.closeAll(1001, "bye");
    clock.advance(3000);
    await closed;
    assert.equal(clock.timers, 0);
  });
});
