import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import { addressKey, normalizeAddress } from "../../src/base/address.ts";
import { assertProperty } from "../support/property.ts";

describe("normalizeAddress", () => {
  const cases: Record<string, string[]> = {
    "203.0.113.7": [
      "203.0.113.7",
      " 203.0.113.7 ",
      "203.0.113.7:1",
      "203.0.113.7:65535",
      "[203.0.113.7]:80",
      "::ffff:203.0.113.7",
      "::FFFF:203.0.113.7",
      "::ffff:cb00:7107",
      "0:0:0:0:0:ffff:cb00:7107",
      "0000:0000:0000:0000:0000:ffff:203.0.113.7",
      "[::ffff:203.0.113.7]:443",
      "64:ff9b::203.0.113.7",
      "64:ff9b::cb00:7107",
    ],
    "2001:db8::1": [
      "2001:db8::1",
      "2001:DB8::1",
      "2001:0db8:0000:0000:0000:0000:0000:0001",
      "2001:db8:0:0::1",
      "[2001:db8::1]",
      "[2001:db8::1]:443",
      "2001:db8::1%eth0",
    ],
    "fe80::1": ["fe80::1%eth0", "fe80::1%2", "[fe80::1%eth0]:80"],
    "::1": ["::1", "[::1]:3000", "0:0:0:0:0:0:0:1"],
    "::": ["::", "0::0", "0:0:0::0:0.0.0.0"],
    "127.0.0.1": ["127.0.0.1", "::ffff:127.0.0.1", "::ffff:7f00:1"],
  };
  for (const [address, spellings] of Object.entries(cases)) {
    it(`normalizes ${spellings.length} spellings of ${address}`, () => {
      for (const spelling of spellings) assert.equal(normalizeAddress(spelling), address, spelling);
    });
  }

  it("returns null for text that is not an IP address", () => {
    const wrong = [
      "",
      " ",
      "unknown",
      "_hidden",
      "unix:",
      "localhost",
      "example.com",
      "203.0.113",
      "203.0.113.256",
      "010.1.1.1",
      "01.1.1.1",
      "1.1.1.1.1",
    ];
    const odd = [
      "203.0.113.7:",
      "203.0.113.7:x",
      "1.1.1.1:123456",
      "[2001:db8::1",
      "2001:db8::1]",
      "[2001:db8::1]x",
      "2001:db8::1::2",
      ":",
      "1:2",
      "::1]/[",
      "::1]@[::2",
    ];
    for (const text of [...wrong, ...odd, "%eth0", "[]", "[]:80", "1".repeat(100_000), ":".repeat(46)]) {
      assert.equal(normalizeAddress(text), null, text.slice(0, 40));
    }
  });

  it("returns its own result unchanged, and never throws, for any input", () => {
    assertProperty(fc.property(fc.oneof(fc.ipV4(), fc.ipV6(), fc.string()), (text) => {
      const address = normalizeAddress(text);
      if (address !== null) assert.equal(normalizeAddress(address), address);
    }));
    assertProperty(fc.property(fc.oneof(fc.ipV4(), fc.ipV6()), (text) => assert.notEqual(normalizeAddress(text), null)));
  });
});

describe("addressKey", () => {
  it("returns an IPv4 address, and the /64 network of an IPv6 address", () => {
    assert.equal(addressKey("203.0.113.7"), "203.0.113.7");
    for (const ip of ["2001:db8:1:2::1", "2001:db8:1:2:ffff:ffff:ffff:ffff", "2001:db8:1:2::"]) {
      assert.equal(addressKey(ip), "2001:db8:1:2::/64");
    }
    assert.equal(addressKey("2001:db8::1"), "2001:db8:0:0::/64");
    assert.notEqual(addressKey("2001:db8:1:3::1"), addressKey("2001:db8:1:2::1"));
    assert.equal(addressKey("::1"), "0:0:0:0::/64");
  });

  it("returns any other text unchanged", () => {
    for (const text of ["", "unknown", "a:b", "tenant:7", "2001:DB8::1"]) assert.equal(addressKey(text), text);
  });
});
