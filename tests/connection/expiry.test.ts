/** `src/connection/identity.ts` over time: credentials run out, are renewed, revalidated or taken away. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { AuthenticationState } from "../../src/application/authentication.ts";
import type { WebSocketControllerOptions } from "../../src/application/options.ts";
import type { Handshake } from "../../src/application/websocket-client.ts";
import { HibernatingTransport, open, openOn } from "../support/fake-transport.ts";
import { observe } from "../support/observed.ts";
import type { TestClock } from "../support/test-clock.ts";
import { Stall, turn } from "../support/waiting.ts";

const TIMEOUT = 2000;
const expired = (uid?: number) => ({
  type: "auth",
  status: "error",
  error: { code: "TOKEN_EXPIRED", message: "The token has expired" },
  ...(uid === undefined ? {} : { uid }),
});

/** Ann's state, good for so many ms from now. */
const annFor = (clock: TestClock, ms: number): AuthenticationState => ({
  accountability: { user: "ann", role: "editor" },
  expires_at: (clock.now() + ms) / 1000,
});

/** Ann is connected for a minute; tokens are names and good for an hour, the name `bad` is refused. */
function connect(options: WebSocketControllerOptions = {}, mode: Handshake["mode"] = "handshake", ms = 60_000) {
  const observed = observe({
    mode,
    timeout: TIMEOUT,
    authenticate: (credentials) => {
      const user = "access_token" in credentials ? credentials.access_token : "";
      return user === "bad" ? null : { ...annFor(observed.clock, 3_600_000), accountability: { user, role: "editor" } };
    },
    ...options,
  });
  const opened = open(observed.controller, { mode, identity: annFor(observed.clock, ms) });
  observed.takeNames();
  return {
    ...observed,
    ...opened,
    receive: (message: object) => opened.connection.message(JSON.stringify(message)),
    codes: () => opened.transport.closes.map(({ code }) => code),
  };
}

describe("a client whose token expires", () => {
  it("receives TOKEN_EXPIRED at that time, and nothing from then on", async () => {
    const { clock, controller, client, transport, takeNames } = connect();
    clock.advance(59_999);
    controller.broadcast('"before"');
    assert.deepEqual(transport.take(), ["before"]);
    clock.advance(1);
    assert.deepEqual(transport.take(), [expired()]);
    for (const filter of [{}, { user: "ann" }]) {
      assert.deepEqual(await controller.broadcast("x", filter), { matched: 0, sent: 0, dropped: 0 });
    }
    client.send("x");
    assert.deepEqual([transport.sent, transport.closes, takeNames()], [[], [], []]);
    assert.deepEqual([client.accountability.user, controller.clients().has(client)], ["ann", true]);
  });

  it("is answered TOKEN_EXPIRED to whatever it sends, but a ping", () => {
    const { clock, transport, receive, controller, takeNames } = connect();
    controller.use(() => assert.fail("nothing of it reaches the application"));
    clock.advance(60_000);
    transport.take();
    receive({ type: "x", uid: 1 });
    receive({ type: "ping", uid: 2 });
    receive({ type: "auth", uid: 3 });
    receive({ type: "pong" });
    const [message, ping, auth, ...more] = transport.take();
    assert.deepEqual([message, ping, auth.error.code, more], [expired(1), { type: "pong", uid: 2 }, "INVALID_PAYLOAD", []]);
    assert.deepEqual(takeNames(), []);
  });

  for (const [when, wait] of [["in time", TIMEOUT - 250], ["too late", TIMEOUT + 1_000]] as const) {
    it(`is told so when it reads again, ${when}, if that was dropped because it did not read`, async () => {
      const { clock, client, transport, receive } = connect({ slowConsumer: "drop", maxBufferedBytes: 1_000 }, "public");
      transport.bufferedAmount = 5_000;
      clock.advance(60_000 + wait);
      assert.deepEqual(transport.take(), []);
      transport.bufferedAmount = 0;
      clock.advance(250);
      const [dropped, ...others] = transport.take();
      assert.deepEqual([dropped.error.code, others], ["MESSAGES_DROPPED", [expired()]]);
      receive({ type: "auth", access_token: "ann", uid: 1 });
      await turn();
      assert.deepEqual([transport.take(), client.accountability.user], [[{ type: "auth", status: "ok", uid: 1 }], "ann"]);
    });
  }

  it("is not told so once more when it has renewed its credentials, or heard it as an answer", async () => {
    for (const message of [{ type: "auth", access_token: "ann" }, { type: "x" }]) {
      const { clock, client, transport, receive } = connect({ slowConsumer: "drop", maxBufferedBytes: 1_000 }, "public");
      clock.advance(59_000);
      transport.bufferedAmount = 5_000;
      clock.advance(1_000);
      transport.bufferedAmount = 0;
      receive(message);
      await turn();
      const heard = transport.take().filter(({ error }) => error?.code === "TOKEN_EXPIRED");
      assert.ok(message.type === "x" ? heard.length > 0 : heard.length === 0);
      // It misses something else.
      transport.bufferedAmount = 5_000;
      receive({ type: "ping" });
      transport.bufferedAmount = 0;
      clock.advance(250);
      assert.deepEqual(transport.take().map(({ error }) => error.code), ["MESSAGES_DROPPED"]);
      assert.equal(client.readyState, 1);
    }
  });

  it("receives no TOKEN_EXPIRED when it reads again if revalidate has renewed its credentials meanwhile", async () => {
    const answers: (AuthenticationState | null)[] = [null];
    const options = { slowConsumer: "drop", maxBufferedBytes: 1_000, revalidate: () => answers.shift()! } as const;
    const { clock, client, controller, transport } = connect(options, "public");
    transport.bufferedAmount = 5_000;
    clock.advance(60_000);
    await turn();
    clock.advance(TIMEOUT);
    assert.equal(client.accountability.user, null);
    answers.push(annFor(clock, 60_000));
    await controller.refresh({});
    assert.equal(client.accountability.user, "ann");
    for (let n = 0; n < 2; n++) {
      transport.bufferedAmount = 0;
      clock.advance(250);
      assert.deepEqual(transport.take().map(({ error }) => error.code), ["MESSAGES_DROPPED"]);
      transport.bufferedAmount = 5_000;
      client.send("x");
    }
  });

  it("is closed with 4401 after the grace, which nothing but an auth prolongs", () => {
    for (const mode of ["handshake", "strict"] as const) {
      const { clock, transport, receive, events, codes, client, connection } = connect({}, mode);
      clock.advance(60_000 + TIMEOUT - 1);
      receive({ type: "x" });
      receive({ type: "auth" });
      assert.deepEqual(codes(), []);
      clock.advance(1);
      assert.deepEqual([codes(), transport.take().at(-1).error.code], [[4401], "AUTH_TIMEOUT"]);
      connection.closed(4401, "", true);
      assert.deepEqual(events.map(([event, payload]) => [event, payload.client]), [["auth.failure", client], ["close", client]]);
      assert.equal("cause" in events[1]![1] && events[1]![1].cause, "expired");
    }
  });

  it("gives its place among the user's connections back when it is nobody after the grace", () => {
    const { clock, controller, client } = connect({ maxConnectionsPerUser: 1 }, "public");
    assert.equal(open(controller, { identity: annFor(clock, 3_600_000) }).client.readyState, 2);
    clock.advance(60_000);
    // It may still renew its credentials.
    assert.equal(open(controller, { identity: annFor(clock, 3_600_000) }).client.readyState, 2);
    clock.advance(TIMEOUT);
    assert.equal(client.accountability.user, null);
    assert.equal(open(controller, { identity: annFor(clock, 3_600_000) }).client.readyState, 1);
    assert.equal(open(controller, { identity: annFor(clock, 3_600_000) }).client.readyState, 2);
  });

  it("is nobody in public mode after the grace, and receives what is for everybody", () => {
    const { clock, controller, client, transport, codes } = connect({}, "public");
    clock.advance(60_000 + TIMEOUT);
    transport.take();
    assert.deepEqual([client.accountability, client.expires_at], [{ user: null, role: null }, null]);
    controller.broadcast('"all"');
    controller.broadcast('"ann"', { user: "ann" });
    assert.deepEqual([transport.take(), codes(), clock.timers], [["all"], [], 0]);
  });

  it("goes on as who it proves to be within the grace, without a second connect", async () => {
    const { clock, controller, client, transport, receive, takeNames } = connect();
    clock.advance(60_000 + TIMEOUT - 1);
    transport.take();
    receive({ type: "auth", access_token: "bob", uid: 1 });
    receive({ type: "x" });
    await turn();
    clock.advance(TIMEOUT);
    assert.deepEqual(transport.take(), [{ type: "auth", status: "ok", uid: 1 }]);
    controller.broadcast('"bob"', { user: "bob" });
    controller.broadcast('"ann"', { user: "ann" });
    assert.deepEqual([transport.take(), takeNames()], [["bob"], ["auth.success", "message"]]);
    assert.equal(client.accountability.user, "bob");
  });

  it("is closed when it fails to renew, and has three attempts in public mode", async () => {
    for (const [mode, attempts] of [["handshake", 1], ["strict", 1], ["public", 3]] as const) {
      const { clock, transport, receive, codes } = connect({}, mode);
      clock.advance(60_000);
      transport.take();
      for (let n = 0; n < attempts; n++) {
        assert.deepEqual(codes(), []);
        receive({ type: "auth", access_token: "bad" });
        await turn();
        assert.equal(transport.take()[0].error.code, "AUTH_FAILED");
      }
      assert.deepEqual(codes(), [4401]);
    }
  });

  it("has three attempts again after one that was good", async () => {
    const { receive, codes } = connect({}, "public");
    for (const user of ["bad", "bad", "ann", "bad", "bad", "ann"]) receive({ type: "auth", access_token: user });
    for (let n = 0; n < 10; n++) await turn();
    assert.deepEqual(codes(), []);
    for (let n = 0; n < 3; n++) receive({ type: "auth", access_token: "bad" });
    for (let n = 0; n < 10; n++) await turn();
    assert.deepEqual(codes(), [4401]);
  });

  it("goes by the wall clock, as a token does, and looks at it each minute and at each message", () => {
    const forward = connect({}, "handshake", 3_600_000);
    forward.clock.step(3_600_000);
    forward.receive({ type: "x", uid: 1 });
    assert.deepEqual(forward.transport.take(), [expired(), expired(1)]);
    const silent = connect({}, "handshake", 3_600_000);
    silent.clock.step(3_600_000);
    silent.clock.advance(60_000);
    assert.deepEqual(silent.transport.take(), [expired()]);
    const back = connect();
    back.clock.step(-3_600_000);
    back.clock.advance(60_000);
    assert.deepEqual(back.transport.take(), []);
    back.clock.advance(3_600_000);
    assert.deepEqual(back.transport.take(), [expired()]);
  });

  it("lives as long as a token of sixty days, longer than a timer can", () => {
    const { clock, transport } = connect({}, "handshake", 60 * 86_400_000);
    clock.jump(60 * 86_400_000 - 1);
    assert.deepEqual(transport.take(), []);
    clock.advance(1);
    assert.deepEqual([transport.take(), clock.delays.filter((delay) => delay > 60_000)], [[expired()], []]);
  });

  it("has the rest of its grace when it comes back from hibernation", () => {
    const { controller, clock } = observe({ authenticate: () => null, timeout: TIMEOUT });
    const transport = new HibernatingTransport();
    const state = annFor(clock, 0);
    const handshake = { mode: "handshake", url: "", origin: null, ip: null, userAgent: null, protocol: null };
    const saved = { controller: "main", uid: "1", handshake, state: null, expires_at: state.expires_at ?? null };
    const { accountability } = state;
    const { client } = controller.restore(transport, { ...saved, accountability, phase: "expired", until: clock.now() + 500 });
    controller.broadcast("x");
    assert.deepEqual([transport.sent, controller.clients().has(client)], [[], true]);
    clock.advance(499);
    assert.deepEqual(transport.closes, []);
    clock.advance(1);
    assert.deepEqual(transport.closes.map(({ code }) => code), [4401]);
  });
});

describe("a slow client whose object hibernates", () => {
  it("is told after it has woken what it had missed before, its expiry too", () => {
    const options = { authenticate: () => null, timeout: TIMEOUT, slowConsumer: "drop", maxBufferedBytes: 1_000 } as const;
    for (const ms of [500, 60_000]) {
      const before = observe(options);
      const sleeping = openOn(new HibernatingTransport(), before.controller, { identity: annFor(before.clock, ms) });
      sleeping.transport.bufferedAmount = 5_000;
      for (const text of ["1", "2"]) before.controller.broadcast(text);
      before.clock.advance(600);
      const { controller, clock } = observe(options);
      clock.step(before.clock.now() - clock.now());
      const transport = new HibernatingTransport();
      transport.bufferedAmount = 5_000;
      controller.restore(transport, sleeping.transport.saved.at(-1)!); // It was saved when it was admitted.
      clock.advance(250);
      assert.deepEqual(transport.take(), []);
      transport.bufferedAmount = 0;
      clock.advance(250);
      const codes = transport.take().map(({ error }) => error.code);
      assert.deepEqual(codes, ms === 500 ? ["MESSAGES_DROPPED", "TOKEN_EXPIRED"] : ["MESSAGES_DROPPED"]);
      assert.equal(transport.saved.at(-1)!.missed, undefined);
    }
  });
});

describe("revalidate, at expiry", () => {
  it("renews unseen by the client, and what came meanwhile is handled in order", async () => {
    const stall = new Stall<AuthenticationState | null>();
    const asked: unknown[] = [];
    const { clock, client, transport, receive, takeNames, controller } = connect({
      revalidate: (client) => {
        asked.push(client);
        return stall.promise;
      },
    });
    clock.advance(60_000);
    for (const uid of [1, 2, 3]) receive({ type: "ping", uid });
    controller.broadcast("x");
    assert.deepEqual([transport.sent, asked], [[], [client]]);
    stall.resolve({ ...annFor(clock, 3_600_000), accountability: { user: "ann", role: "admin" } });
    await turn();
    assert.deepEqual(transport.take().map(({ uid }) => uid), [1, 2, 3]);
    controller.broadcast('"admin"', { role: "admin" });
    controller.broadcast('"editor"', { role: "editor" });
    assert.deepEqual([transport.take(), client.accountability.role, takeNames()], [["admin"], "admin", []]);
    clock.advance(3_600_000 - 1);
    assert.equal(asked.length, 1);
    clock.advance(1);
    assert.equal(asked.length, 2);
  });

  it("says no: the client is told, and its grace begins then", async () => {
    const outcomes: [revalidate: () => AuthenticationState | null, events: string[]][] = [
      [() => null, []],
      [() => {
        throw new Error("down");
      }, ["error"]],
      [() => ({ accountability: { user: 7, role: null } }) as never, ["error"]],
      [() => ({ accountability: { user: "ann", role: null }, expires_at: 1 }), []],
    ];
    for (const [revalidate, events] of outcomes) {
      const { clock, transport, codes, takeNames } = connect({ revalidate });
      clock.advance(60_000);
      await turn();
      assert.deepEqual([transport.take(), takeNames()], [[expired()], events]);
      clock.advance(TIMEOUT - 1);
      assert.deepEqual(codes(), []);
      clock.advance(1);
      assert.deepEqual(codes(), [4401]);
    }
  });

  it("never answers: it counts as no after the timeout, and the grace begins then", async () => {
    const { clock, transport, codes, takeNames } = connect({ revalidate: () => new Promise(() => {}) });
    clock.advance(60_000 + TIMEOUT);
    await turn();
    assert.deepEqual([transport.take(), takeNames()], [[expired()], ["error"]]);
    clock.advance(TIMEOUT - 1);
    assert.deepEqual(codes(), []);
    clock.advance(1);
    assert.deepEqual(codes(), [4401]);
  });

  it("counts as running until the newest call has answered", async () => {
    const stalls = [new Stall<AuthenticationState | null>(), new Stall<AuthenticationState | null>()];
    const auth = new Stall<AuthenticationState | null>();
    let calls = 0;
    const { clock, connection, receive } = connect({
      timeout: 600_000,
      authenticate: () => auth.promise,
      revalidate: () => stalls[calls++]!.promise,
    });
    receive({ type: "auth", access_token: "ann" });
    clock.advance(60_000);
    auth.resolve(annFor(clock, 1_000));
    await turn();
    clock.advance(1_000);
    assert.deepEqual([connection.state, calls], ["expired", 2]);
    stalls[0]!.resolve(null);
    await turn();
    assert.ok(connection.revalidating);
    stalls[1]!.resolve(annFor(clock, 60_000));
    await turn();
    assert.deepEqual([connection.state, connection.revalidating], ["admitted", undefined]);
  });

  it("changes nothing when the client has left meanwhile", async () => {
    for (const leave of ["closed", "closing"]) {
      const stall = new Stall<AuthenticationState | null>();
      const { clock, transport, connection, controller, client } = connect({ revalidate: () => stall.promise });
      clock.advance(60_000);
      if (leave === "closed") connection.closed(1006, "", false);
      else client.close();
      stall.resolve(annFor(clock, 60_000));
      await turn();
      controller.broadcast("x");
      clock.advance(10_000);
      assert.deepEqual([transport.sent, controller.clients().size, clock.timers], [[], 0, 0]);
    }
  });
});
