import assert from "node:assert/strict";
import { describe, it } from "node:test";
import * as v from "valibot";
import { WebSocketError } from "../../src/protocol/errors.ts";
import { Handlers } from "../../src/application/handlers.ts";
import { Observed } from "../../src/application/observer.ts";
import type { WebSocketMessage } from "../../src/protocol/protocol.ts";
import { createClient } from "../support/fake-connection.ts";
import { Stall, turn } from "../support/waiting.ts";

const any = v.looseObject({});

/** Handlers of one client; `listening` is whether anybody listens to `message`. */
function create({ listening = false } = {}) {
  const { client, connection } = createClient();
  const heard: WebSocketMessage[] = [];
  const reports: unknown[] = [];
  const handlers = new Handlers({
    observed: new Observed(),
    calls: {
      register: () => {},
      unregister: () => {},
      open: () => assert.fail("No handler here has input"),
      stream: () => Promise.reject(new Error("No handler here streams")),
      control: () => false,
    },
    emit(_client, message) {
      heard.push(message);
      return listening;
    },
    report: (error, reported) => {
      assert.equal(reported, client);
      reports.push(error);
    },
  });
  return {
    client,
    connection,
    handlers,
    heard,
    reports,
    /** The answers so far. */
    answers: () => connection.take(),
    sent: connection.sent,
    dispatch: (message: WebSocketMessage) => handlers.dispatch(client, message),
  };
}

const internalError = (type: string, uid?: number) => ({
  type,
  status: "error",
  error: { code: "INTERNAL_ERROR", message: "Something went wrong" },
  ...(uid === undefined ? {} : { uid }),
});

describe("Handlers.dispatch", () => {
  it("answers with the request's type and uid, and what the handler returned", () => {
    const { client, handlers, dispatch, answers } = create();
    handlers.handle("add", v.object({ a: v.number() }), (context) => {
      assert.equal(context.client, client);
      return context.message.a + 1;
    });
    assert.equal(dispatch({ type: "add", uid: 0, a: 1 }), undefined, "nothing is to be waited for");
    dispatch({ type: "add", a: 2 });
    assert.deepEqual(answers(), [{ type: "add", status: "ok", uid: 0, data: 2 }, { type: "add", status: "ok", data: 3 }]);
  });

  it("answers at once what is there already, and without data when it is undefined", () => {
    const { handlers, dispatch, answers } = create();
    for (const data of [undefined, null, 0, "", false, [], { then: 1 }]) {
      handlers.handle(`t${String(JSON.stringify(data))}`, any, () => data);
      dispatch({ type: `t${String(JSON.stringify(data))}` });
      const [{ type: _type, ...answer }] = answers();
      assert.deepEqual(answer, data === undefined ? { status: "ok" } : { status: "ok", data });
    }
  });

  it("answers an asynchronous handler when it resolves, later messages of the client meanwhile", async () => {
    const { handlers, dispatch, sent } = create();
    const stall = new Stall<string>();
    handlers.handle("slow", any, () => stall.promise);
    handlers.handle("fast", any, () => "fast");
    assert.equal(dispatch({ type: "slow", uid: 1 }), undefined);
    dispatch({ type: "fast", uid: 2 });
    stall.resolve("slow");
    await turn();
    assert.deepEqual(sent, [
      '{"type":"fast","status":"ok","uid":2,"data":"fast"}',
      '{"type":"slow","status":"ok","uid":1,"data":"slow"}',
    ]);
  });

  it("hands the handler the schema's output, in the envelope that came", () => {
    const { handlers, dispatch, answers } = create();
    handlers.handle(
      "parse",
      v.pipe(v.strictObject({ n: v.string() }), v.transform(({ n }) => ({ n: Number(n), type: "other", uid: "other" }))),
      ({ message }) => message,
    );
    dispatch({ type: "parse", uid: 3, n: "7" });
    dispatch({ type: "parse", n: "8" });
    assert.deepEqual(answers().map(({ data }) => data), [{ n: 7, type: "parse", uid: 3 }, { n: 8, type: "parse", uid: "other" }]);
  });

  it("puts no envelope into what is the schema's own, whatever is wrapped around an object", () => {
    const text = v.object({ text: v.string() });
    const shared = { text: "shared" };
    const schemas: Record<string, v.GenericSchema<unknown, { text: string }>> = {
      plain: text,
      cache: v.cache(text),
      config: v.config(text, { abortEarly: true }),
      fallback: v.fallback(text, shared),
      lazy: v.lazy(() => text),
      pipe: v.pipe(text, v.transform(() => shared)),
      pick: v.pick(v.object({ ...text.entries, other: v.string() }), ["text"]),
      strict: v.strictObject(text.entries),
    };
    for (const [type, schema] of Object.entries(schemas)) {
      const { handlers, dispatch, heard, answers } = create();
      handlers.handle(type, schema, ({ message }) => message);
      const messages = [{ type, uid: 1, text: "same" }, { type, text: "same" }];
      messages.forEach(dispatch);
      assert.deepEqual(heard, messages, type);
      const keys = answers().map(({ data }) => Object.keys(data as object).sort()); // The handler returns the message.
      assert.deepEqual(keys, [["text", "type", "uid"], ["text", "type"]], type);
      // With the fallback.
      for (const uid of [2, undefined]) dispatch({ type, ...(uid && { uid }), text: 0 });
      if (type === "fallback") {
        assert.deepEqual(answers().map(({ data }) => data), [{ ...shared, type, uid: 2 }, { ...shared, type }]);
      }
    }
    assert.deepEqual(shared, { text: "shared" });
  });

  it("keeps type and uid from a schema that declares them", () => {
    const { handlers, dispatch, answers } = create();
    handlers.handle(
      "x",
      v.object({ uid: v.optional(v.string(), "absent"), type: v.optional(v.string(), "absent") }),
      ({ message }) => message,
    );
    dispatch({ type: "x", uid: 4 });
    dispatch({ type: "x" });
    assert.deepEqual(answers().map(({ data }) => data), [{ type: "x", uid: 4 }, { type: "x", uid: "absent" }]);
  });

  it("calls the listeners first, with the message as received", () => {
    const { handlers, dispatch, heard } = create();
    let before = 0;
    handlers.handle("x", v.object({}), () => {
      before = heard.length;
    });
    dispatch({ type: "x", uid: 1, extra: true });
    assert.deepEqual(heard, [{ type: "x", uid: 1, extra: true }]);
    assert.equal(before, 1);
  });

  it("answers INVALID_PAYLOAD with the path and no input when the schema refuses, and does not run the handler", () => {
    const { handlers, dispatch, answers, sent, reports } = create();
    handlers.handle(
      "say",
      v.object({ items: v.array(v.strictObject({ text: v.string() })) }),
      () => assert.fail("It must not run"),
    );
    dispatch({ type: "say", uid: 1, items: [{ text: "a" }, { text: ["s3cr3t"] }] });
    dispatch({ type: "say", uid: 2, items: "s3cr3t" });
    assert.equal(sent.join().includes("s3cr3t"), false);
    assert.deepEqual(answers(), [
      {
        type: "say",
        status: "error",
        error: { path: "items.1.text", code: "INVALID_PAYLOAD", message: 'Invalid payload at "items.1.text"' },
        uid: 1,
      },
      {
        type: "say",
        status: "error",
        error: { path: "items", code: "INVALID_PAYLOAD", message: 'Invalid payload at "items"' },
        uid: 2,
      },
    ]);
    assert.deepEqual(reports, []);
  });

  it("reads no further than the first fault, for a list of them can grow far beyond the message", () => {
    const { handlers, dispatch, answers } = create();
    let checks = 0;
    const wrong = v.check<string, string>(() => ++checks > 100, "wrong");
    handlers.handle("checked", v.object({ a: v.pipe(v.string(), wrong, wrong), b: v.pipe(v.string(), wrong) }), () => {});
    dispatch({ type: "checked", a: "", b: "" });
    assert.deepEqual([checks, answers()[0].error.path], [1, "a"]);
  });

  it("answers INVALID_PAYLOAD without a path when the payload as a whole is wrong", () => {
    const { handlers, dispatch, answers } = create();
    handlers.handle("never", v.pipe(v.object({}), v.check(() => false, "s3cr3t")), () => {});
    dispatch({ type: "never" });
    assert.deepEqual(answers(), [{
      type: "never",
      status: "error",
      error: { code: "INVALID_PAYLOAD", message: "Invalid payload" },
    }]);
  });

  it("answers UNSUPPORTED_TYPE without a handler or listener, and nothing with a listener", () => {
    const alone = create();
    alone.dispatch({ type: "what", uid: "u" });
    assert.deepEqual(alone.answers(), [
      {
        type: "what",
        status: "error",
        error: { code: "UNSUPPORTED_TYPE", message: 'Nothing handles the type "what"' },
        uid: "u",
      },
    ]);
    const listened = create({ listening: true });
    listened.dispatch({ type: "what" });
    listened.dispatch({ type: "constructor" });
    assert.deepEqual(listened.answers(), []);
  });

  it("answers a WebSocketError as it is, with the request's uid, and reports nothing", async () => {
    const { handlers, dispatch, answers, reports } = create();
    const error = new WebSocketError("join", "NOT_FOUND", "No such room", { details: { id: 7 }, cause: new Error("s3cr3t") });
    handlers.handle("throws", any, () => {
      throw error;
    });
    handlers.handle("rejects", any, () => Promise.reject(error));
    dispatch({ type: "throws", uid: 1 });
    dispatch({ type: "rejects", uid: 2 });
    await turn();
    const answer = { type: "join", status: "error", error: { id: 7, code: "NOT_FOUND", message: "No such room" } };
    assert.deepEqual(answers(), [{ ...answer, uid: 1 }, { ...answer, uid: 2 }]);
    assert.deepEqual(reports, []);
  });

  it("answers INTERNAL_ERROR without detail and reports when the handler throws or rejects with anything else", async () => {
    const { handlers, dispatch, answers, reports } = create();
    const error = new Error("s3cr3t");
    const thrown = [error, undefined, "s3cr3t", { code: "s3cr3t" }];
    for (const [index, each] of thrown.entries()) {
      handlers.handle(`throws-${index}`, any, () => {
        throw each;
      });
      handlers.handle(`rejects-${index}`, any, () => Promise.reject(each));
      dispatch({ type: `throws-${index}`, uid: index });
      assert.deepEqual(answers(), [internalError(`throws-${index}`, index)]);
      dispatch({ type: `rejects-${index}` });
      await turn();
      assert.deepEqual(answers(), [internalError(`rejects-${index}`)]);
    }
    assert.deepEqual(reports, thrown.flatMap((each) => [each, each]));
  });

  it("answers INTERNAL_ERROR when the answer cannot be encoded, or the result is a hostile thenable", async () => {
    const { handlers, dispatch, answers, reports } = create();
    const cycle: Record<string, unknown> = {};
    cycle["self"] = cycle;
    const results: Record<string, () => unknown> = {
      cycle: () => cycle,
      bigint: () => Promise.resolve(1n),
      "reading then": () => ({
        get then() {
          throw new Error("hostile");
        },
      }),
      "calling then": () => ({
        then() {
          throw new Error("hostile");
        },
      }),
      schema: () => "unused",
    };
    for (const [type, result] of Object.entries(results)) {
      const schema = type === "schema" ? v.pipe(any, v.check((): boolean => JSON.parse("{"))) : any;
      handlers.handle(type, schema, result);
      dispatch({ type });
      await turn();
      assert.deepEqual(answers(), [internalError(type)]);
    }
    assert.equal(reports.length, 5);
  });
});

describe("Handlers.dispatch, with an asynchronous schema", () => {
  /** A schema that passes when the test says so. */
  function stalled() {
    const stalls: Stall<boolean>[] = [];
    const check = v.checkAsync<{ n: number }, string>(() => {
      const stall = new Stall<boolean>();
      stalls.push(stall);
      return stall.promise;
    }, "wrong");
    return { stalls, schema: v.pipeAsync(v.object({ n: v.number() }), check) };
  }

  it("resolves when the handler was called, so that the next message may follow, and not when it has answered", async () => {
    const { handlers, dispatch, answers } = create();
    const { stalls, schema } = stalled();
    const calls: number[] = [];
    const answer = new Stall<string>();
    handlers.handle("later", schema, ({ message }) => {
      calls.push(message.n);
      return answer.promise;
    });
    let entered = false;
    const dispatched = dispatch({ type: "later", uid: 1, n: 1 })!.then(() => entered = true);
    await turn();
    assert.deepEqual([entered, calls], [false, []]);
    stalls[0]!.resolve(true);
    await dispatched;
    assert.deepEqual([calls, answers()], [[1], []]);
    answer.resolve("done");
    await turn();
    assert.deepEqual(answers(), [{ type: "later", status: "ok", uid: 1, data: "done" }]);
  });

  it("does the same below a middleware, whose next() resolves with the answer", async () => {
    const { handlers, dispatch, answers } = create();
    const { stalls, schema } = stalled();
    const log: string[] = [];
    handlers.use(async (_context, next) => {
      await next();
      log.push(`answered ${answers().length}`);
    });
    handlers.handle("later", schema, async () => await "done");
    const dispatched = dispatch({ type: "later", n: 1 });
    await turn();
    assert.deepEqual(log, []);
    stalls[0]!.resolve(true);
    await dispatched;
    await turn();
    assert.deepEqual(log, ["answered 1"]);
  });

  it("answers INVALID_PAYLOAD with the path only", async () => {
    const { handlers, dispatch, answers, reports } = create();
    const { stalls, schema } = stalled();
    handlers.handle("later", schema, () => assert.fail("It must not run"));
    await dispatch({ type: "later", uid: 1, n: "s3cr3t" });
    const refused = dispatch({ type: "later", uid: 2, n: 1 });
    await turn();
    stalls[0]!.resolve(false);
    await refused;
    assert.deepEqual(answers().map(({ error, uid }) => [uid, error]), [
      [1, { code: "INVALID_PAYLOAD", message: 'Invalid payload at "n"', path: "n" }],
      [2, { code: "INVALID_PAYLOAD", message: "Invalid payload" }],
    ]);
    assert.deepEqual(reports, []);
  });

  it("answers INTERNAL_ERROR and reports when it rejects", async () => {
    const { handlers, dispatch, answers, reports } = create();
    const { stalls, schema } = stalled();
    handlers.handle("later", schema, () => assert.fail("It must not run"));
    const dispatched = dispatch({ type: "later", uid: 1, n: 1 });
    await turn();
    const error = new Error("s3cr3t");
    stalls[0]!.reject(error);
    await dispatched;
    assert.deepEqual([answers(), reports], [[internalError("later", 1)], [error]]);
  });

  it("calls no handler for a client that has left meanwhile, or whose credentials have expired", async () => {
    const { connection, handlers, dispatch, answers } = create();
    const { stalls, schema } = stalled();
    handlers.handle("later", schema, () => assert.fail("It must not run"));
    const dispatched = dispatch({ type: "later", uid: 1, n: 1 });
    await turn();
    connection.isSuspended = true;
    stalls[0]!.resolve(true);
    await dispatched;
    assert.deepEqual([connection.refused, answers()], [[1], []]);
  });
});

describe("Handlers.dispatch, failing", () => {
  it("leaves out the details of a WebSocketError that JSON cannot hold, and answers all the same", () => {
    const { handlers, dispatch, answers, reports } = create();
    const cycle: Record<string, unknown> = {};
    cycle["self"] = cycle;
    for (const [index, details] of [cycle, { n: 1n }].entries()) {
      handlers.handle(`x-${index}`, any, () => {
        throw new WebSocketError("x", "X", "Text", { details });
      });
      dispatch({ type: `x-${index}`, uid: 7 });
      assert.deepEqual(answers(), [{ type: "x", status: "error", error: { code: "X", message: "Text" }, uid: 7 }]);
    }
    assert.deepEqual(reports, []);
  });
});

describe("Handlers.handle", () => {
  it("throws TypeError when the type is no good, reserved or taken", () => {
    const { handlers } = create();
    const handle = (type: unknown) => () => handlers.handle(type as string, any, () => {});
    for (const type of ["", "x".repeat(65), 1, undefined]) {
      assert.throws(handle(type), {
        name: "TypeError",
        message: "Cannot handle: the type must be a string of 1 to 64 characters",
      });
    }
    for (const type of ["auth", "ping", "pong"]) {
      assert.throws(handle(type), { name: "TypeError", message: `Cannot handle "${type}": the controller answers it itself` });
    }
    handle("x".repeat(64))();
    handle("taken")();
    assert.throws(handle("taken"), { name: "TypeError", message: 'Cannot handle "taken": it has a handler already' });
  });

  it("takes a request that declares nothing, and hands it no payload", () => {
    const { handlers, dispatch, answers } = create();
    handlers.handle("x", {}, ({ message }) => message);
    dispatch({ type: "x", other: 1 });
    assert.deepEqual(answers(), [{ type: "x", status: "ok", data: { type: "x" } }]);
  });

  it("throws TypeError when the schema is none, or the handler no function", () => {
    const { handlers } = create();
    for (
      const schema of [
        undefined,
        null,
        [],
        new Map(),
        { palyoad: any },
        () => {},
        v.string,
        v.minLength(1),
        v.pipe(v.string(), v.transform(async () => await 1)),
      ]
    ) {
      assert.throws(() => handlers.handle("x", schema as never, () => {}), {
        name: "TypeError",
        message:
          'Cannot handle "x": pass a schema of valibot, Zod or another Standard Schema library, such as v.object({ … }), whose functions are not async unless it is',
      });
    }
    for (const handler of [undefined, null, {}, "f"]) {
      assert.throws(() => handlers.handle("x", any, handler as never), {
        name: "TypeError",
        message: 'Cannot handle "x": the handler must be a function',
      });
    }
    handlers.handle("x", any, () => {}); // Nothing was kept of what was refused.
  });

  it("types the message by the schema's output", () => {
    const { handlers } = create();
    handlers.handle("typed", v.object({ n: v.pipe(v.string(), v.transform(Number)) }), ({ message }) => {
      const n: number = message.n;
      const type: string = message.type;
      const uid: string | number | undefined = message.uid;
      // @ts-expect-error -- it is the schema's output, a number
      const input: string = message.n;
      // @ts-expect-error -- the schema has no such field
      const other = message.other;
      return [n, type, uid, input, other];
    });
    // @ts-expect-error -- a type's name is a string
    assert.throws(() => handlers.handle(1, any, () => {}), TypeError);
    // @ts-expect-error -- the schema may not be left out
    assert.throws(() => handlers.handle("x", () => {}), TypeError);
  });
});
