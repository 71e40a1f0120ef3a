import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { WebSocketError } from "../src/errors.ts";

describe("WebSocketError", () => {
  it("is an Error with type, code and message", () => {
    const error = new WebSocketError("join", "NOT_FOUND", "No such room");
    assert.ok(error instanceof Error);
    assert.equal(error.name, "WebSocketError");
    assert.deepEqual([error.type, error.code, error.message], ["join", "NOT_FOUND", "No such room"]);
    assert.equal(error.uid, undefined);
    assert.equal(error.details, undefined);
  });

  it("has a cause only when one was given", () => {
    assert.equal("cause" in new WebSocketError("server", "INTERNAL_ERROR", "Broken"), false);
    const cause = new Error("disk full");
    assert.equal(new WebSocketError("server", "INTERNAL_ERROR", "Broken", { cause }).cause, cause);
  });

  it("toJSON keeps stack and cause to itself", () => {
    const error = new WebSocketError("server", "INTERNAL_ERROR", "Broken", { cause: new Error("secret detail") });
    assert.deepEqual(error.toJSON(), {
      type: "server",
      status: "error",
      error: { code: "INTERNAL_ERROR", message: "Broken" },
    });
    assert.equal(error.toMessage().includes("secret"), false);
  });

  it("toJSON puts details beside code and message, which they cannot replace", () => {
    const details = { retry_after: 500, code: "OTHER", message: "other" };
    const { error } = new WebSocketError("server", "REQUESTS_EXCEEDED", "Too many", { details }).toJSON();
    assert.deepEqual(error, { retry_after: 500, code: "REQUESTS_EXCEEDED", message: "Too many" });
  });

  it("toJSON echoes the uid with its JSON type when there is one", () => {
    for (const uid of ["7", 7, 0, "", -1.5]) {
      assert.equal(new WebSocketError("a", "FORBIDDEN", "No", { uid }).toJSON().uid, uid);
    }
    assert.equal("uid" in new WebSocketError("a", "FORBIDDEN", "No").toJSON(), false);
  });

  it("toMessage is the text of toJSON", () => {
    const error = new WebSocketError("a", "FORBIDDEN", "No", { uid: 1, details: { id: 7 } });
    assert.deepEqual(JSON.parse(error.toMessage()), error.toJSON());
  });

  it("withUid is the same error for that request when it had no uid", () => {
    const cause = new Error("why");
    const error = new WebSocketError("a", "FORBIDDEN", "No", { cause, details: { id: 7 } });
    const answer = error.withUid(0);
    assert.ok(answer instanceof WebSocketError);
    assert.deepEqual(answer.toJSON(), { type: "a", status: "error", error: { id: 7, code: "FORBIDDEN", message: "No" }, uid: 0 });
    assert.equal(answer.cause, cause);
    assert.equal(error.uid, undefined, "the error itself may answer another request");
  });

  it("withUid changes nothing when the error has a uid or the request has none", () => {
    const named = new WebSocketError("a", "FORBIDDEN", "No", { uid: "mine" });
    assert.equal(named.withUid("other"), named);
    const unnamed = new WebSocketError("a", "FORBIDDEN", "No");
    assert.equal(unnamed.withUid(undefined), unnamed);
  });
});
