/** `controller.refresh` while `authenticate` or `revalidate` is under way, which may have read the rights of before. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import type { AuthenticationState } from "../../src/application/authentication.ts";
import type { WebSocketControllerOptions } from "../../src/application/options.ts";
import type { Acceptance } from "../../src/runtimes/runtime.ts";
import { OPEN } from "../../src/delivery/transport.ts";
import type { WebSocketClient } from "../../src/application/websocket-client.ts";
import { createRoute } from "../support/fake-runtime.ts";
import { FakeTransport, HibernatingTransport, open, openOn } from "../support/fake-transport.ts";
import { observe } from "../support/observed.ts";
import { assertProperty } from "../support/property.ts";
import { TestClock } from "../support/test-clock.ts";
import { Stall, turn } from "../support/waiting.ts";

type Answer = AuthenticationState | null;

const OK = { type: "auth", status: "ok", uid: 1 };

const state = (user: string | null, role: string | null = null): AuthenticationState => ({ accountability: { user, role } });
const auth = (token: string) => JSON.stringify({ type: "auth", access_token: token, uid: 1 });

/** A controller whose `authenticate` and `revalidate` answer when the test says what; each call is a stall. */
function stalled(options: WebSocketControllerOptions = {}) {
  const verified: Stall<Answer>[] = [];
  const revalidated: Stall<Answer>[] = [];
  /** Whom `revalidate` was asked for. */
  const asked: unknown[] = [];
  const all: WebSocketControllerOptions = {
    timeout: 2000,
    authenticate: () => {
      verified.push(new Stall());
      return verified.at(-1)!.promise;
    },
    revalidate: ({ accountability: { user, role } }) => {
      asked.push([user, role]);
      revalidated.push(new Stall());
      return revalidated.at(-1)!.promise;
    },
    ...options,
  };
  return { verified, revalidated, asked, all };
}

/** Ann is an editor, and shows who she is again. */
async function reauthenticating(options: WebSocketControllerOptions = {}) {
  const stalls = stalled({ mode: "handshake", ...options });
  const observed = observe(stalls.all);
  const opened = open(observed.controller, { mode: "handshake", identity: state("ann", "editor") });
  opened.connection.message(auth("token-1"));
  await turn();
  observed.takeNames();
  return { ...stalls, ...observed, ...opened };
}

/** Somebody shows who it is for the first time. */
async function authenticating(options: WebSocketControllerOptions = {}) {
  const stalls = stalled({ mode: "handshake", ...options });
  const observed = observe(stalls.all);
  const opened = open(observed.controller, { mode: "handshake" });
  opened.connection.message(auth("token-1"));
  await turn();
  return { ...stalls, ...observed, ...opened };
}

describe("WebSocketController.refresh, while credentials are being verified", () => {
  it("lets no older answer bring the old role back, whether it comes before or after that of the refresh", async () => {
    for (const first of ["refresh", "auth"]) {
      const { controller, client, transport, verified, revalidated, asked } = await reauthenticating();
      const refreshed = controller.refresh({ user: "ann" });
      if (first === "refresh") {
        revalidated[0]!.resolve(state("ann", "guest"));
        await refreshed;
      }
      verified[0]!.resolve(state("ann", "editor"));
      await turn();
      // Asked again, and who it was meanwhile: nothing of what the older answer says is in force.
      assert.deepEqual([asked.length, client.accountability.role, transport.sent], [
        2,
        first === "refresh" ? "guest" : "editor",
        [],
      ]);
      revalidated[1]!.resolve(state("ann", "guest"));
      await turn();
      revalidated[0]!.resolve(state("ann", "editor"));
      await refreshed;
      assert.deepEqual([client.accountability.role, transport.take()], ["guest", [OK]]);
      controller.broadcast('"editors"', { role: "editor" });
      controller.broadcast('"guests"', { role: "guest" });
      await turn();
      assert.deepEqual(transport.take(), ["guests"]);
    }
  });

  it("admits a client as who it is by then, and handles nothing of it before", async () => {
    const { controller, connection, client, transport, verified, revalidated, asked, events } = await authenticating();
    const roles: unknown[] = [];
    controller.on("connect", ({ client }) => roles.push(client.accountability.role));
    connection.message('{"type":"x"}');
    await controller.refresh({ user: "ann" });
    verified[0]!.resolve(state("ann", "editor"));
    await turn();
    controller.broadcast("x");
    await turn();
    assert.deepEqual([asked, events, transport.sent, controller.clients().size], [[["ann", "editor"]], [], [], 0]);
    revalidated[0]!.resolve({ ...state("ann", "guest"), expires_at: 4_000_000_000 });
    await turn();
    assert.deepEqual([roles, transport.take(), client.expires_at], [["guest"], [OK], 4_000_000_000]);
    assert.deepEqual(events.map(([event]) => event), ["connect", "auth.success", "message"]);
  });

  it("closes with 4401 a client whose rights have ended by then, and one of whom nothing can be said", async () => {
    for (const [answer, names] of [[null, ["auth.failure"]], ["down", ["error", "auth.failure"]]] as const) {
      const { controller, transport, verified, revalidated, takeNames } = await authenticating();
      await controller.refresh({ role: "editor" });
      verified[0]!.resolve(state("ann", "editor"));
      await turn();
      if (answer === "down") revalidated[0]!.reject(new Error(answer));
      else revalidated[0]!.resolve(answer);
      await turn();
      assert.deepEqual([transport.take()[0].error.code, transport.closes[0]?.code], ["AUTH_FAILED", 4401]);
      assert.deepEqual([takeNames(), controller.clients().size], [names, 0]);
    }
  });

  it("asks again for as long as rights change while it is asked", async () => {
    const { controller, client, verified, revalidated } = await authenticating();
    await controller.refresh({});
    verified[0]!.resolve(state("ann", "admin"));
    await turn();
    await controller.refresh({ user: "ann" });
    revalidated[0]!.resolve(state("ann", "editor"));
    await turn();
    assert.deepEqual([revalidated.length, controller.clients().size], [2, 0]);
    revalidated[1]!.resolve(state("ann", "guest"));
    await turn();
    assert.deepEqual([client.accountability.role, controller.clients().size], ["guest", 1]);
  });

  it("does not ask when the refresh was another's, or was before the attempt", async () => {
    const { controller, connection, client, verified, asked } = await authenticating();
    await controller.refresh({ user: "bob" });
    await controller.refresh({ role: "guest" });
    verified[0]!.resolve(state("ann", "editor"));
    await turn();
    assert.deepEqual([client.accountability.role, asked], ["editor", []]);
    void controller.refresh({ user: "bob" });
    connection.message(auth("token-2"));
    await turn();
    verified[1]!.resolve(state("bob", "editor"));
    await turn();
    assert.deepEqual([client.accountability.user, asked], ["bob", []]);
  });

  it("sends the new refresh token of the attempt with the answer", async () => {
    const { controller, transport, verified, revalidated } = await authenticating();
    await controller.refresh({ user: "ann" });
    verified[0]!.resolve({ ...state("ann", "editor"), refresh_token: "next" });
    await turn();
    revalidated[0]!.resolve(state("ann", "guest"));
    await turn();
    assert.deepEqual(transport.take(), [{ ...OK, refresh_token: "next" }]);
  });

  it("delivers nothing to a client that is about to be another user, until it is known who that is", async () => {
    for (const answer of [state("bob", "guest"), null]) {
      const { controller, client, transport, verified, revalidated, asked } = await reauthenticating();
      await controller.refresh({ user: "bob" });
      verified[0]!.resolve(state("bob", "editor"));
      await turn();
      for (const filter of [{}, { user: "ann" }, { user: "bob" }]) controller.broadcast("x", filter);
      await turn();
      assert.deepEqual([asked, transport.sent], [[["bob", "editor"]], []]);
      revalidated[0]!.resolve(answer);
      await turn();
      assert.deepEqual(transport.take()[0].status, answer ? "ok" : "error");
      assert.deepEqual([client.accountability.role, transport.closes.length], answer ? ["guest", 0] : ["editor", 1]);
    }
  });

  it("asks for a client without a user as well, by its role", async () => {
    const { controller, client, verified, revalidated, asked } = await authenticating();
    await controller.refresh({ role: "service" });
    verified[0]!.resolve(state(null, "service"));
    await turn();
    revalidated[0]!.resolve(state(null, "reader"));
    await turn();
    assert.deepEqual([asked, client.accountability], [[[null, "service"]], { user: null, role: "reader" }]);
  });

  it("asks for no client that has left, and shows revalidate no expiry that a client does not have", async () => {
    const expiries: unknown[] = [];
    const options: WebSocketControllerOptions = {
      revalidate: ({ expires_at }) => {
        expiries.push(expires_at);
        return state("ann", "guest");
      },
    };
    const left = await authenticating(options);
    await left.controller.refresh({ user: "ann" });
    left.transport.readyState = 2;
    left.verified[0]!.resolve(state("ann", "editor"));
    await turn();
    assert.deepEqual(expiries, []);
    const { controller, client, verified } = await authenticating(options);
    await controller.refresh({ user: "ann" });
    verified[0]!.resolve(state("ann", "editor"));
    await turn();
    assert.deepEqual([expiries, client.expires_at], [[null], null]);
    await controller.refresh({ user: "ann" });
    assert.deepEqual([expiries, client.expires_at], [[null, null], null]);
  });

  it("saves the new accountability before revalidate has confirmed it, in case the object hibernates", async () => {
    const { all, verified, revalidated } = stalled({ mode: "handshake" });
    const { controller, clock } = observe(all);
    const { connection, transport } = openOn(new HibernatingTransport(), controller, {
      mode: "handshake",
      identity: state("ann", "editor"),
    });
    connection.message(auth("token-1"));
    await turn();
    await controller.refresh({ user: "bob" });
    verified[0]!.resolve(state("bob", "editor"));
    await turn();
    const { phase, until, accountability } = transport.saved.at(-1)!;
    // As long as revalidate may take, and the grace after it.
    assert.deepEqual([phase, until, accountability], ["expired", clock.now() + 4_000, { user: "bob", role: "editor" }]);
    clock.advance(1_999);
    assert.deepEqual([transport.sent, transport.closes], [[], []]);
    revalidated[0]!.resolve(state("bob", "guest"));
    await turn();
    assert.deepEqual(transport.saved.at(-1)!.accountability, { user: "bob", role: "guest" });
  });

  it("forgets a client that left meanwhile", async () => {
    const { controller, connection, clock, verified, revalidated, takeNames } = await authenticating();
    await controller.refresh({ user: "ann" });
    verified[0]!.resolve(state("ann", "editor"));
    await turn();
    connection.closed(1006, "", false);
    revalidated[0]!.resolve(state("ann", "guest"));
    await turn();
    assert.deepEqual([takeNames(), controller.stats().keys, clock.timers], [[], 0, 0]);
  });

  it("asks again before a socket is admitted whose token was verified at the upgrade", async () => {
    for (const refreshed of ["while it is verified", "before it opens"]) {
      for (const mode of ["public", "strict"] as const) {
        for (const answer of [state("ann", "guest"), null]) {
          const clock = new TestClock();
          const { all, verified, revalidated, asked } = stalled({ mode, clock });
          const { controller, request, host } = createRoute(all);
          const roles: unknown[] = [];
          const causes: unknown[] = [];
          controller.on("auth.failure", ({ cause }) => causes.push((cause as Error).message));
          controller.on("connect", ({ client }) => roles.push(client.accountability.role));
          let accepted: Acceptance | undefined;
          host.runtime.accept = (_request, acceptance) => {
            accepted = acceptance;
            return new Response(null);
          };
          const response = request("/websocket?access_token=token-1");
          await turn();
          if (refreshed === "while it is verified") await controller.refresh({ user: "ann" });
          verified[0]!.resolve(state("ann", "editor"));
          assert.equal((await response).status, 200);
          if (refreshed === "before it opens") await controller.refresh({ user: "ann" });
          const transport = new FakeTransport();
          const connection = accepted!.open(transport);
          connection.message('{"type":"ping"}');
          await turn();
          clock.advance(1_999);
          assert.deepEqual([asked, roles, transport.sent], [[["ann", "editor"]], [], []]);
          revalidated[0]!.resolve(answer);
          await turn();
          const cause = "The client's rights were refreshed while it connected, and revalidate refused it";
          assert.deepEqual(causes, answer ? [] : [cause]);
          assert.deepEqual(roles, answer ? ["guest"] : []);
          assert.deepEqual(transport.closes.map(({ code }) => code), answer ? [] : [4401]);
          assert.deepEqual(transport.take()[0].type, answer ? "pong" : "auth");
        }
      }
    }
  });

  it("asks again when it is asked at expiry already", async () => {
    const stalls = stalled();
    const { controller, clock } = observe(stalls.all);
    const { client } = open(controller, {
      mode: "handshake",
      identity: { ...state("ann", "editor"), expires_at: clock.now() / 1000 + 60 },
    });
    clock.advance(60_000);
    await controller.refresh({ user: "ann" });
    stalls.revalidated[0]!.resolve(state("ann", "editor"));
    await turn();
    assert.equal(stalls.revalidated.length, 2);
    stalls.revalidated[1]!.resolve(state("ann", "guest"));
    await turn();
    assert.equal(client.accountability.role, "guest");
  });

  it("property: no right that was taken comes into force, and all are by the last change, in whatever order answers come", async () => {
    const step = fc.constantFrom("auth", "upgrade", "change", "verified", "revalidated", "older", "expire");
    await assertProperty(
      fc.asyncProperty(fc.array(step, { maxLength: 40 }), async (steps) => {
        // The role is the number of changes there have been; each answer says what it was when the question was asked.
        let version = 0;
        const waiting: { kind: string; answer: () => void }[] = [];
        const ask = (kind: string) => {
          const stall = new Stall<Answer>();
          const then = { ...state("ann", `v${version}`), expires_at: clock.now() / 1000 + 60 };
          waiting.push({ kind, answer: () => stall.resolve(then) });
          return stall.promise;
        };
        const { clock, controller } = observe({
          timeout: 1_000_000,
          authenticate: () => ask("verified"),
          revalidate: () => ask("revalidated"),
        });
        const inForce = (client: WebSocketClient) => Number(client.accountability.role?.slice(1) ?? 0);
        const highest = new Map<WebSocketClient, number>();
        const look = () => {
          for (const client of controller.clients()) {
            assert.ok(inForce(client) >= (highest.get(client) ?? 0), `${steps.join()}: back to ${inForce(client)}`);
            highest.set(client, inForce(client));
          }
        };
        // One that was let in is let in with the rights of now, or of a change whose refresh is under way for it.
        controller.on("connect", ({ client }) => assert.equal(inForce(client), version));
        const faults: unknown[] = [];
        controller.on("error", ({ error }) => faults.push(error));
        const { connection } = open(controller, { mode: "handshake" });
        for (const kind of steps) {
          if (kind === "auth") connection.message(auth("token-1"));
          else if (kind === "upgrade") open(controller, { mode: "handshake" }).connection.message(auth("token-1"));
          else if (kind === "change") {
            version++;
            void controller.refresh({ user: "ann" });
          } else if (kind === "expire") clock.advance(60_000);
          else if (kind === "older") waiting.shift()?.answer();
          else {
            const at = waiting.findLastIndex((each) => each.kind === kind);
            if (at >= 0) waiting.splice(at, 1)[0]!.answer();
          }
          await turn();
          look();
        }
        while (waiting.length > 0) {
          waiting.shift()!.answer();
          await turn();
          look();
        }
        // One whose credentials ran out, or that is being closed, has no rights in force.
        const isIn = (client: WebSocketClient) => client.readyState === OPEN && client.expires_at! * 1000 > clock.now();
        for (const client of controller.clients()) if (isIn(client)) assert.equal(inForce(client), version);
        assert.deepEqual(faults, []);
      }),
      { numRuns: 300 },
    );
  });
});
