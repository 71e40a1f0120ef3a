/** Every callback of an application against every way to fail: who waits is answered, the rest is an `error` event, and no process ends. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import * as v from "valibot";
import type { AuthenticationState } from "../../src/application/authentication.ts";
import type { ChannelDeclarations } from "../../src/channels/channels.ts";
import type { WebSocketEvents } from "../../src/application/events.ts";
import { MemoryEngine } from "../../src/engines/memory-engine.ts";
import type { WebSocketControllerOptions } from "../../src/application/options.ts";
import { createChannels } from "../support/channels-fixture.ts";
import { createRoute } from "../support/fake-runtime.ts";
import { connectFake } from "../support/fake-server.ts";
import { open } from "../support/fake-transport.ts";
import { type Failure, FAILURES } from "../support/failures.ts";
import { unhandledIn } from "../support/unhandled.ts";
import { turn } from "../support/waiting.ts";

const ANN: AuthenticationState = { accountability: { user: "ann", role: null } };
const AUTH = '{"type":"auth","uid":1,"access_token":"token-1"}';

/** A node with an application that fails in one place. */
type Setup = ReturnType<typeof setUp>;

interface Callback {
  /** What a client is owed: the answer to its `uid` 1, an end of its subscription, or nothing. */
  readonly due: "answer" | "end" | "none";
  /** Where a failure is to be reported: as an `error` event, with one of `auth.failure`, or to nobody who listens. */
  readonly reported: "error" | "auth" | "log";
  /** Whether a `WebSocketError` is the answer, with its code. @default false */
  readonly shows?: boolean;
  /** Whether a promise is waited for, and for how long. @default never */
  readonly waits?: "timeout" | "ever";
  /** Whether any value that is returned is used, so that a wrong one is reported. @default false */
  readonly reads?: boolean;
  /** It may answer nobody by returning. @default false */
  readonly mayKeep?: boolean;
  /** Its type takes no promise, and what it returned is not to be seen from outside. @default false */
  readonly isHidden?: boolean;
  readonly run: (failure: Failure) => Promise<Setup>;
}

function setUp(options: WebSocketControllerOptions = {}, declarations: ChannelDeclarations = {}) {
  const made = createChannels({ ...declarations, "fine": { authorize: () => true } }, options);
  made.controller.handle("echo", v.looseObject({}), () => "fine");
  return { ...made, answers: [] as Record<string, unknown>[], status: undefined as number | undefined };
}

/** Sends messages as a user, and has time enough for what may take as long as the option `timeout`. */
async function exchange(setup: Setup, failure: Failure, ...messages: { type: string }[]): Promise<Setup> {
  const peer = setup.join("ann");
  setup.answers.push(...await peer.ask(...messages));
  if (failure.kind === "pending") setup.clock.advance(10_000);
  setup.answers.push(...await peer.take());
  return setup;
}

const subscribe = { type: "subscribe", channel: "room", uid: 1 };
const publish = { type: "publish", channel: "room", event: "say", data: "x", uid: 1 };
const request = { type: "ask", uid: 1 };
const allowed = { authorize: () => true };

const onChannel =
  (declare: (fail: () => never) => ChannelDeclarations[string], ...messages: { type: string }[]): Callback["run"] => (failure) =>
    exchange(setUp({}, { room: declare(failure.fail) }), failure, ...messages);

const onController =
  (prepare: (setup: Setup, fail: () => never) => void, ...messages: { type: string }[]): Callback["run"] => (failure) => {
    const setup = setUp();
    prepare(setup, failure.fail);
    return exchange(setup, failure, ...messages);
  };

/** Shows a token in an `auth` message. */
const authenticating = (options: (fail: () => never) => WebSocketControllerOptions): Callback["run"] => async (failure) => {
  const setup = setUp(options(failure.fail));
  const { connection, transport } = open(setup.controller, { mode: "handshake" });
  connection.message(AUTH);
  for (let n = 0; n < 4; n++) await turn();
  if (failure.kind === "pending") setup.clock.advance(10_000);
  for (let n = 0; n < 4; n++) await turn();
  // A deadline answers no message in particular.
  setup.answers.push(...transport.take().map((answer) => ({ ...answer, uid: 1 })));
  return setup;
};

const upgrading =
  (options: (fail: () => never) => WebSocketControllerOptions, query = ""): Callback["run"] => async (failure) => {
    const setup = setUp();
    const { controller, request } = createRoute({ ...options(failure.fail), clock: setup.clock });
    controller.on("error", (payload) => void setup.events.push(["error", payload]));
    controller.on("auth.failure", (payload) => void setup.events.push(["auth.failure", payload]));
    const response = request(`/websocket${query}`);
    for (let n = 0; n < 4; n++) await turn();
    if (failure.kind === "pending") setup.clock.advance(10_000);
    setup.status = (await response).status;
    return setup;
  };

/** A client whose credentials are asked about anew. */
const revalidating = (refreshes: boolean): Callback["run"] => async (failure) => {
  const setup = setUp({ authenticate: () => null, revalidate: failure.fail });
  const expires_at = setup.clock.now() / 1000 + 5;
  const { transport } = open(setup.controller, { identity: refreshes ? ANN : { ...ANN, expires_at } });
  if (refreshes) void setup.controller.refresh({ user: "ann" });
  else setup.clock.advance(5_000);
  for (let n = 0; n < 4; n++) await turn();
  if (failure.kind === "pending") setup.clock.advance(10_000);
  for (let n = 0; n < 4; n++) await turn();
  setup.answers.push(...transport.take().filter(({ type }) => type === "auth").map((answer) => ({ ...answer, uid: 1 })));
  return setup;
};

const listening = (event: keyof WebSocketEvents, ...messages: { type: string }[]): Callback["run"] =>
  onController(({ controller }, fail) => controller.on(event, fail), ...messages);

/** Ends it by itself some time later. */
const ending = (authorize: (fail: () => never) => () => never): Callback["run"] => async (failure) => {
  const setup = setUp({}, { room: { authorize: authorize(failure.fail) } });
  const peer = setup.join("ann");
  peer.send(subscribe);
  await peer.take();
  setup.clock.advance(1_000);
  setup.answers.push(...await peer.take());
  if (failure.kind === "pending") setup.clock.advance(10_000);
  setup.answers.push(...await peer.take());
  return setup;
};

/** Lets it once, and then fails. */
const once = (fail: () => never) => {
  let asked = 0;
  return () => asked++ === 0 ? { ttl: 1_000 } as never : fail();
};

/** No async function itself, which is refused where it is declared. */
const writing = (fail: () => never) => v.pipe(v.any(), v.transform(() => fail()));

const CALLBACKS: Record<string, Callback> = {
  "authenticate, of an auth message": {
    due: "answer",
    reported: "auth",
    shows: true,
    waits: "timeout",
    reads: true,
    run: authenticating((fail) => ({ authenticate: fail })),
  },
  "authenticate, at the upgrade": {
    due: "none",
    reported: "auth",
    waits: "timeout",
    reads: true,
    run: upgrading((fail) => ({ authenticate: fail }), "?access_token=token-1"),
  },
  "authenticate that calls refuse": {
    due: "answer",
    reported: "auth",
    run: authenticating((fail) => ({
      async authenticate(_credentials, _handshake, refuse) {
        try {
          return refuse(await fail());
        } catch (error) {
          return refuse(error ?? "nothing");
        }
      },
    })),
    waits: "timeout",
  },
  "revalidate, at the expiry": { due: "answer", reported: "error", waits: "timeout", reads: true, run: revalidating(false) },
  "revalidate, at a refresh": { due: "answer", reported: "error", waits: "timeout", reads: true, run: revalidating(true) },
  "clientIp": { due: "none", reported: "error", run: upgrading((fail) => ({ clientIp: fail })) },
  "rateLimit.key": {
    due: "answer",
    reported: "error",
    run: (failure) => exchange(setUp({ rateLimit: { key: failure.fail } }), failure, { ...request, type: "echo" }),
  },
  "authorize, of subscribe": {
    due: "answer",
    reported: "error",
    shows: true,
    waits: "timeout",
    run: onChannel((fail) => ({ authorize: fail }), subscribe),
  },
  "authorize, of publish": {
    due: "answer",
    reported: "error",
    shows: true,
    waits: "timeout",
    run: onChannel((fail) => ({ authorize: fail }), publish),
  },
  "authorize, asked again": { due: "end", reported: "error", shows: true, waits: "timeout", run: ending(once) },
  "snapshot": {
    due: "answer",
    reported: "error",
    shows: true,
    waits: "timeout",
    run: onChannel((fail) => ({ ...allowed, snapshot: fail }), subscribe),
  },
  "a transform of a channel's schema": {
    due: "answer",
    reported: "error",
    shows: true,
    reads: true,
    run: onChannel((fail) => ({ ...allowed, schema: { say: writing(fail) } }), publish),
  },
  "a transform of a field of a channel's schema": {
    due: "answer",
    reported: "error",
    shows: true,
    run: onChannel((fail) => ({ ...allowed, schema: { say: v.object({ items: v.array(writing(fail)) }) } }), {
      ...publish,
      data: { items: [1] },
    } as { type: string }),
  },
  "a check of a channel's schema": {
    due: "answer",
    reported: "error",
    shows: true,
    isHidden: true,
    run: onChannel((fail) => ({ ...allowed, schema: { say: v.pipe(v.string(), v.check(fail)) } }), publish),
  },
  "a custom schema of a channel": {
    due: "answer",
    reported: "error",
    shows: true,
    isHidden: true,
    run: onChannel((fail) => ({ ...allowed, schema: { say: v.custom(fail) } }), publish),
  },
  "a lazy schema of a channel": {
    due: "answer",
    reported: "error",
    shows: true,
    isHidden: true,
    run: onChannel((fail) => ({ ...allowed, schema: { say: v.lazy(fail) } }), publish),
  },
  "presence.data": {
    due: "answer",
    reported: "error",
    reads: true,
    run: onChannel((fail) => ({ ...allowed, presence: { data: fail } }), { ...subscribe, presence: true } as { type: string }),
  },
  "a middleware": {
    mayKeep: true,
    due: "answer",
    reported: "error",
    shows: true,
    run: onController(({ controller }, fail) => {
      controller.use(fail);
      controller.use((_context, next) => next());
    }, request),
    waits: "ever",
  },
  "a middleware, after next()": {
    due: "answer",
    reported: "error",
    shows: true,
    waits: "ever",
    run: onController(({ controller }, fail) => {
      controller.handle("ask", v.object({}), () => {
        throw new Error("The handler fails too");
      });
      controller.use((_context, next) => {
        void next();
        return fail();
      });
    }, request),
  },
  "a message that a middleware hands on": {
    due: "answer",
    reported: "error",
    shows: true,
    waits: "ever",
    run: onController(({ controller }, fail) => controller.use(async (_context, next) => next(await fail())), request),
  },
  "a handler": {
    due: "answer",
    reported: "error",
    shows: true,
    waits: "ever",
    run: onController(({ controller }, fail) => controller.handle("ask", v.object({}), fail), request),
  },
  "a handler of a contract": {
    due: "answer",
    reported: "error",
    shows: true,
    waits: "ever",
    run: onController(({ controller }, fail) => controller.handle("ask", { reply: v.string() as never }, fail), request),
  },
  "a transform of a handler's schema": {
    due: "answer",
    reported: "error",
    shows: true,
    run: onController(
      ({ controller }, fail) => controller.handle("ask", v.pipe(v.object({}), v.transform(() => fail())), () => "handled"),
      request,
    ),
  },
  "a transform of a field of a handler's schema": {
    due: "answer",
    reported: "error",
    shows: true,
    run: onController(
      ({ controller }, fail) => controller.handle("ask", v.object({ n: writing(fail) }), ({ message }) => message.n),
      { ...request, n: 1 } as { type: string },
    ),
  },
  "a listener of connect": { due: "answer", reported: "error", run: listening("connect", { ...request, type: "echo" }) },
  "a listener of message": { due: "answer", reported: "error", run: listening("message", { ...request, type: "echo" }) },
  "a listener of message that changes it": {
    due: "none",
    reported: "log",
    run: onController(({ controller }, fail) => {
      controller.on("message", ({ message }) => {
        Object.defineProperty(message, "uid", { get: fail, enumerable: true });
      });
    }, request),
  },
  "a listener of close": {
    due: "none",
    reported: "error",
    run: async (failure) => {
      const setup = setUp();
      setup.controller.on("close", failure.fail);
      setup.join("ann").leave();
      await turn();
      return setup;
    },
  },
  "a listener of error": {
    due: "answer",
    reported: "log",
    run: onController(({ controller }, fail) => {
      controller.on("error", fail);
      controller.handle("ask", v.object({}), fail);
    }, request),
    shows: true,
    waits: "ever",
  },
  "a listener of auth.success": {
    due: "answer",
    reported: "error",
    run: async (failure) => {
      const setup = setUp({ authenticate: () => ANN });
      setup.controller.on("auth.success", failure.fail);
      const { connection, transport } = open(setup.controller, { mode: "handshake" });
      connection.message(AUTH);
      for (let n = 0; n < 4; n++) await turn();
      setup.answers.push(...transport.take());
      return setup;
    },
  },
  "a listener of auth.failure": {
    due: "answer",
    reported: "error",
    run: async (failure) => {
      const setup = setUp({ authenticate: () => null });
      setup.controller.on("auth.failure", failure.fail);
      const { connection, transport } = open(setup.controller, { mode: "handshake" });
      connection.message(AUTH);
      for (let n = 0; n < 4; n++) await turn();
      setup.answers.push(...transport.take());
      return setup;
    },
  },
  "a logger": {
    due: "answer",
    reported: "log",
    run: async (failure) => {
      const setup = setUp();
      const { controller, request } = createRoute({
        logger: { error: failure.fail, warn: failure.fail },
        authenticate: () => null,
      });
      const { connection, transport } = open(controller, { mode: "public" });
      controller.handle("ask", v.object({}), () => {
        throw new Error("Not reported to anybody who listens");
      });
      connection.message('{"type":"ask","uid":1}');
      await request("/websocket?access_token=token-1");
      setup.answers.push(...transport.take());
      return setup;
    },
  },
  "an engine's publish": {
    due: "answer",
    reported: "error",
    shows: true,
    waits: "ever",
    run: (failure) => {
      const engine = Object.assign(new MemoryEngine(), { publish: failure.fail });
      return exchange(setUp({ engine }, { room: allowed }), failure, publish);
    },
  },
  "an engine's subscribe and unsubscribe": {
    due: "none",
    reported: "log",
    waits: "ever",
    run: (failure) => {
      const engine = Object.assign(new MemoryEngine(), { unsubscribe: failure.fail });
      return exchange(
        setUp({ engine }, { room: allowed }),
        failure,
        subscribe,
        { type: "unsubscribe", uid: 1 } as { type: string },
      );
    },
  },
  "an engine's join, leave and members": {
    due: "none",
    reported: "error",
    run: (failure) => {
      const engine = Object.assign(new MemoryEngine(), { join: failure.fail, leave: failure.fail });
      return exchange(setUp({ engine }, { room: { ...allowed, presence: { grace: 0 } } }), failure, subscribe);
    },
  },
};

/** Whether the error itself is the answer. What a promise rejects with that nobody waits for is none. */
const isShown = ({ shows, waits }: Callback, { code, isSynchronous }: Failure): boolean =>
  shows === true && code !== undefined && (isSynchronous || waits !== undefined);

/** Whether a failure has to be reported to somebody. */
function isReported(callback: Callback, failure: Failure): boolean {
  if (callback.reported === "log" || failure.kind === "pending") return false;
  return failure.kind === "thrown" ? !isShown(callback, failure) : callback.reads === true;
}

/** What is wrong with how a node took a failure. */
async function faultsOf(callback: Callback, failure: Failure): Promise<string[]> {
  const faults: string[] = [];
  let setup!: Setup;
  const unhandled = await unhandledIn(async () => setup = await callback.run(failure));
  if (unhandled.length > 0) faults.push(`${unhandled.length} unhandled`);
  const { answers, events, status } = setup;
  const wait = callback.waits ?? "ever";
  const own = answers.filter(({ uid, event }) => uid === 1 && !(event === "init" && callback.due === "end"));
  if (callback.due === "answer" && !(failure.kind === "pending" && wait === "ever" && own.length === 0)) {
    const errors = own.filter(({ status }) => status === "error").map(({ error }) => (error as { code?: unknown }).code);
    if (own.length === 0 && !(callback.mayKeep && failure.kind === "returned")) faults.push("no answer");
    if (errors.some((code) => typeof code !== "string")) faults.push("no code");
    if (isShown(callback, failure) && !errors.includes(failure.code)) faults.push(`answered ${errors.join()}`);
  }
  if (callback.due === "end" && !answers.some(({ event, reason }) => event === "unsubscribe" && typeof reason === "string")) {
    faults.push("not ended");
  }
  if (status !== undefined && status === 500) faults.push("status 500");
  const names = callback.reported === "auth" ? ["error", "auth.failure"] : ["error"];
  if (isReported(callback, failure) && !events.some(([event]) => names.includes(event))) faults.push("nothing reported");
  // The node goes on.
  const [echo] = (await exchange(setUp(), failure, { type: "echo", uid: 2 } as { type: string })).answers;
  if (echo?.["data"] !== "fine") faults.push("does not go on");
  return faults;
}

describe("a callback of the server that fails", () => {
  for (const [name, callback] of Object.entries(CALLBACKS)) {
    it(`ends no process and leaves nobody waiting: ${name}`, async () => {
      const faults: string[] = [];
      for (const failure of FAILURES) {
        if (callback.isHidden && !failure.isSynchronous) continue;
        for (const fault of await faultsOf(callback, failure)) faults.push(`${failure.name}: ${fault}`);
      }
      assert.deepEqual(faults, []);
    });
  }
});

describe("an async function where a schema has to be synchronous", () => {
  const schemas: Record<string, v.GenericSchema> = {
    "a check": v.pipe(v.string(), v.check((async () => await false) as never)),
    "a transform": v.pipe(v.string(), v.transform(async (text) => await text)),
    "a custom schema": v.custom((async () => await false) as never),
    "a lazy schema": v.lazy((async () => await v.string()) as never),
    "a default": v.optional(v.any(), async () => await "x"),
    "a fallback": v.fallback(v.string(), (async () => await "x") as never),
    "an async schema within": v.object({ text: v.pipeAsync(v.string(), v.checkAsync(async () => await false)) as never }),
    "deep within": v.object({
      items: v.array(v.union([v.number(), v.pipe(v.string(), v.transform(async (text) => await text))])),
    }),
  };

  it("is refused where it is declared", () => {
    for (const [name, schema] of Object.entries(schemas)) {
      const { controller } = setUp();
      assert.throws(
        () => controller.handle("ask", v.object({ field: schema }), () => {}),
        /^TypeError: Cannot handle "ask": pass a schema of/,
        name,
      );
      assert.throws(
        () => setUp({}, { room: { ...allowed, schema: { say: schema } } }),
        /schema\.say must be a schema of/,
        name,
      );
    }
  });

  it("is no other: functions of a schema may do what they like, and schemas may refer to each other", async () => {
    const tree: v.GenericSchema = v.object({ items: v.array(v.lazy(() => tree)) });
    const setup = setUp();
    const seen: unknown[] = [];
    const schema = v.object({
      tree,
      at: v.pipe(v.string(), v.transform((text) => new Date(text)), v.check((at) => at > new Date(0))),
    });
    setup.controller.handle("ask", schema, ({ message: { tree, at } }) => void seen.push(tree, at.getTime()));
    await exchange(setup, FAILURES[0]!, { ...request, tree: { items: [{ items: [] }] }, at: "2026-01-01" } as { type: string });
    assert.deepEqual(seen, [{ items: [{ items: [] }] }, Date.UTC(2026, 0)]);
    assert.deepEqual(setup.answers, [{ type: "ask", status: "ok", uid: 1 }]);
  });
});

/** Callbacks of the client: where the failure stands, and what brings it up. */
const CLIENT_CALLBACKS: Record<string, (fail: () => never, pending: boolean) => Promise<ReturnType<typeof connectFake>>> = {
  async "a listener of open, status and message"(fail) {
    const fake = connectFake();
    for (const event of ["open", "status", "message"] as const) fake.client.on(event, fail);
    (await fake.admit()).receive({ type: "news" });
    return fake;
  },
  async "a listener of error"(fail) {
    const fake = connectFake();
    fake.client.on("error", fail);
    (await fake.admit()).receive({ type: "server", status: "error", error: { code: "INTERNAL_ERROR", message: "x" } });
    return fake;
  },
  async "a listener of close and reconnecting"(fail) {
    const fake = connectFake();
    for (const event of ["close", "reconnecting"] as const) fake.client.on(event, fail);
    (await fake.admit()).end();
    return fake;
  },
  async "token"(fail) {
    const fake = connectFake({ token: fail });
    for (let n = 0; n < 4; n++) await turn();
    fake.clock.advance(10_000);
    return fake;
  },
  async "token, in the subprotocol"(fail) {
    const fake = connectFake({ token: fail, tokenIn: "protocol" });
    for (let n = 0; n < 4; n++) await turn();
    fake.clock.advance(10_000);
    return fake;
  },
  async "token, asked for again"(fail) {
    let asked = 0;
    const fake = connectFake({ token: () => asked++ === 0 ? "token-1" : fail() });
    (await fake.admit()).receive({ type: "auth", status: "error", error: { code: "TOKEN_EXPIRED", message: "x" } });
    for (let n = 0; n < 4; n++) await turn();
    fake.clock.advance(10_000);
    return fake;
  },
  async "renew"(fail) {
    const fake = connectFake({ renew: fail });
    const socket = await fake.admit();
    socket.end(4401, "Token expired");
    fake.retry();
    for (let n = 0; n < 4; n++) await turn();
    fake.clock.advance(10_000);
    return fake;
  },
  async "the callbacks of a subscription"(fail) {
    const fake = connectFake();
    const socket = await fake.admit();
    fake.client.subscribe("room", { presence: true, onInit: fail, onEvent: fail, onPresence: fail, onGap: fail, onError: fail });
    const [{ uid }] = socket.take();
    const of = { type: "subscription", channel: "room", uid };
    socket.receive({ ...of, event: "init", epoch: "e", offset: 1 });
    socket.receive({ ...of, event: "say", data: 1, offset: 2 });
    socket.receive({ type: "presence", event: "init", channel: "room", members: [{ user: "ann" }], uid });
    socket.receive({ ...of, event: "init", epoch: "f", offset: 1, recovered: false });
    socket.receive({ ...of, event: "unsubscribe", reason: "FORBIDDEN" });
    return fake;
  },
};

describe("a callback of the client that fails", () => {
  for (const [name, run] of Object.entries(CLIENT_CALLBACKS)) {
    it(`ends no process, and the client goes on: ${name}`, async () => {
      const faults: string[] = [];
      const { error } = console;
      // What an error listener throws is written there.
      console.error = () => {};
      try {
        for (const failure of FAILURES) {
          let fake!: ReturnType<typeof connectFake>;
          const unhandled = await unhandledIn(async () => fake = await run(failure.fail, failure.kind === "pending"));
          if (unhandled.length > 0) faults.push(`${failure.name}: ${unhandled.length} unhandled`);
          // The first token is asked for before anybody can listen.
          const isKnown = fake.take("error").length > 0 || fake.client.error !== undefined;
          if (failure.kind === "thrown" && !isKnown) faults.push(`${failure.name}: nothing reported`);
          // Whatever became of it, it can be closed.
          const closed = fake.client.close();
          fake.sockets.at(-1)?.end(1000);
          await closed;
          if (fake.client.status !== "closed") faults.push(`${failure.name}: cannot be closed`);
        }
      } finally {
        console.error = error;
      }
      assert.deepEqual(faults, []);
    });
  }

  it("ends no process where nobody listens and the console itself cannot show what was thrown", async () => {
    const { error } = console;
    console.error = (shown: unknown) => void `${shown instanceof Error ? shown.stack : String(shown)}`;
    try {
      for (const failure of FAILURES) {
        const fake = connectFake();
        fake.client.on("message", failure.fail);
        fake.client.on("error", failure.fail);
        const unhandled = await unhandledIn(async () => (await fake.admit()).receive({ type: "news" }));
        assert.equal(unhandled.length, 0, failure.name);
      }
    } finally {
      console.error = error;
    }
  });
});
