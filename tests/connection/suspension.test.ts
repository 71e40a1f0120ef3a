/** What is under way when a client is disconnected or its credentials run out: state is looked at after each await, before the effect. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import * as v from "valibot";
import type { AuthenticationState } from "../../src/application/authentication.ts";
import { type ChannelDeclarations, Channels } from "../../src/channels/channels.ts";
import { WebSocketController } from "../../src/controller/controller.ts";
import { MemoryEngine } from "../../src/engines/memory-engine.ts";
import { WebSocketError } from "../../src/protocol/errors.ts";
import type { WebSocketControllerOptions } from "../../src/application/options.ts";
import { createChannels, TestPeer } from "../support/channels-fixture.ts";
import { FakeTransport, HANDSHAKE, open } from "../support/fake-transport.ts";
import { observe } from "../support/observed.ts";
import { TestClock } from "../support/test-clock.ts";
import { Stall, turn } from "../support/waiting.ts";

const subscribe = (channel: string, rest: Record<string, unknown> = {}) => ({ type: "subscribe", channel, ...rest });
const publish = (channel: string, rest: Record<string, unknown> = {}) => ({ type: "publish", channel, event: "e", ...rest });

/** An engine whose answers the test gives, and what it was asked. */
class StalledEngine extends MemoryEngine {
  readonly asked: string[] = [];
  /** Names of calls that wait for their stall. */
  readonly stalls = new Map<string, Stall>();

  #wait<T>(call: string, answer: () => T): T {
    this.asked.push(call);
    const stall = this.stalls.get(call);
    // A broker's engine answers with a promise.
    return stall ? stall.promise.then(answer) as T : answer();
  }

  override subscribe(...args: Parameters<MemoryEngine["subscribe"]>) {
    return this.#wait("subscribe", () => super.subscribe(...args));
  }

  override publish(...args: Parameters<MemoryEngine["publish"]>) {
    return this.#wait("publish", () => super.publish(...args));
  }

  override read(...args: Parameters<MemoryEngine["read"]>) {
    return this.#wait("read", () => super.read(...args));
  }

  override members(...args: Parameters<MemoryEngine["members"]>) {
    return this.#wait("members", () => super.members(...args));
  }

  override join(...args: Parameters<MemoryEngine["join"]>) {
    return this.#wait("join", () => super.join(...args));
  }
}

/** A node whose user ann is let in for a minute; what the application is asked waits where the test has put a stall. */
function create(options: WebSocketControllerOptions = {}) {
  const engine = new StalledEngine();
  const stalls = new Map<string, Stall>();
  const asked: string[] = [];
  const wait = (name: string, answer: unknown) => {
    asked.push(name);
    const stall = stalls.get(name);
    return stall ? stall.promise.then(() => answer) : answer;
  };
  const declarations: ChannelDeclarations = {
    a: {
      authorize: ({ action }) => wait(`authorize ${action}`, true) as boolean,
      snapshot: () => wait("snapshot", "rows"),
      history: { size: 10, ttl: 600_000 },
      presence: { data: () => wait("data", 1) as number },
    },
    b: { authorize: () => stalls.get("authorize publish")!.promise.then(() => false) },
  };
  const node = createChannels(declarations, {
    mode: "handshake",
    // Longer than the test takes: what is stalled is not given up.
    timeout: 600_000,
    authenticate: (credentials) => ann("access_token" in credentials ? credentials.access_token : "ann"),
    engine,
    ...options,
  });
  const ann = (user = "ann"): AuthenticationState => ({
    accountability: { user, role: null },
    expires_at: node.clock.now() / 1000 + 60,
  });
  const transport = new FakeTransport();
  const connection = node.controller.open(transport, { ...HANDSHAKE, mode: options.mode ?? "handshake" }, ann());
  return { ...node, ann, engine, stalls, asked, peer: new TestPeer(connection, connection.client, transport) };
}

type Node = ReturnType<typeof create>;

/** What ends a client's rights, with its connection still there: the peer has not answered the close. */
const ENDS: Record<string, (node: Node) => void> = {
  "disconnect() by user": ({ controller }) => controller.disconnect({ user: "ann" }),
  "disconnect() by uid": ({ controller, peer }) => controller.disconnect({ uid: peer.client.uid }),
  "client.close()": ({ peer }) => peer.client.close(),
  "controller.close()": ({ controller }) => void controller.close(),
  "the peer's own close, before the runtime reports it": ({ peer }) => void (peer.transport.readyState = 2),
  "a close that is reported": ({ peer }) => peer.leave(),
  "expiry": ({ clock }) => clock.advance(60_000),
  "expiry by a wall clock that was set forward": ({ clock }) => clock.step(60_000),
};

const expires = (end: string): boolean => end.startsWith("expiry");

/** What a client is told of a message that its credentials have run out under. */
const expired = (uid: number) => ({
  type: "auth",
  status: "error",
  error: { code: "TOKEN_EXPIRED", message: "The token has expired" },
  uid,
});

// deno-lint-ignore no-explicit-any -- a test reads whatever was sent
const withUid = (messages: any[], uid: number) => messages.filter((message) => message.uid === uid);

for (const [end, act] of Object.entries(ENDS)) {
  describe(`After ${end}`, () => {
    for (const waits of ["authorize", "what it published before to be allowed", "what it published before to be appended"]) {
      it(`what a client was about to publish is not, that waits for ${waits}`, async () => {
        const node = create();
        const { peer, stalls, engine, channels } = node;
        const stall = new Stall();
        if (waits === "authorize") stalls.set("authorize publish", stall);
        else if (waits === "what it published before to be allowed") {
          stalls.set("authorize publish", stall);
          peer.send(publish("a", { uid: 1, data: 1 }));
          stalls.delete("authorize publish");
        } else {
          engine.stalls.set("publish", stall);
          peer.send(publish("a", { uid: 1, data: 1 }));
          await peer.take();
          engine.stalls.delete("publish");
        }
        peer.send(publish("a", { uid: 2, data: 2 }));
        await peer.take();
        const before = engine.asked.filter((call) => call === "publish").length;
        act(node);
        stall.resolve();
        const answers = withUid(await peer.take(), 2);
        assert.equal(engine.asked.filter((call) => call === "publish").length, before);
        assert.deepEqual(answers, expires(end) ? [expired(2)] : []);
        if (end === "controller.close()") return;
        const kept = (await channels.history("a")).publications.map(({ data }) => data);
        assert.equal(kept.includes(2), false);
      });
    }

    it("a message that a middleware held is not handled, and the middleware behind it not called", async () => {
      const node = create();
      const { peer, controller, events, asked } = node;
      const stall = new Stall();
      const ran: string[] = [];
      controller.use(async (_context, next) => {
        await stall.promise;
        await next();
        ran.push("back");
      });
      controller.use((_context, next) => {
        ran.push("behind");
        return next();
      });
      controller.handle("x", v.object({}), () => void ran.push("handled"));
      for (const message of [{ type: "x", uid: 1 }, subscribe("a", { uid: 2 })]) peer.send(message);
      await peer.take();
      act(node);
      stall.resolve();
      const answers = await peer.take();
      assert.deepEqual([ran.filter((each) => each !== "back"), asked], [[], []]);
      assert.equal(events.some(([event]) => event === "message"), false);
      assert.deepEqual(withUid(answers, 1), expires(end) ? [expired(1)] : []);
    });

    for (
      const [step, stallAt, after] of [
        ["authorize", "authorize subscribe", ["subscribe", "snapshot", "read", "join", "data"]],
        ["the engine to subscribe", "engine subscribe", ["snapshot", "read", "join", "data"]],
        ["what was missed", "engine read", ["snapshot", "join", "data"]],
        ["its snapshot", "snapshot", ["join", "data", "members"]],
        ["who is there", "engine members", ["join", "data"]],
      ] as const
    ) {
      it(`a subscribe that waits for ${step} has no effect${expires(end) ? " until it is let in again" : ""}`, async () => {
        const node = create();
        const { peer, stalls, engine, asked, channels } = node;
        const recover = step === "what was missed" ? { recover: (await channels.publish("a", "e", 0))! } : {};
        const stall = new Stall();
        if (stallAt.startsWith("engine ")) engine.stalls.set(stallAt.slice(7), stall);
        else stalls.set(stallAt, stall);
        peer.send(subscribe("a", { uid: 1, presence: true, ...recover }));
        await peer.take();
        engine.asked.length = asked.length = 0;
        act(node);
        stall.resolve();
        // Whether a frame may be sent goes by the phase alone: to look at the clock for each would cost too much.
        const answers = withUid(await peer.take(), 1).filter(({ type }) => type !== "presence" || !end.includes("wall clock"));
        const calls = [...engine.asked, ...asked].filter((call) => (after as readonly string[]).includes(call));
        assert.deepEqual(calls, []);
        assert.deepEqual(answers, []);
        engine.stalls.clear();
        stalls.clear();
        if (!expires(end)) return;
        peer.send({ type: "auth", access_token: "ann" });
        const events = withUid(await peer.take(), 1).map(({ type, event }) => `${type} ${event}`);
        if (step !== "who is there") assert.equal(events.shift(), "subscription init");
        assert.deepEqual(events.filter((event) => event !== "presence init"), ["presence join"]);
        // It is sent what is published, as any other.
        await channels.publish("a", "e", "later");
        assert.deepEqual(withUid(await peer.take(), 1).map(({ data }) => data), ["later"]);
      });
    }
  });
}

describe("A channel that could not be opened while the client was suspended", () => {
  it("is opened again when the client is admitted again", async () => {
    const { peer, engine, clock, channels } = create();
    const stall = new Stall();
    engine.stalls.set("subscribe", stall);
    peer.send(subscribe("a", { uid: 1 }));
    await peer.take();
    clock.advance(60_000);
    stall.reject(new Error("The engine is away"));
    await peer.take();
    engine.stalls.clear();
    peer.send({ type: "auth", access_token: "ann" });
    assert.deepEqual(withUid(await peer.take(), 1).map(({ type, event }) => `${type} ${event}`), ["subscription init"]);
    await channels.publish("a", "e", "later");
    assert.deepEqual(withUid(await peer.take(), 1).map(({ data }) => data), ["later"]);
  });
});

describe("While revalidate is asked about credentials that have run out", () => {
  for (const renewed of [true, false]) {
    it(`what is under way waits, and goes ${renewed ? "on as if nothing had been" : "no further"}`, async () => {
      const stall = new Stall<AuthenticationState | null>();
      const node = create({ revalidate: () => stall.promise });
      const { peer, stalls, engine, controller, clock, ann } = node;
      const handled: unknown[] = [];
      const held = new Stall();
      controller.handle("x", v.object({}), ({ client }) => void handled.push(client.accountability.user));
      controller.use(async ({ message }, next) => {
        if (message.type === "x") await held.promise;
        await next();
      });
      const allowed = new Stall();
      stalls.set("authorize publish", allowed);
      peer.send(publish("a", { uid: 1, data: 1 }), { type: "x", uid: 2 });
      await peer.take();
      clock.advance(60_000);
      allowed.resolve();
      held.resolve();
      assert.deepEqual([await peer.take(), handled, engine.asked], [[], [], []]);
      stall.resolve(renewed ? ann() : null);
      const answers = await peer.take();
      if (renewed) {
        assert.deepEqual([handled, engine.asked], [["ann"], ["publish"]]);
        assert.deepEqual(answers.map(({ uid, status }) => [uid, status]).sort(), [[1, "ok"], [2, "ok"]]);
      } else {
        assert.deepEqual([handled, engine.asked], [[], []]);
        for (const uid of [1, 2]) assert.deepEqual(withUid(answers, uid), [expired(uid)]);
      }
    });
  }
});

describe("An answer that is made after the credentials have expired", () => {
  for (const plan of ["revalidate is asked and renews them", "revalidate is asked and refuses", "the client has to send auth"]) {
    it(`is sent at once to a request that was accepted before, while ${plan}`, async () => {
      const stall = new Stall<AuthenticationState | null>();
      const isAsked = plan.startsWith("revalidate");
      const { peer, engine, controller, clock, ann, stalls } = create(isAsked ? { revalidate: () => stall.promise } : {});
      const made = new Stall();
      controller.handle("good", v.object({}), () => made.promise);
      controller.handle("bad", v.object({}), async () => {
        await made.promise;
        throw new Error("It has failed");
      });
      engine.stalls.set("publish", made);
      peer.send({ type: "good", uid: 1 }, { type: "bad", uid: 2 }, publish("a", { uid: 3, data: 1 }));
      stalls.set("authorize publish", made);
      peer.send(publish("b", { uid: 4 }));
      await peer.take();
      clock.advance(60_000);
      made.resolve();
      const answers = async () =>
        (await peer.take()).filter(({ uid }) => uid !== undefined).map(({ uid, error }) => [uid, error?.code ?? "ok"]).sort();
      // Whether the last is allowed was not known before.
      const [outcomes, refused] = [[[1, "ok"], [2, "INTERNAL_ERROR"], [3, "ok"]], [[4, "TOKEN_EXPIRED"]]];
      assert.deepEqual(await answers(), isAsked ? outcomes : [...outcomes, ...refused]);
      if (!isAsked) return;
      const isRenewed = plan.endsWith("renews them");
      stall.resolve(isRenewed ? ann() : null);
      assert.deepEqual(await answers(), isRenewed ? [[4, "FORBIDDEN"]] : refused);
    });
  }
});

describe("A publication that fails in the engine after the credentials have expired", () => {
  it("is answered with its error, because a client sends a message again that is answered TOKEN_EXPIRED", async () => {
    const { peer, engine, clock } = create();
    const stall = new Stall();
    engine.stalls.set("publish", stall);
    peer.send(publish("a", { uid: 1, data: 1 }));
    await peer.take();
    clock.advance(60_000);
    await peer.take();
    stall.reject(new WebSocketError("engine", "ENGINE_UNAVAILABLE", "It may have been published", { details: { n: 1 } }));
    assert.deepEqual(await peer.take(), [{
      type: "publish",
      status: "error",
      error: { n: 1, code: "ENGINE_UNAVAILABLE", message: "It may have been published" },
      uid: 1,
    }]);
  });
});

describe("A client whose credentials have expired", () => {
  it("is sent answers only within maxBufferedBytes", async () => {
    const { peer, controller, clock } = create({ maxBufferedBytes: 1_024 });
    const made = new Stall();
    controller.handle("x", v.object({}), () => made.promise);
    peer.send({ type: "x", uid: 1 });
    await peer.take();
    clock.advance(60_000);
    await peer.take();
    peer.transport.bufferedAmount = 2_048;
    made.resolve();
    assert.deepEqual(await peer.take(), []);
    assert.deepEqual(peer.transport.closes.map(({ code }) => code), [4508]);
  });

  it("is not sent the answer when it is closed because it did not authenticate in time", async () => {
    const { peer, controller, clock } = create({ timeout: 1_000 });
    const made = new Stall();
    controller.handle("x", v.object({}), () => made.promise);
    peer.send({ type: "x", uid: 1 });
    await peer.take();
    clock.advance(60_000);
    clock.advance(1_000);
    assert.deepEqual((await peer.take()).map(({ error }) => error?.code), ["TOKEN_EXPIRED", "AUTH_TIMEOUT"]);
    made.resolve();
    assert.deepEqual(await peer.take(), []);
  });
});

describe("A subscription whose channel is being opened when its client authenticates again", () => {
  it("is sent what is published once it is open", async () => {
    const { peer, engine, channels } = create();
    const stall = new Stall();
    engine.stalls.set("subscribe", stall);
    peer.send(subscribe("a", { uid: 1 }), { type: "auth", access_token: "ann" });
    await peer.take();
    stall.resolve();
    assert.deepEqual(withUid(await peer.take(), 1).map(({ event }) => event), ["init"]);
    await channels.publish("a", "e", "later");
    assert.deepEqual(withUid(await peer.take(), 1).map(({ data }) => data), ["later"]);
    assert.equal(engine.asked.filter((call) => call === "subscribe").length, 1);
  });
});

describe("A message whose listener closes the client", () => {
  it("is not handled, and leaves no subscriber behind", async () => {
    const { controller, channels, join } = createChannels({ a: { authorize: () => assert.fail("it was asked") } });
    const handled: unknown[] = [];
    controller.handle("x", v.object({}), () => void handled.push(1));
    controller.on("message", ({ client }) => client.close());
    const [first, second] = [join("ann"), join("ann")];
    first.send({ type: "x" });
    second.send(subscribe("a"));
    await turn();
    assert.deepEqual([handled, channels.stats().subscriptions], [[], 0]);
  });
});

describe("A message that shows that the credentials have expired", () => {
  it("is not handled if the client reads too slowly to be told, and leaves no subscriber behind", () => {
    const clock = new TestClock();
    const controller = new WebSocketController({ clock, logger: false, mode: "handshake", authenticate: () => null });
    const channels = new Channels(controller, { a: { authorize: () => assert.fail("it was asked") } });
    const handled: unknown[] = [];
    controller.handle("x", v.object({}), () => void handled.push(1));
    for (const message of [{ type: "x" }, subscribe("a")]) {
      const identity = { accountability: { user: "ann", role: null }, expires_at: clock.now() / 1000 + 60 };
      const { connection, transport } = open(controller, { mode: "handshake", identity });
      // As on Bun, where `close` has reported the end when it returns.
      transport.close = (code, reason) => connection.closed(code, reason, true);
      transport.bufferedAmount = 2 ** 30;
      clock.step(60_000);
      connection.message(JSON.stringify(message));
      assert.equal(connection.state, "closed");
    }
    assert.deepEqual([handled, channels.stats().subscriptions], [[], 0]);
  });
});

describe("An answer about who a client is", () => {
  const state = (user: string, role: string): AuthenticationState => ({ accountability: { user, role } });

  /** Lets so many microtasks run. */
  const microtasks = async (count: number) => {
    for (let n = 0; n < count; n++) await Promise.resolve();
  };

  it("of a refresh never undoes a later auth, whatever the microtask in which each comes", async () => {
    for (let between = -20; between <= 20; between++) {
      const [verified, revalidated] = [new Stall<AuthenticationState>(), new Stall<AuthenticationState>()];
      const { controller } = observe({
        mode: "public",
        authenticate: () => verified.promise,
        revalidate: () => revalidated.promise,
      });
      const { connection, client, transport } = open(controller, { identity: state("ann", "editor") });
      connection.message('{"type":"auth","access_token":"token-1"}');
      const refreshed = controller.refresh({ role: "editor" });
      await turn();
      if (between < 0) verified.resolve(state("bob", "guest"));
      else revalidated.resolve(state("ann", "writer"));
      await microtasks(Math.abs(between));
      if (between < 0) revalidated.resolve(state("ann", "writer"));
      else verified.resolve(state("bob", "guest"));
      await refreshed;
      await turn();
      assert.deepEqual(transport.take().map(({ status }) => status), ["ok"], `${between} microtasks`);
      assert.deepEqual(client.accountability, { user: "bob", role: "guest" }, `${between} microtasks`);
    }
  });

  it("that is older than a refresh never comes into force, whatever the microtask in which the refresh comes", async () => {
    for (let between = 0; between <= 30; between++) {
      const verified = new Stall<AuthenticationState>();
      const { controller } = observe({
        mode: "handshake",
        authenticate: () => verified.promise,
        revalidate: () => state("ann", "guest"),
      });
      const { connection, client } = open(controller, { mode: "handshake" });
      connection.message('{"type":"auth","access_token":"token-1"}');
      await turn();
      verified.resolve(state("ann", "editor"));
      await microtasks(between);
      await controller.refresh({ user: "ann" });
      await turn();
      assert.equal(client.accountability.role, "guest", `${between} microtasks`);
    }
  });

  it("that is older than a disconnect never comes into force, whatever the microtask in which that comes", async () => {
    for (let between = 0; between <= 30; between++) {
      const verified = new Stall<AuthenticationState>();
      const { controller } = observe({ mode: "handshake", authenticate: () => verified.promise });
      const { connection, client } = open(controller, { mode: "handshake" });
      connection.message('{"type":"auth","access_token":"token-1"}');
      await turn();
      verified.resolve(state("ann", "editor"));
      await microtasks(between);
      controller.disconnect({ user: "ann" });
      await turn();
      assert.notEqual(client.readyState, 1, `${between} microtasks`);
    }
  });
});
