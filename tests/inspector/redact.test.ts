import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { redact, redactUrl } from "../../src/inspector/redact.ts";

describe("redact", () => {
  it("hides the values of fields whose names are those of secrets", () => {
    const names =
      "password newPassword client_secret access_token authorization Cookie credentials apiKey api-key x-api-key API_KEY " +
      "privateKey sessionId jwt bearer signature x-signature auth x-auth auth_code otp pin";
    for (const name of names.split(" ")) assert.deepEqual(redact({ [name]: "s3cret" }), { [name]: "•••" }, name);
    for (const name of ["author", "text", "key", "position"]) assert.deepEqual(redact({ [name]: "x" }), { [name]: "x" }, name);
  });
});

describe("redactUrl", () => {
  it("shows the path and the names in the query", () => {
    assert.equal(redactUrl("wss://user:pass@example.com/websocket"), "/websocket");
    assert.equal(
      redactUrl("wss://example.com/a%20b?ticket=SECRET&room=1&room=2&a%26b=3"),
      "/a%20b?ticket=•••&room=•••&a%26b=•••",
    );
    assert.doesNotMatch(redactUrl(`wss://example.com/?${"x".repeat(5_000)}=SECRET`), /.{600}|SECRET/);
  });
});
