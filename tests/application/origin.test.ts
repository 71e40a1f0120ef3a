import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { isAllowedOrigin, isOriginPattern, type Origins } from "../../src/application/origin.ts";
import { assertProperty } from "../support/property.ts";

const HOST = "app.example.com";
const LISTED = ["https://other.example.org", "http://localhost:8080", "https://*.example.net", "https://*.ports.example:8443"];

describe("isAllowedOrigin", () => {
  it("allows pages of the request's own host, in either scheme, and listed origins", () => {
    for (
      const [origin, host] of [
        ["https://app.example.com", HOST],
        ["http://app.example.com", HOST], // A proxy may have terminated TLS, so the scheme is ignored.
        ["http://app.example.com:3000", "app.example.com:3000"],
        ["http://[::1]:3000", "[::1]:3000"],
        ["https://other.example.org", HOST],
        ["http://localhost:8080", HOST],
        ["https://a.example.net", HOST],
        ["https://a.b-c.example.net", HOST],
        ["https://a.ports.example:8443", HOST],
        // nginx's `$host:$server_port`.
        ["https://app.example.com", "app.example.com:443"],
        ["http://app.example.com", "app.example.com:80"],
        ["https://app.example.com:8443", "app.example.com:8443"],
        ["https://[::1]", "[::1]:443"],
      ] as const
    ) {
      assert.equal(isAllowedOrigin(origin, host, LISTED), true, origin);
    }
  });

  it("refuses every other origin, however similar", () => {
    for (
      const origin of [
        "",
        "null",
        "app.example.com",
        "//app.example.com",
        "https://app.example.com/",
        "https://app.example.com?",
        "https://app.example.com#",
        "https://APP.example.com",
        "HTTPS://app.example.com",
        " https://app.example.com",
        "https://app.example.com:443", // A browser omits the scheme's default port.
        "https://app.example.com:3000",
        "https://app.example.com.",
        "https://app.example.com.evil.org",
        "https://evil-app.example.com",
        "https://evil.app.example.com",
        "https://evil.org/app.example.com",
        "https://evil.org#app.example.com",
        "https://app.example.com@evil.org",
        "https://ann@app.example.com",
        "https://app.example.com, https://evil.org",
        "https://app.example.com,https://app.example.com",
        "https://evil.org https://app.example.com",
        "http://other.example.org",
        "https://other.example.org:8443",
        "https://a.other.example.org",
        "http://localhost",
        "https://localhost:8080",
        "https://example.net",
        "http://a.example.net",
        "https://a.example.net:8443",
        "https://aexample.net",
        "https://a.example.net.evil.org",
        "https://evil.org?.example.net",
        "https://*.example.net.evil.org",
        "https://a.ports.example",
        "https://evil.org,a.example.net",
        "https://*.example.net",
        "file://",
        "data:text/html,x",
        "blob:https://app.example.com",
        "chrome-extension://app.example.com",
        "https://",
        "https://[",
      ]
    ) {
      assert.equal(isAllowedOrigin(origin, HOST, LISTED), false, origin);
      assert.equal(isAllowedOrigin(origin, HOST, "*"), true, `${origin}, when every page may`);
    }
  });

  it("refuses a port other than the scheme's own, and an invalid Host", () => {
    for (
      const [origin, host] of [
        ["https://app.example.com", "app.example.com:80"],
        ["http://app.example.com", "app.example.com:443"],
        ["https://app.example.com", "app.example.com:8443"],
        ["https://app.example.com:8443", "app.example.com:443"],
        ["https://app.example.com", ""],
        ["https://app.example.com", "ann@app.example.com"],
        ["https://app.example.com", "app.example.com/"],
        ["https://app.example.com", "app.example.com, evil.org"],
        ["https://app.example.com", "app.example.com#"],
        ["https://app.example.com", "app.example.com\\"],
      ] as const
    ) {
      assert.equal(isAllowedOrigin(origin, host, []), false, `${origin} at ${host}`);
    }
  });

  it("allows an app with its own scheme only when exactly that origin is listed", () => {
    const listed = [
      "tauri://localhost",
      "capacitor://localhost",
      "chrome-extension://aapbdbdomjkkjkaonfhkkikfgjllcleb",
      "file://",
    ];
    for (const origin of [...listed, "app://-", "ionic://localhost:8080", "safari-web-extension://0A1B2C3D-0000"]) {
      assert.equal(isAllowedOrigin(origin, HOST, [...listed, "app://-", "ionic://localhost:8080", origin]), true, origin);
      assert.equal(isAllowedOrigin(origin, "localhost", []), false, `${origin}, which is not listed`);
      assert.equal(isAllowedOrigin(`${origin}x`, HOST, listed), false, `${origin}x`);
    }
    for (const origin of ["TAURI://localhost", "tauri://localhost/", "tauri://localhost.evil.org", "https://localhost", "null"]) {
      assert.equal(isAllowedOrigin(origin, HOST, listed), false, origin);
    }
  });

  it("allows only the request's own host without a list", () => {
    assert.equal(isAllowedOrigin("https://app.example.com", HOST, []), true);
    assert.equal(isAllowedOrigin("https://other.example.org", HOST, []), false);
  });

  it("allows no more than a naive comparison, for any mix of valid-looking parts", () => {
    const part = fc.constantFrom(
      ..."https:// http:// ws:// HTTPS:// app.example.com other.example.org example.net a. b. . .. * : :443 :80 :8443 @ / ? # , evil.org %2e null"
        .split(" "),
    );
    const origin = fc.oneof(
      fc.string(),
      fc.webUrl(),
      fc.array(part, { minLength: 1, maxLength: 7 }).map((parts) => parts.join("")),
    );
    const naive = (value: string) =>
      ["https://app.example.com", "http://app.example.com", ...LISTED.filter((listed) => !listed.includes("*"))].includes(
        value,
      ) ||
      /^https:\/\/[a-z0-9._-]+\.example\.net$/.test(value) || /^https:\/\/[a-z0-9._-]+\.ports\.example:8443$/.test(value) ||
      value === "https://.example.net" || value === "https://.ports.example:8443" || value === "ws://app.example.com";
    assertProperty(
      fc.property(origin, (value) => assert.ok(!isAllowedOrigin(value, HOST, LISTED) || naive(value), value)),
      { numRuns: 5000 },
    );
  });

  it("never throws, whatever the header and the list contain", () => {
    const patterns = fc.array(
      fc.webUrl({ validSchemes: ["http", "https"], withFragments: false }).map((url) => new URL(url).origin),
    );
    assertProperty(
      fc.property(fc.string(), fc.string(), patterns.filter((list) => list.every(isOriginPattern)), (origin, host, origins) => {
        assert.equal(typeof isAllowedOrigin(origin, host, origins as Origins), "boolean");
        for (const listed of origins) assert.equal(isAllowedOrigin(listed, host, origins), true, listed);
      }),
    );
  });
});

describe("isOriginPattern", () => {
  it("accepts an origin, or one with *. before its host, and nothing else", () => {
    for (
      const value of [
        "https://a.example",
        "http://a",
        "https://a:1",
        "https://*.a.example:65535",
        "http://127.0.0.1",
        "http://[::1]:80",
        "tauri://localhost",
        "chrome-extension://aapbdbdomjkkjkaonfhkkikfgjllcleb",
        "safari-web-extension://0A1B2C3D-0000",
        "ionic://localhost:8080",
        "file://",
      ]
    ) {
      assert.equal(isOriginPattern(value), true, value);
    }
    const wrong = [
      "",
      "*",
      "a.example",
      "https://",
      "https://*",
      "https://*.",
      "https://a.*",
      "https://*a.example",
      "https://a/",
      "https://a?",
      "https://A",
      "wss://a",
      "tauri://",
      "tauri://*.localhost",
      "tauri://localhost/",
      "TAURI://localhost",
      "javascript://a",
      "data://a",
      "http://",
      "null",
      "https://a b",
      "https://a\n",
      "https://a:",
      "https://a:123456",
      "https://*.*.a",
      null,
      1,
      ["https://a"],
      undefined,
    ];
    for (const value of wrong) assert.equal(isOriginPattern(value), false, String(value));
  });
});

describe("isOriginPattern, for text that only looks like an origin", () => {
  for (const pattern of ["https://a:99999", "https://256.1.1.1", "https://[:::]"]) {
    it(`refuses ${pattern}, which is not a URL`, () => assert.equal(isOriginPattern(pattern), false));
  }
});
