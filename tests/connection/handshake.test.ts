/** `src/connection/identity.ts` and `src/connection/connection.ts` before a client is admitted: a connection that has to authenticate. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { AuthenticationState, Credentials } from "../../src/application/authentication.ts";
import { WebSocketError } from "../../src/protocol/errors.ts";
import type { WebSocketControllerOptions } from "../../src/application/options.ts";
import { open } from "../support/fake-transport.ts";
import { observe } from "../support/observed.ts";
import { Stall, turn } from "../support/waiting.ts";

const ANN: AuthenticationState = { accountability: { user: "ann", role: "editor" } };
const AUTH = '{"type":"auth","access_token":"token-1","uid":1}';
const FAILED = { type: "auth", status: "error", error: { code: "AUTH_FAILED", message: "Authentication failed" } };

/** A pending connection whose `authenticate` waits for the test. */
function pend(options: WebSocketControllerOptions = {}) {
  const stall = new Stall<AuthenticationState | null>();
  const shown: Credentials[] = [];
  const observed = observe({
    authenticate: (credentials) => {
      shown.push(credentials);
      return stall.promise;
    },
    ...options,
  });
  const opened = open(observed.controller, { mode: "handshake" });
  return { ...observed, ...opened, stall, shown, receive: (frame: string) => opened.connection.message(frame) };
}

describe("Connection, pending", () => {
  it("is on no list, tells nobody and sends nothing before auth ok", async () => {
    const { controller, client, transport, events, receive, stall } = pend();
    controller.broadcast("x");
    receive(AUTH);
    controller.broadcast("x");
    assert.deepEqual([transport.sent, events, controller.clients().size], [[], [], 0]);
    const counts = () => [controller.stats().pending, controller.stats().clients];
    assert.deepEqual(counts(), [1, 0]);
    stall.resolve(ANN);
    await turn();
    assert.deepEqual(counts(), [0, 1]);
    assert.deepEqual(transport.take(), [{ type: "auth", status: "ok", uid: 1 }]);
    assert.deepEqual(events, [["connect", { client }], ["auth.success", { client }]]);
    assert.deepEqual([client.accountability, client.expires_at], [ANN.accountability, null]);
    controller.broadcast("x", { user: "ann", role: "editor" });
    assert.deepEqual(transport.sent, ["x"]);
  });

  it("sends auth ok before anything a connect listener sends, with a new refresh token", async () => {
    const { controller, transport, receive, stall, client } = pend();
    controller.on("connect", (event) => event.client.send({ type: "welcome" }));
    receive('{"type":"auth","refresh_token":"old"}');
    stall.resolve({ ...ANN, expires_at: 4_000_000_000, refresh_token: "new" });
    await turn();
    assert.deepEqual(transport.take(), [{ type: "auth", status: "ok", refresh_token: "new" }, { type: "welcome" }]);
    assert.equal(client.expires_at, 4_000_000_000);
  });

  it("shows authenticate the credentials alone, of each kind", async () => {
    const kinds = [
      { access_token: "a" },
      { refresh_token: "r" },
      { email: "e", password: "p" },
      { email: "e", password: "p", otp: "1" },
    ];
    for (const kind of kinds) {
      const { receive, shown } = pend();
      receive(JSON.stringify({ type: "auth", uid: 1, admin: true, ...kind }));
      await turn();
      assert.deepEqual(shown, [{ source: "message", ...kind }]);
    }
  });

  it("answers AUTH_FAILED and closes with 4401 when the first message is not a good auth", () => {
    const frames: [frame: string | Uint8Array<ArrayBuffer>, uid?: number][] = [
      ['{"type":"x","uid":1}', 1],
      ['{"type":"ping","uid":1}', 1],
      ['{"type":"auth","uid":1}', 1],
      ['{"type":"auth","access_token":""}'],
      ['{"type":"auth","access_token":7}'],
      ['{"uid":1}', 1],
      ["{"],
      [""],
      [Uint8Array.of(0xff)],
    ];
    for (const [frame, uid] of frames) {
      const { connection, transport, events, shown, clock } = pend();
      connection.message(frame);
      assert.deepEqual(transport.take(), [uid === undefined ? FAILED : { ...FAILED, uid }]);
      assert.deepEqual(transport.closes, [{ code: 4401, reason: "Authentication failed" }]);
      assert.deepEqual(events.map(([event, payload]) => [event, "client" in payload]), [["auth.failure", false]]);
      connection.message(AUTH);
      assert.deepEqual(shown, []);
      connection.closed(4401, "", true);
      assert.deepEqual([events.length, clock.timers], [1, 0]);
    }
  });

  it("answers AUTH_FAILED and closes with 4401 when authenticate refuses", async () => {
    const { receive, stall, transport, takeNames, controller } = pend();
    receive(AUTH);
    stall.resolve(null);
    await turn();
    assert.deepEqual(transport.take(), [{ ...FAILED, uid: 1 }]);
    assert.deepEqual(transport.closes, [{ code: 4401, reason: "Authentication failed" }]);
    assert.deepEqual([takeNames(), controller.clients().size], [["auth.failure"], 0]);
  });

  it("answers a WebSocketError of authenticate as it is, with the uid, and closes with 4401", async () => {
    const { receive, stall, transport, events } = pend();
    receive(AUTH);
    stall.reject(new WebSocketError("auth", "OTP_REQUIRED", "A one-time password is required", { details: { digits: 6 } }));
    await turn();
    const error = { digits: 6, code: "OTP_REQUIRED", message: "A one-time password is required" };
    assert.deepEqual(transport.take(), [{ type: "auth", status: "error", error, uid: 1 }]);
    assert.deepEqual(transport.closes, [{ code: 4401, reason: "A one-time password is required" }]);
    assert.deepEqual(events.map(([event]) => event), ["auth.failure"]);
  });

  it("answers SERVICE_UNAVAILABLE without detail, closes with 1013 and reports when authenticate fails", async () => {
    for (const reason of [new Error("s3cr3t"), undefined]) {
      const { receive, stall, transport, events } = pend();
      receive(AUTH);
      stall.reject(reason);
      await turn();
      const error = { code: "SERVICE_UNAVAILABLE", message: "Authentication is unavailable" };
      assert.deepEqual(transport.take(), [{ type: "auth", status: "error", error, uid: 1 }]);
      assert.deepEqual(transport.closes, [{ code: 1013, reason: "Authentication is unavailable" }]);
      assert.deepEqual(events[0], ["error", { error: reason }]);
      assert.deepEqual(events.map(([event]) => event), ["error", "auth.failure"]);
    }
  });

  it("answers AUTH_TIMEOUT and closes with 4408 when no auth came within the timeout", () => {
    const { clock, transport, takeNames } = pend({ timeout: 2000 });
    clock.advance(1999);
    assert.deepEqual([transport.sent, transport.closes], [[], []]);
    clock.advance(1);
    const error = { code: "AUTH_TIMEOUT", message: "Authentication timed out" };
    assert.deepEqual(transport.take(), [{ type: "auth", status: "error", error }]);
    assert.deepEqual(transport.closes, [{ code: 4408, reason: "Authentication timed out" }]);
    assert.deepEqual(takeNames(), ["auth.failure"]);
  });

  it("times out from the upgrade on, though an auth is under way", async () => {
    const { clock, transport, receive, stall, controller } = pend({ timeout: 2000 });
    clock.advance(1500);
    receive(AUTH);
    clock.advance(500);
    assert.deepEqual(transport.closes, [{ code: 4408, reason: "Authentication timed out" }]);
    stall.resolve(ANN);
    await turn();
    assert.deepEqual([transport.take().length, controller.clients().size], [1, 0]);
  });

  it("times out on time when the wall clock steps, forward or back", () => {
    // A step within the time that is left is the one that hides: it looks like a deadline that is not due yet.
    for (const step of [3_600_000, 1500, -500, -1500, -3_600_000]) {
      const { clock, transport } = pend({ timeout: 2000 });
      clock.advance(1000);
      clock.step(step);
      clock.advance(1000);
      assert.equal(transport.closes.length, 1, `after a step of ${step} ms`);
    }
  });

  it("times out no more once it is admitted", async () => {
    const { clock, transport, receive, stall } = pend({ timeout: 2000 });
    receive(AUTH);
    stall.resolve(ANN);
    await turn();
    assert.equal(clock.timers, 0);
    clock.advance(10_000);
    assert.deepEqual(transport.closes, []);
  });

  it("admits nobody when the socket is closing, though the runtime has not said so yet", async () => {
    for (const state of [ANN, null]) {
      const { connection, controller, transport, receive, stall, events, clock } = pend();
      receive(AUTH);
      transport.readyState = 2;
      stall.resolve(state);
      await turn();
      connection.closed(1001, "", true);
      assert.deepEqual([transport.sent, transport.closes, events], [[], [], []]);
      assert.deepEqual([controller.clients().size, clock.timers], [0, 0]);
    }
  });

  it("admits nobody and sends nothing when it was closed while authenticate ran, by either side", async () => {
    for (const byPeer of [true, false]) {
      const { connection, client, controller, transport, receive, stall, events, clock } = pend();
      receive(AUTH);
      receive('{"type":"x"}');
      if (!byPeer) client.close(4000);
      connection.closed(1006, "", false);
      stall.resolve(ANN);
      await turn();
      assert.deepEqual([transport.sent, events, controller.clients().size, clock.timers], [[], [], 0, 0]);
      controller.broadcast("x");
      assert.deepEqual(transport.sent, []);
    }
  });
});

describe("Connection, pipelined", () => {
  it("handles what came while authenticate ran, in order and after connect", async () => {
    const { receive, stall, events, transport } = pend();
    receive(AUTH);
    for (let n = 0; n < 5; n++) receive(JSON.stringify({ type: "x", n }));
    receive('{"type":"ping","uid":5}');
    await turn();
    assert.deepEqual([events, transport.sent], [[], []]);
    stall.resolve(ANN);
    await turn();
    assert.deepEqual(
      events.map(([event, payload]) => event === "message" && "message" in payload ? payload.message["n"] : event),
      [
        "connect",
        "auth.success",
        0,
        1,
        2,
        3,
        4,
      ],
    );
    assert.deepEqual(transport.take().at(-1), { type: "pong", uid: 5 });
  });

  it("drops what came when authenticate refuses", async () => {
    const { receive, stall, takeNames, transport } = pend();
    receive(AUTH);
    receive('{"type":"x"}');
    stall.resolve(null);
    await turn();
    assert.deepEqual(takeNames(), ["auth.failure"]);
    assert.equal(transport.take().length, 1);
  });

  it("keeps maxPipelined messages and closes with 4529 at one more", () => {
    for (const maxPipelined of [0, 1, 3]) {
      const { receive, transport } = pend({ maxPipelined });
      receive(AUTH);
      for (let n = 0; n < maxPipelined; n++) receive('{"type":"x"}');
      assert.deepEqual(transport.closes, []);
      receive('{"type":"x"}');
      assert.deepEqual(transport.closes, [{ code: 4529, reason: "Too many messages waiting" }]);
    }
  });

  it("keeps maxPayload bytes and closes with 4529 at one more", () => {
    const { receive, transport } = pend({ maxPayload: 200 });
    receive(AUTH);
    receive("é".repeat(50)); // 100 bytes, and unreadable frames count too.
    receive("a".repeat(100));
    assert.deepEqual(transport.closes, []);
    receive("a");
    assert.deepEqual(transport.closes, [{ code: 4529, reason: "Too many messages waiting" }]);
  });

  it("has the whole room again once the queue was handled", async () => {
    const stalls = [new Stall<AuthenticationState>(), new Stall<AuthenticationState>()];
    let attempts = 0;
    const { receive, transport } = pend({ maxPipelined: 2, maxPayload: 100, authenticate: () => stalls[attempts++]!.promise });
    for (const stall of stalls) {
      receive('{"type":"auth","access_token":"a"}');
      for (const char of ["a", "b"]) receive(JSON.stringify({ type: "pong", text: char.repeat(20) }));
      stall.resolve(ANN);
      await turn();
    }
    assert.deepEqual([transport.closes, transport.take().length], [[], 2]);
  });

  it("runs one authenticate at a time, so that the later auth counts", async () => {
    const stalls = new Map([["slow", new Stall<AuthenticationState>()], ["fast", new Stall<AuthenticationState>()]]);
    const started: string[] = [];
    const { receive, client } = pend({
      authenticate: (credentials) => {
        const token = "access_token" in credentials ? credentials.access_token : "";
        started.push(token);
        return stalls.get(token)!.promise;
      },
    });
    for (const token of stalls.keys()) receive(JSON.stringify({ type: "auth", access_token: token }));
    const state = (user: string): AuthenticationState => ({ accountability: { user, role: null } });
    stalls.get("fast")!.resolve(state("fast"));
    await turn();
    assert.deepEqual(started, ["slow"]);
    stalls.get("slow")!.resolve(state("slow"));
    await turn();
    assert.deepEqual([started, client.accountability.user], [["slow", "fast"], "fast"]);
  });
});
