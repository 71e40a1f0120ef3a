import assert from "node:assert/strict";
import { after, describe, it } from "node:test";
import { WebSocketError } from "../../src/protocol/errors.ts";
import { copyPackage } from "../support/second-copy.ts";

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

  it("toMessage answers with code and message when JSON cannot hold the details, and without a uid that is not valid", () => {
    const fails = () => assert.fail("not JSON");
    for (
      const details of [{ n: 1n }, { toJSON: fails, at: { toJSON: fails } }, {
        get at() {
          return fails();
        },
      }]
    ) {
      for (const [uid, answered] of [[undefined, {}], [7, { uid: 7 }], [10n, {}]] as const) {
        const error = new WebSocketError("a", "FORBIDDEN", "No", { details, uid: uid as number });
        const answer = { type: "a", status: "error", error: { code: "FORBIDDEN", message: "No" }, ...answered };
        assert.deepEqual(JSON.parse(error.toMessage()), answer);
      }
    }
    const unreadable = new WebSocketError("a", 404n as never, "No", { uid: 7 }); // A caller without a compiler.
    assert.deepEqual(JSON.parse(unreadable.toMessage()), {
      type: "server",
      status: "error",
      error: { code: "INTERNAL_ERROR", message: "Something went wrong" },
    });
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

  it("withUid replaces a uid that is not valid, with which no client could match the answer", () => {
    const answer = new WebSocketError("a", "FORBIDDEN", "No", { uid: NaN }).withUid("other");
    assert.deepEqual([answer.uid, answer.details, answer.message], ["other", undefined, "No"]);
  });
});

describe("WebSocketError of another copy of the package", () => {
  const copy = copyPackage();
  after(() => copy.remove());

  const other = async () =>
    (await copy.load<typeof import("../../src/protocol/errors.ts")>("src/protocol/errors.ts")).WebSocketError;

  it("is an instance of WebSocketError, as are errors of subclasses there", async () => {
    const Other = await other();
    class OtherNotFound extends Other {}
    assert.notEqual(Other as unknown, WebSocketError);
    for (const Each of [Other, OtherNotFound]) {
      const error: unknown = new Each("join", "NOT_FOUND", "No such room");
      assert.ok(error instanceof WebSocketError, Each.name);
      assert.ok(new WebSocketError("join", "NOT_FOUND", "No such room") instanceof Other, "and the other way round");
    }
  });

  it("is no instance of a subclass, which only its own errors are", async () => {
    class NotFound extends WebSocketError {}
    assert.ok(new NotFound("join", "NOT_FOUND", "No such room") instanceof NotFound);
    for (const Each of [WebSocketError, await other()]) {
      assert.equal(new Each("join", "NOT_FOUND", "No such room") as unknown instanceof NotFound, false);
    }
  });

  it("becomes one of this copy by WebSocketError.from, with the original as its cause", async () => {
    const Other = await other();
    const original = new Other("join", "FULL", "The room is full", { uid: 7, details: { retry_after: 5 }, cause: "secret" });
    const error = WebSocketError.from(original)!;
    assert.equal(Object.getPrototypeOf(error), WebSocketError.prototype);
    assert.deepEqual(error.toJSON(), original.toJSON());
    assert.equal(error.cause, original);
    assert.equal(error.toMessage().includes("secret"), false);
  });

  it("lends WebSocketError.from only what it has checked, whatever version it is of", () => {
    const brand = { [Symbol.for("noroshi.error")]: true };
    const answer = (fields: object) => WebSocketError.from(Object.assign(new Error("No"), brand, fields))?.toJSON();
    const plain = { type: "a", status: "error", error: { code: "FORBIDDEN", message: "No" } };
    assert.deepEqual(answer({ type: "a", code: "FORBIDDEN" }), plain);
    for (const uid of [null, {}, NaN, Infinity, "u".repeat(65), true]) {
      assert.deepEqual(answer({ type: "a", code: "FORBIDDEN", uid }), plain, `uid ${String(uid)}`);
    }
    for (const details of [null, "text", ["list"], 7, () => {}]) {
      assert.deepEqual(answer({ type: "a", code: "FORBIDDEN", details }), plain, `details ${String(details)}`);
    }
    assert.deepEqual(answer({ type: "a", code: "FORBIDDEN", uid: 0, details: { id: 1 } }), {
      ...plain,
      error: { ...plain.error, id: 1 },
      uid: 0,
    });
  });
});

describe("WebSocketError.from", () => {
  it("returns an error of this copy as it is, subclasses included", () => {
    class NotFound extends WebSocketError {}
    for (const Each of [WebSocketError, NotFound]) {
      const error = new Each("join", "NOT_FOUND", "No such room");
      assert.equal(WebSocketError.from(error), error);
    }
  });

  it("is undefined, and nothing is an instance, when a value cannot be read", () => {
    const fails = () => assert.fail("hostile");
    const brand = { [Symbol.for("noroshi.error")]: true };
    const getter = {
      ...brand,
      type: "a",
      code: "FORBIDDEN",
      get message() {
        return fails();
      },
    };
    for (const value of [new Proxy({}, { getPrototypeOf: fails }), new Proxy({}, { has: fails }), getter] as unknown[]) {
      assert.equal(WebSocketError.from(value), undefined);
      assert.equal(value instanceof WebSocketError, false);
    }
  });

  it("is undefined for an error of this copy whose fields were replaced by something unreadable", () => {
    for (const field of ["type", "code", "message"]) {
      const error = new WebSocketError("join", "NOT_FOUND", "No such room");
      Object.defineProperty(error, field, { value: 7 });
      assert.equal(WebSocketError.from(error), undefined, field);
    }
  });

  it("is undefined for anything else, which is no instance either", () => {
    const brand = { [Symbol.for("noroshi.error")]: true };
    const lookalike = { name: "WebSocketError", type: "a", code: "FORBIDDEN", message: "No" };
    const others = [undefined, null, 0, "text", Symbol("s"), {}, [], () => {}, new Error("No"), new TypeError("No"), lookalike];
    const incomplete = [
      brand,
      { ...brand, ...lookalike, type: 1 },
      { ...brand, ...lookalike, code: 404 },
      { ...brand, ...lookalike, message: undefined },
      WebSocketError.prototype,
    ];
    for (const value of [...others, ...incomplete] as unknown[]) {
      assert.equal(WebSocketError.from(value), undefined);
      assert.equal(value !== WebSocketError.prototype && value instanceof WebSocketError, false);
    }
  });
});
