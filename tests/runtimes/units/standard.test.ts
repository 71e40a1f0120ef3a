import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { Connection } from "../../../src/connection/connection.ts";
import { attach } from "../../../src/runtimes/standard.ts";
import type { Transport } from "../../../src/delivery/transport.ts";

/** A standard socket in memory. */
class Socket extends EventTarget {
  binaryType = "blob";
  readyState = 0;
  readonly closes: [number, string][] = [];

  close(code: number, reason: string): void {
    this.closes.push([code, reason]);
  }
}

function create() {
  const socket = new Socket();
  const log: string[] = [];
  const feed = attach(socket as unknown as WebSocket, { // It has the used members.
    protocol: null,
    open: (_transport: Transport) => {
      log.push("open");
      return {
        message: (data: unknown) => log.push(`message ${data}`),
        closed: () => log.push("closed"),
      } as unknown as Connection;
    },
    abandoned: () => log.push("abandoned"),
  });
  const dispatch = (type: string, facts: object = {}) => socket.dispatchEvent(Object.assign(new Event(type), facts));
  return { socket, feed, log, dispatch };
}

describe("attach", () => {
  it("starts a connection when the socket opens, and does not abandon it when the socket closes", () => {
    const { log, dispatch } = create();
    dispatch("open");
    dispatch("message", { data: "a" });
    dispatch("close", { code: 0, reason: "", wasClean: false });
    assert.deepEqual(log, ["open", "message a", "closed"]);
  });

  it("releases the slot when the socket closes before it opens", () => {
    const { log, dispatch } = create();
    dispatch("error", { message: "reset" });
    dispatch("close", { code: 0, reason: "", wasClean: false });
    assert.deepEqual(log, ["abandoned"]);
  });

  it("releases the slot and starts no connection when it is refused before the socket opens", () => {
    const { socket, feed, log, dispatch } = create();
    feed.refuse(1011, "Answered 500");
    dispatch("open");
    dispatch("message", { data: "a" });
    dispatch("close", { code: 1011, reason: "", wasClean: true });
    assert.deepEqual(log, ["abandoned"]);
    assert.deepEqual(socket.closes, [[1011, "Answered 500"]]);
  });

  it("does not affect a started connection when it is refused later", () => {
    const { socket, feed, log, dispatch } = create();
    dispatch("open");
    feed.refuse(1011, "Answered 500");
    dispatch("message", { data: "a" });
    assert.deepEqual([log, socket.closes], [["open", "message a"], []]);
  });
});
