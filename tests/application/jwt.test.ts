import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { sign } from "hono/jwt";
import type { AuthenticationState, Credentials } from "../../src/application/authentication.ts";
import { jwtAuthenticator, type JwtAuthenticatorOptions, type SymmetricAlgorithm } from "../../src/application/jwt.ts";
import type { TokenRefusal } from "../../src/application/token-refusal.ts";
import { createRoute } from "../support/fake-runtime.ts";
import { HANDSHAKE } from "../support/fake-transport.ts";
import { createKey, encodePart, signText } from "../support/jwt-keys.ts";

const SECRET = "a secret of the tests, long enough for HS512: 64 bytes, or more.";
const now = Math.floor(Date.now() / 1000);
const exp = now + 600;

/** A token with any claims, valid or not; it expires in ten minutes by default. */
const signToken = (claims: object, secret = SECRET, algorithm: SymmetricAlgorithm = "HS256") =>
  sign({ exp, ...claims }, secret, algorithm);

/** A token with any header. */
const signWithHeader = (header: unknown) => signText(JSON.stringify({ sub: "ann", exp }), SECRET, header);

/** The result of the authenticator for a token. */
function authenticate(token: string, options: JwtAuthenticatorOptions = { secret: SECRET }) {
  return jwtAuthenticator(options)({ source: "message", access_token: token }, HANDSHAKE);
}

/** The reason the authenticator refuses a token. */
async function refusalOf(token: string, options: JwtAuthenticatorOptions = { secret: SECRET }): Promise<TokenRefusal> {
  const causes: unknown[] = [];
  const refuse = (cause: unknown) => {
    causes.push(cause);
    return null;
  };
  assert.equal(await jwtAuthenticator(options)({ source: "message", access_token: token }, HANDSHAKE, refuse), null, token);
  assert.equal(causes.length, 1);
  return causes[0] as TokenRefusal; // The only cause of a refusal.
}

const reasonOf = async (token: string, options?: JwtAuthenticatorOptions) => (await refusalOf(token, options)).reason;

/** A state that ends with the token of {@link signToken} plus the clock tolerance. */
const state = (user: string, role: string | null, expires_at: number | null = exp + 5): AuthenticationState => ({
  accountability: { user, role },
  expires_at,
});

describe("jwtAuthenticator, with a secret", () => {
  it("accepts a token and reads user, role and expiry", async () => {
    const token = await signToken({ sub: "ann", role: "editor", exp: now + 60, iat: now, nbf: now, other: "claim" });
    assert.deepEqual(await authenticate(token), state("ann", "editor", now + 65));
  });

  it("refuses a token without exp, unless requireExpiry is false", async () => {
    const token = await signToken({ sub: "ann", exp: undefined });
    assert.equal(await reasonOf(token), "expiry");
    assert.deepEqual(await authenticate(token, { secret: SECRET, requireExpiry: false }), state("ann", null, null));
    // An exp in the token still counts.
    assert.equal(
      await reasonOf(await signToken({ sub: "ann", exp: now - 60 }), { secret: SECRET, requireExpiry: false }),
      "expired",
    );
  });

  it("refuses a token that has expired, is not valid yet or was issued in the future", async () => {
    for (const claims of [{ exp: now - 6 }, { exp: 0 }, { exp: -1 }, { exp: -1e300 }]) {
      assert.equal(await reasonOf(await signToken({ sub: "ann", ...claims })), "expired", JSON.stringify(claims));
    }
    for (const claims of [{ nbf: now + 600 }, { iat: now + 600 }, { nbf: 1e300 }, { iat: now, nbf: now + 60 }]) {
      assert.equal(await reasonOf(await signToken({ sub: "ann", ...claims })), "not-yet-valid", JSON.stringify(claims));
    }
    for (const name of ["exp", "nbf", "iat"]) {
      for (const time of ["never", String(exp), null, true, [exp], {}]) {
        assert.equal(await reasonOf(await signToken({ sub: "ann", [name]: time })), "claim", `${name}: ${JSON.stringify(time)}`);
      }
    }
    // JSON numbers beyond a double would never expire.
    for (const time of ["1e999", "-1e999"]) {
      assert.equal(await reasonOf(await signText(`{"sub":"ann","exp":${time}}`, SECRET)), "claim", time);
    }
  });

  it("tolerates a clock difference of five seconds, or of clockTolerance", async () => {
    const { now: realNow } = Date;
    // Otherwise a machine that is busy for two seconds decides.
    Date.now = () => now * 1_000;
    try {
      const claims = { exp: { exp: now - 3 }, nbf: { nbf: now + 4 }, iat: { iat: now + 4 } };
      for (const [name, time] of Object.entries(claims)) {
        const token = await signToken({ sub: "ann", ...time });
        assert.ok(await authenticate(token), name);
        assert.equal(await authenticate(token, { secret: SECRET, clockTolerance: 0 }), null, name);
      }
      const late = await signToken({ sub: "ann", exp: now - 60 });
      // The state ends when the token would be refused, which is not in the past.
      assert.deepEqual(await authenticate(late, { secret: SECRET, clockTolerance: 600 }), state("ann", null, now + 540));
      assert.equal(await reasonOf(late, { secret: SECRET, clockTolerance: 30 }), "expired");
    } finally {
      Date.now = realNow;
    }
  });

  it("accepts a token signed with any of several secrets", async () => {
    const secrets = ["new", "old", "older"].map((name) => `${name} ${SECRET}`);
    for (const secret of secrets) {
      assert.ok(await authenticate(await signToken({ sub: "ann" }, secret), { secret: secrets }));
      assert.equal(await reasonOf(await signToken({ sub: "ann" }, secret)), "signature");
    }
    assert.equal(await reasonOf(await signToken({ sub: "ann" }), { secret: secrets }), "signature");
  });

  it("uses a secret as it is, whatever words it contains", async () => {
    for (const secret of [`PUBLIC ${SECRET}`, `PRIVATE ${SECRET}`, `🔥 ${SECRET}`, "あ".repeat(22)]) {
      assert.ok(await authenticate(await signText(JSON.stringify({ sub: "ann", exp }), secret), { secret }), secret);
    }
  });

  it("requires the given typ, otherwise JWT or none", async () => {
    const typs: [typ: unknown, wanted: string | undefined, isAccepted: boolean][] = [
      [undefined, undefined, true],
      ["JWT", undefined, true],
      ["jwt", undefined, true],
      ["application/jwt", undefined, true],
      ["at+jwt", undefined, false],
      ["JWE", undefined, false],
      ["", undefined, false],
      [null, undefined, false],
      [7, undefined, false],
      ["at+jwt", "at+jwt", true],
      ["AT+JWT", "at+jwt", true],
      ["application/at+jwt", "at+jwt", true],
      ["at+jwt", "application/at+jwt", true],
      ["JWT", "at+jwt", false],
      ["xat+jwt", "at+jwt", false],
      [["at+jwt"], "at+jwt", false],
      [undefined, "at+jwt", false],
      [undefined, "JWT", false],
    ];
    for (const [typ, wanted, isAccepted] of typs) {
      const options = { secret: SECRET, ...(wanted === undefined ? {} : { typ: wanted }) };
      const token = await signWithHeader({ alg: "HS256", typ });
      if (isAccepted) assert.ok(await authenticate(token, options), `${typ} for ${wanted}`);
      else assert.equal(await reasonOf(token, options), "typ", `${typ} for ${wanted}`);
    }
  });

  it("refuses a token with critical extensions, because it supports none", async () => {
    for (const crit of [["b64"], ["exp"], [], null, "b64", false]) {
      assert.equal(await reasonOf(await signWithHeader({ alg: "HS256", typ: "JWT", crit, b64: false })), "critical");
    }
  });

  it("refuses a token signed with another secret, and an altered one", async () => {
    assert.equal(await authenticate(await signToken({ sub: "ann" }, `another ${SECRET}`)), null);
    const [header, , signature] = (await signToken({ sub: "ann" })).split(".");
    assert.equal(await authenticate(`${header}.${encodePart({ sub: "root" })}.${signature}`), null);
    assert.equal(await authenticate(`${header}.${encodePart({ sub: "ann" })}.`), null);
  });

  it("refuses every algorithm but the chosen one, and above all none", async () => {
    const algorithms = ["HS256", "HS384", "HS512"] as const;
    for (const chosen of algorithms) {
      for (const used of algorithms) {
        const result = await authenticate(await signToken({ sub: "ann" }, SECRET, used), { secret: SECRET, algorithm: chosen });
        assert.deepEqual(result, used === chosen ? state("ann", null) : null, `${used} for ${chosen}`);
      }
    }
    for (const alg of ["none", "None", "NONE", "", "hs256", null, undefined]) {
      for (const signature of ["", "x"]) {
        assert.equal(await authenticate(`${encodePart({ alg, typ: "JWT" })}.${encodePart({ sub: "ann" })}.${signature}`), null);
      }
    }
    assert.equal(await authenticate(await signToken({ sub: "ann" }, SECRET, "HS384")), null, "HS256 is the default");
  });

  it("refuses text that is not a token", async () => {
    const header = encodePart({ alg: "HS256", typ: "JWT" });
    for (
      const token of [
        "",
        "a",
        "..",
        "...",
        "a.b.c",
        "é.é.é",
        `${header}.${header}`,
        `${header}.x.x`,
        "\ud800.a.b",
        "a".repeat(8192),
      ]
    ) {
      assert.equal(await authenticate(token), null, token.slice(0, 20));
    }
  });

  it("refuses, and does not fail, when a part of an unsigned token is not an object", async () => {
    const keys = [(await createKey("ES256", "es")).publicJwk];
    const good = { alg: "HS256", typ: "JWT", kid: "es" };
    for (
      const [header, payload] of [[good, null], [good, 7], [good, "x"], [good, []], [null, {}], [7, {}], ["x", {}], [[], {}], [
        {},
        {},
      ]]
    ) {
      const token = `${encodePart(header)}.${encodePart(payload)}.AAAA`;
      for (const options of [{ secret: SECRET }, { keys }]) assert.equal(await authenticate(token, options), null, token);
    }
    // Nothing listens at this address: such a token is refused without a fetch.
    const options = { jwksUri: "http://127.0.0.1:1/" };
    for (const [header, payload] of [[good, null], [good, 7], [null, {}], ["x", {}]]) {
      assert.equal(await authenticate(`${encodePart(header)}.${encodePart(payload)}.AAAA`, options), null);
    }
  });

  it("refuses a token without a user, because it identifies nobody", async () => {
    for (const sub of [undefined, null, "", 1.5, 2 ** 53, true, ["ann"], { id: "ann" }]) {
      assert.equal(await authenticate(await signToken({ sub, role: "editor" })), null, JSON.stringify(sub));
    }
  });

  it('converts a number to its decimal string, so that 1 and "1" are the same user', async () => {
    for (const id of [7, 0, -1]) {
      assert.deepEqual(await authenticate(await signToken({ sub: id, role: id })), state(String(id), String(id)));
    }
  });

  it("has no role when the claim is not a role", async () => {
    for (const role of [null, "", 1.5, ["editor"], {}]) {
      assert.deepEqual(await authenticate(await signToken({ sub: "ann", role })), state("ann", null));
    }
  });

  it("reads user and role from userClaim and roleClaim", async () => {
    const token = await signToken({ id: "ann", sub: "other", scope: "editor", role: "other" });
    assert.deepEqual(
      await authenticate(token, { secret: SECRET, userClaim: "id", roleClaim: "scope" }),
      state("ann", "editor"),
    );
    assert.equal(await authenticate(token, { secret: SECRET, userClaim: "missing" }), null);
    assert.equal(await authenticate(token, { secret: SECRET, userClaim: "toString" }), null);
  });

  it("requires the issuer and the audience when they are given", async () => {
    const options = { secret: SECRET, issuer: "https://issuer.example", audience: "noroshi" };
    const claims = { sub: "ann", iss: options.issuer, aud: options.audience };
    assert.deepEqual(await authenticate(await signToken(claims), options), state("ann", null));
    assert.deepEqual(await authenticate(await signToken({ ...claims, aud: ["a", "noroshi"] }), options), state("ann", null));
    for (
      const wrong of [{ iss: undefined }, { iss: "https://issuer.example.org" }, { aud: undefined }, { aud: "noroshi2" }, {
        aud: ["a"],
      }, { aud: [] }]
    ) {
      assert.equal(await authenticate(await signToken({ ...claims, ...wrong }), options), null, JSON.stringify(wrong));
    }
  });

  it("refuses credentials without an access token", async () => {
    const kinds: Credentials[] = [
      { source: "message", refresh_token: await signToken({ sub: "ann" }) },
      { source: "message", email: "ann", password: SECRET },
    ];
    for (const credentials of kinds) assert.equal(await jwtAuthenticator({ secret: SECRET })(credentials, HANDSHAKE), null);
  });

  it("throws TypeError when there is no key, an empty one or more than one", async () => {
    const keys = [(await createKey("ES256", "es")).publicJwk];
    for (
      const options of [{}, { secret: "" }, { jwksUri: "" }, { secret: SECRET, keys }, { keys, jwksUri: "http://localhost" }]
    ) {
      assert.throws(() => jwtAuthenticator(options), {
        name: "TypeError",
        message: "Cannot verify tokens: pass exactly one of secret, keys and jwksUri, and not an empty one",
      });
    }
  });

  it("throws TypeError when a secret is shorter than its hash, a PEM file or not a string", () => {
    const lengths = { HS256: 32, HS384: 48, HS512: 64 } as const;
    for (const [algorithm, length] of Object.entries(lengths) as [SymmetricAlgorithm, number][]) {
      assert.ok(jwtAuthenticator({ secret: "s".repeat(length), algorithm }));
      const message = `Cannot verify tokens: a secret of ${algorithm} needs at least ${length} bytes, ` +
        `make one with: openssl rand -base64 ${length}`;
      for (const secret of ["s".repeat(length - 1), ["s".repeat(length), "s"], [SECRET, ""]]) {
        assert.throws(() => jwtAuthenticator({ secret, algorithm }), { name: "TypeError", message });
      }
    }
    for (const label of ["PUBLIC KEY", "PRIVATE KEY", "CERTIFICATE"]) {
      const secret = `-----BEGIN ${label}-----\n${"A".repeat(64)}\n-----END ${label}-----`;
      assert.throws(() => jwtAuthenticator({ secret }), {
        name: "TypeError",
        message: /pass a public key as a JSON Web Key in keys$/,
      });
    }
    for (const secret of [[], null, 7, [7], [undefined], new Uint8Array(64)]) {
      assert.throws(() => jwtAuthenticator({ secret: secret as never }), {
        name: "TypeError",
        message: /secret must be a string/,
      });
    }
  });

  it("throws TypeError when an option is unknown, invalid or belongs to another kind of key", async () => {
    const { publicJwk, privateJwk } = await createKey("ES256", "es");
    const small = await createKey("RS256", "small", { modulusLength: 1024 });
    const keys = [publicJwk];
    const jwksUri = "https://issuer.example/jwks.json";
    const wrong: [options: object, message: RegExp][] = [
      [{ secret: SECRET, iss: "i" }, /unknown option "iss", use secret, keys, jwksUri, issuer/],
      [{ secret: SECRET, toString: "i" }, /unknown option "toString"/],
      [{ secret: SECRET, secrets: [] }, /unknown option "secrets"/],
      [{ secret: SECRET, issuer: 7 }, /issuer must be a string and not empty, or left out$/],
      [{ secret: SECRET, audience: ["a"] }, /audience must be a string/],
      [{ secret: SECRET, issuer: null }, /issuer must be a string/],
      [{ secret: SECRET, typ: "" }, /typ must be a string/],
      [{ secret: SECRET, userClaim: "" }, /userClaim must be a string/],
      [{ secret: SECRET, roleClaim: 7 }, /roleClaim must be a string/],
      [{ secret: SECRET, algorithm: "RS256" }, /algorithm must be one of HS256, HS384, HS512$/],
      [{ secret: SECRET, algorithm: "none" }, /algorithm must be one of HS256, HS384, HS512$/],
      [{ secret: SECRET, algorithms: ["HS256"] }, /pass algorithm beside secret$/],
      [{ keys, algorithm: "HS256" }, /pass algorithms beside keys and jwksUri$/],
      [{ keys, algorithms: [] }, /algorithms must be a list of RS256, /],
      [{ keys, algorithms: "ES256" }, /algorithms must be a list of RS256, /],
      [{ keys, algorithms: ["ES256", "HS256"] }, /algorithms may contain only RS256, .*, EdDSA$/],
      [{ keys, algorithms: ["none"] }, /algorithms may contain only RS256, /],
      [{ keys: [] }, /keys must be a list of JSON Web Keys$/],
      [{ keys: publicJwk }, /keys must be a list of JSON Web Keys$/],
      [{ keys: [null] }, /keys\[0\] must not be used, it is no JSON Web Key$/],
      [{ keys: [publicJwk, privateJwk] }, /keys\[1\] must not be used, it is private or secret: list its public members only$/],
      [{ keys: [{ kty: "oct", k: "AAAA", kid: "a" }] }, /it is private or secret/],
      [{ keys: [{ ...publicJwk, kid: undefined }] }, /keys\[0\] must not be used, it has no kid$/],
      [{ keys: [{ ...publicJwk, use: "enc" }] }, /its use is not "sig"$/],
      [{ keys: [{ ...publicJwk, key_ops: [] }] }, /its key_ops do not name "verify"$/],
      [{ keys, algorithms: ["RS256", "EdDSA"] }, /none of RS256, EdDSA fits it$/],
      [{ keys: [small.publicJwk] }, /its modulus has fewer than 2048 bits$/],
      [{ jwksUri: "/jwks.json" }, /jwksUri must be a URL of http or https/],
      [{ jwksUri: "file:///jwks.json" }, /jwksUri must be a URL of http or https/],
      [{ jwksUri: "https://user:word@issuer.example/" }, /without a user or password in it$/],
      [{ jwksUri: new URL(jwksUri) }, /jwksUri must be a URL/],
      [{ jwksUri, jwksMaxAge: 59_999 }, /jwksMaxAge goes with jwksUri and must be at least 60,000 ms$/],
      [{ jwksUri, jwksMaxAge: NaN }, /at least 60,000 ms$/],
      [{ jwksUri, jwksMaxAge: "1h" }, /at least 60,000 ms$/],
      [{ keys, jwksMaxAge: 60_000 }, /jwksMaxAge goes with jwksUri/],
      [{ secret: SECRET, requireExpiry: "false" }, /requireExpiry must be true or false$/],
      [{ secret: SECRET, clockTolerance: -1 }, /clockTolerance must be 0 to 600 seconds$/],
      [{ secret: SECRET, clockTolerance: 5_000 }, /clockTolerance must be 0 to 600 seconds$/],
      [{ secret: SECRET, clockTolerance: NaN }, /0 to 600 seconds$/],
      [{ secret: SECRET, clockTolerance: "5" }, /0 to 600 seconds$/],
    ];
    for (const [options, message] of wrong) {
      assert.throws(() => jwtAuthenticator(options as JwtAuthenticatorOptions), { name: "TypeError", message }, String(message));
    }
    // An undefined option counts as absent.
    const partial: object[] = [{ secret: SECRET, issuer: undefined, keys: undefined }, { keys, algorithms: undefined }];
    for (const options of partial) assert.ok(jwtAuthenticator(options as JwtAuthenticatorOptions));
    assert.ok(jwtAuthenticator({ jwksUri, jwksMaxAge: Infinity }));
  });

  it("ignores later changes of the options object", async () => {
    const options: JwtAuthenticatorOptions = { secret: SECRET, issuer: "i" };
    const configured = jwtAuthenticator(options);
    delete options.issuer;
    const access_token = await signToken({ sub: "ann" });
    assert.equal(await configured({ source: "message", access_token }), null);
  });
});

describe("TokenRefusal", () => {
  it("gives the reason, and quotes the token only cut and escaped", async () => {
    const { publicJwk, signToken: signByKey } = await createKey("ES256", "es");
    const rs = await createKey("RS256", "rs");
    const unimportable = { ...rs.publicJwk, kid: "off", e: undefined };
    const byKey = { keys: [publicJwk, rs.publicJwk, unimportable], issuer: "i", audience: "a" };
    const claims = { sub: "ann", iss: "i", aud: "a", exp };
    const long = "i".repeat(100);
    const refusals: [token: string, options: JwtAuthenticatorOptions, reason: string, message: string][] = [
      ["garbage", byKey, "malformed", "The token is not a JWT"],
      [
        await signToken({ sub: "ann" }),
        { secret: `another ${SECRET}` },
        "signature",
        "The token was signed with another secret, or changed since",
      ],
      [await signToken({ sub: "ann", exp: 1e9 }), { secret: SECRET }, "expired", "The token expired at 2001-09-09T01:46:40.000Z"],
      [await signToken({ sub: "ann", exp: -1e300 }), { secret: SECRET }, "expired", "The token expired at -1e+300 s"],
      [
        await signToken({ sub: "ann", nbf: 32503680000 }),
        { secret: SECRET },
        "not-yet-valid",
        "The token is not valid before 3000-01-01T00:00:00.000Z",
      ],
      [
        await signToken({ sub: "ann", exp: undefined }),
        { secret: SECRET },
        "expiry",
        "The token has no exp, so it would never expire",
      ],
      [await signToken({ sub: "ann", iat: "x" }), { secret: SECRET }, "claim", "The token's iat is not a number"],
      [await signToken({}), { secret: SECRET, userClaim: "id" }, "user", 'The token has no user: its claim "id" is not an id'],
      [
        await signToken({ sub: "ann" }, SECRET, "HS384"),
        { secret: SECRET },
        "algorithm",
        'The token\'s alg is "HS384", not HS256',
      ],
      [await signToken({ sub: "ann" }), byKey, "algorithm", 'The token\'s alg is "HS256", not RS256 or ES256 or EdDSA'],
      [
        await signWithHeader({ alg: "none\u2028\n" }),
        { secret: SECRET },
        "algorithm",
        'The token\'s alg is "none\\u2028\\n", not HS256',
      ],
      [
        await signWithHeader({ alg: "HS256", crit: ["b64"] }),
        { secret: SECRET },
        "critical",
        "The token has critical extensions, of which none is known",
      ],
      [
        await signWithHeader({ alg: "HS256", typ: "at+jwt" }),
        { secret: SECRET },
        "typ",
        'The token\'s typ is "at+jwt", not "JWT"',
      ],
      [await signByKey(claims, { kid: undefined }), byKey, "key", "The token names no key: its header has no kid"],
      [await signByKey(claims, { kid: "é\ud800\u202e" }), byKey, "key", 'There is no key with the kid "\\u00e9\\ud800\\u202e"'],
      [await signByKey(claims, { kid: "rs" }), byKey, "algorithm", 'The key "rs" is not for ES256'],
      [await rs.signToken(claims, { kid: "off" }), byKey, "key", 'The key "off" cannot be imported'],
      [(await signByKey(claims)).slice(0, -8), byKey, "signature", 'The token was not signed by the key "es", or changed since'],
      [await signByKey({ ...claims, iss: long }), byKey, "issuer", `The token's iss is "${long.slice(0, 64)}", not "i"`],
      [await signByKey({ ...claims, iss: undefined }), byKey, "issuer", 'The token\'s iss is absent, not "i"'],
      [await signByKey({ ...claims, iss: { deep: "secret" } }), byKey, "issuer", 'The token\'s iss is of type object, not "i"'],
      [
        await signByKey({ ...claims, aud: ["b", 7, ["a"]] }),
        byKey,
        "audience",
        'The token\'s aud is "b", number, object, not "a"',
      ],
    ];
    for (const [token, options, reason, message] of refusals) {
      const refusal = await refusalOf(token, options);
      assert.deepEqual([refusal.reason, refusal.message, refusal.name], [reason, message, "TokenRefusal"]);
      assert.ok(refusal instanceof Error);
    }
  });

  it("reports other credentials as a missing access token", async () => {
    const causes: unknown[] = [];
    const refuse = (cause: unknown) => (causes.push(cause), null);
    const credentials: Credentials = { source: "message", email: "ann", password: SECRET };
    assert.equal(await jwtAuthenticator({ secret: SECRET })(credentials, HANDSHAKE, refuse), null);
    assert.equal((causes[0] as TokenRefusal).reason, "credentials");
  });

  it("does not fail on claims that nest too deeply to serialize", async () => {
    const nested = (levels: number) => "[".repeat(levels) + "]".repeat(levels);
    const token = await signText(`{"sub":"ann","exp":${exp},"iss":${nested(5_000)},"aud":${nested(5_000)}}`, SECRET);
    assert.equal(await reasonOf(token, { secret: SECRET, issuer: "i" }), "issuer");
    assert.equal(await reasonOf(token, { secret: SECRET, audience: "a" }), "audience");
  });
});

describe("jwtAuthenticator, in a controller", () => {
  /** The `auth.failure` event and the client's reply for a token. */
  async function show(token: string, at: "upgrade" | "message", options: JwtAuthenticatorOptions = { secret: SECRET }) {
    const { controller, request, opened, transports } = createRoute({ authenticate: jwtAuthenticator(options) });
    const failure = new Promise<{ cause?: unknown; error: Error }>((resolve) => controller.on("auth.failure", resolve));
    if (at === "upgrade") {
      const response = await request("/websocket", { authorization: `Bearer ${token}` });
      return { ...await failure, answer: `${response.status} ${await response.text()}` };
    }
    await request("/websocket");
    opened[0]!.message(JSON.stringify({ type: "auth", access_token: token }));
    return { ...await failure, answer: JSON.stringify(transports[0]!.take()) };
  }

  it("passes the cause to auth.failure, and sends the client the same answer each time", async () => {
    const causes = {
      malformed: "token", // Also a word of the message, which must not be redacted for it.
      signature: await signToken({ sub: "ann" }, `another ${SECRET}`),
      expired: await signToken({ sub: "ann", exp: now - 60 }),
      algorithm: await signToken({ sub: "ann" }, SECRET, "HS512"),
      issuer: await signToken({ sub: "ann", iss: "other" }),
      audience: await signToken({ sub: "ann", iss: "i", aud: "other" }),
      user: await signToken({ iss: "i", aud: "a" }),
    };
    for (const at of ["upgrade", "message"] as const) {
      const answers = new Set<string>();
      for (const [reason, token] of Object.entries(causes)) {
        const { cause, answer } = await show(token, at, { secret: SECRET, issuer: "i", audience: "a" });
        assert.equal((cause as TokenRefusal).reason, reason);
        answers.add(answer);
      }
      assert.equal(answers.size, 1);
      const [answer] = [...answers];
      assert.match(
        answer!,
        at === "upgrade" ? /^401 .*"The token is not valid"/ : /"AUTH_FAILED","message":"Authentication failed"/,
      );
    }
  });
});

describe("jwtAuthenticator, with keys", () => {
  it("refuses, and does not fail, when the signature has another length or the key another type", async () => {
    for (const alg of ["ES256", "RS256", "EdDSA"] as const) {
      const { publicJwk: { alg: _, ...publicJwk } } = await createKey(alg, "k");
      for (const named of ["ES256", "RS256", "EdDSA"]) {
        for (const length of [0, 4, 86, 2000]) {
          const token = `${encodePart({ alg: named, typ: "JWT", kid: "k" })}.${encodePart({ sub: "ann" })}.${"A".repeat(length)}`;
          assert.equal(await authenticate(token, { keys: [publicJwk] }), null, `${named} by a key of ${alg}, ${length}`);
        }
      }
    }
  });

  it("accepts a key with the algorithm name Ed25519, as in RFC 9864 and Bun", async () => {
    const { publicJwk, signToken } = await createKey("EdDSA", "ed");
    const keys = [{ ...publicJwk, alg: "Ed25519" }];
    assert.deepEqual(await authenticate(await signToken({ sub: "ann", exp }), { keys }), state("ann", null));
  });

  it("accepts a token of the key that its kid names, with each default algorithm", async () => {
    const made = await Promise.all((["ES256", "RS256", "EdDSA"] as const).map((alg) => createKey(alg, alg)));
    const keys = made.map(({ publicJwk }) => publicJwk);
    for (const key of made) {
      assert.deepEqual(
        await authenticate(await key.signToken({ sub: "ann", role: 1, exp: now + 60 }), { keys }),
        state("ann", "1", now + 65),
      );
    }
  });

  it("verifies with each given algorithm, also when one key serves two", async () => {
    const algorithms = ["ES384", "PS256", "RS256"] as const;
    const made = await Promise.all(algorithms.map((alg) => createKey(alg, alg)));
    const keys = made.map(({ publicJwk: { alg: _, ...publicJwk } }) => publicJwk);
    for (const key of made) {
      assert.ok(await authenticate(await key.signToken({ sub: "ann", exp }), { keys, algorithms: [...algorithms] }));
    }
    // The same bytes are not a valid signature of the other RSA algorithm.
    assert.equal(
      await reasonOf(await made[1]!.signToken({ sub: "ann", exp }, { alg: "RS256" }), { keys, algorithms: [...algorithms] }),
      "signature",
    );
  });

  it("refuses a token whose kid is missing, unknown or that of another key", async () => {
    const [es, other] = await Promise.all([createKey("ES256", "es"), createKey("ES256", "other")]);
    const options = { keys: [es.publicJwk, other.publicJwk] };
    for (const kid of [undefined, "", "unknown", "other", 7, null]) {
      assert.equal(await authenticate(await es.signToken({ sub: "ann", exp }, { kid }), options), null, String(kid));
    }
    assert.deepEqual(await authenticate(await es.signToken({ sub: "ann", exp }), options), state("ann", null));
  });

  it("refuses an algorithm that is not accepted", async () => {
    const [es, es384] = await Promise.all([createKey("ES256", "es"), createKey("ES384", "es384")]);
    const token = await es.signToken({ sub: "ann", exp });
    assert.equal(await reasonOf(token, { keys: [es384.publicJwk], algorithms: ["ES384"] }), "algorithm");
    assert.deepEqual(await authenticate(token, { keys: [es.publicJwk], algorithms: ["ES256"] }), state("ann", null));
  });

  it("refuses a token signed with the public key as an HMAC secret", async () => {
    const { publicJwk } = await createKey("RS256", "rs");
    for (const secret of [JSON.stringify(publicJwk), publicJwk.n!]) {
      const [, payload, signature] = (await signToken({ sub: "ann", exp }, secret)).split(".");
      const token = `${encodePart({ alg: "HS256", typ: "JWT", kid: "rs" })}.${payload}.${signature}`;
      assert.equal(await authenticate(token, { keys: [publicJwk] }), null);
    }
  });

  it("refuses a token that has expired, or has another issuer or audience", async () => {
    const es = await createKey("ES256", "es");
    const options = { keys: [es.publicJwk], issuer: "i", audience: "a" };
    const claims = { sub: "ann", iss: "i", aud: "a", exp };
    assert.notEqual(await authenticate(await es.signToken(claims), options), null);
    for (const wrong of [{ exp: now - 6 }, { iss: "j" }, { aud: "b" }, { sub: undefined }]) {
      assert.equal(await authenticate(await es.signToken({ ...claims, ...wrong }), options), null);
    }
  });
});
