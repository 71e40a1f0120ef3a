import assert from "node:assert/strict";
import * as nodeCrypto from "node:crypto";
import { describe, it } from "node:test";
import { type NodeCrypto, signingKey } from "../../src/engines/broker/signature.ts";

const SECRET = "sixteen or more ✓";
const TEXTS = ["", "{}", "狼煙\n\u0000", "half a \ud83d pair", "x".repeat(100_000)];

/** Without `node:crypto`: with `undefined` the key would look for it. */
const none = null as unknown as undefined;

describe("signingKey", () => {
  it("creates the same signature with node:crypto and with WebCrypto, and each verifies the other's", async () => {
    const [node, web] = [signingKey(SECRET, nodeCrypto), signingKey(SECRET, none)];
    for (const text of TEXTS) {
      const signature = await web.sign(text);
      assert.match(signature, /^[0-9a-f]{64}$/);
      assert.equal(node.sign(text), signature);
      assert.equal(node.verify(signature, text), true);
      assert.equal(await web.verify(signature, text), true);
    }
  });

  it("refuses a signature of another text or secret, or a truncated one, with both", async () => {
    for (const crypto of [nodeCrypto as NodeCrypto, none]) {
      const key = signingKey(SECRET, crypto);
      const signature = await key.sign("text");
      assert.equal(await key.verify(signature, "Text"), false);
      assert.equal(await signingKey("another secret ✓", crypto).verify(signature, "text"), false);
      assert.equal(await key.verify(signature.slice(0, 62), "text"), false);
      assert.equal(await key.verify("", "text"), false);
    }
  });

  it("signs synchronously when the runtime has node:crypto", () => {
    assert.equal(typeof signingKey(SECRET).sign("text"), "string");
  });
});
