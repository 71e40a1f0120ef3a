import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { readTarget } from "../../src/controller/upgrade-request.ts";
import { assertProperty } from "../support/property.ts";

/** What the URL parser of the platform makes of it. */
function parsed(text: string): ReturnType<typeof readTarget> {
  if (!URL.canParse(text)) return null;
  const url = new URL(text);
  const tokens = url.searchParams.getAll("access_token");
  if (tokens.length > 0) url.searchParams.delete("access_token");
  return { url: url.href, tokens };
}

describe("readTarget", () => {
  it("finds what the URL parser of the platform finds, without parsing plain URLs", () => {
    const origins = [
      "http://a",
      "https://a.example",
      "http://127.0.0.1:3000",
      "http://A",
      "http://a:80",
      "http://a:99999",
      "http://[::1]:1",
    ]
      .concat("http://1.2.3.999", "http://user:password@a", "http://xn--a", "ws://a");
    const paths = ["", "/", "/websocket", "/a/./b", "/a/../b", "/a//b", "/%2e%2e/a", "/a b", "/.a", "/a#b", "/ä"];
    const names = ["access_token", "%61ccess_token", "x", "access_tokens", "Access_Token", "a.b"];
    const values = ["", "eyJ.a-b_c", "a+b", "%20", "a=b", "/", "ü", "#", "u1:many", "YQ==", "a'b", "@;,*$!"];
    const pair = fc.oneof(
      fc.tuple(fc.constantFrom(...names), fc.constantFrom(...values)).map(([name, value]) => `${name}=${value}`),
      fc.constantFrom(...names, ""),
    );
    const query = fc.array(pair, { maxLength: 3 }).map((pairs) => pairs.length > 0 ? `?${pairs.join("&")}` : "");
    const url = fc.tuple(fc.constantFrom(...origins), fc.constantFrom(...paths), query).map((parts) => parts.join(""));
    assertProperty(fc.property(url, (text) => assert.deepEqual(readTarget(text), parsed(text), text)), { numRuns: 3_000 });
  });
});
