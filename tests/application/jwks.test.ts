import assert from "node:assert/strict";
import { createServer, type ServerResponse } from "node:http";
import { once } from "node:events";
import type { AddressInfo } from "node:net";
import { afterEach, beforeEach, describe, it } from "node:test";
import { gzipSync } from "node:zlib";
import type { AuthenticationState } from "../../src/application/authentication.ts";
import type { PublicJwk } from "../../src/application/jwk.ts";
import { RemoteKeys } from "../../src/application/jwks.ts";
import { jwtAuthenticator, type JwtAuthenticatorOptions } from "../../src/application/jwt.ts";
import { HANDSHAKE } from "../support/fake-transport.ts";
import { createKey, encodePart } from "../support/jwt-keys.ts";
import { countTimers } from "../support/pending-timers.ts";
import { Stall, turn } from "../support/waiting.ts";

/** A local key server, with a response to set and a record of its requests. */
class KeyServer {
  keys: unknown = [];
  status = 200;
  headers: Record<string, string> = {};
  body: string | Uint8Array | undefined;
  /** Answers instead of the fields above. */
  answer: ((response: ServerResponse) => void) | undefined;
  requests: { accept: string | undefined }[] = [];
  readonly #server = createServer((request, response) => {
    this.requests.push({ accept: request.headers.accept });
    if (this.answer) return this.answer(response);
    response.writeHead(this.status, { "content-type": "application/json", connection: "close", ...this.headers });
    response.end(this.body ?? JSON.stringify({ keys: this.keys }));
  });

  async start(): Promise<string> {
    this.#server.listen(0, "127.0.0.1");
    await once(this.#server, "listening");
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}/jwks.json`;
  }

  stop(): Promise<void> {
    return new Promise((resolve) => {
      this.#server.close(() => resolve());
      this.#server.closeAllConnections();
    });
  }
}

const MINUTE = 60_000;

/** How long a fetch of keys may take by default, in ms. */
const FETCH_TIMEOUT = 5_000;
const key = (kid: string): PublicJwk => ({ kty: "EC", crv: "P-256", kid });

let server: KeyServer;
let uri: string;
let elapsed: number;
const { setTimeout: platformTimeout } = globalThis;

// The age of keys is measured with performance.now(), which the tests advance by hand.
beforeEach(async () => {
  server = new KeyServer();
  uri = await server.start();
  elapsed = 1000;
  Object.defineProperty(performance, "now", { configurable: true, value: () => elapsed });
  // `jwtAuthenticator` has no option for the timeout of a fetch.
  const patient = (ms = 0) => ms === FETCH_TIMEOUT ? PATIENCE : ms;
  const set = (callback: () => void, ms?: number, ...rest: []) => platformTimeout(callback, patient(ms), ...rest);
  globalThis.setTimeout = set as typeof setTimeout; // All but `util.promisify` is there.
});

afterEach(async () => {
  Reflect.deleteProperty(performance, "now");
  globalThis.setTimeout = platformTimeout;
  await server.stop();
});

/** Longer than a machine stands still, in ms. Timeouts are the subject of two tests only. */
const PATIENCE = 600_000;

/** The keys of the endpoint. `ids` resolves with the ids that `find` returns. */
function remoteKeys(options: ConstructorParameters<typeof RemoteKeys>[2] = {}) {
  const remote = new RemoteKeys(uri, ["RS256", "ES256", "EdDSA"], { timeout: PATIENCE, ...options });
  return { ids: async (kid: string) => (await remote.find(kid)).map((key) => key.kid) };
}

describe("RemoteKeys", () => {
  it("leaves no timer after the answer", () =>
    countTimers(async (pending) => {
      const { timeout: platform } = AbortSignal;
      let signals = 0;
      AbortSignal.timeout = (ms) => (signals++, platform.call(AbortSignal, ms));
      try {
        const timeout = 1_234_567;
        const remote = remoteKeys({ timeout });
        server.keys = [key("a")];
        const found = remote.ids("a");
        assert.equal(pending(timeout), 1);
        assert.deepEqual(await found, ["a"]);
        assert.deepEqual([pending(timeout), signals], [0, 0]);
      } finally {
        AbortSignal.timeout = platform;
      }
    }));

  it("fetches nothing until a key is needed, then fetches JSON once", async () => {
    const remote = remoteKeys();
    server.keys = [key("a"), key("b")];
    assert.equal(server.requests.length, 0);
    assert.deepEqual(await remote.ids("a"), ["a"]);
    assert.deepEqual(await remote.ids("b"), ["b"]);
    assert.deepEqual(server.requests, [{ accept: "application/json" }]);
  });

  it("caches the keys for ten minutes, then waits for a new fetch", async () => {
    const remote = remoteKeys();
    server.keys = [key("a")];
    await remote.ids("a");
    elapsed += 10 * MINUTE;
    server.keys = [key("b")];
    assert.deepEqual(await remote.ids("a"), ["a"]);
    assert.equal(server.requests.length, 1);
    elapsed += 1;
    assert.deepEqual(await remote.ids("a"), []);
    assert.deepEqual(await remote.ids("b"), ["b"]);
    assert.equal(server.requests.length, 2);
  });

  it("fetches once when many keys are needed at the same time", async () => {
    const remote = remoteKeys();
    server.keys = [key("kid-7")];
    const found = await Promise.all(Array.from({ length: 20 }, (_, index) => remote.ids(`kid-${index}`)));
    assert.deepEqual(found.flat(), ["kid-7"]);
    assert.equal(server.requests.length, 1);
  });

  it("fetches again for an unknown key id, at most every 30 s", async () => {
    const remote = remoteKeys();
    server.keys = [key("a")];
    await remote.ids("a");
    elapsed += 30_000;
    for (const kid of ["made", "up", ""]) assert.deepEqual(await remote.ids(kid), []);
    assert.equal(server.requests.length, 1);
    elapsed += 1;
    server.keys = [key("a"), key("b")];
    assert.deepEqual(await remote.ids("b"), ["b"]);
    await remote.ids("made");
    await remote.ids("up");
    assert.equal(server.requests.length, 2);
  });

  it("rejects when no fetch has ever succeeded, and fetches again after 30 s", async () => {
    const remote = remoteKeys();
    const answers: [status: number, body: string, message: RegExp][] = [
      [500, '{"keys":[]}', /^Error: Cannot fetch the keys: the endpoint answered 500$/],
      [404, "Not found", /answered 404$/],
      [200, "{}", /^Error: Cannot fetch the keys: the answer has no array `keys`$/],
      [200, '{"keys":{}}', /has no array `keys`$/],
      [200, "null", /has no array `keys`$/],
      [200, "7", /has no array `keys`$/],
      [200, "<html>", /^Error: Cannot fetch the keys: the answer is not JSON$/],
      [200, "", /the answer is not JSON$/],
    ];
    for (const [status, body, message] of answers) {
      Object.assign(server, { status, body });
      for (let n = 0; n < 3; n++) await assert.rejects(remote.ids("a"), (error) => message.test(String(error)));
      elapsed += 30_001;
    }
    assert.equal(server.requests.length, answers.length);
    Object.assign(server, { status: 200, body: undefined, keys: [key("a")] });
    assert.deepEqual(await remote.ids("a"), ["a"]);
  });

  it("finds no key, and does not reject, when the endpoint lists none", async () => {
    const remote = remoteKeys();
    assert.deepEqual(await remote.ids("a"), []);
    server.status = 503;
    elapsed += 30_001;
    // The endpoint's last response listed no key: the token is refused, and that is not our failure.
    assert.deepEqual(await remote.ids("a"), []);
  });

  it("uses cached keys while the endpoint is unavailable, up to their maximum age", async () => {
    const remote = remoteKeys();
    server.keys = [key("a")];
    await remote.ids("a");
    server.status = 503;
    for (elapsed += 10 * MINUTE + 1; elapsed <= 1000 + 60 * MINUTE; elapsed += 5 * MINUTE) {
      assert.deepEqual(await remote.ids("a"), ["a"]);
      assert.deepEqual(await remote.ids("made-up"), [], "a made-up id must not read as our failure");
    }
    elapsed = 1000 + 60 * MINUTE;
    assert.deepEqual(await remote.ids("a"), ["a"]);
    elapsed += 1;
    for (const kid of ["a", "made-up"]) await assert.rejects(remote.ids(kid), /the endpoint answered 503$/);
    elapsed += 31 * 24 * 60 * MINUTE;
    await assert.rejects(remote.ids("a"), /the endpoint answered 503$/);
    server.status = 200;
    elapsed += 30_001;
    assert.deepEqual(await remote.ids("a"), ["a"]);
  });

  it("accepts another maximum age, and fetches before the keys reach it", async () => {
    const remote = remoteKeys({ maxAge: MINUTE });
    server.keys = [key("a")];
    await remote.ids("a");
    elapsed += MINUTE;
    assert.deepEqual([await remote.ids("a"), server.requests.length], [["a"], 1]);
    elapsed += 1;
    assert.deepEqual([await remote.ids("a"), server.requests.length], [["a"], 2]);
    server.status = 503;
    elapsed += MINUTE + 1;
    await assert.rejects(remote.ids("a"), /answered 503$/);
  });

  it("uses its keys for ever when the maximum age is Infinity", async () => {
    const remote = remoteKeys({ maxAge: Infinity });
    server.keys = [key("a")];
    await remote.ids("a");
    server.status = 503;
    elapsed += 31 * 24 * 60 * MINUTE;
    assert.deepEqual(await remote.ids("a"), ["a"]);
  });
});

describe("RemoteKeys, reading the endpoint's keys", () => {
  it("skips values that are not keys, and keys that must not verify a token", async () => {
    const [rsa, small, okp] = await Promise.all([
      createKey("RS256", "rsa"),
      createKey("RS256", "small", { modulusLength: 1024 }),
      createKey("EdDSA", "okp"),
    ]);
    const { n } = small.publicJwk;
    const { alg: _, ...bare } = rsa.publicJwk;
    const skipped = {
      small: small.publicJwk,
      // Counts bits of the modulus, not characters: leading zeros, or text that is not base64url.
      padded: { ...small.publicJwk, n: "A".repeat(172) + n },
      garbage: { ...rsa.publicJwk, n: `${rsa.publicJwk.n}!` },
      number: { ...rsa.publicJwk, n: 7 },
      modulusless: { ...rsa.publicJwk, n: undefined },
      encryption: { ...bare, use: "enc" },
      operation: { ...bare, key_ops: ["encrypt"] },
      operations: { ...bare, key_ops: "verify" },
      private: rsa.privateJwk,
      secret: { kty: "oct", k: "AAAA", alg: "HS256" },
      another: { ...bare, alg: "RS512" },
      mismatched: { ...bare, alg: "ES256" },
      curve: { kty: "EC", crv: "P-521" },
      koblitz: { kty: "EC", crv: "secp256k1" },
      exchange: { ...okp.publicJwk, crv: "X25519", alg: undefined },
      typeless: { ...bare, kty: undefined },
    };
    server.keys = [
      ...[null, 7, "key", [], {}, { kty: "RSA" }, { ...bare, kid: 7 }, { ...bare, kid: "" }],
      ...Object.entries(skipped).map(([kid, key]) => ({ ...key, kid })),
      { ...bare, kid: "bare" },
      { ...bare, kid: "used", use: "sig", key_ops: ["verify"], x5c: ["…"], odd: { member: true } },
      okp.publicJwk,
    ];
    const remote = remoteKeys();
    for (const kid of ["bare", "used", "okp"]) assert.deepEqual(await remote.ids(kid), [kid]);
    for (const kid of Object.keys(skipped)) assert.deepEqual(await remote.ids(kid), [], kid);
  });

  it("keeps two keys with the same id and different types", async () => {
    server.keys = [key("a"), { kty: "OKP", crv: "Ed25519", kid: "a" }];
    assert.deepEqual(await remoteKeys().ids("a"), ["a", "a"]);
  });

  it("rejects a response with more than 100 keys", async () => {
    const keys = Array.from({ length: 100 }, (_, index) => key(`${index}`));
    server.keys = keys;
    assert.deepEqual(await remoteKeys().ids("99"), ["99"]);
    server.keys = [...keys, null];
    await assert.rejects(remoteKeys().ids("99"), /^Error: Cannot fetch the keys: the answer has 101, more than 100$/);
  });

  it("rejects a response over 1 MiB, and stops reading it", async () => {
    const fitting = JSON.stringify({ keys: [key("a")] });
    server.body = fitting.padEnd(1_048_576);
    assert.deepEqual(await remoteKeys().ids("a"), ["a"]);
    server.body = fitting.padEnd(1_048_577);
    const refusal = /^Error: Cannot fetch the keys: the answer has more than 1048576 bytes$/;
    await assert.rejects(remoteKeys().ids("a"), refusal);
    // The limit applies after inflation: this body has 100 kB on the wire.
    server.headers = { "content-encoding": "gzip" };
    server.body = gzipSync(fitting.padEnd(100_000_000));
    await assert.rejects(remoteKeys().ids("a"), refusal);
    // This response never ends, so its connection must be closed.
    let closed: Promise<unknown> | undefined;
    server.answer = (response) => {
      closed = once(response, "close");
      const write = () => {
        while (!response.destroyed && response.write(" ".repeat(65_536)));
      };
      response.writeHead(200, { "content-type": "application/json" }).on("drain", write);
      write();
    };
    await assert.rejects(remoteKeys().ids("a"), refusal);
    await closed;
  });

  it("follows no redirect", async () => {
    server.status = 302;
    server.headers = { location: uri };
    await assert.rejects(
      remoteKeys().ids("a"),
      /^Error: Cannot fetch the keys: the endpoint redirects, pass the address it redirects to$/,
    );
    assert.equal(server.requests.length, 1);
  });
});

describe("RemoteKeys, while the endpoint is slow or unavailable", () => {
  /** Answers fetch when the test calls it. */
  function stallFetch() {
    const stalls: Stall<Response>[] = [];
    const { fetch } = globalThis;
    globalThis.fetch = () => {
      stalls.push(new Stall());
      return stalls.at(-1)!.promise;
    };
    return { stalls, restore: () => globalThis.fetch = fetch };
  }

  it("makes every token wait for new keys once the cached ones are stale", async () => {
    const { stalls, restore } = stallFetch();
    try {
      const remote = remoteKeys();
      const first = remote.ids("a");
      stalls[0]!.resolve(Response.json({ keys: [key("a")] }));
      await first;
      elapsed += 10 * MINUTE + 1;
      let settled = 0;
      const found = ["a", "a", "b"].map((kid) => remote.ids(kid).finally(() => settled++));
      await turn();
      assert.deepEqual([stalls.length, settled], [2, 0]);
      stalls[1]!.resolve(Response.json({ keys: [key("b")] }));
      assert.deepEqual([await Promise.all(found), stalls.length], [[[], [], ["b"]], 2]);
    } finally {
      restore();
    }
  });

  it("does not delay a token with a cached key while it fetches an unknown one", async () => {
    const { stalls, restore } = stallFetch();
    try {
      const remote = remoteKeys();
      const first = remote.ids("a");
      stalls[0]!.resolve(Response.json({ keys: [key("a")] }));
      await first;
      elapsed += 30_001;
      const unknown = remote.ids("b");
      assert.deepEqual([await remote.ids("a"), stalls.length], [["a"], 2]);
      stalls[1]!.resolve(Response.json({ keys: [key("a")] }));
      assert.deepEqual(await unknown, []);
    } finally {
      restore();
    }
  });

  it("fetches at most every 30 s when fetches fail, even for invented key ids", async () => {
    const { stalls, restore } = stallFetch();
    try {
      const remote = remoteKeys();
      const first = assert.rejects(remote.ids("a"), /away/);
      stalls[0]!.reject(new TypeError("away"));
      await first;
      for (let n = 0; n < 20; n++) await assert.rejects(remote.ids(`made-up-${n}`), /away/);
      elapsed += 30_000;
      await assert.rejects(remote.ids("a"), /away/);
      assert.equal(stalls.length, 1);
      elapsed += 1;
      const again = remote.ids("a");
      stalls[1]!.resolve(Response.json({ keys: [key("a")] }));
      assert.deepEqual(await again, ["a"]);
    } finally {
      restore();
    }
  });

  it("fetches again when a fetch never settles, because on Workers it dies with its request", async () => {
    const { stalls, restore } = stallFetch();
    try {
      const remote = remoteKeys({ timeout: 20 });
      const dead = remote.ids("a");
      const waiting = [remote.ids("a"), remote.ids("b"), remote.ids("a")];
      let fetches = 1;
      // Answered at once, because the others wait for it no longer than for the first.
      globalThis.fetch = () => (fetches++, Promise.resolve(Response.json({ keys: [key("a")] })));
      assert.deepEqual(await Promise.all(waiting), [["a"], [], ["a"]]);
      assert.deepEqual([fetches, stalls.length], [2, 1]);
      // The response of the dead fetch arrives last, and is older.
      stalls[0]!.resolve(Response.json({ keys: [key("b")] }));
      await dead;
      assert.deepEqual([await remote.ids("a"), await remote.ids("b")], [["a"], []]);
    } finally {
      restore();
    }
  });

  it("times out when the endpoint does not respond, or never ends its response", async () => {
    const remote = remoteKeys({ timeout: 100 });
    server.answer = () => {};
    await assert.rejects(remote.ids("a"), /^Error: Cannot fetch the keys: no answer within 100 ms$/);
    elapsed += 30_001;
    server.answer = (response) => {
      response.writeHead(200, { "content-type": "application/json" });
      response.write('{"keys":[');
    };
    await assert.rejects(remote.ids("a"), /no answer within 100 ms$/);
  });
});

describe("jwtAuthenticator, with jwksUri", () => {
  const authenticator = (options: Partial<JwtAuthenticatorOptions> = {}) => {
    const authenticate = jwtAuthenticator({ jwksUri: uri, requireExpiry: false, ...options });
    return async (token: string): Promise<AuthenticationState | null> =>
      await authenticate({ source: "message", access_token: token }, HANDSHAKE);
  };

  it("verifies with the endpoint's keys, fetched once for many tokens", async () => {
    const { publicJwk, signToken } = await createKey("ES256", "es");
    server.keys = [publicJwk];
    const authenticate = authenticator();
    for (const sub of ["ann", "bob"]) assert.equal((await authenticate(await signToken({ sub })))?.accountability.user, sub);
    assert.equal(server.requests.length, 1);
  });

  it("accepts an added key, and refuses a removed one, after the next fetch", async () => {
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

  it("refuses a key that was removed, at the first token after 12 hours", async () => {
    const [removed, left] = await Promise.all([createKey("ES256", "removed"), createKey("ES256", "left")]);
    server.keys = [removed.publicJwk, left.publicJwk];
    const authenticate = authenticator();
    assert.ok(await authenticate(await removed.signToken({ sub: "ann" })));
    server.keys = [left.publicJwk];
    elapsed += 12 * 60 * MINUTE;
    assert.equal(await authenticate(await removed.signToken({ sub: "ann" })), null);
    assert.ok(await authenticate(await left.signToken({ sub: "ann" })));
  });

  it("verifies with a new key under the same id", async () => {
    const [before, after] = await Promise.all([createKey("ES256", "main"), createKey("ES256", "main")]);
    server.keys = [before.publicJwk];
    const authenticate = authenticator();
    assert.ok(await authenticate(await before.signToken({ sub: "ann" })));
    server.keys = [after.publicJwk];
    elapsed += 10 * MINUTE + 1;
    assert.equal(await authenticate(await before.signToken({ sub: "ann" })), null);
    assert.ok(await authenticate(await after.signToken({ sub: "ann" })));
  });

  it("rejects instead of refusing when the endpoint is unavailable beyond the maximum age", async () => {
    const { publicJwk, signToken } = await createKey("ES256", "es");
    server.keys = [publicJwk];
    const [authenticate, patient] = [authenticator(), authenticator({ jwksMaxAge: 32 * 24 * 60 * MINUTE })];
    for (const each of [authenticate, patient]) assert.ok(await each(await signToken({ sub: "ann" })));
    server.status = 503;
    elapsed += 31 * 24 * 60 * MINUTE;
    await assert.rejects(authenticate(await signToken({ sub: "ann" })), /the endpoint answered 503$/);
    assert.ok(await patient(await signToken({ sub: "ann" })));
  });

  it("refuses a token of a key that cannot be imported, and verifies with the others", async () => {
    const [good, bad] = await Promise.all([createKey("ES256", "good"), createKey("ES256", "bad")]);
    // A point off the curve.
    server.keys = [{ ...bad.publicJwk, x: "A".repeat(43) }, good.publicJwk];
    const authenticate = authenticator();
    assert.equal(await authenticate(await bad.signToken({ sub: "ann" })), null);
    assert.ok(await authenticate(await good.signToken({ sub: "ann" })));
  });

  it("chooses between two keys with the same id by algorithm", async () => {
    const [es, ed] = await Promise.all([createKey("ES256", "one"), createKey("EdDSA", "one")]);
    server.keys = [es.publicJwk, ed.publicJwk];
    const authenticate = authenticator();
    for (const key of [es, ed]) assert.ok(await authenticate(await key.signToken({ sub: "ann" })));
  });

  it("refuses a token of an unknown key, and fetches nothing for a token that is invalid anyway", async () => {
    const [known, unknown] = await Promise.all([createKey("ES256", "known"), createKey("ES256", "unknown")]);
    server.keys = [known.publicJwk];
    const authenticate = authenticator();
    const good = { alg: "ES256", typ: "JWT", kid: "known" };
    const headers = [{ ...good, kid: undefined }, { ...good, alg: "HS256" }, { ...good, typ: "JWE" }, { ...good, crit: ["b64"] }];
    for (
      const token of [
        "",
        "a",
        "a.b.c",
        `${encodePart(good)}.x.x`,
        ...headers.map((header) => `${encodePart(header)}.e30.AAAA`),
      ]
    ) {
      assert.equal(await authenticate(token), null);
    }
    assert.equal(server.requests.length, 0);
    assert.equal(await authenticate(await unknown.signToken({ sub: "ann" })), null);
    assert.equal(await authenticate(await unknown.signToken({ sub: "ann" }, { kid: "known" })), null);
  });

  it("rejects instead of refusing when the endpoint is down", async () => {
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
