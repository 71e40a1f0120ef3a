/** The middleware of `src/application/handlers.ts`: what a message meets on its way to listeners and handlers. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import * as v from "valibot";
import { WebSocketController } from "../../src/controller/controller.ts";
import { WebSocketError } from "../../src/protocol/errors.ts";
import type { Middleware } from "../../src/application/middleware.ts";
import { open } from "../support/fake-transport.ts";
import { Stall, turn } from "../support/waiting.ts";

/** A controller with handlers for `echo` and `slow`, one client, and what happened in order. */
function create(...middleware: Middleware[]) {
  const controller = new WebSocketController({ logger: false });
  const log: string[] = [];
  const errors: unknown[] = [];
  const stall = new Stall<string>();
  controller.on("error", ({ error }) => errors.push(error));
  controller.handle("echo", v.looseObject({}), ({ message: { type: _type, uid: _uid, ...payload } }) => {
    log.push(`echo ${JSON.stringify(payload)}`);
    return payload;
  });
  controller.handle("slow", v.looseObject({}), () => stall.promise);
  for (const each of middleware) controller.use(each);
  const { connection, transport, client } = open(controller);
  return {
    controller,
    client,
    log,
    errors,
    stall,
    receive: (message: unknown) => connection.message(JSON.stringify(message)),
    /** The answers so far. */
    answers: () => transport.take(),
  };
}

const INTERNAL = { code: "INTERNAL_ERROR", message: "Something went wrong" };

describe("Handlers.use", () => {
  it("runs the middleware around the message in the order they were added, out in the reverse", async () => {
    const log: string[] = [];
    const around = (name: string): Middleware => async ({ message }, next) => {
      log.push(`${name} in ${message.type}`);
      await next();
      log.push(`${name} out`);
    };
    const { receive, answers, log: handled } = create(around("first"), around("second"));
    receive({ type: "echo", a: 1 });
    assert.deepEqual(handled, ['echo {"a":1}']);
    await turn();
    assert.deepEqual(log, ["first in echo", "second in echo", "second out", "first out"]);
    assert.deepEqual(answers(), [{ type: "echo", status: "ok", data: { a: 1 } }]);
  });

  it("holds nothing up when it calls next at once", () => {
    const { receive, log } = create((_context, next) => next(), async (_context, next) => await next());
    for (const n of [1, 2]) receive({ type: "echo", n });
    assert.deepEqual(log, ['echo {"n":1}', 'echo {"n":2}']);
  });

  it("is given the client, and no auth, ping or pong", async () => {
    const seen: unknown[] = [];
    const { receive, client, answers } = create((context, next) => {
      seen.push(context.client, context.message);
      return next();
    });
    for (const type of ["ping", "pong", "auth", "echo"]) receive({ type });
    await turn();
    assert.deepEqual(answers().map(({ type }) => type), ["pong", "auth", "echo"]);
    assert.deepEqual(seen, [client, { type: "echo" }]);
  });

  it("next resolves when an asynchronous handler has been answered", async () => {
    const order: string[] = [];
    const { receive, stall, answers } = create(async (_context, next) => {
      await next();
      order.push("out");
    });
    receive({ type: "slow" });
    await turn();
    assert.deepEqual(order, []);
    stall.resolve("done");
    await turn();
    assert.deepEqual(order, ["out"]);
    assert.deepEqual(answers(), [{ type: "slow", status: "ok", data: "done" }]);
  });

  it("lets no later message overtake one that a middleware holds", async () => {
    const stall = new Stall();
    const { receive, log, answers } = create(async ({ message }, next) => {
      if (message["hold"]) await stall.promise;
      await next();
    });
    receive({ type: "echo", n: 1, hold: true });
    receive({ type: "echo", n: 2 });
    receive({ type: "ping", uid: 3 });
    receive({ type: "echo", n: 4 });
    await turn();
    assert.deepEqual([log, answers()], [[], []]);
    stall.resolve();
    await turn();
    assert.deepEqual(log, ['echo {"n":1,"hold":true}', 'echo {"n":2}', 'echo {"n":4}']);
    assert.deepEqual(answers().map(({ type }) => type), ["echo", "echo", "pong", "echo"]);
  });

  it("lets later messages in once a message has reached its handler, though its middleware waits for the answer", async () => {
    const { receive, stall, answers } = create(async (_context, next) => {
      await turn();
      await next();
    });
    receive({ type: "slow", uid: 1 });
    receive({ type: "echo", uid: 2 });
    await turn();
    await turn();
    await turn();
    assert.deepEqual(answers().map(({ uid }) => uid), [2]);
    stall.resolve("done");
    await turn();
    assert.deepEqual(answers().map(({ uid }) => uid), [1]);
  });

  it("holds up no other client", async () => {
    const { controller, receive } = create(({ message }, next) => message["hold"] ? new Promise(() => {}) : next());
    receive({ type: "echo", hold: true });
    const other = open(controller);
    other.connection.message('{"type":"echo"}');
    await turn();
    assert.equal(other.transport.sent.length, 1);
  });

  it("hands on another message when next is given one", async () => {
    const { receive, answers, controller } = create((_context, next) => next({ type: "echo", uid: 9, b: 2 }));
    const heard: unknown[] = [];
    controller.on("message", ({ message }) => heard.push(message));
    receive({ type: "unknown", uid: 1, a: 1 });
    await turn();
    assert.deepEqual(heard, [{ type: "echo", uid: 9, b: 2 }]);
    assert.deepEqual(answers(), [{ type: "echo", status: "ok", uid: 9, data: { b: 2 } }]);
  });

  it("hands on what the middleware before put in its place", async () => {
    const { receive, answers } = create(
      ({ message }, next) => next({ ...message, first: true }),
      ({ message }, next) => next({ ...message, second: message["first"] }),
    );
    receive({ type: "echo" });
    await turn();
    assert.deepEqual(answers()[0].data, { first: true, second: true });
  });

  it("keeps a message when next is not called, and takes the next one", async () => {
    const { receive, answers, log, errors, controller } = create(({ message }, next) => message["keep"] ? undefined : next());
    controller.on("message", ({ message }) => log.push(`heard ${message.type}`));
    receive({ type: "echo", keep: true });
    receive({ type: "echo", n: 2 });
    await turn();
    assert.deepEqual(log, ["heard echo", 'echo {"n":2}']);
    assert.deepEqual(answers().length, 1);
    assert.deepEqual(errors, []);
  });

  it("delivers once and answers INTERNAL_ERROR when next is called twice", async () => {
    const { receive, answers, log, errors } = create(async (_context, next) => {
      await next();
      await next();
    });
    receive({ type: "echo", uid: 1 });
    await turn();
    assert.equal(log.length, 1);
    assert.deepEqual(answers(), [
      { type: "echo", status: "ok", uid: 1, data: {} },
      { type: "echo", status: "error", error: INTERNAL, uid: 1 },
    ]);
    assert.match(String(errors), /Cannot call next\(\) twice/);
  });

  it("answers what a middleware throws and goes on with the next message", async () => {
    const { receive, answers, errors } = create(({ message }, next) => {
      if (message["how"] === "forbidden") throw new WebSocketError("echo", "FORBIDDEN", "Not for you");
      if (message["how"] === "throw") throw new Error("s3cr3t");
      if (message["how"] === "reject") return Promise.reject(undefined);
      return next();
    });
    for (const [uid, how] of ["forbidden", "throw", "reject", "pass"].entries()) receive({ type: "echo", uid, how });
    await turn();
    assert.deepEqual(answers(), [
      { type: "echo", status: "error", error: { code: "FORBIDDEN", message: "Not for you" }, uid: 0 },
      { type: "echo", status: "error", error: INTERNAL, uid: 1 },
      { type: "echo", status: "error", error: INTERNAL, uid: 2 },
      { type: "echo", status: "ok", data: { how: "pass" }, uid: 3 },
    ]);
    assert.deepEqual(errors.map(String), ["Error: s3cr3t", "undefined"]);
  });

  it("answers nothing of a later middleware's error when an earlier one takes it", async () => {
    const caught: unknown[] = [];
    const { receive, answers, errors } = create(
      async (_context, next) => {
        await next().catch((error) => caught.push(error));
      },
      () => {
        throw "inner";
      },
    );
    receive({ type: "echo" });
    await turn();
    assert.deepEqual([caught, answers(), errors], [["inner"], [], []]);
  });

  it("runs a middleware from the next message on when it is added late", async () => {
    const { controller, receive, log } = create();
    receive({ type: "echo", n: 1 });
    controller.use(() => {});
    receive({ type: "echo", n: 2 });
    await turn();
    assert.deepEqual(log, ['echo {"n":1}']);
  });

  it("throws TypeError when the middleware is no function", () => {
    const { controller } = create();
    for (const middleware of [undefined, null, {}, "f"]) {
      assert.throws(() => controller.use(middleware as never), {
        name: "TypeError",
        message: "Cannot use the middleware: it must be a function",
      });
    }
  });
});
