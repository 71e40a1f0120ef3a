/** `src/connection/identity.ts` after a client is admitted: who it is, and what outlives hibernation. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { AuthenticationState } from "../../src/application/authentication.ts";
import type { SavedConnection } from "../../src/delivery/transport.ts";
import { HANDSHAKE, HibernatingTransport, open, openOn } from "../support/fake-transport.ts";
import { observe } from "../support/observed.ts";
import { turn } from "../support/waiting.ts";

/** Tokens are names; the name `bad` is refused and `down` fails. */
function authenticate(credentials: object): AuthenticationState | null {
  const { access_token: user = null } = credentials as { access_token?: string };
  if (user === "down") throw new Error("s3cr3t");
  return user === "bad" ? null : { accountability: { user, role: "editor" }, expires_at: 4_000_000_000 };
}

const auth = (access_token: string) => JSON.stringify({ type: "auth", access_token, uid: 1 });

describe("Connection, admitted, on auth", () => {
  it("becomes who the credentials say, for broadcasts too, and tells no second connect", async () => {
    const { controller, takeNames } = observe({ mode: "public", authenticate });
    const { connection, client, transport } = open(controller);
    connection.message(auth("ann"));
    await turn();
    assert.deepEqual(transport.take(), [{ type: "auth", status: "ok", uid: 1 }]);
    assert.deepEqual([client.accountability, client.expires_at], [{ user: "ann", role: "editor" }, 4_000_000_000]);
    connection.message(auth("bob"));
    await turn();
    transport.take();
    controller.broadcast("to ann", { user: "ann" });
    controller.broadcast("to bob", { user: "bob" });
    assert.deepEqual([transport.sent, takeNames()], [["to bob"], ["connect", "auth.success", "auth.success"]]);
    assert.equal(controller.clients().size, 1);
  });

  it("pays one message for an auth as the same user, without subscriptions", async () => {
    const { controller } = observe({ mode: "public", authenticate, rateLimit: { messages: 0.001, burst: 2 } });
    const { connection, transport } = open(controller);
    for (const text of [auth("ann"), auth("ann"), '{"type":"ping"}']) {
      connection.message(text);
      await turn();
    }
    // The first counts for the anonymous client, the others for ann.
    assert.deepEqual(transport.take().map(({ type }) => type), ["auth", "auth", "pong"]);
  });

  it("is nobody from then on in public mode, and closed in the others, when it is refused", async () => {
    for (const mode of ["public", "handshake", "strict"] as const) {
      const { controller, events } = observe({ mode, authenticate });
      const { connection, client, transport } = open(controller, { mode, identity: authenticate({ access_token: "ann" }) });
      connection.message(auth("bad"));
      await turn();
      const error = { code: "AUTH_FAILED", message: "Authentication failed" };
      assert.deepEqual(transport.take(), [{ type: "auth", status: "error", error, uid: 1 }]);
      assert.deepEqual(events.map(([event, payload]) => [event, payload.client]), [["connect", client], [
        "auth.failure",
        client,
      ]]);
      controller.broadcast("to ann", { user: "ann" });
      assert.deepEqual(transport.sent, []);
      if (mode === "public") assert.deepEqual([client.accountability, client.expires_at], [{ user: null, role: null }, null]);
      assert.deepEqual(transport.closes, mode === "public" ? [] : [{ code: 4401, reason: "Authentication failed" }]);
    }
  });

  it("stays who it was, and open, when authenticate fails", async () => {
    const { controller, events } = observe({ mode: "strict", authenticate });
    const { connection, client, transport } = open(controller, {
      mode: "strict",
      identity: authenticate({ access_token: "ann" }),
    });
    connection.message(auth("down"));
    await turn();
    const error = { code: "SERVICE_UNAVAILABLE", message: "Authentication is unavailable" };
    assert.deepEqual(transport.take(), [{ type: "auth", status: "error", error, uid: 1 }]);
    assert.deepEqual([transport.closes, client.accountability.user], [[], "ann"]);
    assert.deepEqual(events.map(([event, payload]) => [event, payload.client]), [["connect", client], ["error", client]]);
  });

  it("answers INVALID_PAYLOAD and changes nothing when the message has no credentials", async () => {
    const { controller, takeNames } = observe({ mode: "strict", authenticate });
    const { connection, client, transport } = open(controller, {
      mode: "strict",
      identity: authenticate({ access_token: "ann" }),
    });
    connection.message('{"type":"auth","uid":1,"access_token":["s3cr3t"]}');
    await turn();
    const error = { code: "INVALID_PAYLOAD", message: "Send access_token, refresh_token, or email and password" };
    assert.deepEqual(transport.take(), [{ type: "auth", status: "error", error, uid: 1 }]);
    assert.deepEqual([transport.closes, client.accountability.user, takeNames()], [[], "ann", ["connect"]]);
  });

  it("is refused when nothing can verify credentials", async () => {
    const { controller } = observe();
    const { connection, transport } = open(controller);
    connection.message(auth("ann"));
    await turn();
    assert.equal(transport.take()[0].error.code, "AUTH_FAILED");
    assert.deepEqual(transport.closes, []);
  });
});

describe("Connection.save", () => {
  it("writes the identity and state of an admitted client, as JSON, each time they change", async () => {
    const { controller } = observe({ mode: "public", authenticate, name: "news" });
    const { transport, client, connection } = openOn(new HibernatingTransport(), controller);
    const saved: SavedConnection = {
      controller: "news",
      uid: client.uid,
      handshake: HANDSHAKE,
      state: null,
      phase: "admitted",
      until: 0,
      accountability: { user: null, role: null },
      expires_at: null,
    };
    assert.deepEqual(transport.saved.splice(0), [saved]);
    client.state = { seen: 1 };
    assert.deepEqual(transport.saved.splice(0), [{ ...saved, state: { seen: 1 } }]);
    connection.message(auth("ann"));
    await turn();
    const ann = { accountability: { user: "ann", role: "editor" }, expires_at: 4_000_000_000 };
    assert.deepEqual(transport.saved.splice(0), [{ ...saved, state: { seen: 1 }, ...ann }]);
    connection.message(auth("bad"));
    await turn();
    assert.deepEqual(transport.saved.splice(0), [{ ...saved, state: { seen: 1 } }]);
  });

  it("writes until when a pending connection may authenticate, and nobody", () => {
    const { controller, clock } = observe({ authenticate, timeout: 2000 });
    const { transport, client } = openOn(new HibernatingTransport(), controller, { mode: "handshake" });
    assert.deepEqual(transport.saved, [
      {
        controller: "main",
        uid: client.uid,
        handshake: { ...HANDSHAKE, mode: "handshake" },
        state: null,
        phase: "pending",
        until: clock.now() + 2000,
        accountability: { user: null, role: null },
        expires_at: null,
      },
    ]);
  });
});

describe("Connection.restored", () => {
  const saved: SavedConnection = {
    controller: "main",
    uid: "client-7",
    handshake: { ...HANDSHAKE, mode: "handshake" },
    state: { seen: 1 },
    phase: "admitted",
    until: 0,
    accountability: { user: "ann", role: "editor" },
    expires_at: 4_000_000_000,
  };

  it("goes on as the same client, listed and reached, and tells no connect", () => {
    const { controller, events } = observe({ authenticate });
    const transport = new HibernatingTransport();
    const { client } = controller.restore(transport, saved);
    assert.deepEqual(
      [client.uid, client.handshake, client.state, client.accountability, client.expires_at],
      ["client-7", saved.handshake, { seen: 1 }, { user: "ann", role: "editor" }, 4_000_000_000],
    );
    assert.deepEqual([...controller.clients()], [client]);
    controller.broadcast("x", { role: "editor" });
    assert.deepEqual([transport.sent, events], [["x"], []]);
    client.state = { seen: 2 };
    assert.deepEqual(transport.saved, [{ ...saved, state: { seen: 2 } }]);
    assert.throws(() => (client.state as { seen: number }).seen = 2, TypeError);
  });

  it("comes back from what save wrote", async () => {
    const first = observe({ mode: "public", authenticate });
    const { transport, connection, client } = openOn(new HibernatingTransport(), first.controller);
    client.state = [1, { two: 2 }];
    connection.message(auth("ann"));
    await turn();
    const written = JSON.parse(JSON.stringify(transport.saved.at(-1)));
    const restored = observe({ mode: "public", authenticate }).controller.restore(new HibernatingTransport(), written).client;
    for (const fact of ["uid", "handshake", "state", "accountability", "expires_at"] as const) {
      assert.deepEqual(restored[fact], client[fact]);
    }
  });

  it("counts among the connections of its user, beyond which there may be others already", () => {
    const { controller } = observe({ authenticate, maxConnectionsPerUser: 2 });
    for (let n = 0; n < 2; n++) controller.restore(new HibernatingTransport(), saved);
    assert.equal(controller.clients().size, 2);
    const { transport } = open(controller, { identity: authenticate({ access_token: "ann" }) });
    assert.deepEqual(transport.closes.map(({ code }) => code), [4529]);
  });

  it("tells its close once", () => {
    const { controller, events } = observe({ authenticate });
    const connection = controller.restore(new HibernatingTransport(), saved);
    connection.closed(1001, "gone", true);
    assert.deepEqual(events, [["close", {
      client: connection.client,
      code: 1001,
      reason: "gone",
      wasClean: true,
      cause: "client",
    }]]);
    assert.equal(controller.clients().size, 0);
  });

  it("is pending for the rest of its time when it had not been admitted", async () => {
    const nobody = { accountability: { user: null, role: null }, expires_at: null };
    for (const [left, admits] of [[500, true], [500, false], [-500, false]] as const) {
      const { controller, clock, takeNames } = observe({ authenticate, timeout: 2000 });
      const transport = new HibernatingTransport();
      const connection = controller.restore(transport, { ...saved, ...nobody, phase: "pending", until: clock.now() + left });
      assert.deepEqual([controller.clients().size, (await controller.broadcast("x")).matched], [0, 0]);
      clock.advance(Math.max(0, left - 1));
      if (left > 0) assert.deepEqual(transport.closes, []);
      if (admits) connection.message(auth("ann"));
      await turn();
      clock.advance(1);
      assert.deepEqual(transport.closes.map(({ code }) => code), admits ? [] : [4408]);
      assert.deepEqual(takeNames(), admits ? ["connect", "auth.success"] : ["auth.failure"]);
    }
  });
});
