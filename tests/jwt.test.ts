import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { sign } from "hono/jwt";
import type { AuthenticationState, Credentials } from "../src/authentication.ts";
import { jwtAuthenticator, type JwtAuthenticatorOptions, type SymmetricAlgorithm } from "../src/jwt.ts";
import { HANDSHAKE } from "./fake-transport.ts";
import { createKey, encodePart } from "./jwt-keys.ts";

const SECRET = "a secret of the tests";
const now = Math.floor(Date.now() / 1000);

/** A token with any claims, right ones or not. */
const signToken = (claims: object, secret = SECRET, algorithm: SymmetricAlgorithm = "HS256") =>
  sign({ ...claims }, secret, algorithm);

/** What the authenticator says of a token. */
function authenticate(token: string, options: JwtAuthenticatorOptions = { secret: SECRET }) {
  return Promise.resolve(jwtAuthenticator(options)({ source: "message", access_token: token }, HANDSHAKE));
}

const state = (user: string, role: string | null, expires_at: number | null): AuthenticationState => ({
  accountability: { user, role },
  expires_at,
});

describe("jwtAuthenticator, with a secret", () => {
  it("accepts a token and reads user, role and expiry", async () => {
    const token = await signToken({ sub: "ann", role: "editor", exp: now + 600, iat: now, nbf: now, other: "claim" });
    assert.deepEqual(await authenticate(token), state("ann", "editor", now + 600));
    assert.deepEqual(await authenticate(await signToken({ sub: "ann" })), state("ann", null, null));
  });

  it("refuses a token that has expired, is not valid yet or was made in the future", async () => {
    for (const claims of [{ exp: now - 1 }, { exp: 0 }, { exp: "never" }, { nbf: now + 600 }, { iat: now + 600 }]) {
      assert.equal(await authenticate(await signToken({ sub: "ann", ...claims })), null, JSON.stringify(claims));
    }
  });

  it("refuses a token of another secret, and one that was changed", async () => {
    assert.equal(await authenticate(await signToken({ sub: "ann" }, "another secret")), null);
    const [header, , signature] = (await signToken({ sub: "ann" })).split(".");
    assert.equal(await authenticate(`${header}.${encodePart({ sub: "root" })}.${signature}`), null);
    assert.equal(await authenticate(`${header}.${encodePart({ sub: "ann" })}.`), null);
  });

  it("refuses every algorithm but the one that was chosen, none above all", async () => {
    const algorithms = ["HS256", "HS384", "HS512"] as const;
    for (const chosen of algorithms) {
      for (const used of algorithms) {
        const result = await authenticate(await signToken({ sub: "ann" }, SECRET, used), { secret: SECRET, algorithm: chosen });
        assert.deepEqual(result, used === chosen ? state("ann", null, null) : null, `${used} for ${chosen}`);
      }
    }
    for (const alg of ["none", "None", "NONE", "", "hs256", null, undefined]) {
      for (const signature of ["", "x"]) {
        assert.equal(await authenticate(`${encodePart({ alg, typ: "JWT" })}.${encodePart({ sub: "ann" })}.${signature}`), null);
      }
    }
    assert.equal(await authenticate(await signToken({ sub: "ann" }, SECRET, "HS384")), null, "HS256 is the default");
  });

  it("refuses what is no token at all", async () => {
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

  it("refuses, and does not fail, when an unsigned token holds what is no object", async () => {
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
    // Nothing listens at this address: such a token is refused before the key server is asked.
    const options = { jwksUri: "http://127.0.0.1:1/" };
    for (const [header, payload] of [[good, null], [good, 7], [null, {}], ["x", {}]]) {
      assert.equal(await authenticate(`${encodePart(header)}.${encodePart(payload)}.AAAA`, options), null);
    }
  });

  it("refuses a token without a user, for it says nothing about who came", async () => {
    for (const sub of [undefined, null, "", 1.5, 2 ** 53, true, ["ann"], { id: "ann" }]) {
      assert.equal(await authenticate(await signToken({ sub, role: "editor" })), null, JSON.stringify(sub));
    }
  });

  it('makes a number its decimal string, so that 1 and "1" are one user', async () => {
    for (const id of [7, 0, -1]) {
      assert.deepEqual(await authenticate(await signToken({ sub: id, role: id })), state(String(id), String(id), null));
    }
  });

  it("has no role when the claim is none", async () => {
    for (const role of [null, "", 1.5, ["editor"], {}]) {
      assert.deepEqual(await authenticate(await signToken({ sub: "ann", role })), state("ann", null, null));
    }
  });

  it("reads user and role from the claims it is told", async () => {
    const token = await signToken({ id: "ann", sub: "other", scope: "editor", role: "other" });
    assert.deepEqual(
      await authenticate(token, { secret: SECRET, userClaim: "id", roleClaim: "scope" }),
      state("ann", "editor", null),
    );
    assert.equal(await authenticate(token, { secret: SECRET, userClaim: "missing" }), null);
    assert.equal(await authenticate(token, { secret: SECRET, userClaim: "toString" }), null);
  });

  it("asks for the issuer and the audience when they are given", async () => {
    const options = { secret: SECRET, issuer: "https://issuer.example", audience: "noroshi" };
    const claims = { sub: "ann", iss: options.issuer, aud: options.audience };
    assert.deepEqual(await authenticate(await signToken(claims), options), state("ann", null, null));
    assert.deepEqual(
      await authenticate(await signToken({ ...claims, aud: ["a", "noroshi"] }), options),
      state("ann", null, null),
    );
    for (
      const wrong of [{ iss: undefined }, { iss: "https://issuer.example.org" }, { aud: undefined }, { aud: "noroshi2" }, {
        aud: ["a"],
      }, { aud: [] }]
    ) {
      assert.equal(await authenticate(await signToken({ ...claims, ...wrong }), options), null, JSON.stringify(wrong));
    }
  });

  it("refuses credentials that are no access token", async () => {
    const kinds: Credentials[] = [
      { source: "message", refresh_token: await signToken({ sub: "ann" }) },
      { source: "message", email: "ann", password: SECRET },
    ];
    for (const credentials of kinds) assert.equal(await jwtAuthenticator({ secret: SECRET })(credentials, HANDSHAKE), null);
  });

  it("throws TypeError when there is no key, an empty one or more than one", () => {
    const keys = [{ kty: "RSA" }];
    for (const options of [{}, { secret: "" }, { jwksUri: "" }, { secret: "a", keys }, { keys, jwksUri: "http://localhost" }]) {
      assert.throws(() => jwtAuthenticator(options), {
        name: "TypeError",
        message: "Cannot verify tokens: pass exactly one of secret, keys and jwksUri, and not an empty one",
      });
    }
  });
});

describe("jwtAuthenticator, without an issuer or audience", () => {
  it("throws TypeError when one is empty, for it would accept any", () => {
    for (const options of [{ issuer: "" }, { audience: "" }, { issuer: "", audience: "a" }]) {
      assert.throws(() => jwtAuthenticator({ secret: SECRET, ...options }), {
        name: "TypeError",
        message: "Cannot verify tokens: issuer and audience must not be empty, leave them out to accept any",
      });
    }
  });
});

describe("jwtAuthenticator, with keys", () => {
  it("refuses, and does not fail, when the signature is of another length or the key of another kind", async () => {
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

  it("takes a key whose algorithm is named Ed25519, as RFC 9864 and Bun have it", async () => {
    const { publicJwk, signToken } = await createKey("EdDSA", "ed");
    const keys = [{ ...publicJwk, alg: "Ed25519" }];
    assert.deepEqual(await authenticate(await signToken({ sub: "ann" }), { keys }), state("ann", null, null));
  });

  it("accepts a token of the key that its kid names, of each default algorithm", async () => {
    const made = await Promise.all([createKey("ES256", "es"), createKey("RS256", "rs"), createKey("EdDSA", "ed")]);
    const keys = made.map(({ publicJwk }) => publicJwk);
    for (const key of made) {
      assert.deepEqual(
        await authenticate(await key.signToken({ sub: "ann", role: 1, exp: now + 60 }), { keys }),
        state("ann", "1", now + 60),
      );
    }
  });

  it("refuses a token whose kid is missing, unknown or another key's", async () => {
    const [es, other] = await Promise.all([createKey("ES256", "es"), createKey("ES256", "other")]);
    const options = { keys: [es.publicJwk, other.publicJwk] };
    for (const kid of [undefined, "", "unknown", "other", 7, null]) {
      assert.equal(await authenticate(await es.signToken({ sub: "ann" }, { kid }), options), null, String(kid));
    }
    assert.deepEqual(await authenticate(await es.signToken({ sub: "ann" }), options), state("ann", null, null));
  });

  it("refuses an algorithm that is not among those accepted", async () => {
    const es = await createKey("ES256", "es");
    const token = await es.signToken({ sub: "ann" });
    assert.equal(await authenticate(token, { keys: [es.publicJwk], algorithms: ["RS256"] }), null);
    assert.deepEqual(await authenticate(token, { keys: [es.publicJwk], algorithms: ["ES256"] }), state("ann", null, null));
  });

  it("refuses a token that was made with the public key as a secret", async () => {
    const { publicJwk } = await createKey("RS256", "rs");
    for (const secret of [JSON.stringify(publicJwk), publicJwk.n!]) {
      const [, payload, signature] = (await signToken({ sub: "ann" }, secret)).split(".");
      const token = `${encodePart({ alg: "HS256", typ: "JWT", kid: "rs" })}.${payload}.${signature}`;
      assert.equal(await authenticate(token, { keys: [publicJwk] }), null);
      // Not even when the application lists it against its type.
      assert.equal(await authenticate(token, { keys: [publicJwk], algorithms: ["HS256" as never] }), null);
    }
  });

  it("refuses a token that has expired or is for somebody else", async () => {
    const es = await createKey("ES256", "es");
    const options = { keys: [es.publicJwk], issuer: "i", audience: "a" };
    const claims = { sub: "ann", iss: "i", aud: "a" };
    assert.notEqual(await authenticate(await es.signToken(claims), options), null);
    for (const wrong of [{ exp: now - 1 }, { iss: "j" }, { aud: "b" }, { sub: undefined }]) {
      assert.equal(await authenticate(await es.signToken({ ...claims, ...wrong }), options), null);
    }
  });
});
