import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { missingPackage } from "../../src/base/missing-package.ts";
import { withGlobals } from "../support/globals.ts";

// The global of Bun can be neither hidden nor replaced.
const isBun = "Bun" in globalThis;

const missing = new Error("Cannot find package 'ws' imported from here");

/** The message of the error on a runtime with these globals. */
const said = (globals: object, error: unknown = missing): string =>
  withGlobals(
    { Deno: undefined, process: undefined, ...globals },
    () => (missingPackage("serve", ["ws", "@hono/node-server"], error) as Error).message,
  );

/** Node, where a package manager has started the script. */
const node = (agent?: string) => ({ process: { env: { npm_config_user_agent: agent } } });

describe("missingPackage", () => {
  it("names the packages, and the command of the package manager that is in use", {
    skip: isBun && "Bun's global cannot be hidden",
  }, () => {
    const of = (remedy: string) => `Cannot serve: the package ws is not installed, ${remedy} ws @hono/node-server`;
    assert.equal(said(node("npm/11.2.0 node/v24.1.0 linux x64")), of("run npm install"));
    assert.equal(said(node("pnpm/10.1.0 npm/? node/v24.1.0 linux x64")), of("run pnpm add"));
    assert.equal(said(node("yarn/4.5.0 npm/? node/v24.1.0 linux x64")), of("run yarn add"));
    for (const agent of [undefined, "", "vlt/1.0.0", "rm -rf/1.0.0"]) assert.equal(said(node(agent)), of("install"));
    assert.equal(said({}), of("install"));
  });

  it("names the command of Bun and Deno there, whichever package manager has started the script", () => {
    const of = (remedy: string) => `Cannot serve: the package ws is not installed, run ${remedy}`;
    assert.equal(said({ ...node("npm/11.2.0"), ...(!isBun && { Bun: {} }) }), of("bun add ws @hono/node-server"));
    assert.equal(said({ ...node("npm/11.2.0"), Deno: {} }), of("deno add npm:ws npm:@hono/node-server"));
  });

  it("finds the package in the words of each runtime, and not another whose name begins alike", () => {
    for (const name of ["'ws'", '"ws"', '"npm:ws@^8.23.0"']) {
      assert.match(said({}, new Error(`Cannot find ${name}`)), /the package ws is not installed/);
    }
    assert.match(said({}, new Error("Cannot find package '@hono/node-server'")), /the package @hono\/node-server is not/);
    for (const name of ["'wss'", "'else'", "ws"]) {
      const other = new Error(`Cannot find package ${name}`);
      assert.equal(missingPackage("serve", ["ws"], other), other);
    }
  });

  it("says when a package has another version, and keeps the error as the cause", () => {
    const error = new SyntaxError("'ws' does not export it");
    assert.match(said({}, error), /the package ws has another version than Noroshi needs/);
    assert.equal((missingPackage("serve", ["ws"], error) as Error).cause, error);
  });
});
