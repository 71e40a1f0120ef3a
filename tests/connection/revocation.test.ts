/** The part of `src/controller/controller.ts` and `src/connection/identity.ts` that takes rights away: refresh, disconnect and the limits of a user. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { AuthenticationState } from "../../src/application/authentication.ts";
import type { WebSocketControllerOptions } from "../../src/application/options.ts";
import type { Acceptance } from "../../src/runtimes/runtime.ts";
import type { WebSocketClient } from "../../src/application/websocket-client.ts";
import { createRoute } from "../support/fake-runtime.ts";
import { FakeTransport, open } from "../support/fake-transport.ts";
import { observe } from "../support/observed.ts";
import { Stall, turn } from "../support/waiting.ts";

const state = (user: string | null, role: string | null = null): AuthenticationState => ({ accountability: { user, role } });
const auth = (user: string) => JSON.stringify({ type: "auth", access_token: user, uid: 1 });

/** Ann and Bob are editors, Cid is not; nobody is there too. */
function four(options: WebSocketControllerOptions = {}) {
  const observed = observe({ mode: "public", authenticate: () => null, ...options });
  const join = (user: string | null, role: string | null) => open(observed.controller, { identity: state(user, role) });
  return {
    ...observed,
    ann: join("ann", "editor"),
    bob: join("bob", "editor"),
    cid: join("cid", null),
    nobody: join(null, null),
  };
}

/** A connection whose `authenticate` waits for the test. */
function pend(options: WebSocketControllerOptions = {}) {
  const stall = new Stall<AuthenticationState | null>();
  const observed = observe({ authenticate: () => stall.promise, ...options });
  return { ...observed, ...open(observed.controller, { mode: "handshake" }), stall };
}

describe("WebSocketController.refresh", () => {
  it("asks for those whom the filter matches, all of them without one, and none that is pending", async () => {
    for (
      const [filter, expected] of [
        [{ user: "ann" }, ["ann"]],
        [{ role: "editor" }, ["ann", "bob"]],
        [{ user: "ann", role: "other" }, []],
        [{}, ["ann", "bob", "cid", null]],
      ] as const
    ) {
      const asked: unknown[] = [];
      const { controller } = four({
        revalidate: ({ accountability }: WebSocketClient) => {
          asked.push(accountability.user);
          return { accountability };
        },
      });
      open(controller, { mode: "handshake" });
      await controller.refresh(filter);
      assert.deepEqual(asked, expected);
    }
  });

  it("takes over what it is told at once, for broadcasts too, unseen by the client", async () => {
    const { controller, ann, bob, takeNames } = four({ revalidate: () => state("ann", "guest") });
    takeNames();
    await controller.refresh({ user: "ann" });
    controller.broadcast("guests", { role: "guest" });
    controller.broadcast("editors", { role: "editor" });
    assert.deepEqual([ann.transport.sent, bob.transport.sent, takeNames()], [["guests"], ["editors"], []]);
  });

  it("has the client renew its token when its rights have ended, and resolves once all were asked", async () => {
    const stall = new Stall<AuthenticationState | null>();
    const { controller, ann, bob } = four({
      revalidate: ({ accountability }: WebSocketClient) => accountability.user === "ann" ? stall.promise : null,
    });
    let done = false;
    const refreshed = controller.refresh({ role: "editor" }).then(() => done = true);
    await turn();
    assert.deepEqual([done, bob.transport.take()[0].error.code, ann.transport.sent], [false, "TOKEN_EXPIRED", []]);
    stall.resolve(null);
    await refreshed;
    assert.equal(ann.transport.take()[0].error.code, "TOKEN_EXPIRED");
    controller.broadcast("x", { role: "editor" });
    assert.deepEqual([ann.transport.sent, bob.transport.sent], [[], []]);
  });

  it("rejects with TypeError without revalidate, and for a bad filter", async () => {
    await assert.rejects(four().controller.refresh({ user: "ann" }), {
      name: "TypeError",
      message: 'Cannot refresh: pass the option "revalidate", or disconnect() the clients',
    });
    const { controller } = four({ revalidate: () => assert.fail("nobody is asked for") });
    for (const filter of [null, { user: "" }, { user: undefined }, { uid: "1" }, Promise.resolve({})]) {
      await assert.rejects(controller.refresh(filter as never), TypeError);
    }
  });
});

describe("WebSocketController.disconnect", () => {
  it("closes with 4403 whom the filter matches, and with what it is told", () => {
    const cases = [
      [{ user: "ann" }, [1, 0, 0, 0]],
      [{ role: "editor" }, [1, 1, 0, 0]],
      [{ user: "cid", role: "editor" }, [0, 0, 0, 0]],
    ] as const;
    for (const [filter, expected] of cases) {
      const { controller, ann, bob, cid, nobody } = four();
      controller.disconnect(filter);
      assert.deepEqual([ann, bob, cid, nobody].map(({ transport }) => transport.closes.length), expected);
    }
    const { controller, ann, bob } = four();
    controller.disconnect({ uid: ann.client.uid });
    controller.disconnect({ uid: bob.client.uid, user: "ann" });
    controller.disconnect({ uid: bob.client.uid, user: "bob" }, 4999, "Bye");
    assert.deepEqual([ann.transport.closes, bob.transport.closes], [[{ code: 4403, reason: "Disconnected" }], [{
      code: 4999,
      reason: "Bye",
    }]]);
  });

  it("refuses an authentication that was under way, and none that begins later", async () => {
    for (const [filter, code] of [[{ user: "ann" }, 4403], [{ role: "editor" }, 4403], [{ user: "bob" }, undefined]] as const) {
      const { controller, connection, transport, stall, takeNames } = pend();
      connection.message(auth("token-1"));
      await turn();
      controller.disconnect(filter);
      stall.resolve(state("ann", "editor"));
      await turn();
      assert.deepEqual(transport.closes.map((close) => close.code), code ? [code] : []);
      assert.deepEqual(takeNames(), code ? ["auth.failure"] : ["connect", "auth.success"]);
      const later = open(controller, { mode: "handshake" });
      later.connection.message(auth("token-1"));
      await turn();
      assert.equal(later.client.accountability.user, "ann");
    }
  });

  it("by uid, refuses no other client that authenticates", async () => {
    const { controller, connection, client, stall } = pend();
    const other = open(controller, { identity: state("ann", "editor") });
    connection.message(auth("token-1"));
    await turn();
    controller.disconnect({ uid: other.client.uid });
    stall.resolve(state("ann", "editor"));
    await turn();
    assert.deepEqual([other.transport.closes.length, client.accountability.user], [1, "ann"]);
  });

  it("answers 403 to an upgrade whose token was being verified", async () => {
    const stall = new Stall<AuthenticationState>();
    const { controller, request, accepted } = createRoute({ authenticate: () => stall.promise });
    const response = request("/websocket?access_token=token-1");
    await turn();
    controller.disconnect({ user: "ann" });
    stall.resolve(state("ann"));
    const { status, ...rest } = await response;
    assert.deepEqual([status, accepted.length, controller.stats().reserved], [403, 0, 0], JSON.stringify(rest));
  });

  it("lets no revalidation that was under way bring the client back", async () => {
    const stall = new Stall<AuthenticationState>();
    const { controller, ann, cid } = four({ revalidate: () => stall.promise });
    const refreshed = controller.refresh({ user: "cid" });
    await turn();
    // Cid is about to become an editor, all of whom are sent away.
    controller.disconnect({ role: "editor" });
    stall.resolve(state("cid", "editor"));
    await refreshed;
    assert.deepEqual([ann.transport.closes.length, cid.transport.take()[0].error.code], [1, "TOKEN_EXPIRED"]);
    assert.equal(cid.client.accountability.role, null);
  });

  it("throws TypeError for a filter that names nobody, and for a code that may not be sent", () => {
    const { controller, ann } = four();
    for (
      const filter of [
        {},
        { user: undefined },
        { user: "" },
        { uid: "" },
        { uid: undefined },
        { uid: undefined, user: "ann" },
        {
          uid: 1,
        },
        { users: "ann" },
        null,
        undefined,
        "ann",
        Promise.resolve({ user: "ann" }),
        new Map([["user", "ann"]]),
      ]
    ) {
      assert.throws(() => controller.disconnect(filter as never), TypeError);
    }
    for (const code of [1005, 1006, 999, NaN]) assert.throws(() => controller.disconnect({ user: "ann" }, code), TypeError);
    assert.deepEqual(ann.transport.closes, []);
  });
});

describe("maxConnectionsPerUser", () => {
  it("has a client renew its credentials whose revalidation names a user without a place", async () => {
    const { controller } = observe({
      mode: "public",
      authenticate: () => null,
      revalidate: () => state("bob"),
      maxConnectionsPerUser: 1,
    });
    const [ann] = ["ann", "bob"].map((user) => open(controller, { identity: state(user) }));
    await controller.refresh({ user: "ann" });
    assert.deepEqual([ann!.transport.take()[0].error.code, ann!.client.accountability.user], ["TOKEN_EXPIRED", "ann"]);
    assert.equal((await controller.broadcast("x")).matched, 1);
  });

  it("answers LIMIT_EXCEEDED and closes with 4529 at one more auth, until one is gone", async () => {
    const { controller } = observe({ authenticate: () => state("ann"), maxConnectionsPerUser: 2 });
    const join = async () => {
      const opened = open(controller, { mode: "handshake" });
      opened.connection.message(auth("token-1"));
      await turn();
      return opened;
    };
    const [first] = [await join(), await join()];
    const third = await join();
    assert.deepEqual([third.transport.take()[0].error.code, third.transport.closes[0]?.code], ["LIMIT_EXCEEDED", 4529]);
    assert.equal(controller.clients().size, 2);
    first.connection.closed(1000, "", true);
    assert.deepEqual((await join()).transport.closes, []);
  });

  it("has a place free again when a client in public mode is nobody from then on", async () => {
    const authenticate = (credentials: object) =>
      "access_token" in credentials && credentials.access_token === "ann" ? state("ann") : null;
    const { controller } = observe({ mode: "public", authenticate, maxConnectionsPerUser: 1 });
    const [first, second] = [open(controller), open(controller)];
    for (const [{ connection }, user] of [[first, "ann"], [first, "bad"], [second, "ann"]] as const) {
      connection.message(auth(user));
      await turn();
    }
    assert.deepEqual([first.client.accountability.user, second.client.accountability.user], [null, "ann"]);
  });

  it("counts those that are opened with an identity, and closes one more with 4529, of which nobody is told", async () => {
    const { controller, takeNames } = observe({ authenticate: () => state("ann"), maxConnectionsPerUser: 2 });
    const join = () => open(controller, { identity: state("ann") });
    const [first] = [join(), join()];
    assert.equal(controller.stats().keys, 1);
    const third = join();
    assert.deepEqual(third.transport.closes, [{ code: 4529, reason: "Too many connections of this user" }]);
    const other = open(controller, { mode: "handshake" });
    other.connection.message(auth("token-1"));
    await turn();
    assert.equal(other.transport.take()[0].error.code, "LIMIT_EXCEEDED");
    first.connection.closed(1000, "", true);
    for (const { connection } of [third, other]) connection.closed(4529, "", true);
    assert.deepEqual([join().transport.closes, controller.clients().size], [[], 2]);
    assert.deepEqual(takeNames(), ["connect", "connect", "auth.failure", "close", "connect"]);
  });

  it("answers 429 with retry-after at one more upgrade", async () => {
    const { request, opened } = createRoute({ authenticate: () => state("ann"), maxConnectionsPerUser: 1 });
    assert.equal((await request("/websocket?access_token=token-1")).status, 200);
    const response = await request("/websocket?access_token=token-1");
    assert.deepEqual([response.status, response.headers.get("retry-after"), opened.length], [429, "5", 1]);
    assert.equal((await response.json()).error.code, "LIMIT_EXCEEDED");
  });
});

describe("failed attempts from one address", () => {
  it("are thirty at once, then authenticate is not asked: 429 at the upgrade", async () => {
    let asked = 0;
    const { request } = createRoute({ authenticate: () => (asked++, null) });
    for (let n = 0; n < 30; n++) assert.equal((await request("/websocket?access_token=token-1")).status, 401);
    const response = await request("/websocket?access_token=token-1");
    assert.deepEqual([response.status, response.headers.get("retry-after"), asked], [429, "1", 30]);
    assert.equal((await response.json()).error.code, "REQUESTS_EXCEEDED");
  });

  it("are thirty at once, then an auth message is answered: a pending client is closed with 4529, an admitted one goes on", async () => {
    for (const mode of ["handshake", "public"] as const) {
      for (const uid of [undefined, 7]) {
        const { controller, takeNames } = observe({ mode, authenticate: () => null });
        for (let n = 0; n < 30; n++) {
          open(controller, { mode: "handshake" }).connection.message(auth("token-1"));
          await turn();
        }
        const { connection, transport, client } = open(controller, { mode });
        takeNames();
        connection.message(JSON.stringify({ type: "auth", access_token: "token-1", uid }));
        await turn();
        const error = { code: "REQUESTS_EXCEEDED", message: "Too many failed attempts", retry_after: 1_000 };
        const answer = { type: "auth", status: "error", error, ...(uid !== undefined && { uid }) };
        assert.deepEqual(transport.take(), [answer]);
        const isPending = mode === "handshake";
        assert.deepEqual(transport.closes, isPending ? [{ code: 4529, reason: error.message }] : []);
        assert.deepEqual([takeNames(), client.readyState], isPending ? [["auth.failure"], 2] : [[], 1]);
      }
    }
  });

  it("do not keep out those that come at once and succeed, and count those that fail though they were under way together", async () => {
    const authenticate: WebSocketControllerOptions["authenticate"] = async (credentials) => {
      await turn();
      return "access_token" in credentials && credentials.access_token === "bad" ? null : state("ann");
    };
    const { request } = createRoute({ authenticate });
    const statuses = async (token: string, count: number) =>
      (await Promise.all(Array.from({ length: count }, () => request(`/websocket?access_token=${token}`)))).map(({ status }) =>
        status
      );
    assert.deepEqual(new Set(await statuses("good", 100)), new Set([200]));
    assert.deepEqual(new Set(await statuses("bad", 40)), new Set([401]));
    const refused = await request("/websocket?access_token=bad");
    assert.deepEqual([refused.status, refused.headers.get("retry-after")], [429, "11"]);
  });

  it("are not counted when they succeed or fail on our side, and not at all without a rate limit", async () => {
    const down = () => {
      throw new Error("down");
    };
    for (
      const [options, status] of [
        [{ authenticate: () => state("ann") }, 200],
        [{ authenticate: down }, 503],
        [{ authenticate: () => null, rateLimit: false }, 401],
      ] as const
    ) {
      const { request } = createRoute(options);
      for (let n = 0; n < 40; n++) assert.equal((await request("/websocket?access_token=token-1")).status, status);
    }
  });
});

describe("Identity, asked more than once", () => {
  /** A client ann, and a stall for each time it is asked who she is. */
  function asked() {
    const stalls: Stall<AuthenticationState | null>[] = [];
    const revalidate = () => {
      stalls.push(new Stall());
      return stalls.at(-1)!.promise;
    };
    const observed = observe({ mode: "public", authenticate: () => state("bob"), revalidate });
    return { stalls, ...observed, ...open(observed.controller, { identity: state("ann", "editor") }) };
  }

  for (const late of [state("ann", "editor"), null]) {
    it(`drops the late answer ${late && "ann"} of a refresh when an auth was accepted meanwhile`, async () => {
      const { stalls, controller, connection, client, transport } = asked();
      const refreshed = controller.refresh({ user: "ann" });
      connection.message(auth("bob"));
      await turn();
      transport.take();
      stalls[0]!.resolve(late);
      await refreshed;
      assert.equal(client.accountability.user, "bob");
      assert.deepEqual(transport.take(), []);
    });
  }

  it("keeps the answer of the later of two refreshes when the earlier one answers last", async () => {
    const { stalls, controller, client } = asked();
    const [first, second] = [controller.refresh({ user: "ann" }), controller.refresh({ user: "ann" })];
    stalls[1]!.resolve(state("ann", "guest"));
    await second;
    stalls[0]!.resolve(state("ann", "admin"));
    await first;
    assert.equal(client.accountability.role, "guest");
  });

  it("closes with 4403 when the user is disconnected between the answer and the opening of the socket", async () => {
    const { controller, request, host } = createRoute({ authenticate: () => state("ann") });
    let accepted: Acceptance | undefined;
    host.runtime.accept = (_request, acceptance) => {
      accepted = acceptance;
      return new Response(null);
    };
    await request("/websocket?access_token=token-1");
    controller.disconnect({ user: "ann" });
    const transport = new FakeTransport();
    accepted!.open(transport);
    assert.equal(transport.closes[0]?.code, 4403);
  });
});
