import assert from "node:assert/strict";
import process from "node:process";
import { describe, it } from "node:test";
import { type } from "arktype";
import * as v from "valibot";
import { z } from "zod";
import { defineContract, WebSocketController, type WebSocketControllerOptions, WebSocketService } from "../../mod.ts";
import { Channels } from "../../src/channels/channels.ts";
import { open } from "../support/fake-transport.ts";
import { turn } from "../support/waiting.ts";

const Text = v.object({ text: v.string() });

const contract = defineContract({
  requests: {
    say: { payload: v.object({ text: v.optional(v.any()) }), reply: v.strictObject({ id: v.number() }) },
    later: { reply: z.object({ id: z.number().refine((id) => Promise.resolve(id > 0)) }) },
    free: {},
  },
  questions: { confirm: { payload: v.strictObject({ text: v.string() }), reply: v.object({ yes: v.boolean() }) }, "ready?": {} },
  messages: {
    news: v.strictObject({ text: v.string(), at: v.optional(v.string()) }),
    order: v.object({ status: v.string(), n: v.number() }),
    later: v.object({ n: v.number() }),
    alert: type({ level: "number" }),
  },
  channels: {
    "room:{id}": {
      events: {
        said: Text,
        counted: v.pipe(v.string(), v.transform(Number)),
        parsed: v.pipe(v.string(), v.toNumber()),
        trimmed: v.pipe(v.string(), v.trim()),
        zod: z.string().transform(Number),
        coded: z.codec(z.string(), z.number(), { decode: Number, encode: String }),
        ark: type("string.numeric.parse"),
        plain: z.object({ n: z.number() }),
      },
      snapshot: v.array(v.string()),
      query: v.object({ limit: v.optional(v.number()) }),
      member: v.strictObject({ name: v.string() }),
    },
    free: {},
  },
});

/** A controller of the contract, one client, and the error events. */
function create(options: WebSocketControllerOptions<typeof contract> = { contract }) {
  const controller = new WebSocketController<typeof contract>({ logger: false, ...options });
  const errors: [message: string, client: string | undefined][] = [];
  controller.on("error", ({ error, client }) => errors.push([(error as Error).message, client?.uid]));
  const { connection, client, transport } = open(controller as unknown as WebSocketController);
  return {
    controller,
    service: new WebSocketService(controller),
    client: client as unknown as import("../../mod.ts").WebSocketClient<typeof contract>,
    receive: (message: unknown) => connection.message(JSON.stringify(message)),
    answers: () => transport.take(),
    /** The messages of the errors so far. */
    errors: () => errors.splice(0),
  };
}

describe("The option validate", () => {
  it("reports a reply that does not fit, and sends it", async () => {
    const { controller, client, receive, answers, errors } = create();
    controller.handle("say", contract.requests.say, ({ message }) => message.text as never);
    controller.handle("later", contract.requests.later, () => ({ id: -1 }));
    controller.handle("free", contract.requests.free, () => "anything");
    const wrong = (
      path: string,
    ) => [[`The reply to "say" does not fit the contract${path}, and was sent all the same`, client.uid]];
    for (
      const [reply, expected] of [
        [{ id: 1 }, []],
        [{ id: "s3cr3t" }, wrong(' at "id"')],
        [{ id: 1, more: 1 }, wrong(' at "more"')],
        [undefined, wrong("")],
      ] as const
    ) {
      receive({ type: "say", text: reply });
      assert.deepEqual(answers(), [{ type: "say", status: "ok", ...(reply && { data: reply }) }]);
      assert.deepEqual(errors(), expected);
    }
    receive({ type: "free" });
    receive({ type: "later" });
    assert.equal(answers().length, 2);
    assert.deepEqual(errors(), []);
    await turn();
    assert.deepEqual(errors(), [[
      'The reply to "later" does not fit the contract at "id", and was sent all the same',
      client.uid,
    ]]);
  });

  it("tells a message with a status from an answer", () => {
    const { service, client, answers, errors } = create();
    service.broadcast({ type: "order", status: "error", n: 1 });
    for (const status of ["shipped", "ok", "error"]) service.broadcast({ type: "order", status, n: "many" as never });
    service.broadcast({ type: "undeclared", status: "shipped" } as never);
    // Answers, also one to a request that is declared as a message, too.
    for (const type of ["order", "undeclared"]) client.send({ type, status: "ok", uid: 1 } as never);
    client.send({ type: "later", status: "ok", data: { id: 1 } } as never);
    client.send({ type: "order", status: "error", error: { code: "MINE", message: "Mine" } } as never);
    assert.equal(answers().length, 9);
    assert.deepEqual(errors().map(([message]) => message.split(", ")[0]), [
      ...Array(3).fill('The message "order" does not fit the contract at "n"'),
      'The message "undeclared" is not in the contract',
    ]);
  });

  it("reports a message that does not fit, or that the contract does not have, and sends it", () => {
    const { service, client, answers, errors } = create();
    service.broadcast({ type: "news", text: "Hello" });
    service.broadcast('{"type":"encoded"}');
    client.send({ type: "alert", level: 1 });
    client.send({ type: "say", status: "error", error: { code: "MINE", message: "Mine" } });
    assert.equal(answers().length, 4);
    assert.deepEqual(errors(), []);
    service.broadcast({ type: "news", text: 1 as never });
    service.broadcast({ type: "nwes" } as never);
    client.send({ type: "alert", level: "high" as never });
    service.broadcast({ type: "constructor" } as never);
    // What arrives is what counts: a date arrives as a string.
    service.broadcast({ type: "news", text: "Hello", at: new Date(0) as never });
    assert.equal(answers().length, 5);
    assert.deepEqual(errors(), [
      ['The message "news" does not fit the contract at "text", and was sent all the same', undefined],
      ['The message "nwes" is not in the contract, and was sent all the same', undefined],
      ['The message "alert" does not fit the contract at "level", and was sent all the same', client.uid],
      ['The message "constructor" is not in the contract, and was sent all the same', undefined],
    ]);
  });

  it("reports a publication and a snapshot that do not fit, and sends them", async () => {
    const { controller, client, receive, answers, errors } = create();
    const channels = new Channels(controller, {
      "room:{id}": { authorize: () => true, snapshot: ({ params }) => params.id === "1" ? ["fits"] : [1 as never] },
      free: { authorize: () => true, snapshot: () => 1 },
    });
    for (const channel of ["room:1", "room:2", "free"]) receive({ type: "subscribe", channel });
    await turn();
    assert.equal(answers().length, 3);
    assert.deepEqual(errors(), [[
      'The snapshot of "room:2" does not fit the contract at "0", and was sent all the same',
      client.uid,
    ]]);
    await channels.publish("room:1", "said", { text: "Hello" });
    await channels.publish("room:1", "plain", { n: 1 });
    await channels.publish("room:1", "trimmed", "a");
    // The output of these is no input of theirs.
    for (const event of ["counted", "parsed", "zod", "coded", "ark"] as const) await channels.publish("room:1", event, 1);
    await channels.publish("free", "anything", 1);
    receive({ type: "publish", channel: "room:1", event: "said", data: { text: "Hello" } });
    await turn();
    assert.equal(answers().length, 11);
    assert.deepEqual(errors(), []);
    await channels.publish("room:1", "said", { text: 1 as never });
    await channels.publish("room:1", "plain", { n: "1" as never });
    await channels.publish("room:1", "trimmed", 1 as never);
    await channels.publish("room:1", "siad" as "said", { text: "Hello" });
    await turn();
    assert.equal(answers().length, 4);
    assert.deepEqual(errors().map(([message]) => message), [
      'The publication "said" to "room:1" does not fit the contract at "text", and was sent all the same',
      'The publication "plain" to "room:1" does not fit the contract at "n", and was sent all the same',
      'The publication "trimmed" to "room:1" does not fit the contract, and was sent all the same',
      'The publication "siad" to "room:1" is not in the contract, and was sent all the same',
    ]);
  });

  it("reports a snapshot that answers a query, and the data of a member, that do not fit, and sends them", async () => {
    const { controller, client, receive, answers, errors } = create();
    new Channels(controller, {
      "room:{id}": {
        authorize: () => true,
        snapshot: ({ query }) => query["limit"] === 1 ? ["fits"] : [1 as never],
        presence: { data: ({ data, params }) => params.id === "none" ? undefined : data as { name: string } },
      },
      free: { authorize: () => true, presence: { data: "client" } },
    });
    const subscribe = (channel: string, data: unknown, limit = 1) =>
      receive({ type: "subscribe", channel, data, query: { limit }, presence: true });
    subscribe("room:1", { name: "Ann" });
    subscribe("room:none", { name: 1 });
    subscribe("free", 7);
    await turn();
    assert.deepEqual(errors(), []);
    subscribe("room:2", { name: 7 });
    subscribe("room:3", { name: "Ann" }, 2);
    await turn();
    await turn(); // Joins are sent a turn later.
    const joined = answers().filter(({ event }) => event === "join").map(({ channel, members }) => [channel, members[0].data]);
    assert.deepEqual(joined.sort(), [["free", 7], ["room:1", { name: "Ann" }], ["room:2", { name: 7 }], ["room:3", {
      name: "Ann",
    }], [
      "room:none",
      undefined,
    ]]);
    assert.deepEqual(errors().sort(), [
      ['The member in "room:2" does not fit the contract at "name", and was sent all the same', client.uid],
      ['The snapshot of "room:3" does not fit the contract at "0", and was sent all the same', client.uid],
    ]);
  });

  it("reports a question that does not fit, or that the contract does not have, and asks it", async () => {
    const { controller, client, answers, errors } = create();
    void client.ask("confirm", { text: "Delete it?" });
    void client.ask("ready?");
    void controller.askAll("confirm", { text: "Delete it?" });
    assert.deepEqual(errors(), []);
    void client.ask("confirm", { text: 1 as never });
    void client.ask("cofirm" as never);
    void controller.askAll("confirm", {} as never);
    await turn();
    assert.equal(answers().length, 6);
    assert.deepEqual(errors(), [
      ['The question "confirm" does not fit the contract at "text", and was sent all the same', client.uid],
      ['The question "cofirm" is not in the contract, and was sent all the same', client.uid],
      ['The question "confirm" does not fit the contract at "text", and was sent all the same', undefined],
    ]);
  });

  it("is off in production, with false, and without a contract", () => {
    const before = process.env["NODE_ENV"];
    const count = (options: WebSocketControllerOptions<typeof contract>) => {
      const { service, errors } = create(options);
      service.broadcast({ type: "nwes" } as never);
      return errors().length;
    };
    try {
      process.env["NODE_ENV"] = "production";
      assert.equal(count({ contract }), 0);
      assert.equal(count({ contract, validate: "outbound" }), 1);
      process.env["NODE_ENV"] = "development";
      assert.equal(count({ contract }), 1);
      assert.equal(count({ contract, validate: false }), 0);
      assert.equal(count({}), 0);
    } finally {
      if (before === undefined) delete process.env["NODE_ENV"];
      else process.env["NODE_ENV"] = before;
    }
  });

  it("needs a contract of defineContract", () => {
    assert.throws(() => new WebSocketController({ validate: "outbound" }), /needs the option "contract"/);
    assert.throws(() => new WebSocketController({ contract: {} }), /option "contract" must be what defineContract/);
    assert.throws(() => new WebSocketController({ contract, validate: true as never }), /option "validate" must be/);
  });
});
