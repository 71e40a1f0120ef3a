/** Whatever arrives: nothing throws, every answer has a known shape, and the state stays consistent. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import * as v from "valibot";
import type { AuthenticationState, Credentials } from "../../src/application/authentication.ts";
import type { BroadcastFilter } from "../../src/delivery/broadcast.ts";
import { createRoute, HANDSHAKE_HEADERS } from "../support/fake-runtime.ts";
import { HibernatingTransport, open, openOn } from "../support/fake-transport.ts";
import { observe } from "../support/observed.ts";
import { assertProperty } from "../support/property.ts";
import { unhandledIn } from "../support/unhandled.ts";
import { turn } from "../support/waiting.ts";

const NOBODY = { user: null, role: null };

/** Whom a token stands for: nobody for most, and some make `authenticate` fail. */
function authenticate(credentials: Credentials): AuthenticationState | null {
  const token = "access_token" in credentials ? credentials.access_token : "";
  if (token.includes("fail")) throw new Error(`Cannot read ${token}`);
  return token.includes("good") ? { accountability: { user: "ann", role: null } } : null;
}

const uid = fc.oneof(fc.string(), fc.double(), fc.integer(), fc.constant(null), fc.jsonValue());
const token = fc.oneof(fc.constantFrom("good", "fail", "bad", ""), fc.string());
const field = fc.constantFrom(
  ..."type uid access_token refresh_token email password data channel __proto__ constructor toString then".split(" "),
);
const type = fc.oneof(fc.constantFrom("auth", "ping", "pong", "echo", "throws", "kept", "unknown", "__proto__"), fc.string());

/** Almost a message: the right fields, now and then with a wrong value in them. */
const nearlyMessage = fc.tuple(
  fc.record({ type, uid, access_token: token, data: fc.jsonValue() }, { requiredKeys: [] }),
  fc.dictionary(field, fc.oneof(fc.jsonValue(), token), { maxKeys: 3 }),
).map(([message, more]) => JSON.stringify({ ...message, ...more }));

/** One character of a message replaced, or the rest cut off. */
const brokenMessage = fc.tuple(nearlyMessage, fc.nat(60), fc.string({ maxLength: 2 }), fc.boolean()).map(([text, at, by, cut]) =>
  text.slice(0, at) + by + (cut ? "" : text.slice(at + 1))
);

const frame = fc.oneof(
  { weight: 6, arbitrary: nearlyMessage },
  { weight: 2, arbitrary: brokenMessage },
  fc.json(),
  fc.string({ unit: "binary" }),
  fc.uint8Array().map((bytes) => new Uint8Array(bytes)),
  nearlyMessage.map((text) => new TextEncoder().encode(text)),
  fc.nat(60).map((depth) => `{"type":"echo","data":${"[".repeat(depth)}${"]".repeat(depth)}}`),
);

/** What may be sent to a client, by `type` and `status`. */
const Answer = v.union([
  v.strictObject({ type: v.literal("pong"), uid: v.optional(v.union([v.string(), v.number()])) }),
  v.strictObject({
    type: v.pipe(v.string(), v.minLength(1), v.maxLength(64)),
    status: v.literal("ok"),
    uid: v.optional(v.union([v.string(), v.number()])),
    data: v.optional(v.unknown()),
  }),
  v.strictObject({
    type: v.pipe(v.string(), v.minLength(1), v.maxLength(64)),
    status: v.literal("error"),
    uid: v.optional(v.union([v.string(), v.number()])),
    error: v.looseObject({
      code: v.picklist([
        "AUTH_FAILED",
        "INTERNAL_ERROR",
        "INVALID_PAYLOAD",
        "REQUESTS_EXCEEDED",
        "SERVICE_UNAVAILABLE",
        "UNSUPPORTED_TYPE",
      ]),
      message: v.pipe(v.string(), v.maxLength(200)),
    }),
  }),
]);

describe("a connection, of any frames", () => {
  it("never throws, answers in known shapes, and is either open and consistent or closing with a known code", async () => {
    const unhandled = await unhandledIn(() =>
      assertProperty(
        fc.asyncProperty(
          fc.constantFrom("public", "handshake"),
          fc.boolean(),
          fc.array(frame, { maxLength: 15 }),
          async (mode, middleware, frames) => {
            const { controller, events, clock } = observe({ authenticate, mode, maxPayload: 2000, maxPipelined: 8 });
            if (middleware) {
              controller.use(({ message }, next) => message.type === "kept" ? undefined : turn().then(() => next()));
            }
            controller.handle("echo", v.looseObject({}), ({ message }) => message);
            controller.handle("throws", v.looseObject({}), () => Promise.reject(new Error("s3cr3t")));
            const { connection, client, transport } = openOn(new HibernatingTransport(), controller, { mode });
            for (const each of frames) {
              connection.message(each);
              if (each.length % 3 === 0) await turn();
            }
            for (let n = 0; n < 40; n++) await turn();

            for (const text of transport.sent) {
              const answer = JSON.parse(text);
              assert.ok(v.is(Answer, answer), text);
              assert.ok(!text.includes("s3cr3t") && !text.includes("    at "), text);
            }
            const codes = transport.closes.map(({ code }) => code);
            assert.ok(codes.length <= 1 && codes.every((code) => [1009, 1013, 4401, 4529].includes(code)), String(codes));
            assert.equal(client.readyState, codes.length === 0 ? 1 : 2);
            const connects = events.filter(([event]) => event === "connect").length;
            assert.equal(connects, controller.clients().has(client) ? 1 : 0, "told of as often as listed");
            const { user } = client.accountability;
            assert.ok(user === null || user === "ann");
            if (connects === 0) assert.deepEqual(client.accountability, NOBODY);
            if (codes.length === 0) assert.deepEqual(transport.saved.at(-1)?.accountability, client.accountability);

            connection.closed(1006, "", false);
            assert.equal(events.filter(([event]) => event === "close").length, connects);
            const { active, clients, reserved, keys, deadlines } = controller.stats();
            assert.deepEqual([active, clients, reserved, keys, deadlines, clock.timers], [0, 0, 0, 0, 0, 0]);
          },
        ),
        { numRuns: 150 },
      )
    );
    assert.deepEqual(unhandled, []);
  });
});

describe("an upgrade, of any headers", () => {
  // What `Headers` takes: the bytes of a header, without those that end it.
  const value = fc.string({ unit: fc.integer({ min: 0x20, max: 0xff }).map((code) => String.fromCharCode(code)) });
  const secret = fc.constantFrom("good-s3cr3t", "bad-s3cr3t", "fail-s3cr3t");
  const header = (...likely: fc.Arbitrary<string>[]) => fc.option(fc.oneof(value, ...likely), { freq: 3 });
  const headers = fc.record({
    origin: header(
      fc.constantFrom("http://localhost", "null", "https://a.example", "https://b.a.example", "http://localhost, null"),
      fc.webUrl(),
    ),
    authorization: header(secret.map((each) => `Bearer ${each}`), secret),
    cookie: header(secret.map((each) => `a=1; session=${each}`), secret.map((each) => `session="${each}"`)),
    "sec-websocket-protocol": header(
      secret.map((each) => `noroshi.v1, bearer.${each}`),
      fc.constantFrom("noroshi.v1", ",", "bearer."),
    ),
    "x-forwarded-for": header(fc.ipV4(), fc.constantFrom("1.2.3.4, 5.6.7.8", ",,", " ")),
    "user-agent": header(),
    "content-length": header(fc.constantFrom("0", "1", "-1")),
  });
  const wrong = fc.option(fc.tuple(fc.constantFrom(...Object.keys(HANDSHAKE_HEADERS)), fc.option(value)), { freq: 1 });
  const query = fc.oneof(
    fc.webQueryParameters(),
    secret.map((each) => `access_token=${each}`),
    fc.tuple(secret, fc.webQueryParameters()).map(([each, more]) => `${more}&access_token=${each}&access_token`),
    fc.constantFrom("%", "access_token=%ff", "access_token=", ""),
  );

  it("is answered with a documented status, never thrown out, and no token gets into any event", async () => {
    const unhandled = await unhandledIn(() =>
      assertProperty(
        fc.asyncProperty(
          fc.constantFrom("public", "handshake", "strict"),
          fc.constantFrom(0, 1, 2),
          headers,
          wrong,
          query,
          async (mode, clientIp, given, replaced, search) => {
            const { controller, app, env, opened } = createRoute({
              mode,
              clientIp,
              authenticate,
              cookie: "session",
              origins: ["https://a.example", "https://*.a.example"],
            });
            const told: unknown[] = [];
            const seen = (error: unknown) => error instanceof Error ? [error.message, error.stack, String(error.cause)] : error;
            controller.on("connect", ({ client }) => void told.push(client.handshake, client.uid, client.accountability));
            for (const event of ["error", "auth.failure"] as const) {
              controller.on(event, ({ error }) => void told.push(seen(error)));
            }
            app.onError((error) => {
              throw error;
            });
            const all = new Headers(HANDSHAKE_HEADERS);
            for (const [name, text] of [...Object.entries(given), ...(replaced ? [replaced] : [])]) {
              if (text === null) all.delete(name);
              else all.set(name, text);
            }
            const response = await app.request(`/websocket?${search}`, { headers: all }, env);
            assert.ok([200, 400, 401, 403, 405, 413, 426, 429, 501, 503].includes(response.status), String(response.status));
            assert.equal(opened.length, response.status === 200 ? 1 : 0, "200 is what the fake runtime answers for 101");
            const body = await response.text();
            if (response.status !== 200) {
              const { error } = JSON.parse(body);
              assert.deepEqual([typeof error.code, typeof error.message], ["string", "string"]);
            }
            const shown = JSON.stringify([told, body, [...response.headers], opened[0]?.client.handshake]);
            // A user agent or origin may say anything; no token of this test stands there.
            assert.ok(!shown.includes("s3cr3t"), shown);
            for (const connection of opened) connection.closed(1006, "", false);
            const { opened: count, closed, reserved, keys, deadlines } = controller.stats();
            assert.deepEqual([count - closed, reserved, keys, deadlines], [0, 0, 0, 0]);
          },
        ),
        { numRuns: 300 },
      )
    );
    assert.deepEqual(unhandled, []);
  });
});

describe("a broadcast, of any filter to any clients", () => {
  const id = fc.option(fc.constantFrom("a", "b", "c", "1"), { freq: 3 });
  const who = fc.record({ user: id, role: id });
  const filter: fc.Arbitrary<BroadcastFilter> = fc.record(
    { user: fc.constantFrom("a", "b", "1", "nobody"), role: fc.constantFrom("a", "b", "1", "none") },
    { requiredKeys: [] },
  );
  const step = fc.oneof(
    who.map((state) => ({ kind: "join" as const, state })),
    fc.tuple(who, fc.nat(20)).map(([state, at]) => ({ kind: "change" as const, state, at })),
    fc.nat(20).map((at) => ({ kind: "leave" as const, at })),
    { weight: 3, arbitrary: filter.map((filter) => ({ kind: "broadcast" as const, filter })) },
  );

  it("reaches exactly those whom a search of all clients finds, whoever they have become", async () => {
    await assertProperty(
      fc.asyncProperty(fc.array(step, { maxLength: 40 }), async (steps) => {
        let next: AuthenticationState = { accountability: NOBODY };
        const { controller } = observe({ mode: "public", authenticate: () => next, rateLimit: false });
        const clients: { opened: ReturnType<typeof open>; state: { user: string | null; role: string | null } }[] = [];
        for (const each of steps) {
          const one = "at" in each ? clients[each.at % Math.max(1, clients.length)] : undefined;
          if (each.kind === "join") {
            clients.push({ opened: open(controller, { identity: { accountability: each.state } }), state: each.state });
          } else if (each.kind === "change" && one) {
            next = { accountability: each.state };
            one.opened.connection.message('{"type":"auth","access_token":"token-1"}');
            await turn();
            one.state = each.state;
            one.opened.transport.take();
          } else if (each.kind === "leave" && one) {
            // Half of them have only begun to close.
            if (each.at % 2 === 0) one.opened.client.close();
            else one.opened.connection.closed(1006, "", false);
            clients.splice(clients.indexOf(one), 1);
          } else if (each.kind === "broadcast") {
            controller.broadcast({ type: "x" }, each.filter);
            const { user, role } = each.filter;
            const expected = clients.map(({ state }) =>
              (user === undefined || state.user === user) && (role === undefined || state.role === role) ? 1 : 0
            );
            assert.deepEqual(clients.map(({ opened }) => opened.transport.take().length), expected);
          }
        }
      }),
    );
  });
});
