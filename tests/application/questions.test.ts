/** Questions of the server to a client: `client.ask`, and the gate that takes the answers. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import * as v from "valibot";
import { defineContract, type WebSocketClient, WebSocketController } from "../../mod.ts";
import { WebSocketError } from "../../src/protocol/errors.ts";
import { observe } from "../support/observed.ts";
import { HibernatingTransport, open, openOn } from "../support/fake-transport.ts";
import { Stall, turn } from "../support/waiting.ts";

/** A controller and one client of it, whose answers the test gives. */
function create(user: string | null = "mika") {
  const observed = observe({ rateLimit: false });
  const identity = user === null ? null : { accountability: { user, role: null } };
  const { connection, transport, client } = open(observed.controller, { identity });
  return {
    ...observed,
    connection,
    client,
    transport,
    receive: (message: unknown) => connection.message(JSON.stringify(message)),
    /** The `uid` of the one message that was sent since it was last asked. */
    asked: (): string => {
      const [{ uid }, ...others] = transport.take();
      assert.deepEqual(others, []);
      assert.match(uid, /^ask:/);
      return uid;
    },
  };
}

const answer = (uid: string, data?: unknown) => ({ type: "confirm", uid, status: "ok", data });
const codeIs = (code: string) => (error: unknown) => error instanceof WebSocketError && error.code === code;

describe("client.ask", () => {
  it("sends the question with a uid, and resolves with the data of the answer", async () => {
    const { client, transport, receive } = create();
    const [first, second] = [client.ask("confirm", { text: "Delete?" }), client.ask("confirm")];
    const [one, two] = transport.take();
    assert.deepEqual({ ...one, uid: 0 }, { type: "confirm", uid: 0, text: "Delete?" });
    assert.notEqual(one.uid, two.uid);
    receive(answer(two.uid, { yes: false }));
    receive(answer(one.uid, { yes: true }));
    assert.deepEqual([await first, await second], [{ yes: true }, { yes: false }]);
    assert.deepEqual(transport.take(), []);
  });

  it("shows the answer to no listener, middleware or handler", async () => {
    const { client, controller, asked, receive, takeNames } = create();
    controller.handle("confirm", v.looseObject({}), () => assert.fail("the handler ran"));
    controller.use(() => assert.fail("the middleware ran"));
    const reply = client.ask("confirm");
    takeNames();
    receive(answer(asked(), 1));
    assert.equal(await reply, 1);
    assert.deepEqual(takeNames(), []);
  });

  it("validates the answer where it has a schema", async () => {
    const { client, asked, receive } = create();
    const reply = v.object({ yes: v.boolean() });
    const good = client.ask("confirm", {}, { reply });
    receive(answer(asked(), { yes: true, more: 1 }));
    assert.deepEqual(await good satisfies { yes: boolean }, { yes: true });
    const bad = client.ask("confirm", {}, { reply });
    receive(answer(asked(), { yes: "no" }));
    await assert.rejects(
      bad,
      (error) => codeIs("INVALID_PAYLOAD")(error) && (error as WebSocketError).details!["path"] === "yes",
    );
  });

  it("is ended by its timeout and its signal while the answer is validated", async () => {
    const observed = observe({ rateLimit: false });
    const { connection, client, transport } = open(observed.controller);
    const reply = v.pipeAsync(v.string(), v.checkAsync(() => new Promise<boolean>(() => {})));
    const stop = new AbortController();
    const [late, aborted] = [
      client.ask("confirm", {}, { reply, timeout: 5_000 }),
      client.ask("confirm", {}, { reply, signal: stop.signal }),
    ];
    for (const { uid } of transport.take()) connection.message(JSON.stringify(answer(uid, "yes")));
    for (const each of [late, aborted]) each.catch(() => {});
    await turn();
    stop.abort(new Error("enough"));
    await assert.rejects(aborted, /enough/);
    observed.clock.advance(5_000);
    await assert.rejects(late, codeIs("TIMEOUT"));
  });

  it("validates the answer by the contract, in production too, or by the schema that is passed", async () => {
    const contract = defineContract({
      questions: { confirm: { reply: v.pipe(v.object({ n: v.string() }), v.transform(({ n }) => Number(n))) } },
    });
    const controller = new WebSocketController({ contract, validate: false, logger: false });
    const { connection, transport, client } = open(controller as unknown as WebSocketController);
    const typed = client as unknown as WebSocketClient<typeof contract>;
    const respond = async (data: unknown) => {
      await turn();
      connection.message(JSON.stringify(answer(transport.take()[0].uid, data)));
    };
    const good = typed.ask("confirm");
    await respond({ n: "7" });
    assert.equal(await good satisfies number, 7);
    const bad = typed.ask("confirm");
    await respond({ n: 7 });
    await assert.rejects(bad, codeIs("INVALID_PAYLOAD"));
    const own = typed.ask("confirm", {}, { reply: v.literal(3) });
    await respond(3);
    assert.equal(await own, 3);
    const undeclared = client.ask("constructor");
    await respond(4);
    assert.equal(await undeclared, 4);
    // Once, on the node that asks: the schema does not read its own output.
    const all = controller.askAll("confirm");
    await respond({ n: "8" });
    assert.deepEqual((await all).replies.map(({ data }) => data satisfies number), [8]);
    const none = controller.askAll("confirm");
    await respond({ n: 8 });
    assert.deepEqual((await none).missing.map(({ code }) => code), ["INVALID_PAYLOAD"]);
  });

  it("rejects with the code of the client's error, and without its text", async () => {
    const { client, asked, receive } = create();
    for (
      const [error, code] of [[{ code: "DECLINED", message: "<b>" }, "DECLINED"], [{ code: "<b>" }, "UNKNOWN"], [1, "UNKNOWN"]]
    ) {
      const reply = client.ask("confirm");
      receive({ type: "confirm", uid: asked(), status: "error", error });
      await assert.rejects(reply, (thrown) => codeIs(code as string)(thrown) && !(thrown as Error).message.includes("<b>"));
    }
  });

  it("rejects with TIMEOUT without an answer, and answers a late one with an error", async () => {
    const { client, clock, asked, receive, transport } = create();
    for (const [options, timeout] of [[{}, 10_000], [{ timeout: 500 }, 500]] as const) {
      const reply = client.ask("confirm", {}, options);
      const uid = asked();
      let isSettled = false;
      reply.catch(() => isSettled = true);
      clock.advance(timeout - 1);
      await turn();
      assert.equal(isSettled, false);
      clock.advance(1);
      await assert.rejects(reply, codeIs("TIMEOUT"));
      receive(answer(uid));
      const [{ type, status, uid: echoed, error }] = transport.take();
      assert.deepEqual([type, status, echoed, error.code], ["confirm", "error", uid, "NOT_ASKED"]);
    }
  });

  it("takes the first answer only", async () => {
    const { client, asked, receive, transport } = create();
    const reply = client.ask("confirm");
    const uid = asked();
    receive(answer(uid, 1));
    receive(answer(uid, 2));
    receive({ type: "confirm", uid, status: "error", error: { code: "DECLINED" } });
    assert.equal(await reply, 1);
    assert.deepEqual(transport.take().map(({ error }) => error.code), ["NOT_ASKED", "NOT_ASKED"]);
  });

  it("does not take the answer of another client", async () => {
    const { client, controller, asked, receive } = create();
    const other = open(controller, { identity: { accountability: { user: "mika", role: null } } });
    const reply = client.ask("confirm");
    const uid = asked();
    other.connection.message(JSON.stringify(answer(uid, "stolen")));
    assert.equal(other.transport.take()[0].error.code, "NOT_ASKED");
    void other.client.ask("confirm");
    other.connection.message(JSON.stringify(answer(uid, "stolen")));
    assert.equal(other.transport.take()[1].error.code, "NOT_ASKED");
    receive(answer(uid, "own"));
    assert.equal(await reply, "own");
  });

  it("rejects with FORBIDDEN when the connection has become another user's", async () => {
    const { controller } = observe({
      mode: "public",
      authenticate: (given) => "access_token" in given ? { accountability: { user: given.access_token, role: null } } : null,
    });
    const { connection, client, transport } = open(controller, { identity: { accountability: { user: "mika", role: null } } });
    const reply = client.ask("confirm");
    const [{ uid }] = transport.take();
    connection.message(JSON.stringify({ type: "auth", access_token: "yuki" }));
    await turn();
    connection.message(JSON.stringify(answer(uid)));
    await assert.rejects(reply, codeIs("FORBIDDEN"));
  });

  it("rejects with DISCONNECTED when the connection is lost, and for a client that is not connected", async () => {
    const { client, connection } = create();
    const reply = client.ask("confirm");
    connection.closed(1006, "", false);
    await assert.rejects(reply, codeIs("DISCONNECTED"));
    await assert.rejects(client.ask("confirm"), codeIs("DISCONNECTED"));
  });

  it("rejects with the signal's reason, and holds nothing after it", async () => {
    const { client, asked, receive, transport, controller } = create();
    const { deadlines } = controller.stats();
    const [abort, reason] = [new AbortController(), new Error("enough")];
    const reply = client.ask("confirm", {}, { signal: abort.signal });
    const uid = asked();
    abort.abort(reason);
    await assert.rejects(reply, reason);
    await assert.rejects(client.ask("confirm", {}, { signal: abort.signal }), reason);
    assert.deepEqual(transport.take(), []);
    receive(answer(uid));
    assert.equal(transport.take()[0].error.code, "NOT_ASKED");
    assert.equal(controller.stats().deadlines, deadlines);
  });

  it("is refused while 64 questions are open", async () => {
    const { client, transport, receive } = create();
    const replies = Array.from({ length: 64 }, () => client.ask("confirm"));
    const [{ uid }] = transport.take();
    await assert.rejects(client.ask("confirm"), codeIs("LIMIT_EXCEEDED"));
    assert.deepEqual(transport.take(), []);
    receive(answer(uid, 1));
    assert.equal(await replies[0], 1);
    void client.ask("confirm");
    assert.equal(transport.take().length, 1);
  });

  it("rejects invalid arguments", async () => {
    const { client, transport } = create();
    const wrong = [["", {}], ["x".repeat(65), {}], ["a", { type: 1 }], ["a", { uid: 1 }], ["a", { n: 1n }], [
      "auth",
      {},
    ]] as const;
    for (const [type, payload] of wrong) await assert.rejects(client.ask(type, payload), TypeError);
    await assert.rejects(client.ask("a", {}, { timeout: 0 }), TypeError);
    await assert.rejects(client.ask("a", {}, { reply: v.minLength(1) as never }), TypeError);
    assert.deepEqual(transport.take(), []);
  });

  it("may be awaited by a middleware, which holds all messages but the answer", async () => {
    const { controller, client, asked, receive, transport } = create();
    const order: string[] = [];
    controller.use(async (_context, next) => {
      order.push(await client.ask("confirm") as string);
      await next();
    });
    controller.handle("first", v.object({}), () => void order.push("first"));
    controller.handle("second", v.object({}), () => void order.push("second"));
    receive({ type: "first" });
    const uid = asked();
    receive({ type: "second" });
    receive(answer(uid, "one"));
    await turn();
    receive(answer(transport.take().find(({ uid }) => `${uid}`.startsWith("ask:")).uid, "two"));
    await turn();
    assert.deepEqual(order, ["one", "first", "two", "second"]);
  });

  it("holds an answer back while the connection verifies credentials that expired", async () => {
    const stall = new Stall<null>();
    const { controller, clock } = observe({
      authenticate: () => null,
      revalidate: () => stall.promise,
    });
    const expires_at = clock.now() / 1_000 + 1;
    const { connection, client, transport } = open(controller, {
      identity: { accountability: { user: "mika", role: null }, expires_at },
    });
    const reply = client.ask("confirm");
    const [{ uid }] = transport.take();
    clock.advance(1_000);
    connection.message(JSON.stringify(answer(uid)));
    stall.resolve(null);
    await turn();
    assert.equal(transport.take().at(-1).error.code, "TOKEN_EXPIRED");
    clock.advance(9_000);
    await assert.rejects(reply, codeIs("TIMEOUT"));
  });

  it("ends with hibernation: an answer that wakes the object is answered with an error", () => {
    const transport = new HibernatingTransport();
    const identity = { accountability: { user: "mika", role: null } };
    const { client } = openOn(transport, observe().controller, { identity });
    void client.ask("confirm");
    const [{ uid }] = transport.take();
    const woken = observe().controller.restore(transport, transport.saved.at(-1)!);
    woken.message(JSON.stringify(answer(uid, 1)));
    assert.deepEqual(transport.take().map(({ uid, error }) => [uid, error.code]), [[uid, "NOT_ASKED"]]);
  });
});
