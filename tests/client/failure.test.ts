/** What a client says of a server that it cannot reach, or that does not let it in. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { ClientError, createClient } from "../../src/client/client.ts";
import { readFailure } from "../../src/client/failure.ts";
import { connectFake, FakeSocket } from "../support/fake-server.ts";
import { Stall, turn } from "../support/waiting.ts";

type Fake = ReturnType<typeof connectFake>;

/** Attempts that end before the WebSocket is open. */
async function fail({ socket, client, retry }: Fake, count: number, failure?: string): Promise<void> {
  for (let n = 0; n < count; n++) {
    if (n > 0) retry();
    assert.notEqual(client.status, "closed", `after ${n} attempts`);
    (await socket()).end(1006, "", failure);
  }
}

const statuses = ({ take }: Fake): string[] => take("status").map(({ status }) => status);
const codes = ({ take }: Fake): string[] => take("error").map(({ error }) => error.code);

describe("A client that cannot connect", () => {
  it("emits one error in an outage, at the first failed attempt, with the known facts", async () => {
    const fake = connectFake();
    await fail(fake, 1, "connect ECONNREFUSED 127.0.0.1:1");
    const [{ error }] = fake.take("error");
    assert.deepEqual([error instanceof ClientError, error.code, error.message], [
      true,
      "NOT_CONNECTED",
      "Not connected: 1 attempt to wss://example.com/websocket, last close 1006 connect ECONNREFUSED 127.0.0.1:1",
    ]);
    assert.deepEqual(error.details, {
      attempts: 1,
      url: "wss://example.com/websocket",
      close: { code: 1006, reason: "connect ECONNREFUSED 127.0.0.1:1", wasClean: false },
    });
    assert.equal(fake.client.error, error);
    for (let n = 0; n < 5; n++) {
      fake.retry();
      await fail(fake, 1, "connect ECONNREFUSED 127.0.0.1:1");
    }
    assert.deepEqual(codes(fake), []);
    assert.match(fake.client.error!.message, /: 6 attempts to wss:/);
    // It was there meanwhile: what follows is another outage.
    fake.retry();
    const socket = await fake.admit();
    assert.equal(fake.client.error, undefined);
    socket.end(1012, "Restart");
    assert.equal(fake.client.error!.message, "Not connected: wss://example.com/websocket, last close 1012 Restart");
    assert.deepEqual(codes(fake), []);
    fake.retry();
    await fail(fake, 1);
    assert.deepEqual(codes(fake), ["NOT_CONNECTED"]);
  });

  it("emits another error in an outage when the cause changes", async () => {
    const fake = connectFake({ maxRefusals: 0 });
    await fail(fake, 2, "socket hang up");
    fake.retry();
    await fail(fake, 2, "Unexpected server response: 401");
    assert.deepEqual(codes(fake), ["NOT_CONNECTED", "AUTH_FAILED"]);
  });

  it("emits one error if no token can be obtained", async () => {
    const fake = connectFake({ token: () => Promise.reject(new Error("the login is down")) });
    for (let n = 0; n < 3; n++) {
      await turn();
      fake.retry();
    }
    await turn();
    const errors = fake.take("error");
    assert.deepEqual(errors.map(({ error }) => [error.code, error.cause.message]), [["TOKEN_FAILED", "the login is down"]]);
    const asked = fake.client.request("say", {}, { timeout: 1 });
    fake.clock.advance(1);
    await assert.rejects(asked, ({ code, message, cause }) => {
      assert.deepEqual([code, cause.code], ["NOT_CONNECTED", "TOKEN_FAILED"]);
      assert.match(message, /: 4 attempts to .*, last close 1006 Cannot get a token$/);
      return true;
    });
  });

  it("reports how long it waited for the server or the token", async () => {
    const silent = connectFake({ timeout: 3_000 });
    await silent.socket();
    silent.clock.advance(3_000);
    assert.match(silent.client.error!.message, /last close 1006 No answer$/);
    const tokenless = connectFake({ timeout: 3_000, token: () => new Promise<never>(() => {}) });
    tokenless.clock.advance(3_000);
    assert.match(tokenless.client.error!.message, /last close 1006 No token$/);
  });

  it("reports no secrets: queries, users, fragments and tokens", async () => {
    const seen: unknown[] = [];
    const reasons: string[] = [];
    class Socket extends FakeSocket {
      constructor(url: string, protocols: string[] = []) {
        super(url, protocols);
        if (url.includes("throwing")) throw new SyntaxError(`The URL '${url}' or a subprotocol of '${protocols}' is invalid`);
        void turn().then(() =>
          this.end(1006, "", `WebSocket connection to '${url}' as ${protocols} failed: ${url} as ${protocols}`)
        );
      }
    }
    for (const path of ["failing", "throwing"]) {
      for (const tokenIn of ["protocol", "query"] as const) {
        const client = createClient(`wss://ann:s3cr3t@example.com/${path}?key=s3cr3t#s3cr3t`, {
          WebSocket: Socket,
          token: path === "throwing" ? "s3cr3t token of s3cr3t" : "s3cr3t",
          tokenIn,
          maxAttempts: 1,
        });
        client.on("error", ({ error }) => seen.push(error));
        client.on("close", ({ reason }) => reasons.push(reason));
        const asked = client.request("say");
        seen.push(await client.ready.catch((error) => error), await asked.catch((error) => error));
      }
    }
    assert.equal(seen.length, 12);
    for (const error of seen) {
      assert.ok(error instanceof ClientError);
      assert.match(error.message, /1 attempt to wss:\/\/example\.com\/(failing|throwing)\?…, last close 1006 /);
    }
    const told = seen.flatMap((error) => [String(error), JSON.stringify(error), String((error as Error).cause)]);
    for (const text of [...told, ...reasons]) assert.ok(!text.includes("s3cr3t"), text);
  });
});

describe("readFailure", () => {
  it("finds the HTTP status that refused the upgrade, in the words of each platform", () => {
    const messages: [message: string, status: number | undefined][] = [
      ["Unexpected server response: 401", 401], // ws
      ["WebSocket connection to 'ws://127.0.0.1:404/401?a=403' failed: Expected 101 status code: 503", 503], // Bun
      ["NetworkError: failed to connect to WebSocket: Invalid status code: 200", 200], // Deno
      ["Received bad response code from server: 404.", 404], // React Native on iOS
      ["Expected HTTP 101 response but was '403 Forbidden'", 403], // React Native on Android
      ["connect ECONNREFUSED 127.0.0.1:443", undefined],
      ["connect ETIMEDOUT: 200.1.2.3", undefined],
      ["WebSocket connection to 'ws://127.0.0.1:404/401' failed: Connection ended", undefined],
      ["", undefined], // Browsers, and Node's own.
    ];
    for (const [message, status] of messages) assert.equal(readFailure({ message }).status, status, message);
  });

  it("keeps the code of a failed connection, or the end of the message", () => {
    assert.equal(readFailure({ message: "connect ECONNREFUSED ::1:1", error: { code: "ECONNREFUSED" } }).reason, "ECONNREFUSED");
    // Deno's is that of every DOMException of its kind.
    const deno = { message: "NetworkError: failed to connect to WebSocket: dns error", error: { code: 19 } };
    assert.equal(readFailure(deno).reason, "dns error");
    assert.equal(readFailure({ message: "", error: {} }).reason, "");
    assert.equal(readFailure({}).reason, "");
  });
});

describe("A message that was never sent", () => {
  it("is rejected with NOT_CONNECTED, the attempts, the URL and the last close", async () => {
    const fake = connectFake();
    const { client, clock, take } = fake;
    await fail(fake, 5);
    const asked = client.request("say", {}, { timeout: 5 });
    const published = client.publish("room:1", "say", 1, { timeout: 5 });
    clock.advance(5);
    const expected = {
      code: "NOT_CONNECTED",
      message: /^Not connected: 5 attempts to wss:\/\/example\.com\/websocket, last close 1006$/,
    };
    await assert.rejects(asked, expected);
    await assert.rejects(published, expected);
    take();
    const kept = connectFake({ outbox: { maxAge: 5 } });
    const sent = kept.client.send({ type: "say" });
    const early = kept.client.request("say", {}, { timeout: 5 });
    kept.clock.advance(5);
    const unanswered = { code: "NOT_CONNECTED", message: /: 1 attempt to wss:\/\/example\.com\/websocket, no answer yet$/ };
    await assert.rejects(sent, unanswered);
    await assert.rejects(early, unanswered);
    assert.deepEqual(codes(kept), ["NOT_CONNECTED"]);
  });

  it("is rejected with TIMEOUT where there is a connection, or where it was sent before", async () => {
    const { client, clock, admit, socket } = connectFake({ outbox: { maxAge: 2_000 } });
    const first = await admit();
    first.receive({ type: "server", status: "error", error: { code: "REQUESTS_EXCEEDED", message: "", retry_after: 9_000 } });
    const paused = client.request("paused", {}, { timeout: 1_000 });
    const kept = client.send({ type: "kept" });
    clock.advance(2_000);
    await assert.rejects(paused, { code: "TIMEOUT", message: /^Not sent/ });
    await assert.rejects(kept, { code: "OUTBOX_EXPIRED" });
    clock.advance(7_000);
    const twice = client.request("twice", {}, { idempotent: true, timeout: 1_000 });
    first.end();
    clock.advance(500);
    await socket();
    clock.advance(500);
    await assert.rejects(twice, { code: "TIMEOUT", message: /^No answer/ });
  });

  it("is rejected with DISCONNECTED by a close for good where it was sent before, else with the reason", async () => {
    const { client, admit, socket, retry } = connectFake({ token: "of ann" });
    const first = await admit();
    const twice = client.request("twice", {}, { idempotent: true });
    first.end();
    const unsent = client.request("unsent");
    retry();
    const second = await socket();
    second.open();
    second.end(4401);
    await assert.rejects(twice, { code: "DISCONNECTED" });
    await assert.rejects(unsent, { code: "AUTH_FAILED" });
    await assert.rejects(client.request("late"), { code: "AUTH_FAILED" });
    await assert.rejects(client.send({ type: "late" }), { code: "AUTH_FAILED" });
  });

  it("rejects and does not throw for what cannot be read", async () => {
    const { client } = connectFake();
    const hostile = {
      get text() {
        throw new Error("of a getter");
      },
    };
    await assert.rejects(client.request("say", hostile), /of a getter/);
  });
});

describe("client.status", () => {
  it("is not open before the server has answered, whatever it does instead", async () => {
    const endings: [code: number, status: string][] = [
      [4401, "closed"],
      [4403, "closed"],
      [4529, "waiting"],
      [4001, "waiting"],
      [1013, "waiting"],
      [1006, "waiting"],
    ];
    for (const options of [{}, { token: "of ann", tokenIn: "protocol" }, { token: "of ann", tokenIn: "query" }] as const) {
      for (const [code, status] of endings) {
        const fake = connectFake(options);
        const socket = await fake.socket();
        socket.open();
        const asked = fake.client.request("say", {}, { timeout: 0 });
        asked.catch(() => {});
        assert.deepEqual(socket.take().map(({ type }) => type), ["ping"]);
        socket.end(code);
        assert.deepEqual([statuses(fake), fake.take("open"), fake.client.status], [[status], [], status], `${code}`);
        await fake.client.close();
      }
    }
  });

  it("is not open where a server in handshake mode refuses one without a token", async () => {
    const fake = connectFake();
    const socket = await fake.socket();
    socket.open();
    const [{ uid }] = socket.take();
    socket.receive({ type: "auth", status: "error", uid, error: { code: "AUTH_FAILED", message: "Authentication failed" } });
    socket.end(4401, "Authentication failed");
    assert.deepEqual([statuses(fake), codes(fake)], [["closed"], ["AUTH_FAILED"]]);
    await assert.rejects(fake.client.ready, { code: "AUTH_FAILED", message: "Authentication failed" });
  });

  it("is open with the first message of a server that is no auth, before that is told", async () => {
    const { client, socket, take } = connectFake();
    const opened = await socket();
    opened.open();
    void client.send({ type: "kept" });
    const [{ uid }] = opened.take();
    opened.receive({ type: "welcome" });
    assert.deepEqual(take(), [["status", { status: "open" }], ["open", {}], ["message", { message: { type: "welcome" } }]]);
    opened.receive({ type: "pong", uid });
    assert.deepEqual([take(), opened.take()], [[], [{ type: "kept" }]]);
  });

  it("tells nothing more of a connection that a listener has closed as it opened", async () => {
    const { client, socket, take } = connectFake();
    client.on("open", () => void client.close());
    const opened = await socket();
    opened.open();
    opened.receive([{ type: "welcome" }, { type: "more" }]);
    assert.deepEqual([take("message"), client.status], [[], "closed"]);
  });

  it("is told in order when a listener closes, or opens, what has just changed", async () => {
    const closing = connectFake();
    closing.client.on("status", ({ status }) => void (status === "waiting" && closing.client.close()));
    (await closing.admit()).end(1012);
    assert.deepEqual(closing.take("close").map(({ isFinal }) => isFinal), [true]);
    assert.deepEqual(closing.take("reconnecting"), []);

    const quiet = connectFake();
    quiet.client.on("error", () => void quiet.client.close());
    await fail(quiet, 1);
    assert.deepEqual([statuses(quiet), quiet.clock.timers], [["closed"], 0]);

    // What is sent after it was opened again waits for the next connection.
    const opening = connectFake({ token: "of ann" });
    const sent: Promise<void>[] = [];
    opening.client.on("status", ({ status }) => {
      if (status !== "closed") return;
      opening.client.connect();
      sent.push(opening.client.send({ type: "again" }));
    });
    (await opening.admit()).end(4401);
    const next = await opening.admit();
    await Promise.all(sent);
    assert.deepEqual(next.take(), [{ type: "again" }]);
  });
});

describe("A client whose upgrade is refused", () => {
  it("is closed with the reason after a few tries where the platform says so", async () => {
    for (const [failure, code] of [["Unexpected server response: 401", "AUTH_FAILED"], ["…: 403", "FORBIDDEN"]] as const) {
      const fake = connectFake();
      const ready = fake.client.ready;
      const told: unknown[] = [];
      fake.client.subscribe("news", { onEvent: () => {}, onError: ({ code }) => told.push(code) });
      const next = fake.client.subscribe("news")[Symbol.asyncIterator]().next();
      const asked = fake.client.request("say", {}, { timeout: 0 });
      await fail(fake, 3, failure);
      assert.equal(fake.client.status, "closed");
      for (const promise of [ready, asked, next, fake.client.ready]) await assert.rejects(promise, { code });
      assert.deepEqual([told, fake.client.error?.code, codes(fake)], [[code], code, [code]]);
      assert.match(fake.client.error!.message, /3 attempts to .*, last close 1006 HTTP 40[13]$/);
    }
  });

  it("is closed after as many tries as it is told, and comes back for ever from anything else", async () => {
    const one = connectFake({ maxRefusals: 1 });
    await fail(one, 1, "…: 401");
    assert.equal(one.client.status, "closed");
    for (const failure of ["…: 404", "…: 429", "…: 503", "connect ECONNREFUSED", "", undefined]) {
      const fake = connectFake({ maxRefusals: 1 });
      await fail(fake, 20, failure);
      assert.equal(fake.client.status, "waiting", failure ?? "");
    }
    const never = connectFake({ maxRefusals: 0 });
    await fail(never, 20, "…: 401");
    assert.equal(never.client.status, "waiting");
    // Not in a row.
    const mixed = connectFake({ maxRefusals: 2 });
    for (let n = 0; n < 5; n++) {
      await fail(mixed, 1, n % 2 ? "…: 503" : "…: 401");
      mixed.retry();
    }
    assert.equal(mixed.client.status, "connecting");
  });

  it("is closed after maxAttempts, whatever is known, and starts to count anew once it was let in", async () => {
    const fake = connectFake({ maxAttempts: 3 });
    await fail(fake, 2);
    fake.retry();
    (await fake.admit()).end(1012);
    fake.retry();
    await fail(fake, 3);
    assert.equal(fake.client.status, "closed");
    await assert.rejects(fake.client.ready, { code: "NOT_CONNECTED", message: /: 3 attempts to .*, last close 1006$/ });
  });
});

describe("A client with renew", () => {
  it("renews the session and connects anew when the server says that it has expired", async () => {
    const stall = new Stall<void>();
    const fake = connectFake({ renew: () => stall.promise });
    const { client, admit, retry, sockets, take } = fake;
    const socket = await admit();
    const events: unknown[] = [];
    client.subscribe("news", { onEvent: ({ data }) => events.push(data), onGap: () => events.push("gap") });
    const [{ uid }] = socket.take();
    socket.receive({ type: "subscription", event: "init", channel: "news", uid, epoch: "e", offset: 7 });
    const crossing = client.request("crossing");
    const [{ uid: asked }] = socket.take();
    const answered = client.request("answered");
    const [{ uid: late }] = socket.take();
    const expired = { type: "auth", status: "error", error: { code: "TOKEN_EXPIRED", message: "" } };
    for (const message of [expired, expired, { ...expired, uid: asked }]) socket.receive(message);
    const [ping, ...others] = socket.take();
    assert.deepEqual([ping.type, others], ["ping", []]);
    // Answers of before may still come, and what is sent now waits.
    socket.receive({ type: "answered", status: "ok", uid: late, data: 2 });
    assert.equal(await answered, 2);
    assert.deepEqual([client.status, socket.closedWith], ["open", undefined]);
    socket.receive({ type: "pong", uid: ping.uid });
    // No code by which the server would say that the user has left.
    assert.deepEqual([client.status, socket.closedWith?.code], ["waiting", 4000]);
    retry();
    await turn();
    assert.equal(sockets.length, 1);
    stall.resolve();
    const next = await admit();
    const [subscribe, again] = next.take();
    assert.deepEqual([subscribe.recover, again.uid], [{ epoch: "e", offset: 7 }, asked]);
    next.receive({ type: "subscription", event: "init", channel: "news", uid, epoch: "e", offset: 7, recovered: true });
    next.receive({ type: "crossing", status: "ok", uid: asked, data: 1 });
    assert.deepEqual([await crossing, events, codes(fake), take("close").length], [1, [], [], 1]);
  });

  it("is closed when the session has ended, and not before it was asked", async () => {
    for (const ending of ["expired", "refused", "unknown", "closed"]) {
      let asked = 0;
      const fake = connectFake({ renew: () => ++asked < 0 });
      if (ending === "expired") {
        const socket = await fake.admit();
        socket.receive({ type: "auth", status: "error", error: { code: "TOKEN_EXPIRED", message: "" } });
        socket.letIn(); // It answers the ping that asks whether all has been refused.
      } else if (ending === "closed") (await fake.admit()).end(4401);
      else await fail(fake, 3, ending === "refused" ? "…: 401" : undefined);
      assert.deepEqual([asked, fake.client.status], [0, "waiting"], ending);
      fake.retry();
      await turn();
      fake.sockets.at(-1)!.end(); // Where the client has closed it.
      await turn();
      assert.deepEqual([asked, fake.client.status, fake.clock.timers], [1, "closed", 0], ending);
      await assert.rejects(fake.client.ready, { code: "AUTH_FAILED", message: "The session has ended" });
      assert.equal(codes(fake).at(-1), "AUTH_FAILED");
    }
  });

  it("is asked again later when it could not say, and the client is not closed", async () => {
    let asked = 0;
    const fake = connectFake({ renew: () => ++asked < 3 ? Promise.reject(new Error("offline")) : Promise.resolve() });
    await fail(fake, 3);
    for (let n = 1; n <= 2; n++) {
      fake.retry();
      await turn();
      assert.deepEqual([asked, fake.client.status, fake.sockets.length], [n, "waiting", 3]);
    }
    assert.deepEqual(codes(fake), ["NOT_CONNECTED", "TOKEN_FAILED"]);
    fake.retry();
    await fake.admit();
    assert.equal(fake.client.status, "open");
  });

  it("is asked once where the upgrade is refused all the same, and every few attempts where nothing is known", async () => {
    let asked = 0;
    const known = connectFake({ renew: () => void asked++ });
    await fail(known, 6, "…: 401");
    assert.deepEqual([asked, known.client.status], [1, "closed"]);
    asked = 0;
    const unknown = connectFake({ renew: () => void asked++ });
    await fail(unknown, 10);
    assert.deepEqual([asked, unknown.client.status], [3, "waiting"]);
  });

  it("is not asked while the server is down and the platform says so", async () => {
    const fake = connectFake({ renew: () => assert.fail("It was asked") });
    await fail(fake, 9, "connect ECONNREFUSED 127.0.0.1:1");
    assert.equal(fake.client.status, "waiting");
  });

  it("calls it once at a time: the attempt after one that timed out waits for the same call", async () => {
    const stalls: Stall<boolean>[] = [];
    const fake = connectFake({
      renew: () => {
        stalls.push(new Stall());
        return stalls.at(-1)!.promise;
      },
      timeout: 3_000,
    });
    await fail(fake, 3);
    for (let n = 0; n < 3; n++) {
      fake.retry();
      await turn();
      assert.deepEqual([stalls.length, fake.sockets.length], [1, 3]);
      if (n < 2) fake.clock.advance(3_000);
    }
    stalls[0]!.resolve(true);
    await fake.admit();
    assert.deepEqual([stalls.length, fake.sockets.length, fake.client.status], [1, 4, "open"]);
  });

  it("uses the result of a call that ends between two attempts, and calls it again after one that throws", async () => {
    const stall = new Stall<boolean>();
    const answers = [() => stall.promise, () => {
      throw new Error("offline");
    }, () => true];
    const fake = connectFake({ renew: () => answers.shift()!(), timeout: 3_000 });
    await fail(fake, 3);
    fake.retry();
    await turn();
    fake.clock.advance(3_000);
    stall.resolve(true);
    await turn();
    fake.retry();
    await turn();
    assert.deepEqual([answers.length, fake.sockets.length], [2, 4]);
    await fail(fake, 3);
    for (let n = 0; n < 2; n++) {
      fake.retry();
      await turn();
    }
    assert.deepEqual([answers.length, fake.sockets.length], [0, 7]);
    void fake.client.close();
  });

  it("opens nothing when the client was closed meanwhile, and gives up on one that does not answer", async () => {
    const stall = new Stall<boolean>();
    const fake = connectFake({ renew: () => stall.promise, timeout: 3_000 });
    await fail(fake, 3);
    fake.retry();
    await turn();
    fake.clock.advance(3_000);
    assert.equal(fake.client.status, "waiting");
    fake.retry();
    await turn();
    void fake.client.close();
    fake.take();
    stall.resolve(false);
    await turn();
    assert.deepEqual([fake.take(), fake.sockets.length, fake.client.error, fake.clock.timers], [[], 3, undefined, 0]);
  });
});

describe("client.connect", () => {
  it("goes on after a client was closed for a reason: callbacks are subscribed again, and ready is another promise", async () => {
    const tokens = ["stale", "stale", "fresh"];
    const fake = connectFake({ token: () => tokens.shift() });
    const { client, socket, retry, admit } = fake;
    const events: unknown[] = [];
    client.subscribe("news", {
      onEvent: ({ data }) => events.push(data),
      onInit: ({ data }) => events.push(data),
      onError: ({ code }) => events.push(code),
    });
    for (let n = 0; n < 2; n++) {
      if (n > 0) retry();
      (await socket()).open();
      (await socket()).end(4401);
    }
    const late: unknown[] = [];
    client.subscribe("late", { onInit: () => {}, onError: ({ code }) => late.push(code) });
    const iteration = client.subscribe("late")[Symbol.asyncIterator]().next();
    await assert.rejects(iteration, { code: "AUTH_FAILED" });
    await assert.rejects(client.ready, { code: "AUTH_FAILED" });
    assert.deepEqual([events.splice(0), late], [["AUTH_FAILED"], ["AUTH_FAILED"]]);
    client.connect();
    assert.deepEqual([client.status, client.error], ["connecting", undefined]);
    const { ready } = client;
    const next = await admit();
    await ready;
    const sent = next.take();
    assert.deepEqual(sent.map(({ channel }) => channel), ["news", "late"]);
    next.receive({ type: "subscription", event: "init", channel: "news", uid: sent[0].uid, data: "snapshot" });
    assert.deepEqual(events, ["snapshot"]);
  });

  it("tells of an unsubscription that came first, and of nothing of a client that was opened at once", async () => {
    const { client, admit } = connectFake();
    (await admit()).end(4403);
    const told: unknown[] = [];
    const options = { onEvent: () => {}, onError: ({ code }: ClientError) => told.push(code) };
    client.subscribe("gone", options).unsubscribe();
    client.subscribe("kept", options);
    client.connect();
    const socket = await admit();
    assert.deepEqual([told, socket.take().map(({ channel }) => channel)], [[], ["kept"]]);
  });
});

describe("client.subscribe", () => {
  it("throws for what JSON cannot hold, and leaves the rest alone", async () => {
    const cycle: Record<string, unknown> = {};
    cycle["self"] = cycle;
    const options = [{ query: cycle }, { query: { n: 1n } }, { data: cycle }, { recover: { epoch: "e", offset: 1n as never } }];
    const { client, admit } = connectFake();
    for (const each of options) assert.throws(() => client.subscribe("news", each), TypeError);
    client.subscribe("kept", { onEvent: () => {} });
    const socket = await admit();
    for (const each of options) assert.throws(() => client.subscribe("news", each), TypeError);
    assert.deepEqual(socket.take().map(({ channel }) => channel), ["kept"]);
  });

  it("asks with its options as they were", async () => {
    const { client, admit } = connectFake();
    const query: Record<string, unknown> = { limit: 10 };
    client.subscribe("news", { query, data: { name: "Ann" }, event: "said", onEvent: () => {} });
    query["self"] = query;
    const socket = await admit();
    const [{ uid, ...subscribe }] = socket.take();
    const asked = { type: "subscribe", channel: "news", event: "said", query: { limit: 10 }, data: { name: "Ann" } };
    assert.deepEqual([typeof uid, subscribe], ["string", asked]);
  });

  it("ends an attempt whose token cannot be encoded, and reports it", async () => {
    const { client, take } = connectFake({ token: () => "\ud800", tokenIn: "query" });
    await turn();
    assert.deepEqual([client.status, take("error").map(({ error }) => error.code)], ["closed", ["NOT_CONNECTED"]]);
  });
});
