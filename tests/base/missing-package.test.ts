import assert from "node:assert/strict";
import process from "node:process";
import { describe, it } from "node:test";
import { missingPackage } from "../../src/base/missing-package.ts";

const runtime = "Deno" in globalThis ? "deno" : "Bun" in globalThis ? "bun" : "node";

/** What the error says where a package manager has started the script. */
function said(agent: string | undefined, error: unknown = new Error("Cannot find package 'ws' imported from here")): string {
  const before = process.env["npm_config_user_agent"];
  if (agent === undefined) delete process.env["npm_config_user_agent"];
  else process.env["npm_config_user_agent"] = agent;
  try {
    return (missingPackage("serve", ["ws", "@hono/node-server"], error) as Error).message;
  } finally {
    if (before === undefined) delete process.env["npm_config_user_agent"];
    else process.env["npm_config_user_agent"] = before;
  }
}

describe("missingPackage", () => {
  it(
    "names the packages, and the command of the package manager that is in use",
    { skip: runtime !== "node" && "Node's" },
    () => {
      const of = (remedy: string) => `Cannot serve: the package ws is not installed, ${remedy} ws @hono/node-server`;
      assert.equal(said("npm/11.2.0 node/v24.1.0 linux x64"), of("run npm install"));
      assert.equal(said("pnpm/10.1.0 npm/? node/v24.1.0 linux x64"), of("run pnpm add"));
      assert.equal(said("yarn/4.5.0 npm/? node/v24.1.0 linux x64"), of("run yarn add"));
      for (const agent of [undefined, "", "vlt/1.0.0", "rm -rf/1.0.0"]) assert.equal(said(agent), of("install"));
    },
  );

  it("names the command of Bun and Deno there", { skip: runtime === "node" && "Not Node's" }, () => {
    const command = runtime === "deno" ? "run deno add npm:ws npm:@hono/node-server" : "run bun add ws @hono/node-server";
    assert.equal(said("npm/11.2.0"), `Cannot serve: the package ws is not installed, ${command}`);
  });

  it("says when a package has another version, and returns any other error as it is", () => {
    assert.match(
      said(undefined, new SyntaxError("'ws' does not export it")),
      /the package ws has another version than Noroshi needs/,
    );
    const other = new Error("Cannot find package 'else'");
    assert.equal(missingPackage("serve", ["ws"], other), other);
  });
});
