import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { isDevelopment } from "../../src/base/environment.ts";
import { withGlobals } from "../support/globals.ts";

/** What the process has in its environment, or nothing where there is no process. */
const environment = (env: object | undefined, Deno?: object) => withGlobals({ Deno, process: env && { env } }, isDevelopment);

/** A Deno that answers so when it is asked for the permission. */
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
    for (const Deno of [undefined, deno("granted")]) {
      assert.equal(environment({ NODE_ENV: "production" }, Deno), false);
      for (const env of [{ NODE_ENV: "development" }, { NODE_ENV: "" }, {}]) assert.equal(environment(env, Deno), true);
    }
  });

  it("is false where NODE_ENV cannot be read: Deno would ask the user, and a Worker may have no process", () => {
    for (const state of ["prompt", "denied"]) assert.equal(environment({}, deno(state)), false, state);
    assert.equal(environment(undefined), false);
  });
});
