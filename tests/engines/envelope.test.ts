import assert from "node:assert/strict";
import { createHmac } from "node:crypto";
import { describe, it } from "node:test";
import { type EnvelopeKind, Envelopes, type Opened } from "../../src/engines/envelope.ts";
import { range } from "./conformance.ts";

const SECRET = "a secret of the application";
const NOW = 1_800_000_000_000;

/** A node's envelopes, whose time the test moves, and what it has dropped. */
function create(node: string, secrets: readonly string[] = [SECRET], maxLength = 10_000) {
  const clock = { now: NOW };
  const dropped: string[] = [];
  const envelopes = new Envelopes({
    node,
    secrets,
    maxLength,
    now: () => clock.now,
    dropped: (reason) => void dropped.push(reason),
  });
  const seal = async (kind: EnvelopeKind, scope: string, body: string, event?: string) =>
    await envelopes.seal(kind, scope, body, event);
  const open = async (kind: EnvelopeKind, scope: string, envelope: string, arrives = true) =>
    await envelopes.open([kind], scope, envelope, arrives);
  /** Why it was dropped; what was opened, where it was not. */
  const refuse = async (kind: EnvelopeKind, scope: string, envelope: string, arrives = true): Promise<string | Opened> => {
    const opened = await open(kind, scope, envelope, arrives);
    assert.equal(dropped.length, opened ? 0 : 1, "each is counted once");
    return opened ?? dropped.pop()!; // As just counted.
  };
  return { clock, dropped, seal, open, refuse };
}

/** Signs as the envelope says that it is signed, without its code. */
function sign(scope: string, text: string, secret = SECRET): string {
  return `${createHmac("sha256", secret).update(`${scope}\n${text}`).digest("hex")}\n${text}`;
}

const header = (fields: Record<string, unknown> = {}) =>
  JSON.stringify({ v: 1, kind: "message", node: "a", number: 1, time: NOW, ...fields });

describe("Envelopes", () => {
  for (const secrets of [[], [SECRET]]) {
    describe(secrets.length > 0 ? "that are signed" : "that are not signed", () => {
      it("are opened as they were sealed", async () => {
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
            assert.deepEqual(await b.open(kind, scope, envelope), { node: "a", event, body });
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

      it("are refused where they are none", async () => {
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
          // What is not signed so is not even looked at.
          const expected = secrets.length > 0 && !/^[0-9a-f]{64}\n/.test(text) ? ["malformed", "forged"] : ["malformed"];
          const reason = await create("b", secrets).refuse("message", "", text);
          assert.ok(expected.includes(reason as string), `${JSON.stringify(text)}: ${JSON.stringify(reason)}`);
        }
        const fields: Record<string, unknown>[] = [
          { v: 0 },
          { v: 1.5 },
          { v: "1" },
          { v: undefined },
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

      it("are refused where they are of another kind, or of a version that this one cannot read", async () => {
        const seal = (fields: Record<string, unknown>) => {
          const text = `${header(fields)}\n"x"`;
          return secrets.length > 0 ? sign("", text) : `\n${text}`;
        };
        for (const fields of [{ v: 2 }, { v: 7, min: 2 }, { v: 1, min: 2 }, { kind: "order" }, { kind: "member" }]) {
          assert.equal(
            await create("b", secrets).refuse("message", "", seal(fields)),
            "unsupported",
            JSON.stringify(fields),
          );
        }
        // A later version says which it can be read by, and what it adds is nothing to this one.
        for (const fields of [{ v: 2, min: 1 }, { v: 9, min: 1, later: { a: [1] } }, { later: "x" }]) {
          assert.deepEqual(await create("b", secrets).refuse("message", "", seal(fields)), {
            node: "a",
            event: "-",
            body: '"x"',
          });
        }
      });
    });
  }

  it("are of whoever has one of the secrets, and signed by the first", async () => {
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

  it("are refused where anything of them is another's than who signed them", async () => {
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
      `${signature}\n${head}\n${body} `,
      `${signature}\n${head} \n${body}`,
      sign("room", `${head}\n${body}`, "another secret of 16"),
    ];
    for (const text of forged) assert.equal(await b.refuse("publication", "room", text), "forged", text);
    // One that was for another channel too, kept or not.
    assert.equal(await b.refuse("publication", "Room", envelope), "forged");
    assert.equal(await b.refuse("publication", "Room", envelope, false), "forged");
    assert.ok(await b.open("publication", "room", envelope));
  });

  it("arrive once, in the order in which they were sealed: of each node and kind", async () => {
    const [a, other, b] = [create("a"), create("other"), create("b")];
    const envelopes = await Promise.all(range(5).map((number) => a.seal("event", "room", `${number}`, "say")));
    for (const number of [0, 2, 3]) assert.equal((await b.open("event", "room", envelopes[number]!))?.body, `${number}`);
    for (const number of [0, 1, 2, 3]) assert.equal(await b.refuse("event", "room", envelopes[number]!), "replayed");
    assert.ok(await b.open("event", "room", envelopes[4]!));
    // However long it takes to sign each.
    const sealed: string[] = [];
    const bodies = [JSON.stringify("x".repeat(4_000_000)), "1", "2"];
    await Promise.all(bodies.map(async (body) => void sealed.push((await a.seal("event", "room", body, "say")).slice(-1))));
    assert.deepEqual(sealed, ['"', "1", "2"]);
    for (const [kind, scope] of [["member", "room"], ["message", ""]] as const) {
      assert.ok(await b.open(kind, scope, await a.seal(kind, scope, "{}")));
    }
    assert.ok(await b.open("event", "room", await other.seal("event", "room", "1", "say")));
    // What is read from where it was kept may be read again, and has been here before.
    for (const envelope of envelopes) assert.ok(await b.open("event", "room", envelope, false));
  });

  it("arrive within a minute, by clocks that differ by as much", async () => {
    for (
      const [apart, expected] of [[0, null], [60_000, null], [60_001, "stale"], [-60_000, null], [-60_001, "stale"]] as const
    ) {
      const [a, b] = [create("a"), create("b")];
      const envelope = await a.seal("message", "", "1");
      b.clock.now += apart;
      const outcome = await b.refuse("message", "", envelope);
      assert.deepEqual(outcome, expected ?? { node: "a", event: "-", body: "1" }, `${apart} ms`);
      // One that is kept may be of any age.
      assert.ok(await b.open("message", "", envelope, false));
      // Too old to be taken, it has not used up its number.
      b.clock.now = NOW;
      if (expected) assert.ok(await b.open("message", "", envelope));
    }
  });

  it("say nothing by their number and time where nobody signs", async () => {
    const [a, b] = [create("a", []), create("b", [])];
    const envelope = await a.seal("message", "", "1");
    b.clock.now += 1e9;
    for (const _ of range(2)) assert.ok(await b.open("message", "", envelope));
  });

  it("are remembered of ten thousand nodes", { timeout: 20_000 }, async () => {
    const b = create("b");
    const of = (node: number, number = 1) => sign("", `${header({ node: `n${node}`, number })}\n1`);
    for (const number of range(10_000)) assert.ok(await b.open("message", "", of(number)));
    assert.ok(await b.open("message", "", of(0, 2)));
    assert.ok(await b.open("message", "", of(10_000)));
    // The one heard longest ago is forgotten, and no other.
    for (const node of [0, 2, 9_999]) assert.equal(await b.refuse("message", "", of(node)), "replayed", `${node}`);
    assert.ok(await b.open("message", "", of(1)));
  });
});

describe("An envelope of version 1", () => {
  /** As it was written: every later version that says it reads version 1 opens these. */
  const RECORDED: readonly [kind: EnvelopeKind, scope: string, envelope: string, opened: Opened][] = [
    [
      "publication",
      "room:1",
      '309b0d20c50d53aaad1218506156ab4a8782e1473e1e144d6cc23480a202b244\n{"v":1,"kind":"publication","node":"6f1c2d3e-0a1b-4c5d-8e9f-001122334455","number":1,"time":1800000000000,"event":"say"}\n{"text":"狼煙"}',
      { node: "6f1c2d3e-0a1b-4c5d-8e9f-001122334455", event: "say", body: '{"text":"狼煙"}' },
    ],
    [
      "event",
      "room:1",
      '297cd6a85efc87645bbfd7d1408d7411e89842d4dd0db7dd2f9304a04fba33ab\n{"v":1,"kind":"event","node":"6f1c2d3e-0a1b-4c5d-8e9f-001122334455","number":1,"time":1800000000000,"event":"say"}\n[1,2]',
      { node: "6f1c2d3e-0a1b-4c5d-8e9f-001122334455", event: "say", body: "[1,2]" },
    ],
    [
      "member",
      "room:1",
      '06dbef4787fbbf95b5e45ab31d3327ef2a002d5c10d9fb0e919125b5e193d2b1\n{"v":1,"kind":"member","node":"6f1c2d3e-0a1b-4c5d-8e9f-001122334455","number":1,"time":1800000000000}\n{"user":"mika","data":"{}"}',
      { node: "6f1c2d3e-0a1b-4c5d-8e9f-001122334455", event: "-", body: '{"user":"mika","data":"{}"}' },
    ],
    [
      "message",
      "",
      'babd811e81b7906733a61bddf09008c83a083aa1f95dc249faed9881ca658dcb\n{"v":1,"kind":"message","node":"6f1c2d3e-0a1b-4c5d-8e9f-001122334455","number":1,"time":1800000000000}\n{"type":"refresh","filter":{"user":"mika"}}',
      { node: "6f1c2d3e-0a1b-4c5d-8e9f-001122334455", event: "-", body: '{"type":"refresh","filter":{"user":"mika"}}' },
    ],
  ];

  it("is opened, and written, as it was when it was recorded", async () => {
    const writer = create("6f1c2d3e-0a1b-4c5d-8e9f-001122334455");
    for (const [kind, scope, envelope, opened] of RECORDED) {
      assert.deepEqual(await create("b").open(kind, scope, envelope), opened);
      const event = opened.event === "-" ? undefined : opened.event;
      assert.equal(await writer.seal(kind, scope, opened.body, event), envelope);
    }
  });
});
