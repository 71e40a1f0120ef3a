/** Whatever clients ask of channels: nothing throws, every answer has a known shape and its place, and nothing is left of those who go. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import * as v from "valibot";
import { createChannels, type TestPeer } from "../support/channels-fixture.ts";
import { assertProperty } from "../support/property.ts";
import { unhandledIn } from "../support/unhandled.ts";
import { turn } from "../support/waiting.ts";

const uid = v.optional(v.union([v.string(), v.number()]));
const channel = v.pipe(v.string(), v.regex(/^[A-Za-z0-9_\-.:/@=+~]{1,255}$/));
const offset = v.pipe(v.number(), v.safeInteger(), v.minValue(0));
const member = v.strictObject({ user: v.string(), data: v.optional(v.unknown()) });
const code = v.picklist(["FORBIDDEN", "INTERNAL_ERROR", "INVALID_PAYLOAD", "LIMIT_EXCEEDED", "NOT_FOUND", "UNSUPPORTED_TYPE"]);

/** What may be sent to a client (PROTOCOL.md 4). */
const Answer = v.union([
  v.strictObject({
    type: v.literal("subscription"),
    event: v.literal("init"),
    channel,
    uid,
    data: v.optional(v.unknown()),
    epoch: v.optional(v.string()),
    offset: v.optional(offset),
    recovered: v.optional(v.boolean()),
  }),
  v.strictObject({
    type: v.literal("subscription"),
    event: v.literal("unsubscribe"),
    channel: v.optional(channel),
    uid,
    reason: v.optional(code),
  }),
  v.strictObject({
    type: v.literal("subscription"),
    event: v.pipe(v.string(), v.minLength(1), v.maxLength(64), v.notValues(["join", "leave"])),
    channel,
    uid,
    data: v.unknown(),
    offset: v.optional(offset),
  }),
  v.strictObject({
    type: v.literal("presence"),
    event: v.picklist(["init", "join", "leave"]),
    channel,
    uid,
    members: v.array(member),
  }),
  v.strictObject({
    type: v.literal("publish"),
    status: v.literal("ok"),
    uid,
    epoch: v.optional(v.string()),
    offset: v.optional(offset),
  }),
  v.strictObject({
    type: v.pipe(v.string(), v.minLength(1), v.maxLength(64)),
    status: v.literal("error"),
    uid,
    error: v.looseObject({ code, message: v.pipe(v.string(), v.maxLength(200)) }),
  }),
  v.strictObject({
    type: v.literal("pong"),
    uid,
    channels: v.optional(v.record(v.string(), v.strictObject({ epoch: v.string(), offset }))),
  }),
]);

const late = () => turn().then(() => true);

const DECLARATIONS = {
  "open:*": { authorize: () => true },
  "log:*": { authorize: late, history: { size: 4, ttl: 60_000 }, snapshot: () => turn().then(() => ["row"]) },
  "room:*": { authorize: () => true, presence: { data: "client", grace: 1_000 }, history: { size: 4, ttl: 60_000 } },
  "typed:*": { authorize: late, presence: true, schema: { say: v.object({ text: v.string() }) } },
  "closed:*": { authorize: () => false },
  "failing:*": { authorize: () => Promise.reject(new Error("s3cr3t")) },
  "broken:*": {
    authorize: () => true,
    snapshot: () => {
      throw new Error("s3cr3t");
    },
  },
} as const;

const anyValue = fc.oneof(fc.jsonValue(), fc.string(), fc.double(), fc.constant(null));
const anyUid = fc.oneof({ weight: 8, arbitrary: fc.constantFrom<unknown>("1", 1, 2, "", 0, "two") }, anyValue);
const name = fc.oneof(
  {
    weight: 8,
    arbitrary: fc.constantFrom("open:1", "log:1", "log:2", "room:1", "typed:1", "closed:1", "failing:1", "broken:1"),
  },
  fc.constantFrom("nowhere", "log:", "open:*", "__proto__", "toString", "open:a b", "open:é", ""),
  anyValue,
);
const event = fc.oneof(
  { weight: 6, arbitrary: fc.constantFrom("say", "other") },
  fc.constantFrom("init", "unsubscribe", "join", "leave", "__proto__", "toString", ""),
  anyValue,
);
const recover = fc.oneof(
  { weight: 4, arbitrary: fc.record({ epoch: fc.constantFrom("own", "another"), offset: fc.nat(8) }) },
  fc.record({ epoch: anyValue, offset: anyValue }, { requiredKeys: [] }),
  anyValue,
);
const more = fc.dictionary(
  fc.constantFrom(..."uid channel collection event query recover presence data status then __proto__".split(" ")),
  anyValue,
  { maxKeys: 2 },
);

/** Messages of the three types, each field there or not, now and then with a wrong value in it. */
const message = fc.oneof(
  fc.record({
    type: fc.constant("subscribe"),
    channel: name,
    uid: anyUid,
    event,
    query: fc.oneof(fc.dictionary(fc.string(), fc.jsonValue(), { maxKeys: 3 }), anyValue),
    recover,
    presence: fc.oneof(fc.boolean(), anyValue),
    data: anyValue,
  }, { requiredKeys: ["type", "channel"] }),
  fc.record({ type: fc.constant("subscribe"), channel: name, uid: anyUid, presence: fc.constant(true) }),
  fc.record({ type: fc.constant("unsubscribe"), channel: name, uid: anyUid }, { requiredKeys: ["type"] }),
  fc.record({ type: fc.constant("publish"), channel: name, event, data: anyValue, uid: anyUid }, {
    requiredKeys: ["type", "channel", "event"],
  }),
  fc.record({ type: fc.constant("ping"), uid: anyUid }, { requiredKeys: ["type"] }),
).chain((message) =>
  fc.oneof(
    { weight: 5, arbitrary: fc.constant<Record<string, unknown>>(message) },
    more.map((each): Record<string, unknown> => ({ ...message, ...each })),
  )
);

const step = fc.record({ by: fc.nat(2), messages: fc.array(message, { minLength: 1, maxLength: 4 }), waits: fc.nat(3) });

/** What the client of one subscription was sent: `init` first, then growing offsets, and nothing once it has ended. */
function checkOrder(sent: readonly Record<string, unknown>[]): void {
  const at = new Map<string, number>();
  for (const each of sent) {
    if (each["type"] !== "subscription") continue;
    const { event, uid, channel, offset } = each as { event: string; uid?: unknown; channel?: string; offset?: number };
    // Without a uid there may be several by their events.
    if (uid === undefined) {
      if (event === "unsubscribe" && channel === undefined) at.clear();
      continue;
    }
    const name = `${typeof uid} ${uid}`;
    if (event === "init") at.set(name, offset ?? 0);
    else if (event === "unsubscribe") at.delete(name);
    else {
      const before = at.get(name);
      assert.ok(before !== undefined, `a publication before init, or after the end: ${JSON.stringify(each)}`);
      if (offset !== undefined) {
        assert.ok(offset > before, `${offset} after ${before}`);
        at.set(name, offset);
      }
    }
  }
}

describe("channels, of any messages", () => {
  it("never throw, answer in known shapes and in order, and hold nothing of those who have gone", async () => {
    const unhandled = await unhandledIn(() =>
      assertProperty(
        fc.asyncProperty(
          fc.array(step, { maxLength: 14 }),
          fc.array(fc.boolean(), { minLength: 3, maxLength: 3 }),
          async (steps, clean) => {
            const { join, channels, controller, clock } = createChannels(DECLARATIONS, {
              maxSubscriptions: 4,
              maxPayload: 4_000,
            });
            const peers: TestPeer[] = ["ann", "ann", null].map((user) => join(user));
            // A history that a position may be of.
            const { epoch } = (await channels.publish("log:1", "say", 0))!;
            const sent: Record<string, unknown>[][] = [[], [], []];
            const read = () => {
              for (const [number, { transport }] of peers.entries()) sent[number]!.push(...transport.take());
            };
            for (const { by, messages, waits } of steps) {
              for (const each of messages) {
                const { recover } = each as { recover?: { epoch?: unknown } };
                const own = recover?.epoch === "own" ? { ...each, recover: { ...recover, epoch } } : each;
                peers[by]!.connection.message(JSON.stringify(own));
              }
              for (let n = 0; n < waits; n++) await turn();
              read();
            }
            for (let n = 0; n < 12; n++) await turn();
            read();
            for (const each of sent) {
              for (const answer of each) {
                assert.ok(v.is(Answer, answer), JSON.stringify(answer));
                assert.doesNotMatch(JSON.stringify(answer), /s3cr3t/);
              }
              checkOrder(each);
            }
            for (const { client } of peers) assert.equal(client.readyState, 1);

            for (const [number, peer] of peers.entries()) peer.leave(clean[number]);
            for (let n = 0; n < 12; n++) await turn();
            clock.advance(5_000);
            assert.deepEqual(channels.stats(), { channels: 0, subscriptions: 0, subscribers: 0 });
            for (const name of ["room:1", "typed:1"]) assert.deepEqual(await channels.presence(name), []);
            clock.advance(200_000);
            assert.deepEqual([controller.stats().deadlines, clock.timers], [0, 0]);
          },
        ),
        { numRuns: 250 },
      )
    );
    assert.deepEqual(unhandled, []);
  });
});
