import assert from "node:assert/strict";
import { createHmac } from "node:crypto";
import { describe, it } from "node:test";
import { Hono } from "hono";
import { type Webhook, webhook } from "../../src/http/http.ts";
import { countTimers } from "../support/pending-timers.ts";

const KEY = "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const NOW = 1_800_000_000_000;

function start(secret: string | string[] = `whsec_${KEY}`) {
  const received: Webhook[] = [];
  const app = new Hono();
  app.post("/", webhook(secret, (webhook) => void received.push(webhook), { now: () => NOW, maxBody: 100 }));
  app.onError((_error, c) => c.text("Failed", 500));
  return { app, received };
}

function signed<Body extends string | Uint8Array<ArrayBuffer>>(
  body: Body,
  { id = "msg_1", at = NOW, key = KEY, version = "v1" } = {},
) {
  const timestamp = String(at / 1_000);
  const signature = createHmac("sha256", Buffer.from(key, "base64")).update(`${id}.${timestamp}.`).update(body).digest("base64");
  const headers = { "webhook-id": id, "webhook-timestamp": timestamp, "webhook-signature": `${version},${signature}` };
  return { method: "POST", headers, body };
}

describe("webhook", () => {
  it("hands on what is signed, with the id of all its attempts", async () => {
    const { app, received } = start();
    assert.equal((await app.request("/", signed('{"type":"paid","data":1}'))).status, 204);
    assert.deepEqual(received, [{ id: "msg_1", sentAt: NOW, payload: { type: "paid", data: 1 } }]);
  });

  it("leaves no timer after the answer", () =>
    countTimers(async (pending) => {
      const timeout = 1_234_567;
      const counts: number[] = [];
      const app = new Hono().post(
        "/",
        webhook(`whsec_${KEY}`, () => void counts.push(pending(timeout)), { now: () => NOW, timeout }),
      );
      const { headers, ...request } = signed("{}");
      let send!: () => void;
      const body = new ReadableStream({
        start(controller) {
          send = () => {
            controller.enqueue(new TextEncoder().encode("{}"));
            controller.close();
          };
        },
      });
      const answered = app.request("/", { ...request, headers, body, duplex: "half" } as RequestInit);
      assert.equal(pending(timeout), 1);
      send();
      assert.equal((await answered).status, 204);
      assert.deepEqual([...counts, pending(timeout)], [0, 0]);
    }));

  it("verifies the example of Standard Webhooks", async () => {
    // As the libraries of the specification test it.
    const received: Webhook[] = [];
    const app = new Hono().post(
      "/",
      webhook(`whsec_${KEY}`, (webhook) => void received.push(webhook), { now: () => 1614265330_000 }),
    );
    const headers = {
      "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
      "webhook-timestamp": "1614265330",
      "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    };
    assert.equal((await app.request("/", { method: "POST", headers, body: '{"test": 2432232314}' })).status, 204);
    assert.deepEqual(received[0]?.payload, { test: 2432232314 });
  });

  describe("verifies the bytes of the body", () => {
    const mark = [0xef, 0xbb, 0xbf];
    const encode = (text: string) => [...new TextEncoder().encode(text)];
    for (const [kind, headers] of [["a length", true], ["no length", false]] as const) {
      const request = async (signedBytes: number[], sent = signedBytes) => {
        const { app, received } = start();
        const { headers: signature, method } = signed(new Uint8Array(signedBytes));
        const body = new Uint8Array(sent);
        const all = { ...signature, ...(headers && { "content-length": `${body.byteLength}` }) };
        return { status: (await app.request("/", { method, headers: all, body })).status, payload: received[0]?.payload };
      };

      it(`of one with ${kind} and a byte order mark, which is not part of the JSON`, async () => {
        assert.deepEqual(await request([...mark, ...encode('{"a":1}')]), { status: 204, payload: { a: 1 } });
        assert.equal((await request(encode("{}"), [...mark, ...encode("{}")])).status, 401);
      });

      it(`of one with ${kind} that is no UTF-8`, async () => {
        const invalid = [...encode('"'), 0xff, ...encode('"')];
        assert.equal((await request(encode('"\ufffd"'), invalid)).status, 401);
        assert.deepEqual(await request(invalid), { status: 400, payload: undefined });
        assert.deepEqual(await request(encode('"狼煙 🔥"')), { status: 204, payload: "狼煙 🔥" });
      });
    }
  });

  it("accepts signatures in several header fields", async () => {
    const { app } = start();
    const { headers, ...rest } = signed("{}");
    for (const signatures of [[headers["webhook-signature"], "v1,AAAA"], ["v1,AAAA", headers["webhook-signature"]]]) {
      const all = new Headers(headers);
      all.delete("webhook-signature");
      for (const signature of signatures) all.append("webhook-signature", signature);
      assert.equal((await app.request("/", { ...rest, headers: all })).status, 204);
    }
  });

  it("answers 408 to a body that does not come in time", async () => {
    const app = new Hono().post("/", webhook(`whsec_${KEY}`, () => {}, { now: () => NOW, timeout: 5 }));
    const body = new ReadableStream({ pull: () => new Promise(() => {}) });
    const alive = setInterval(() => {}, 1_000); // As a server would: its deadlines alone keep no process alive.
    const answer = await app.request("/", { ...signed("{}"), body, duplex: "half" } as RequestInit);
    clearInterval(alive);
    assert.equal(answer.status, 408);
    assert.throws(() => webhook(`whsec_${KEY}`, () => {}, { timeout: 0 }), /option "timeout" must be/);
  });

  it("accepts one of several signatures and secrets, as while a secret is replaced", async () => {
    const other = Buffer.from("another secret of the sender").toString("base64");
    const { app, received } = start([other, KEY]);
    const { headers, ...rest } = signed("{}");
    const both = { ...headers, "webhook-signature": `v1a,abc v1,AAAA v1,!! ${headers["webhook-signature"]}` };
    assert.equal((await app.request("/", { ...rest, headers: both })).status, 204);
    assert.equal((await app.request("/", signed("{}", { key: other, id: "msg_2" }))).status, 204);
    assert.equal(received.length, 2);
  });

  it("refuses what is not signed by the secret, was changed, or is old", async () => {
    const { app, received } = start();
    const { headers, ...rest } = signed("{}");
    const status = async (init: RequestInit) => (await app.request("/", init)).status;
    assert.equal(await status({ ...rest, headers: {} }), 401);
    assert.equal(await status({ ...rest, headers, body: "[]" }), 401);
    assert.equal(await status({ ...rest, headers: { ...headers, "webhook-id": "msg_2" } }), 401);
    assert.equal(await status(signed("{}", { key: Buffer.from("guessed").toString("base64") })), 401);
    assert.equal(await status(signed("{}", { version: "v2" })), 401);
    assert.equal(await status(signed("{}", { at: NOW - 301_000 })), 401);
    assert.equal(await status(signed("{}", { at: NOW + 301_000 })), 401);
    assert.equal(await status(signed("{")), 400);
    assert.equal(await status(signed(JSON.stringify("x".repeat(200)))), 413);
    assert.deepEqual(received, []);
  });

  it("answers 500 when the handler fails, so that the sender tries again", async () => {
    const app = new Hono().post("/", webhook(KEY, () => Promise.reject(new Error("The engine is away")), { now: () => NOW }));
    app.onError((_error, c) => c.text("Failed", 500));
    assert.equal((await app.request("/", signed("{}"))).status, 500);
  });

  it("throws for an unknown option", () => {
    const expected = { name: "TypeError", message: 'Cannot receive webhooks: unknown option "tolerence"' };
    assert.throws(() => webhook("whsec_c2VjcmV0", () => {}, { tolerence: 1 } as never), expected);
  });

  it("throws for an option out of range", () => {
    const wrong = { tolerance: [NaN, "5m", 0, Infinity], maxBody: [NaN, "1mb", 0, 1.5], timeout: [0, NaN], now: [1] };
    for (const [name, values] of Object.entries(wrong)) {
      for (const value of values) {
        const expected = { name: "TypeError", message: new RegExp(`^Cannot receive webhooks: option "${name}" must be `) };
        assert.throws(() => webhook(KEY, () => {}, { [name]: value }), expected);
      }
    }
    assert.throws(() => webhook(KEY, undefined as never), { name: "TypeError", message: /the handler must be a function/ });
  });

  it("throws for a secret that is none", () => {
    const short = Buffer.from("x".repeat(15)).toString("base64");
    for (const secret of ["", "whsec_", "not base64!", short, null, undefined, 1234, ["c2VjcmV0"], [], [KEY, null]]) {
      assert.throws(() => webhook(secret as never, () => {}), { name: "TypeError", message: /secret/ });
    }
  });
});
