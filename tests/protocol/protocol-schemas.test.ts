import assert from "node:assert/strict";
import { describe, it } from "node:test";
import * as v from "valibot";
import {
  AuthMessageSchema,
  FIRST_ISSUE,
  MessageUidSchema,
  PingMessageSchema,
  PublishMessageSchema,
  SubscribeMessageSchema,
  UnsubscribeMessageSchema,
  WebSocketMessageSchema,
} from "../../src/protocol/protocol.ts";

function accepts(schema: v.GenericSchema, inputs: unknown[]): void {
  for (const input of inputs) assert.deepEqual(v.parse(schema, input), input);
}

function refuses(schema: v.GenericSchema, inputs: unknown[]): void {
  for (const input of inputs) assert.equal(v.is(schema, input), false, JSON.stringify(input));
}

const NOT_UIDS = [null, true, [], {}, NaN, Infinity, -Infinity, 2 ** 53, -(2 ** 53), 1e300, -0, "x".repeat(65)];

describe("MessageUidSchema", () => {
  it("accepts strings of at most 64 characters and numbers that JSON carries only", () => {
    accepts(MessageUidSchema, ["", "a", "x".repeat(64), 0, -1.5, 2 ** 53 - 1, 1 - 2 ** 53]);
    refuses(MessageUidSchema, [...NOT_UIDS, undefined]);
  });
});

describe("WebSocketMessageSchema", () => {
  it("accepts any fields beside type and uid", () => {
    accepts(WebSocketMessageSchema, [{ type: "x" }, { type: "x", uid: 1, other: [null] }]);
  });

  it("refuses what has no good type or uid", () => {
    refuses(WebSocketMessageSchema, [null, 1, "x", [], {}, { type: "" }, { type: 1 }, { type: "x".repeat(65) }]);
    refuses(WebSocketMessageSchema, NOT_UIDS.map((uid) => ({ type: "x", uid })));
  });
});

describe("AuthMessageSchema", () => {
  const token = "x".repeat(8192);

  it("accepts each of the three kinds of credentials", () => {
    accepts(AuthMessageSchema, [
      { type: "auth", access_token: "a" },
      { type: "auth", access_token: token, uid: "1" },
      { type: "auth", refresh_token: token, uid: 1 },
      { type: "auth", email: "a", password: "" },
      { type: "auth", email: "a@example.com", password: "p", otp: "123456", uid: 1 },
    ]);
  });

  it("refuses credentials that are missing, empty, too long or no strings", () => {
    refuses(AuthMessageSchema, [
      { type: "auth" },
      { type: "login", access_token: "a" },
      { type: "auth", access_token: "" },
      { type: "auth", access_token: 1 },
      { type: "auth", access_token: ["a"] },
      { type: "auth", access_token: token + "x" },
      { type: "auth", refresh_token: "" },
      { type: "auth", refresh_token: token + "x" },
      { type: "auth", email: "a@example.com" },
      { type: "auth", password: "p" },
      { type: "auth", email: "", password: "p" },
      { type: "auth", email: "x".repeat(321), password: "p" },
      { type: "auth", email: "a", password: "x".repeat(1025) },
      { type: "auth", email: "a", password: "p", otp: 123456 },
      { type: "auth", email: "a", password: "p", otp: "1".repeat(65) },
      ...NOT_UIDS.map((uid) => ({ type: "auth", access_token: "a", uid })),
    ]);
  });

  it("takes one kind when several came, and nothing else with it", () => {
    const both = { type: "auth", access_token: "a", refresh_token: "r", email: "e", password: "p", admin: true };
    assert.deepEqual(v.parse(AuthMessageSchema, both), { type: "auth", access_token: "a" });
  });
});

describe("PingMessageSchema", () => {
  it("accepts a ping, perhaps with a uid", () => {
    accepts(PingMessageSchema, [{ type: "ping" }, { type: "ping", uid: 0, limits: true }]);
    refuses(PingMessageSchema, [
      { type: "pong" },
      {},
      { type: "ping", limits: "yes" },
      ...NOT_UIDS.map((uid) => ({ type: "ping", uid })),
    ]);
  });
});

describe("SubscribeMessageSchema", () => {
  const message = (fields: object) => ({ type: "subscribe", channel: "news", ...fields });

  it("accepts a channel with what may go with it", () => {
    accepts(SubscribeMessageSchema, [
      message({}),
      message({ channel: "x" }),
      message({ channel: "x".repeat(255), uid: "1", event: "create", query: { limit: 1, deep: { a: [] } } }),
      message({ recover: { epoch: "e", offset: 0 } }),
      message({ recover: { epoch: "", offset: Number.MAX_SAFE_INTEGER } }),
    ]);
  });

  it("refuses a field of another shape", () => {
    refuses(SubscribeMessageSchema, [
      { type: "subscribe" },
      message({ type: "unsubscribe" }),
      ...["", "x".repeat(256), 1, null].map((channel) => message({ channel })),
      ...NOT_UIDS.map((uid) => message({ uid })),
      ...["x".repeat(65), 1, null].map((event) => message({ event })),
      ...["a", 1, null, ["a"]].map((query) => message({ query })),
      ...[-1, 1.5, NaN, "1", 2 ** 53].map((offset) => message({ recover: { epoch: "e", offset } })),
      ...["x".repeat(65), 1, undefined].map((epoch) => message({ recover: { epoch, offset: 0 } })),
    ]);
  });

  it("refuses a name that a broker reads as a pattern; `__proto__` is a name that nothing declares", () => {
    refuses(SubscribeMessageSchema, ["a*", "a>b", "a?", "a b", "é", "a\n"].map((channel) => message({ channel })));
    accepts(SubscribeMessageSchema, ["__proto__", "a__proto__", "A-Z.0:9/_@=+~"].map((channel) => message({ channel })));
  });

  it("refuses a field that narrows a subscription in other services, because ignoring it would send more than the client wants", () => {
    refuses(SubscribeMessageSchema, ["filter", "fields", "ids", "limit", "version"].map((name) => message({ [name]: 1 })));
  });
});

describe("PublishMessageSchema", () => {
  const publish = { type: "publish", channel: "room", event: "said" };

  it("accepts an event, perhaps with data, an id and a uid", () => {
    accepts(PublishMessageSchema, [publish, { ...publish, data: null, id: "x".repeat(64), uid: 1 }]);
  });

  it("refuses an event that the service sends itself, and an id that is empty or too long", () => {
    for (const event of ["init", "unsubscribe", "join", "leave"]) refuses(PublishMessageSchema, [{ ...publish, event }]);
    refuses(PublishMessageSchema, ["", "x".repeat(65), 1].map((id) => ({ ...publish, id })));
  });
});

describe("collection, which the Directus SDK sends in place of channel", () => {
  it("is read as channel where that is missing or the same", () => {
    for (const names of [{ collection: "room" }, { channel: "room", collection: "room" }, { channel: "room" }]) {
      assert.equal(v.parse(SubscribeMessageSchema, { type: "subscribe", ...names }).channel, "room");
      assert.equal(v.parse(UnsubscribeMessageSchema, { type: "unsubscribe", ...names }).channel, "room");
    }
    const names = { channel: "room", collection: "other" };
    refuses(SubscribeMessageSchema, [{ type: "subscribe", ...names }, { type: "subscribe", collection: "a*" }]);
    refuses(UnsubscribeMessageSchema, [{ type: "unsubscribe", ...names }]);
    assert.deepEqual(v.parse(UnsubscribeMessageSchema, { type: "unsubscribe" }), { type: "unsubscribe" });
  });
});

describe("UnsubscribeMessageSchema", () => {
  it("accepts a uid, a channel, both or neither", () => {
    accepts(UnsubscribeMessageSchema, [
      { type: "unsubscribe" },
      { type: "unsubscribe", uid: "1" },
      { type: "unsubscribe", channel: "news" },
      { type: "unsubscribe", uid: 1, channel: "news" },
    ]);
    refuses(UnsubscribeMessageSchema, [{}, { type: "unsubscribe", channel: "" }, {
      type: "unsubscribe",
      channel: "x".repeat(256),
    }]);
    refuses(UnsubscribeMessageSchema, NOT_UIDS.map((uid) => ({ type: "unsubscribe", uid })));
  });
});

describe("FIRST_ISSUE", () => {
  it("stops validation at the first issue, of the fields and of a pipe: issues can be much larger than the input", () => {
    const text = v.pipe(v.string(), v.minLength(5), v.maxLength(0));
    for (const schema of [v.object({ a: text }), v.array(v.number()), v.looseObject({ a: v.number(), b: v.number() })]) {
      for (const input of [{ a: "x", b: "x" }, ["x", "y"]]) {
        assert.equal(v.safeParse(schema, input, FIRST_ISSUE).issues?.length ?? 0, v.is(schema, input) ? 0 : 1);
      }
    }
  });
});
