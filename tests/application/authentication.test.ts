import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { describe, it } from "node:test";
import { inspect } from "node:util";
import fc from "fast-check";
import { type Attempt, type Authenticate, Authenticator, type Credentials } from "../../src/application/authentication.ts";
import { Deadlines } from "../../src/base/clock.ts";
import { WebSocketError } from "../../src/protocol/errors.ts";
import { TokenRefusal } from "../../src/application/token-refusal.ts";
import { HANDSHAKE } from "../support/fake-transport.ts";
import { assertProperty } from "../support/property.ts";
import { Observed } from "../../src/application/observer.ts";
import { TestClock } from "../support/test-clock.ts";
import { Stall, turn } from "../support/waiting.ts";

const credentials: Credentials = { source: "message", access_token: "token-1" };
const ann = { user: "ann", role: null };

function create(authenticate: Authenticate | undefined, timeout = 1000) {
  const clock = new TestClock();
  const deadlines = new Deadlines(clock, assert.ifError);
  const authenticator = new Authenticator(authenticate, timeout, deadlines, () => clock.now(), new Observed());
  return { clock, deadlines, authenticator, attempt: async () => await authenticator.attempt(credentials, HANDSHAKE) };
}

/** How an attempt ends when `authenticate` returns this. */
const resultOf = (state: unknown): Promise<Attempt> => create(() => state as never).attempt();

describe("Authenticator", () => {
  it("accepts what authenticate returns or resolves with, its accountability a copy", async () => {
    const state = { accountability: { user: "ann", role: "editor", team: 7 }, expires_at: 4_000_000_000, refresh_token: "r" };
    for (const result of [state, Promise.resolve(state)]) {
      const attempt = await resultOf(result);
      assert.equal(attempt.outcome, "accepted");
      if (attempt.outcome !== "accepted") continue;
      assert.deepEqual(attempt.state, state);
      assert.notEqual(attempt.state.accountability, state.accountability);
    }
  });

  it("waits for an asynchronous authenticate when the application has replaced Promise", async () => {
    const Native = Promise;
    globalThis.Promise = class<T> extends Native<T> {};
    try {
      const { authenticator } = create(async (given) =>
        await (given as { access_token: string }).access_token === "token-1" ? { accountability: ann } : null
      );
      const attempts = [credentials, { ...credentials, access_token: "token-2" }].map((each) =>
        authenticator.attempt(each, HANDSHAKE)
      );
      assert.deepEqual((await Native.all(attempts)).map(({ outcome }) => outcome), ["accepted", "refused"]);
    } finally {
      globalThis.Promise = Native;
    }
  });

  it("hands the credentials and the handshake to authenticate, once", async () => {
    const calls: unknown[][] = [];
    const { attempt } = create((...args) => {
      calls.push(args);
      return null;
    });
    await attempt();
    assert.deepEqual(calls.map((args) => args.slice(0, 2)), [[credentials, HANDSHAKE]]);
  });

  it("refuses when authenticate returns null, and when there is none", async () => {
    assert.deepEqual(await resultOf(null), { outcome: "refused" });
    const { authenticator, attempt, clock } = create(undefined);
    assert.equal(authenticator.enabled, false);
    const { outcome, ...refusal } = await attempt();
    assert.equal(outcome, "refused");
    assert.match(String(Object(refusal).cause), /no option "authenticate"/);
    assert.equal(clock.delays.length, 0);
    assert.equal(create(() => null).authenticator.enabled, true);
  });

  it("refuses with the cause that authenticate gives, without the credentials it may quote", async () => {
    const expired = new Error("Expired");
    const quoting = new TypeError("invalid JWT token: a-long-secret"); // As hono's own do.
    const show = async (cause: unknown, shown = "a-long-secret") => {
      const { authenticator } = create((_credentials, _handshake, refuse) => refuse(cause));
      const attempt = await authenticator.attempt({ source: "message", access_token: shown }, HANDSHAKE);
      return attempt.outcome === "refused" ? attempt.cause : assert.fail();
    };
    assert.equal(await show(expired), expired);
    assert.equal(await show("of a-long-secret"), "of [redacted]");
    assert.equal(String(await show(quoting)), "TypeError: invalid JWT token: [redacted]");
    assert.deepEqual(await resultOf(Promise.resolve(null)), { outcome: "refused" });
    // It has nothing of the credentials but what is safe, also where they are a word of its message.
    const refusal = new TokenRefusal("malformed", "The token is not a JWT");
    for (const shown of ["token", "a"]) assert.equal(await show(refusal, shown), refusal);
    // Not so where it goes on to accept.
    const accepting: Authenticate = (_credentials, _handshake, refuse) => refuse("no") ?? { accountability: ann };
    assert.equal((await create(accepting).attempt()).outcome, "accepted");
  });

  it("has failed with what was thrown when authenticate throws, rejects or is a hostile thenable", async () => {
    for (const error of [new Error("down"), undefined, "text"]) {
      const thrown = create(() => {
        throw error;
      });
      const rejected = create(() => Promise.reject(error));
      const hostile = create(() =>
        ({
          get then(): never {
            throw error;
          },
        }) as never
      );
      for (const { attempt, deadlines } of [thrown, rejected, hostile]) {
        assert.deepEqual(await attempt(), { outcome: "failed", error });
        assert.equal(deadlines.size, 0);
      }
    }
  });

  it("refuses with the error and its cause when authenticate throws a WebSocketError", async () => {
    const cause = new Error("The signature is wrong");
    for (const options of [{}, { cause }]) {
      const error = new WebSocketError("auth", "OTP_REQUIRED", "No", options);
      for (
        const authenticate of [() => Promise.reject(error), () => {
          throw error;
        }]
      ) {
        assert.deepEqual(await create(authenticate).attempt(), { outcome: "refused", error, ...options });
      }
    }
  });

  it("has failed when there is no answer in time, and not before", async () => {
    const { clock, attempt, deadlines } = create(() => new Promise(() => {}), 1000);
    const ended: string[] = [];
    void attempt().then((each) => ended.push(each.outcome, each.outcome === "failed" ? String(each.error) : ""));
    clock.advance(999);
    await turn();
    assert.deepEqual(ended, []);
    clock.advance(1);
    await turn();
    assert.deepEqual(ended, ["failed", "Error: Cannot authenticate: no answer within 1000 ms"]);
    assert.deepEqual([deadlines.size, clock.timers], [0, 0]);
  });

  it("keeps to the first end when the answer comes after the time", async () => {
    const stall = new Stall<never>();
    const { clock, attempt } = create(() => stall.promise);
    const ended = attempt();
    clock.advance(1000);
    stall.reject(new Error("too late"));
    await turn();
    assert.match(JSON.stringify(await ended), /"failed"/);
  });

  it("leaves no timer when the attempt has ended", async () => {
    const stall = new Stall<null>();
    const { clock, attempt, deadlines } = create(() => stall.promise);
    const ended = attempt();
    assert.deepEqual([deadlines.size, clock.timers], [1, 1]);
    stall.resolve(null);
    await ended;
    assert.deepEqual([deadlines.size, clock.timers], [0, 0]);
  });

  it("times attempts apart when several are under way", async () => {
    const { clock, authenticator } = create(() => new Promise(() => {}), 1000);
    const ended: string[] = [];
    void Promise.resolve(authenticator.attempt(credentials, HANDSHAKE)).then(() => ended.push("first"));
    clock.advance(500);
    void Promise.resolve(authenticator.attempt(credentials, HANDSHAKE)).then(() => ended.push("second"));
    clock.advance(500);
    await turn();
    assert.deepEqual(ended, ["first"]);
    clock.advance(500);
    await turn();
    assert.deepEqual(ended, ["first", "second"]);
  });
});

describe("Authenticator, on an error that quotes the credentials", () => {
  const HIDDEN = "Cannot authenticate: what was thrown may quote the credentials";

  /** How it ends when `authenticate` throws this. */
  async function thrown(error: unknown, shown: object = { access_token: "a-long-secret" }): Promise<unknown> {
    const { authenticator } = create(() => {
      throw error;
    });
    const attempt = await authenticator.attempt({ source: "message", ...shown } as Credentials, HANDSHAKE);
    return attempt.outcome === "failed" ? attempt.error : assert.fail();
  }

  it("has failed with the same error when it quotes nothing", async () => {
    const error = new Error("Cannot connect: refused");
    assert.equal(await thrown(error), error);
    assert.equal(await thrown("down"), "down");
    assert.equal(await thrown(error, { email: "ann@example.com", password: "zzz" }), error);
  });

  it("leaves out a secret of eight characters or more, and the words around it stand", async () => {
    const error = Object.assign(new TypeError("Cannot read a-long-secret."), { name: "Odd a-long-secret" });
    const redacted = await thrown(error) as Error;
    assert.deepEqual([redacted.message, redacted.name], ["Cannot read [redacted].", "Odd [redacted]"]);
    assert.match(redacted.stack!, /Cannot read \[redacted\]\.[^]*authentication\.test/);
    assert.doesNotMatch(redacted.stack!, /a-long-secret/);
    assert.equal(await thrown("a-long-secret!"), "[redacted]!");
    assert.equal((await thrown(new Error("x", { cause: "a-long-secret" })) as Error).cause, undefined);
  });

  it("leaves it out wherever it is: in a cause of a cause, a field, a list of errors, or what is no error", async () => {
    const token = "a-long-secret";
    const deep = new Error("Cannot verify", {
      cause: new Error("fetch failed", { cause: new TypeError(`bad value "Bearer ${token}"`) }),
    });
    const causes: string[] = [];
    for (let error: unknown = await thrown(deep); error instanceof Error; error = error.cause) causes.push(error.message);
    assert.deepEqual(causes, ["Cannot verify", "fetch failed", 'bad value "Bearer [redacted]"']);
    const request = { headers: new Headers({ authorization: `Bearer ${token}` }) };
    const graph: Record<string, unknown> = {};
    for (let n = 0, at = graph; n < 2_000; n++) at = at["next"] = {} as Record<string, unknown>;
    const cyclic = Object.assign(new Error("Down"), { token });
    cyclic.cause = cyclic;
    const errors: unknown[] = [
      new Error("Down", { cause: { token } }),
      Object.assign(new Error("Down"), { config: { headers: { Authorization: token } } }),
      Object.assign(new Error("Down"), { request }),
      Object.assign(new Error("Down"), { request: new Request("https://example.com", request) }),
      Object.assign(new Error("Down"), { url: new URL(`https://example.com/?access_token=${token}`) }),
      Object.assign(new Error("Down"), { [token]: 1 }),
      Object.assign(new Error("Down"), { [Symbol("headers")]: new Map([["authorization", token]]) }),
      Object.assign(new Error("Down"), { graph }), // Too large to be searched.
      new AggregateError([new Error(token)], "Down"),
      cyclic,
      new Error("Down", { cause: new Error("No", { cause: new AggregateError([{ token }], "All") }) }),
    ];
    for (const [index, error] of errors.entries()) {
      const redacted = await thrown(error) as Error;
      assert.deepEqual([redacted.message, Object.keys(redacted).filter((key) => !["name", "stack"].includes(key))], ["Down", []]);
      assert.doesNotMatch(inspect(redacted, { depth: 9, showHidden: true }), /a-long-secret/, `${index}`);
    }
    for (const error of [{ token }, [token], { error: new Error(token) }]) {
      assert.equal(String(await thrown(error)), `Error: ${HIDDEN}`);
    }
    // An error without a secret is passed on as it is.
    const plain = { code: 7 };
    const coded = Object.assign(new Error("Down", { cause: plain }), {
      code: "ECONNREFUSED",
      url: new URL("https://example.com"),
    });
    for (const error of [plain, coded]) assert.equal(await thrown(error), error);
  });

  it("leaves it out where it is percent-encoded, in a form, in JSON or in base64", async () => {
    const token = 'pa+ss/wörd==?&"x 1%2Fb';
    const url = new URL("https://idp.example/userinfo?a=1");
    url.searchParams.set("token", token);
    const escaped = encodeURIComponent(token);
    const lower = escaped.replace(/%../g, (each) => each.toLowerCase());
    for (const each of [escaped, lower, encodeURI(token), decodeURIComponent('pa+ss/wörd==?&"x 1%2Fb'), JSON.stringify(token)]) {
      const redacted = await thrown(new Error(`Cannot get /u?${each}&b=2`), { token }) as Error;
      assert.match(redacted.message, /^Cannot get \/u\?"?\[redacted\]"?&b=2$/);
    }
    assert.equal(
      (await thrown(new Error(`GET ${url}`), { token }) as Error).message,
      "GET https://idp.example/userinfo?a=1&token=[redacted]",
    );
    // In an address that is a parameter of another one, and with needless escapes.
    for (const each of [`https://a.example/?next=${encodeURIComponent(url.href)}`, `%70${escaped.slice(1)}`]) {
      assert.equal((await thrown(new Error(`GET ${each}`), { token }) as Error).message, HIDDEN);
      assert.equal((await thrown(new Error("Down", { cause: { url: each } }), { token }) as Error).cause, undefined);
    }
  });

  it("leaves it out in base64 of any text around it", async () => {
    const around = fc.string({ maxLength: 8 });
    const secret = fc.string({ minLength: 8, maxLength: 40, unit: "grapheme" });
    await assertProperty(
      fc.asyncProperty(around, secret, around, fc.constantFrom("base64", "base64url"), async (before, password, after, form) => {
        const bytes = [before, password, after].map((text) => Buffer.from(text));
        const text = Buffer.concat(bytes).toString(form as BufferEncoding);
        const { message } = await thrown(new Error(`Basic ${text}`), { password }) as Error;
        // The characters at its edges stay: they also encode its neighbours.
        assert.ok(message === HIDDEN || message.includes("[redacted]"), message);
        assert.ok(
          message === HIDDEN || message.length <= "Basic [redacted]".length + (bytes[0]!.length + bytes[2]!.length) * 4 / 3 + 8,
          message,
        );
      }),
    );
  });

  it("searches a long text or for a long secret in a bounded time, and shows neither", async () => {
    const token = `${"a".repeat(60_000)}b`;
    for (const text of [token, `${"a".repeat(59_000)}c`.repeat(20)]) {
      assert.equal((await thrown(new Error(text), { token }) as Error).message, HIDDEN);
    }
    const password = `${"a".repeat(4_000)}b`;
    assert.equal((await thrown(new Error(`of ${password}`), { password }) as Error).message, "of [redacted]");
    assert.equal((await thrown(new Error("c".repeat(100_001)), { password }) as Error).message, HIDDEN);
  });

  it("leaves out the longer one first, so that nothing of it is left where another is a part of it", async () => {
    for (const [email, password] of [["ann@example", "ann@example.com"], ["ann@example.com", "ann@example"]]) {
      assert.equal(await thrown("Wrong: ann@example.com", { email, password }), "Wrong: [redacted]");
    }
  });

  it("puts a fixed text in place of a message with a short one in it, for it may be a part of any word", async () => {
    for (const password of ["a", "Err", "e.c", "hunter7"]) {
      const error = new TypeError("Cannot look up ann@example.com with hunter7: Err", { cause: password });
      const redacted = await thrown(error, { email: "ann@example.com", password }) as Error;
      assert.deepEqual([redacted.message, redacted.cause], [HIDDEN, undefined], password);
      assert.equal(redacted.stack, `${password === "Err" ? "Error" : "TypeError"}: ${HIDDEN}`);
      assert.equal(await thrown(`No ${password}`, { email: "ann@example.com", password }), HIDDEN);
    }
  });

  it("keeps the message when a short one is in the stack or the cause alone, and leaves those out", async () => {
    const inStack = Object.assign(new Error("Down"), { stack: "Error: of x7\n    at x" });
    for (const error of [inStack, new Error("Down", { cause: "otp x7" })]) {
      const redacted = await thrown(error, { email: "ann@example.com", password: "", otp: "x7" }) as Error;
      assert.deepEqual([redacted.message, redacted.cause], ["Down", undefined]);
      assert.doesNotMatch(redacted.stack!, /x7/);
    }
  });

  it("quotes no secret, whatever it is and wherever it stands", async () => {
    const word = fc.string({ minLength: 1, maxLength: 12 });
    await assertProperty(fc.asyncProperty(word, word, fc.array(fc.nat(2)), async (email, password, parts) => {
      const text = parts.map((part) => [email, password, "and"][part]).join("");
      const redacted = await thrown(Object.assign(new Error(text), { name: text }), { email, password }) as Error;
      for (const secret of [email, password]) {
        if (secret.length < 8) assert.ok(redacted.message === HIDDEN || !text.includes(secret), text);
        else for (const shown of [redacted.message, redacted.name, redacted.stack!]) assert.ok(!shown.includes(secret), shown);
      }
    }));
  });
});

describe("Authenticator, on what authenticate returned", () => {
  const fault = async (state: unknown) => {
    const attempt = await resultOf(state);
    assert.equal(attempt.outcome, "failed", JSON.stringify(state));
    return attempt.outcome === "failed" ? (attempt.error as Error) : assert.fail();
  };

  it("has failed with a TypeError and the remedy when it is no state", async () => {
    for (const state of [undefined, false, true, 1, "ann", () => null]) {
      const error = await fault(state);
      assert.ok(error instanceof TypeError);
      assert.equal(error.message, "Cannot use what authenticate returned: return { accountability } or null");
    }
    for (const accountability of [undefined, null, "ann", 1]) {
      assert.match((await fault({ accountability })).message, /accountability must be \{ user, role \}$/);
    }
  });

  it("has failed when an id has a NUL or a lone surrogate", async () => {
    for (const id of ["\u0000", "a\u0000b", "\ud800", "a\udc00", "\udd25\ud83d", "🔥\ud83d"]) {
      for (const key of ["user", "role"]) {
        const attempt = await resultOf({ accountability: { ...ann, [key]: id } });
        assert.equal(attempt.outcome, "failed", JSON.stringify(id));
        assert.match(
          String(attempt.outcome === "failed" && attempt.error),
          new RegExp(`accountability\\.${key} must have no NUL and no lone surrogate$`),
        );
      }
    }
    assert.equal((await resultOf({ accountability: { ...ann, user: "狼煙🔥\u0001" } })).outcome, "accepted");
  });

  it("has failed when an id has more than 256 bytes", async () => {
    for (const [long, most] of [["x", 256], ["é", 128], ["漢", 85], ["🔥", 64]] as const) {
      for (const key of ["user", "role"]) {
        const state = (count: number) => ({ accountability: { ...ann, [key]: long.repeat(count) } });
        assert.equal((await resultOf(state(most))).outcome, "accepted");
        assert.match(
          (await fault(state(most + 1))).message,
          new RegExp(`accountability\\.${key} must be at most 256 bytes long$`),
        );
      }
    }
  });

  it('has failed when an id is neither a non-empty string nor null, so that 1 and "1" are not two users', async () => {
    for (const id of [undefined, 1, 0, "", true, {}, []]) {
      assert.match(
        (await fault({ accountability: { ...ann, user: id } })).message,
        /accountability\.user must be a non-empty string or null$/,
      );
      assert.match((await fault({ accountability: { ...ann, role: id } })).message, /accountability\.role must be/);
    }
    assert.match((await fault({ accountability: { user: "ann" } })).message, /accountability\.role must be/);
    assert.equal((await resultOf({ accountability: { user: null, role: null } })).outcome, "accepted");
  });

  it("has failed when expires_at is no finite number, or refresh_token no string", async () => {
    for (const expires_at of [NaN, Infinity, -Infinity, "4000000000", new Date(), {}]) {
      assert.match(
        (await fault({ accountability: ann, expires_at })).message,
        /expires_at must be a finite number of seconds, or null$/,
      );
    }
    for (const refresh_token of [null, 1, {}]) {
      assert.match((await fault({ accountability: ann, refresh_token })).message, /refresh_token must be a string$/);
    }
  });

  it("accepts no expiry when expires_at is absent or null", async () => {
    for (
      const state of [{ accountability: ann }, { accountability: ann, expires_at: null }, {
        accountability: ann,
        expires_at: undefined,
      }]
    ) {
      assert.equal((await resultOf(state)).outcome, "accepted");
    }
  });

  it("refuses what has expired, at the very ms, by the wall clock after the wait", async () => {
    const stall = new Stall();
    const expires_at = (ms: number) =>
      create(() => ({ accountability: ann, expires_at: (new TestClock().now() + ms) / 1000 })).attempt();
    assert.equal((await expires_at(-1)).outcome, "refused");
    assert.equal((await expires_at(0)).outcome, "refused");
    assert.equal((await expires_at(1)).outcome, "accepted");
    assert.equal((await resultOf({ accountability: ann, expires_at: 0 })).outcome, "refused");

    const { clock, attempt } = create(async () => {
      await stall.promise;
      return { accountability: ann, expires_at: new TestClock().now() / 1000 + 0.5 };
    });
    const slow = attempt();
    clock.advance(500);
    stall.resolve();
    assert.equal((await slow).outcome, "refused");
  });
});
