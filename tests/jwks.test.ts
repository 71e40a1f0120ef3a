import assert from "node:assert/strict";
import { createServer } from "node:http";
import { once } from "node:events";
import type { AddressInfo } from "node:net";
import { afterEach, beforeEach, describe, it } from "node:test";
import type { AuthenticationState } from "../src/authentication.ts";
import { jwtAuthenticator } from "../src/jwt.ts";
import { type PublicJwk, RemoteKeys } from "../src/jwks.ts";
import { HANDSHAKE } from "./fake-transport.ts";
import { createKey, encodePart } from "./jwt-keys.ts";
import { Stall, turn } from "./waiting.ts";

/** A key server on this machine: what it answers, and how often it was asked. */
class KeyServer {
  keys: unknown = [];
  status = 200;
  body: string | undefined;
  requests: { accept: string | undefined }[] = [];
  readonly #server = createServer((request, response) => {
    this.requests.push({ accept: request.headers.accept });
    response.writeHead(this.status, { "content-type": "application/json", connection: "close" });
    response.end(this.body ?? JSON.stringify({ keys: this.keys }));
  });

  async start(): Promise<string> {
    this.#server.listen(0, "127.0.0.1");
    await once(this.#server, "listening");
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}/jwks.json`;
  }

  stop(): Promise<void> {
    return new Promise((resolve) => this.#server.close(() => resolve()));
  }
}

const key = (kid: string): PublicJwk => ({ kty: "EC", kid });

let server: KeyServer;
let uri: string;
let elapsed: number;

// The keys' age goes by performance.now(): moved by hand, for ten minutes are long.
beforeEach(async () => {
  server = new KeyServer();
  uri = await server.start();
  elapsed = 1000;
  Object.defineProperty(performance, "now", { configurable: true, value: () => elapsed });
});

afterEach(async () => {
  Reflect.deleteProperty(performance, "now");
  await server.stop();
});

describe("RemoteKeys", () => {
  it("asks for nothing before a key is needed, then for JSON, once", async () => {
    const remote = new RemoteKeys(uri);
    server.keys = [key("a")];
    assert.equal(server.requests.length, 0);
    assert.deepEqual(await remote.with("a"), [key("a")]);
    assert.deepEqual(server.requests, [{ accept: "application/json" }]);
  });

  it("keeps the keys for ten minutes and then asks again", async () => {
    const remote = new RemoteKeys(uri);
    server.keys = [key("a")];
    await remote.with("a");
    elapsed += 600_000;
    await remote.with("a");
    assert.equal(server.requests.length, 1);
    elapsed += 1;
    server.keys = [key("a"), key("b")];
    // The key that is held goes on verifying while newer ones are fetched.
    assert.deepEqual(await remote.with("a"), [key("a")]);
    assert.deepEqual(await remote.with("b"), [key("a"), key("b")]);
    assert.equal(server.requests.length, 2);
  });

  it("leaves out what is no key, and goes on asking", async () => {
    const keys = new RemoteKeys(uri);
    server.keys = [null, 7, key("a")];
    assert.deepEqual(await keys.with("a"), [key("a")]);
    elapsed += 31_000;
    server.keys = [key("b")];
    assert.deepEqual(await keys.with("b"), [key("b")]);
  });

  it("asks once when many keys are needed at a time", async () => {
    const remote = new RemoteKeys(uri);
    server.keys = [key("a")];
    await Promise.all(Array.from({ length: 20 }, (_, index) => remote.with(`kid-${index}`)));
    assert.equal(server.requests.length, 1);
  });

  it("asks again for an unknown key id, at most every 30 s", async () => {
    const remote = new RemoteKeys(uri);
    server.keys = [key("a")];
    await remote.with("a");
    elapsed += 30_000;
    for (const kid of ["made", "up", undefined]) assert.deepEqual(await remote.with(kid), [key("a")]);
    assert.equal(server.requests.length, 1);
    elapsed += 1;
    server.keys = [key("a"), key("b")];
    assert.deepEqual(await remote.with("b"), [key("a"), key("b")]);
    await remote.with("made");
    await remote.with("up");
    assert.equal(server.requests.length, 2);
  });

  it("rejects when the endpoint cannot be read and the key is not kept, and asks again after 30 s", async () => {
    const remote = new RemoteKeys(uri);
    const answers: [status: number, body: string, message: RegExp][] = [
      [500, '{"keys":[]}', /^Error: Cannot fetch the keys: the endpoint answered 500$/],
      [404, "Not found", /answered 404$/],
      [200, "{}", /^Error: Cannot fetch the keys: the answer has no array `keys`$/],
      [200, '{"keys":{}}', /has no array `keys`$/],
      [200, "<html>", /./],
      [200, "null", /./],
    ];
    for (const [status, body, message] of answers) {
      Object.assign(server, { status, body });
      for (let n = 0; n < 3; n++) await assert.rejects(remote.with("a"), (error) => message.test(String(error)));
      elapsed += 30_001;
    }
    assert.equal(server.requests.length, answers.length);
    Object.assign(server, { status: 200, body: undefined, keys: [key("a")] });
    assert.deepEqual(await remote.with("a"), [key("a")]);
  });

  it("goes on with a key it holds when the endpoint is away, and not with one it does not", async () => {
    const remote = new RemoteKeys(uri);
    server.keys = [key("a")];
    await remote.with("a");
    server.status = 503;
    elapsed += 600_001;
    assert.deepEqual(await remote.with("a"), [key("a")]);
    elapsed += 30_001;
    // No key of that id is held, which refuses its token: made-up ids must not read as our failure.
    assert.deepEqual(await remote.with("b"), [key("a")]);
    assert.ok(server.requests.length <= 3);
  });
});

describe("RemoteKeys, while the endpoint is slow or away", () => {
  /** Answers fetch by hand, so that the test says when. */
  function stallFetch() {
    const stalls: Stall<Response>[] = [];
    const { fetch } = globalThis;
    globalThis.fetch = () => {
      stalls.push(new Stall());
      return stalls.at(-1)!.promise;
    };
    return { stalls, restore: () => globalThis.fetch = fetch };
  }

  it("uses the key it holds without waiting for the newer ones", async () => {
    const { stalls, restore } = stallFetch();
    try {
      const remote = new RemoteKeys(uri);
      const first = remote.with("a");
      stalls[0]!.resolve(Response.json({ keys: [key("a")] }));
      await first;
      elapsed += 600_001;
      assert.deepEqual(await remote.with("a"), [key("a")]);
      assert.equal(stalls.length, 2, "they are being fetched");
      assert.deepEqual(await remote.with("a"), [key("a")]);
      // A key it does not hold may be among them, so that one waits.
      let settled = false;
      const unknown = remote.with("b").finally(() => settled = true);
      await turn();
      assert.equal(settled, false);
      stalls[1]!.resolve(Response.json({ keys: [key("b")] }));
      assert.deepEqual([await unknown, stalls.length], [[key("b")], 2]);
    } finally {
      restore();
    }
  });

  it("asks at most every 30 s when asking fails, whatever key ids are made up", async () => {
    const { stalls, restore } = stallFetch();
    try {
      const remote = new RemoteKeys(uri);
      const first = assert.rejects(remote.with("a"), /away/);
      stalls[0]!.reject(new TypeError("away"));
      await first;
      for (let n = 0; n < 20; n++) await assert.rejects(remote.with(`made-up-${n}`), /away/);
      elapsed += 30_000;
      await assert.rejects(remote.with("a"), /away/);
      assert.equal(stalls.length, 1);
      elapsed += 1;
      const again = remote.with("a");
      stalls[1]!.resolve(Response.json({ keys: [key("a")] }));
      assert.deepEqual(await again, [key("a")]);
    } finally {
      restore();
    }
  });
});

describe("jwtAuthenticator, with jwksUri", () => {
  const authenticator = () => {
    const authenticate = jwtAuthenticator({ jwksUri: uri });
    return async (token: string): Promise<AuthenticationState | null> =>
      await authenticate({ source: "message", access_token: token }, HANDSHAKE);
  };

  it("verifies with the endpoint's keys, asked once for many tokens", async () => {
    const { publicJwk, signToken } = await createKey("ES256", "es");
    server.keys = [publicJwk];
    const authenticate = authenticator();
    for (const sub of ["ann", "bob"]) assert.equal((await authenticate(await signToken({ sub })))?.accountability.user, sub);
    assert.equal(server.requests.length, 1);
  });

  it("takes a key that was added since, and none that was taken away, once they are asked for", async () => {
    const [old, added] = await Promise.all([createKey("ES256", "old"), createKey("ES256", "added")]);
    server.keys = [old.publicJwk];
    const authenticate = authenticator();
    assert.ok(await authenticate(await old.signToken({ sub: "ann" })));
    server.keys = [added.publicJwk];
    assert.equal(await authenticate(await added.signToken({ sub: "ann" })), null, "within the 30 s");
    elapsed += 30_001;
    assert.ok(await authenticate(await added.signToken({ sub: "ann" })));
    assert.equal(await authenticate(await old.signToken({ sub: "ann" })), null);
  });

  it("refuses a token of an unknown key, and asks nothing for one that cannot be read", async () => {
    const [known, unknown] = await Promise.all([createKey("ES256", "known"), createKey("ES256", "unknown")]);
    server.keys = [known.publicJwk];
    const authenticate = authenticator();
    for (const token of ["", "a", "a.b.c", `${encodePart({ alg: "ES256" })}.x.x`]) assert.equal(await authenticate(token), null);
    assert.equal(server.requests.length, 0);
    assert.equal(await authenticate(await unknown.signToken({ sub: "ann" })), null);
    assert.equal(await authenticate(await unknown.signToken({ sub: "ann" }, { kid: "known" })), null);
  });

  it("rejects, which is no refusal, when the endpoint is down", async () => {
    const { signToken } = await createKey("ES256", "es");
    const authenticate = authenticator();
    const token = await signToken({ sub: "ann" });
    server.status = 500;
    await assert.rejects(authenticate(token), /Cannot fetch the keys: the endpoint answered 500/);
    await server.stop();
    await assert.rejects(authenticate(token));
    uri = await server.start(); // For afterEach.
  });
});
