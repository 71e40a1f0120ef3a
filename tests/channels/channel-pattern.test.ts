import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { ChannelPattern } from "../../src/channels/channel-pattern.ts";
import { createChannels } from "../support/channels-fixture.ts";
import { Random } from "../support/random.ts";

/** The parameters, or null if the name does not match. */
function match(declared: string, name: string): Record<string, string> | null {
  const pattern = new ChannelPattern(declared);
  return pattern.matches(name) ? { ...pattern.params(name) } : null;
}

describe("ChannelPattern", () => {
  it("matches one name, names with a prefix, and names with parameters", () => {
    const cases: [declared: string, name: string, params: Record<string, string> | null][] = [
      ["wire", "wire", {}],
      ["wire", "wires", null],
      ["a.c", "abc", null],
      ["room:*", "room:", {}],
      ["room:*", "room:1:log", {}],
      ["room:*", "rooms", null],
      ["*", "anything", {}],
      ["*", "", null],
      ["room:{id}", "room:1", { id: "1" }],
      ["room:{id}", "room:ann@example.com", { id: "ann@example.com" }],
      ["room:{id}", "room:", null],
      ["room:{id}", "room:1:log", null],
      ["room:{id}", "room:1/log", null],
      ["room:{id}", "a:room:1", null],
      ["room:{id}", "room:{id}", null],
      ["{a}/{b}", "x/y", { a: "x", b: "y" }],
      ["{a}.log", "x.log", { a: "x" }],
      ["tenant:{tenant}:board:{board}", "tenant:acme:board:7", { tenant: "acme", board: "7" }],
      ["tenant:{tenant}:*", "tenant:acme:", { tenant: "acme" }],
      ["tenant:{tenant}:*", "tenant:acme:a:b", { tenant: "acme" }],
      ["tenant:{tenant}:*", "tenant:acme", null],
      ["{a}.{b}", "x.y.z", { a: "x.y", b: "z" }],
      ["{a}.{b}", "x.", null],
      ["{user}@{host}:{a}-{b}", "ann@x.com:1-2-3", { user: "ann", host: "x.com", a: "1-2", b: "3" }],
      ["{a}.{b}*", "x.y.z:1", { a: "x.y", b: "z" }],
      ["{a}.x*", "1.x.x", { a: "1.x" }],
    ];
    for (const [declared, name, params] of cases) assert.deepEqual(match(declared, name), params, `${declared} and ${name}`);
  });

  it("matches as the regular expression would that the declaration stands for", () => {
    const PART = "[\\w.@=+~-]+";
    const pieces = ["{a}", "{b}", "{c}", "{d}", ".", ".", "-", "x", ".x", "xx", ":", "/"];
    const random = new Random();
    const some = (from: readonly string[], count: number) => Array.from({ length: count }, () => random.pick(from)).join("");
    let matched = 0;
    for (let n = 0; n < 20_000; n++) {
      const declared = some(pieces, random.below(7) + 1) + random.pick(["", "", "*"]);
      let pattern: ChannelPattern;
      try {
        pattern = new ChannelPattern(declared);
      } catch {
        continue; // Two parameters side by side, or one name twice.
      }
      const model = declared.replace(/\*$/, "").split(/(\{\w+\})/)
        .map((piece) => piece.startsWith("{") ? `(?<${piece.slice(1, -1)}>${PART})` : piece.replace(/\W/g, "\\$&")).join("");
      const regexp = new RegExp(`^${model}${declared.endsWith("*") ? "" : "$"}`);
      for (let times = 0; times < 5; times++) {
        // Mostly what fits, with the parameters replaced.
        const name = random.below(4) > 0
          ? declared.replace(/\{\w+\}|\*/g, () => some([".", "-", "x", "y", "z", "é"], random.below(4)))
          : some([".", "-", "x", "y", ":", "/", " "], random.below(9));
        if (name === "") continue;
        const expected = regexp.exec(name);
        assert.equal(pattern.matches(name), expected !== null, `${declared} and ${name}`);
        assert.deepEqual({ ...pattern.params(name) }, { ...expected?.groups }, `${declared} and ${name}`);
        if (expected) matched++;
      }
    }
    assert.ok(matched > 1_000);
  });

  it("takes no time that grows with the ways to divide a name", () => {
    // With a regular expression this test does not come to its end.
    const declared = ["{a}.{b}.{c}.{d}.{e}.{f}", "{a}.{b}:{c}.{d}:{e}.{f}:{g}.{h}", "{a}.x.{b}.x.{c}.x.{d}.x.{e}:*"];
    const names = [".".repeat(254) + "/", `${".".repeat(60)}:`.repeat(3) + ".".repeat(60) + "/", ".x".repeat(126) + "/"];
    for (const pattern of declared.map((each) => new ChannelPattern(each))) {
      for (const name of names) assert.equal(pattern.matches(name), false);
    }
  });

  it("refuses a name that no channel can have", () => {
    for (
      const declared of [
        "",
        "a b",
        "a*b",
        "{}",
        "{a-b}",
        "{1}",
        "{a}{b}",
        "{a}:{a}",
        "{a",
        "a}",
        "x".repeat(256),
        "**",
        "{__proto__}",
      ]
    ) {
      assert.throws(() => new ChannelPattern(declared), /^TypeError: Cannot declare the channel/, declared);
    }
  });
});

describe("Channels, declared with parameters", () => {
  it("use the exact name, else the most specific with parameters, else the longest prefix", async () => {
    const asked: string[] = [];
    const answer = (declared: string) => ({ authorize: () => (asked.push(declared), true) });
    const names = ["*", "room:*", "room:{id}", "room:lobby", "room:{id}:log", "room:{id}:*", "{kind}:{id}"];
    const { join } = createChannels(Object.fromEntries(names.map((name) => [name, answer(name)])));
    const expected = {
      "room:lobby": "room:lobby",
      "room:1": "room:{id}",
      "room:1:log": "room:{id}:log",
      "room:1:other": "room:{id}:*",
      "room:": "room:*",
      "board:1": "{kind}:{id}",
      anything: "*",
    };
    for (const channel of Object.keys(expected)) await join().ask({ type: "subscribe", channel });
    assert.deepEqual(asked, Object.values(expected));
  });

  it("pass the parameters to authorize, snapshot and presence.data", async () => {
    const seen: unknown[] = [];
    const { join, channels } = createChannels({
      "room:{id}": {
        authorize: ({ action, params }) => {
          seen.push([action, { ...params }]);
          return params.id !== "2";
        },
        snapshot: ({ params }) => `snapshot of ${params.id}`,
        presence: { data: ({ params }) => `member of ${params.id}` },
      },
      "plain:*": { authorize: ({ params }) => Object.keys(params).length === 0 },
    });
    const peer = join("ann");
    const [init] = await peer.ask({ type: "subscribe", channel: "room:1" });
    assert.equal(init.data, "snapshot of 1");
    assert.deepEqual(await channels.presence("room:1"), [{ user: "ann", data: "member of 1" }]);
    const [refused] = await peer.ask({ type: "publish", channel: "room:2", event: "say" });
    assert.equal(refused.error.code, "FORBIDDEN");
    assert.deepEqual(seen, [["subscribe", { id: "1" }], ["publish", { id: "2" }]]);
    const [plain] = await peer.ask({ type: "subscribe", channel: "plain:1" });
    assert.equal(plain.event, "init");
  });
});
