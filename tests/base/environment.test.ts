import assert from "node:assert/strict";
import process from "node:process";
import { describe, it } from "node:test";
import { isDevelopment } from "../../src/base/environment.ts";

/** The answer where `globalThis` has this value by the name. */
function where(name: "Deno" | "process", value: unknown): boolean {
  const before = Object.getOwnPropertyDescriptor(globalThis, name);
  Object.defineProperty(globalThis, name, { configurable: true, value });
  try {
    return isDevelopment();
  } finally {
    Reflect.deleteProperty(globalThis, name);
    if (before) Object.defineProperty(globalThis, name, before);
  }
}

/** A Deno whose answer to the question for this permission is given. */
const deno = (state: string) => ({
  permissions: {
    querySync: (query: object) => {
      assert.deepEqual(query, { name: "env", variable: "NODE_ENV" });
      return { state };
    },
  },
});

describe("isDevelopment", () => {
  it("is whether NODE_ENV is anything but production", () => {
    const before = process.env["NODE_ENV"];
    try {
      for (const [value, answer] of [["production", false], ["development", true], ["", true]] as const) {
        process.env["NODE_ENV"] = value;
        assert.equal(isDevelopment(), answer, value);
        // Deno's own process.env is not to be read through another Deno.
        if (!("Deno" in globalThis)) assert.equal(where("Deno", deno("granted")), answer, value);
      }
      delete process.env["NODE_ENV"];
      assert.equal(isDevelopment(), true);
    } finally {
      if (before === undefined) delete process.env["NODE_ENV"];
      else process.env["NODE_ENV"] = before;
    }
  });

  it("is false where NODE_ENV cannot be read: Deno would ask the user, and a Worker may have no process", () => {
    for (const state of ["prompt", "denied"]) assert.equal(where("Deno", deno(state)), false, state);
    assert.equal(where("process", undefined), false);
  });
});
