/** What a contract promises on both sides: most of these lines are checked by the compiler, and fail there. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import * as v from "valibot";
import { defineContract, WebSocketController } from "../../mod.ts";
import { Channels } from "../../src/channels/channels.ts";
import { createClient, type Publication, type SubscriptionInit } from "../../src/client/client.ts";
import { connectFake } from "../support/fake-server.ts";
import { open } from "../support/fake-transport.ts";

/** Compiles only when the two types are the same. */
function same<A, B>(..._equal: (<T>() => T extends A ? 1 : 2) extends (<T>() => T extends B ? 1 : 2) ? [] : [never]): void {}

const contract = defineContract({
  requests: {
    say: { payload: v.object({ text: v.string() }), reply: v.object({ id: v.number() }) },
    count: { payload: v.object({ amount: v.pipe(v.string(), v.transform(Number)) }) },
    now: { reply: v.number() },
    nothing: {},
  },
  messages: { said: v.object({ text: v.string() }), ended: v.object({}) },
  channels: {
    news: {
      events: { posted: v.object({ id: v.number(), text: v.string() }), removed: v.object({ id: v.number() }) },
      snapshot: v.array(v.string()),
      query: v.object({ limit: v.number() }),
    },
    "room:*": { events: { said: v.string() }, member: v.object({ name: v.string() }) },
  },
});

describe("controller.handle, with a contract", () => {
  const controller = new WebSocketController({ logger: false });

  it("types the message by the payload and the answer by the reply, and reads the payload", () => {
    controller.handle("say", contract.requests.say, ({ message }) => {
      same<typeof message.text, string>();
      return { id: message.text.length };
    });
    controller.handle("count", contract.requests.count, ({ message }) => {
      same<typeof message.amount, number>();
      return message.amount;
    });
    controller.handle("now", contract.requests.now, () => Promise.resolve(7));
    controller.handle("nothing", { payload: undefined } as never, () => {});
    const { connection, transport } = open(controller);
    const ask = (message: object) => {
      connection.message(JSON.stringify({ uid: 1, ...message }));
      return transport.take()[0];
    };
    assert.deepEqual(ask({ type: "say", text: "four" }).data, { id: 4 });
    assert.deepEqual(ask({ type: "say", text: 4 }).error.path, "text");
    assert.deepEqual(ask({ type: "count", amount: "12" }).data, 12);
    assert.equal(ask({ type: "nothing", ignored: true }).status, "ok");
  });

  it("does not compile with another answer", () => {
    const other = new WebSocketController({ logger: false });
    // @ts-expect-error -- the id is missing
    other.handle("say", contract.requests.say, () => ({}));
    // @ts-expect-error -- a number, as the reply says
    other.handle("now", contract.requests.now, () => Promise.resolve("7"));
    // @ts-expect-error -- the payload has no such field
    other.handle("count", contract.requests.count, ({ message }) => message.number);
    // @ts-expect-error -- it says neither what is asked nor what is answered
    assert.throws(() => other.handle("wrong", { schema: v.object({}) }, () => null), TypeError);
    // @ts-expect-error -- no schema
    assert.throws(() => other.handle("wrong", { payload: "text" }, () => null), TypeError);
  });

  it("gives a channel its schema", async () => {
    const channels = new Channels(controller, {
      news: { authorize: () => true, schema: contract.channels.news.events },
      "room:*": { authorize: () => true, schema: contract.channels["room:*"].events },
    });
    await channels.publish("news", "removed", { id: 1 });
    await channels.publish("room:1", "said", "hello");
    // @ts-expect-error -- the id is a number
    await channels.publish("news", "removed", { id: "1" });
    // @ts-expect-error -- there is no such event
    await channels.publish("room:1", "shouted", "hello");
    const any: Channels = channels; // For what takes channels of whatever kind.
    assert.equal(any.stats().channels, 0);
  });

  it("lets the server publish what clients are sent: what a schema puts out of what another client publishes", async () => {
    const events = { priced: v.object({ amount: v.pipe(v.string(), v.transform(Number)), unit: v.optional(v.string(), "kg") }) };
    const declared = defineContract({ channels: { prices: { events } } });
    const channels = new Channels(new WebSocketController({ logger: false }), {
      prices: { authorize: () => true, schema: declared.channels.prices.events },
    });
    await channels.publish("prices", "priced", { amount: 12, unit: "t" });
    // @ts-expect-error -- no schema makes a number of it here
    await channels.publish("prices", "priced", { amount: "12", unit: "t" });
    const { client } = connectFake<typeof declared>({ lazy: true });
    client.subscribe("prices", { onEvent: ({ data }) => same<typeof data, { amount: number; unit: string }>() });
    void (() => client.publish("prices", "priced", { amount: "12" }));
  });
});

describe("createClient, with a contract", () => {
  const { client } = connectFake<typeof contract>({ lazy: true });

  it("types what is asked and what is answered", () => {
    const asked = async () => {
      const said = await client.request("say", { text: "hello" }, { timeout: 5_000 });
      same<typeof said, { id: number }>();
      const counted = await client.request("count", { amount: "12" });
      same<typeof counted, unknown>();
      const now = await client.request("now");
      same<typeof now, number>();
      void client.request("nothing", {}, { idempotent: true });
      void client.send({ type: "say", text: "hello" });
      // @ts-expect-error -- there is no such type
      void client.request("shout", { text: "hello" });
      // @ts-expect-error -- the text is missing
      void client.request("say", {});
      // @ts-expect-error -- the payload is missing
      void client.request("say");
      // @ts-expect-error -- the amount travels as a string
      void client.request("count", { amount: 12 });
      // @ts-expect-error -- the text is a string
      void client.send({ type: "say", text: 1 });
      // @ts-expect-error -- there is no such type
      void client.send({ type: "shout" });
    };
    assert.equal(typeof asked, "function");
  });

  it("types what the server sends by itself", () => {
    client.on("message", ({ message }) => {
      same<typeof message.type, "said" | "ended">();
      if (message.type === "said") same<typeof message.text, string>();
      // @ts-expect-error -- only what was said has a text
      else assert.fail(message.text);
    });
    // @ts-expect-error -- there is no such event
    client.on("opened", () => {});
  });

  it("types channels, their snapshots, events and members", () => {
    type News = Publication<"posted", { id: number; text: string }> | Publication<"removed", { id: number }>;
    const subscribed = async () => {
      for await (const item of client.subscribe("news", { query: { limit: 10 } })) {
        same<typeof item, SubscriptionInit<string[]> | News>();
        if (item.event === "init") same<typeof item.data, string[]>();
        else if (item.event === "posted") same<typeof item.data.text, string>();
      }
      client.subscribe("news", { event: "removed", onEvent: ({ data }) => same<typeof data, { id: number }>() });
      client.subscribe("news", {
        onInit: ({ data }) => same<typeof data, string[]>(),
        onEvent: (publication) => same<typeof publication, News>(),
      });
      const room = client.subscribe("room:1", {
        data: { name: "Ann" },
        onPresence: ({ members: [member] }) => same<typeof member, { user: string; data?: { name: string } } | undefined>,
      });
      const name = room.present[0]?.data?.name;
      same<typeof name, string | undefined>();
      void client.publish("news", "removed", { id: 1 });
      void client.publish("room:2", "said", "hello");
      // @ts-expect-error -- there is no such channel
      client.subscribe("olds");
      // @ts-expect-error -- there is no such event
      client.subscribe("news", { event: "said" });
      // @ts-expect-error -- the limit is a number
      client.subscribe("news", { query: { limit: "10" } });
      // @ts-expect-error -- the name is missing
      client.subscribe("room:1", { data: {} });
      // @ts-expect-error -- the id is a number
      void client.publish("news", "removed", { id: "1" });
      // @ts-expect-error -- it is said there, not removed
      void client.publish("room:1", "removed", { id: 1 });
    };
    assert.equal(typeof subscribed, "function");
  });

  it("takes plain types in place of schemas", () => {
    type Plain = {
      requests: { say: { payload: { text: string }; reply: number } };
      channels: { "room:*": { events: { said: { text: string } } } };
    };
    const asked = async () => {
      const plain = createClient<Plain>("ws://localhost");
      const said = await plain.request("say", { text: "hello" });
      same<typeof said, number>();
      plain.subscribe("room:1", { onEvent: ({ data }) => same<typeof data, { text: string }>() });
      // @ts-expect-error -- the text is a string
      void plain.request("say", { text: 1 });
      // What is not declared is not restricted.
      plain.on("message", ({ message }) => same<typeof message.type, string>());
    };
    assert.equal(typeof asked, "function");
  });

  it("restricts nothing without one", () => {
    const asked = async () => {
      const any = createClient("ws://localhost");
      const said = await any.request("say", { text: "hello" });
      same<typeof said, unknown>();
      void any.send({ type: "say", text: "hello" });
      for await (const { event, data } of any.subscribe("articles", { event: "posted", query: { limit: 1 } })) {
        same<[typeof event, typeof data], ["init" | "posted", unknown]>();
      }
      void any.publish("articles", "posted", 1);
      // @ts-expect-error -- a message has a type
      void any.send({ text: "hello" });
    };
    assert.equal(typeof asked, "function");
  });
});
