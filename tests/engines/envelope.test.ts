import assert from "node:assert/strict";
import { createHmac } from "node:crypto";
import { describe, it } from "node:test";
import { ENVELOPE_KINDS, type EnvelopeKind } from "../../src/engines/broker/envelope-kind.ts";
import { Envelopes, type Opened } from "../../src/engines/broker/envelope.ts";
import { range } from "./conformance.ts";

const SECRET = "a secret of the application";
const NOW = 1_800_000_000_000;

/** The numbers of a node that has sent nothing. */
const NONE = Object.fromEntries(ENVELOPE_KINDS.map((kind) => [kind, 0])) as Record<EnvelopeKind, number>; // Of all.

/** The envelopes of a node that knows some other nodes, and the reasons for what it has dropped. */
function create(node: string, secrets: readonly string[] = [SECRET], maxLength = 10_000, place = "shop") {
  const clock = { now: NOW };
  const dropped: string[] = [];
  const envelopes = new Envelopes({
    node,
    secrets,
    maxLength,
    fullNamespace: () => place,
    now: () => clock.now,
    dropped: (reason) => void dropped.push(reason),
  });
  for (const other of ["a", "b", "other", "old", "both", "new", "6f1c2d3e-0a1b-4c5d-8e9f-001122334455"]) {
    envelopes.guard.learn(other, NONE);
  }
  const seal = async (kind: EnvelopeKind, scope: string, body: string, event?: string) =>
    await envelopes.seal(kind, scope, body, event);
  const open = async (kind: EnvelopeKind, scope: string, envelope: string, arrives = true) =>
    await envelopes.open([kind], scope, envelope, arrives);
  /** The reason the envelope was dropped for, or its content if it was not. */
  const refuse = async (kind: EnvelopeKind, scope: string, envelope: string, arrives = true): Promise<string | Opened> => {
    const opened = await open(kind, scope, envelope, arrives);
    assert.equal(dropped.length, opened ? 0 : 1, "each is counted once");
    return opened ?? dropped.pop()!; // As just counted.
  };
  const sealSingle = async (kind: EnvelopeKind, scope: string, body: string) => await envelopes.sealSingle(kind, scope, body);
  return { clock, dropped, seal, sealSingle, open, refuse, guard: envelopes.guard };
}

/** Signs as the envelope documents it, without using its code. */
function sign(scope: string, text: string, secret = SECRET): string {
  return `${createHmac("sha256", secret).update(`${scope}\n${text}`).digest("hex")}\n${text}`;
}

const header = (fields: Record<string, unknown> = {}) =>
  JSON.stringify({ v: 2, in: "shop", kind: "message", node: "a", number: 1, time: NOW, ...fields });

describe("Envelopes", () => {
  for (const secrets of [[], [SECRET]]) {
    describe(secrets.length > 0 ? "that are signed" : "that are not signed", () => {
      it("return the sealed content when opened", async () => {
        const [a, b] = [create("a", secrets), create("b", secrets)];
        for (const body of ["null", '"狼煙 🔥 \\n"', " [1,\n2]\n", '"\ud800"', JSON.stringify("x".repeat(5_000))]) {
          const kinds: [EnvelopeKind, string, string?][] = [
            ["publication", "room:1", 'say "it"'],
            ["event", "room:1", "say"],
            ["member", "room:1"],
            ["message", ""],
          ];
          for (const [kind, scope, event = "-"] of kinds) {
            const envelope = await a.seal(kind, scope, body, event === "-" ? undefined : event);
            const opened = await b.open(kind, scope, envelope);
            assert.deepEqual(opened, { kind, node: "a", number: opened?.number, time: NOW, event, body });
          }
        }
        for (const body of ["", "not json\n"]) {
          assert.equal((await b.open("message", "", await a.seal("message", "", body)))?.body, body);
        }
        assert.deepEqual(b.dropped, []);
      });

      it("are refused beyond maxLength, at the exact character", async () => {
        const envelope = await create("a", secrets).seal("message", "", "x".repeat(100));
        assert.equal(await create("b", secrets, envelope.length - 1).refuse("message", "", envelope), "oversized");
        assert.ok(await create("b", secrets, envelope.length).open("message", "", envelope));
      });

      it("are refused when they are malformed", async () => {
        const seal = (text: string, scope = "") => secrets.length > 0 ? sign(scope, text) : `\n${text}`;
        const bad = [
          "",
          "\n",
          "\n\n",
          "{}",
          `\n${header()}`,
          `${"0".repeat(65)}\n${header()}\n`,
          seal("\n1"),
          seal("{}\n1"),
          seal("[]\n1"),
          seal("null\n1"),
          seal(`${header().slice(1)}\n1`),
          seal(`${header({ padding: "x".repeat(1_024) })}\n1`),
        ];
        for (const text of bad) {
          // Text without a valid signature is refused before it is parsed.
          const expected = secrets.length > 0 && !/^[0-9a-f]{64}\n/.test(text) ? ["malformed", "forged"] : ["malformed"];
          const reason = await create("b", secrets).refuse("message", "", text);
          assert.ok(expected.includes(reason as string), `${JSON.stringify(text)}: ${JSON.stringify(reason)}`);
        }
        const fields: Record<string, unknown>[] = [
          { v: 0 },
          { v: 1.5 },
          { v: "1" },
          { v: undefined },
          { in: undefined },
          { in: 1 },
          { v: 2 ** 53 },
          { min: 0 },
          { min: null },
          { kind: 1 },
          { kind: "x".repeat(33) },
          { node: "" },
          { node: "a b" },
          { node: "a\n" },
          { node: "x".repeat(65) },
          { number: 0 },
          { number: -1 },
          { number: 0.5 },
          { number: 2 ** 53 },
          { time: null },
          { time: "now" },
          { event: "" },
          { event: 1 },
          { event: "x".repeat(65) },
        ];
        for (const each of fields) {
          assert.equal(
            await create("b", secrets).refuse("message", "", seal(`${header(each)}\n1`)),
            "malformed",
            JSON.stringify(each),
          );
        }
        for (const kind of ["publication", "event"] as const) {
          for (const body of ["", "1}", '1},"injected":{', "undefined"]) {
            const text = seal(`${header({ kind })}\n${body}`, "room");
            assert.equal(await create("b", secrets).refuse(kind, "room", text), "malformed", body);
          }
        }
      });

      it("are refused when they are of another kind, or of a version that this one cannot read", async () => {
        const seal = (fields: Record<string, unknown>) => {
          const text = `${header(fields)}\n"x"`;
          return secrets.length > 0 ? sign("", text) : `\n${text}`;
        };
        for (
          const fields of [{ v: 3 }, { v: 7, min: 3 }, { v: 2, min: 3 }, { v: 1, in: undefined }, { kind: "later" }, {
            kind: "member",
          }]
        ) {
          assert.equal(
            await create("b", secrets).refuse("message", "", seal(fields)),
            "unsupported",
            JSON.stringify(fields),
          );
        }
        // An envelope of a later version names the oldest version that can read it. This version ignores the added fields.
        for (const fields of [{ v: 3, min: 2 }, { v: 9, min: 2, later: { a: [1] } }, { later: "x" }]) {
          assert.deepEqual(await create("b", secrets).refuse("message", "", seal(fields)), {
            kind: "message",
            node: "a",
            number: 1,
            time: NOW,
            event: "-",
            body: '"x"',
          });
        }
      });
    });
  }

  it("are verified by any of the secrets, and signed with the first", async () => {
    const [old, both, fresh] = [
      create("old", ["o".repeat(16)]),
      create("both", ["n".repeat(16), "o".repeat(16)]),
      create("new", [
        "n".repeat(16),
      ]),
    ];
    assert.ok(await both.open("message", "", await old.seal("message", "", "1")));
    assert.ok(await both.open("message", "", await fresh.seal("message", "", "1")));
    assert.ok(await fresh.open("message", "", await both.seal("message", "", "1")));
    assert.equal(await old.refuse("message", "", await both.seal("message", "", "2")), "forged");
    assert.equal(await fresh.refuse("message", "", await old.seal("message", "", "2")), "forged");
  });

  it("are refused when any part differs from what was signed", async () => {
    const [a, b] = [create("a"), create("b")];
    const envelope = await a.seal("publication", "room", "[1]", "say");
    const other = await a.seal("publication", "room", "[2]", "say");
    const [signature = "", head = "", body = ""] = envelope.split("\n");
    const forged = [
      `\n${head}\n${body}`,
      `${signature.slice(1)}\n${head}\n${body}`,
      `${signature.toUpperCase()}\n${head}\n${body}`,
      `${signature.slice(0, -1)}g\n${head}\n${body}`,
      `${other.slice(0, 64)}\n${head}\n${body}`,
      `${signature}\n${head.replace('"a"', '"b"')}\n${body}`,
      `${signature}\n${head.replace('"say"', '"Say"')}\n${body}`,
      `${signature}\n${head.replace('"number":1', '"number":9')}\n${body}`,
      `${signature}\n${head.replace('"shop"', '"toys"')}\n${body}`,
      `${signature}\n${head}\n${body} `,
      `${signature}\n${head} \n${body}`,
      sign("room", `${head}\n${body}`, "another secret of 16"),
    ];
    for (const text of forged) {
      assert.equal(await b.refuse("publication", "room", text), "forged", text);
    }
    // An envelope of another channel is refused, live or stored.
    assert.equal(await b.refuse("publication", "Room", envelope), "forged");
    assert.equal(await b.refuse("publication", "Room", envelope, false), "forged");
    // So is one of another application that has the same secret.
    assert.equal(await create("b", [SECRET], 10_000, "toys").refuse("publication", "room", envelope), "forged");
    assert.ok(await b.open("publication", "room", envelope));
  });

  it("are sealed in order, and accepted once for each node and kind", async () => {
    const [a, other, b] = [create("a"), create("other"), create("b")];
    const envelopes = await Promise.all(
      range(5).map((number) => a.seal("event", "room", `${number}`, "say")),
    );
    for (const number of [0, 2, 3, 1]) {
      assert.equal(
        (await b.open("event", "room", envelopes[number]!))?.body,
        `${number}`,
      );
    }
    for (const number of [0, 1, 2, 3]) {
      assert.equal(
        await b.refuse("event", "room", envelopes[number]!),
        "replayed",
      );
    }
    assert.ok(await b.open("event", "room", envelopes[4]!));
    // However long each takes to sign.
    const sealed: string[] = [];
    const bodies = [JSON.stringify("x".repeat(4_000_000)), "1", "2"];
    await Promise.all(bodies.map(async (body) => void sealed.push((await a.seal("event", "room", body, "say")).slice(-1))));
    assert.deepEqual(sealed, ['"', "1", "2"]);
    for (const [kind, scope] of [["member", "room"], ["message", ""]] as const) {
      assert.ok(await b.open(kind, scope, await a.seal(kind, scope, "{}")));
    }
    assert.ok(await b.open("event", "room", await other.seal("event", "room", "1", "say")));
    // A stored envelope may be read again after it was received live.
    for (const envelope of envelopes) {
      assert.ok(await b.open("event", "room", envelope, false));
    }
  });

  it("are accepted up to 255 numbers after a later one has arrived", async () => {
    const [a, b] = [create("a"), create("b")];
    const envelopes = await Promise.all(range(258).map((number) => a.seal("member", "room", `${number}`)));
    assert.ok(await b.open("member", "room", envelopes[257]!));
    assert.ok(await b.open("member", "room", envelopes[2]!));
    for (const number of [1, 2]) {
      assert.equal(
        await b.refuse("member", "room", envelopes[number]!),
        "replayed",
      );
    }
  });

  it("are accepted whatever the clocks of the nodes say", async () => {
    for (const apart of [0, 60_001, -60_001, 7_200_000, -7_200_000]) {
      const [a, b] = [create("a"), create("b")];
      b.clock.now += apart;
      assert.ok(await b.open("message", "", await a.seal("message", "", "1")));
    }
  });

  it("are accepted from nodes that have stated their numbers, with later numbers only", async () => {
    const [stranger, b] = [create("stranger"), create("b")];
    const envelopes = await Promise.all(range(4).map((number) => stranger.seal("message", "", `${number}`)));
    assert.equal(await b.refuse("message", "", envelopes[0]!), "unknown node");
    // The refused envelope did not count as received.
    b.guard.learn("stranger", { ...NONE, message: 2 });
    for (const number of [0, 1]) {
      assert.equal(
        await b.refuse("message", "", envelopes[number]!),
        "replayed",
      );
    }
    assert.ok(await b.open("message", "", envelopes[2]!));
    // A lower number that is stated later changes nothing.
    b.guard.learn("stranger", { ...NONE, message: 1 });
    assert.equal(await b.refuse("message", "", envelopes[2]!), "replayed");
    assert.ok(await b.open("message", "", envelopes[3]!));
    // A node states its numbers of the moment it first heard of the other.
    const first = stranger.guard.meet("b");
    await stranger.seal("message", "", "4");
    assert.deepEqual([first.message, stranger.guard.meet("b").message, stranger.guard.meet("late").message], [4, 4, 5]);
    // A control envelope, which states the numbers, is accepted from an unknown node.
    const control = await stranger.seal("control", "", "{}");
    const unknown = create("c");
    assert.ok(await unknown.open("control", "", control));
    assert.equal(await unknown.refuse("control", "", control), "replayed");
  });

  it("are accepted with any number and time when they are not signed", async () => {
    const [a, b] = [create("a", []), create("b", [])];
    const envelope = await a.seal("message", "", "1");
    b.clock.now += 1e9;
    for (const _ of range(2)) assert.ok(await b.open("message", "", envelope));
  });

  it("are tracked for up to ten thousand nodes", { timeout: 300_000 }, async () => {
    const b = create("b");
    const of = (node: number, number = 1) => sign("", `${header({ node: `n${node}`, number })}\n1`);
    for (const number of range(10_000)) {
      b.guard.learn(`n${number}`, { ...NONE, message: 1 });
    }
    assert.ok(await b.open("message", "", of(0, 2)));
    b.guard.learn("n10000", NONE);
    // Only the node heard longest ago is forgotten. A node never forgets its own numbers.
    for (const node of [0, 2, 9_999]) {
      assert.equal(
        await b.refuse("message", "", of(node)),
        "replayed",
        `${node}`,
      );
    }
    assert.equal(await b.refuse("message", "", of(1, 2)), "unknown node");
    assert.ok(await b.open("message", "", await b.seal("message", "", "1")));
  });
});

describe("The envelope of a transaction", () => {
  it("is accepted live once, up to an hour after it was sealed", async () => {
    const a = create("a");
    for (const [age, reasons] of [[3_600_000, ["replayed"]], [3_600_001, ["replayed", "replayed"]]] as const) {
      const b = create("b");
      const envelope = await a.sealSingle("event", "room", "1");
      b.clock.now += age;
      for (const _ of range(2)) await b.open("event", "room", envelope);
      assert.deepEqual(b.dropped, reasons);
    }
  });
});

describe("An envelope of version 2", () => {
  const NODE = "6f1c2d3e-0a1b-4c5d-8e9f-001122334455";
  /** Recorded envelopes: every later version that claims to read version 2 opens these. */
  const RECORDED: readonly [kind: EnvelopeKind, scope: string, envelope: string, opened: Opened][] = [
    [
      "publication",
      "room:1",
      '4832015da7810aec454596f4b8942ab29976dd9fbdfc823c2a7e2d55abe88dc0\n{"v":2,"in":"shop","kind":"publication","node":"6f1c2d3e-0a1b-4c5d-8e9f-001122334455","number":1,"time":1800000000000,"event":"say"}\n{"text":"狼煙"}',
      { kind: "publication", node: NODE, number: 1, time: NOW, event: "say", body: '{"text":"狼煙"}' },
    ],
    [
      "event",
      "room:1",
      'c95eb4fb2aa6ea2f50b62ff24a9ee5f7b0c9f9cc37bbe53ab62c2ef0e37ed04a\n{"v":2,"in":"shop","kind":"event","node":"6f1c2d3e-0a1b-4c5d-8e9f-001122334455","number":1,"time":1800000000000,"event":"say"}\n[1,2]',
      { kind: "event", node: NODE, number: 1, time: NOW, event: "say", body: "[1,2]" },
    ],
    [
      "member",
      "room:1",
      'a308676eebc0ac7bff53514378d9a2ce5bc3b4f3526c01f6fb52fa98e4f2de3b\n{"v":2,"in":"shop","kind":"member","node":"6f1c2d3e-0a1b-4c5d-8e9f-001122334455","number":1,"time":1800000000000}\n{"user":"mika","data":"{}"}',
      { kind: "member", node: NODE, number: 1, time: NOW, event: "-", body: '{"user":"mika","data":"{}"}' },
    ],
    [
      "message",
      "",
      'cf24c38967978b0eae49b53a2f66f7cbb753c064f20ab3abd297c1c55ecf9b55\n{"v":2,"in":"shop","kind":"message","node":"6f1c2d3e-0a1b-4c5d-8e9f-001122334455","number":1,"time":1800000000000}\n{"type":"refresh","filter":{"user":"mika"}}',
      { kind: "message", node: NODE, number: 1, time: NOW, event: "-", body: '{"type":"refresh","filter":{"user":"mika"}}' },
    ],
    [
      "order",
      "",
      'b0844a5da28769ebb9f9df4f28a8c1bff6d84444c1812272e66d7e295fe30295\n{"v":2,"in":"shop","kind":"order","node":"6f1c2d3e-0a1b-4c5d-8e9f-001122334455","number":1,"time":1800000000000}\n0 {"type":"disconnect"}',
      { kind: "order", node: NODE, number: 1, time: NOW, event: "-", body: '0 {"type":"disconnect"}' },
    ],
  ];

  it("is opened and written as when it was recorded", async () => {
    const writer = create(NODE);
    for (const [kind, scope, envelope, opened] of RECORDED) {
      assert.deepEqual(await create("b").open(kind, scope, envelope), opened);
      const event = opened.event === "-" ? undefined : opened.event;
      assert.equal(await writer.seal(kind, scope, opened.body, event), envelope);
    }
  });

  it("is the oldest version accepted: version 1, which did not name its namespace, is unsupported", async () => {
    const envelope =
      'babd811e81b7906733a61bddf09008c83a083aa1f95dc249faed9881ca658dcb\n{"v":1,"kind":"message","node":"6f1c2d3e-0a1b-4c5d-8e9f-001122334455","number":1,"time":1800000000000}\n{"type":"refresh","filter":{"user":"mika"}}';
    for (const arrives of [true, false]) {
      assert.equal(
        await create("b").refuse("message", "", envelope, arrives),
        "unsupported",
      );
    }
  });
});
