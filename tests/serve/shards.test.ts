import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { shard, type ShardOptions } from "../../src/serve/shards.ts";

/** A namespace whose objects answer with their name, or as `answer` says. */
function namespaceOf(
  answer: (name: string) => Response = (name) => new Response(name),
) {
  const asked: string[] = [];
  const lastTries: boolean[] = [];
  const getByName = (name: string) => ({
    fetch: (request: Request) => {
      asked.push(name);
      lastTries.push(request.headers.has("noroshi-last-try"));
      return Promise.resolve(name).then(answer);
    },
  });
  return { getByName, asked, lastTries };
}

const upgrade = (key: number | string) =>
  new Request("https://room.example/websocket", {
    headers: { "x-upgrade": "websocket", "x-key": `${key}` },
  });

/** Adds headers that `Request` forbids in browsers and on some runtimes. */
function asUpgrade(request: Request): Request {
  const headers = new Headers(request.headers);
  const get = (name: string) => headers.get(name === "sec-websocket-key" ? "x-key" : name);
  const has = (name: string) => headers.has(name === "upgrade" ? "x-upgrade" : name);
  return Object.defineProperty(request, "headers", { value: { get, has } });
}

describe("shard", () => {
  it("throws for an unknown option, and for a key that is no function", () => {
    for (const options of [{ kye: () => "" }, { key: "user" }]) {
      assert.throws(
        () => shard(namespaceOf(), { name: "main", shards: 2, ...options } as ShardOptions),
        /^TypeError: Cannot shard/,
      );
    }
  });

  it("spreads upgrades evenly over the relays", async () => {
    const namespace = namespaceOf();
    const { fetch } = shard(namespace, { name: "main", shards: 16 });
    for (let n = 0; n < 8_000; n++) {
      await fetch(asUpgrade(upgrade(btoa(`${n}`.padStart(16, "x")))));
    }
    const counts = new Map<string, number>();
    for (const name of namespace.asked) {
      counts.set(name, (counts.get(name) ?? 0) + 1);
    }
    assert.deepEqual(
      [...counts.keys()].sort(),
      Array.from({ length: 16 }, (_, n) => `main#${n}`).sort(),
    );
    // 500 each; a third more or less is beyond 7 standard deviations.
    for (const [name, count] of counts) {
      assert.ok(count > 330 && count < 670, `${name}: ${count}`);
    }
  });

  it("uses the same relay for the same key, and chooses it by the address without an upgrade", async () => {
    const namespace = namespaceOf();
    const { fetch } = shard(namespace, { name: "main", shards: 16 });
    const of = async (ip: string) =>
      await (await fetch(
        new Request("https://room.example/", {
          headers: { "cf-connecting-ip": ip },
        }),
      )).text();
    assert.equal(await of("192.0.2.1"), await of("192.0.2.1"));
    const byPath = shard(namespace, {
      name: "main",
      shards: 16,
      key: ({ url }) => url,
    });
    const [one, other] = [
      await byPath.fetch(asUpgrade(upgrade(1))),
      await byPath.fetch(asUpgrade(upgrade(2))),
    ];
    assert.equal(await one.text(), await other.text());
  });

  it("retries an upgrade at up to four relays when they are full or fail, and returns the last answer", async () => {
    const full = namespaceOf((name) => {
      if (name.endsWith("1")) throw new Error("Overloaded");
      return new Response(name, { status: 503 });
    });
    const answers = await Promise.allSettled(
      Array.from(
        { length: 50 },
        (_, n) =>
          shard(full, { name: "main", shards: 16 }).fetch(
            asUpgrade(upgrade(n)),
          ),
      ),
    );
    assert.ok(
      answers.every((answer) => answer.status === "rejected" || answer.value.status === 503),
    );
    assert.equal(full.asked.length, 200);
    // Each one is asked once.
    const two = namespaceOf(() => new Response(null, { status: 503 }));
    await shard(two, { name: "main", shards: 2 }).fetch(asUpgrade(upgrade(1)));
    assert.deepEqual(two.asked.sort(), ["main#0", "main#1"]);
    // The last relay accepts the client even while it moves its clients to other relays.
    assert.deepEqual(two.lastTries, [false, true]);
    // Another refusal is an answer.
    const strict = namespaceOf(() => new Response(null, { status: 403 }));
    await shard(strict, { name: "main", shards: 16 }).fetch(
      asUpgrade(upgrade(1)),
    );
    assert.equal(strict.asked.length, 1);
  });

  it("returns the home object", async () => {
    const { home } = shard(namespaceOf(), { name: "main", shards: 1 });
    assert.equal(
      await (await home.fetch(new Request("https://room.example/"))).text(),
      "main",
    );
  });

  it("refuses a window out of range", async () => {
    const { rebalance } = shard(namespaceOf(), { name: "main", shards: 4 });
    for (const window of [-1, 0.5, 600_001]) {
      await assert.rejects(rebalance({ window }), /window must be 0 or a whole number of ms/);
    }
  });

  it("refuses options out of range", () => {
    const wrong: [options: ShardOptions, message: RegExp][] = [
      [{ name: "", shards: 1 }, /name must be a string without "#"/],
      [{ name: "main#1", shards: 1 }, /name must be a string without "#"/],
      [
        { name: "main", shards: 0 },
        /shards must be a whole number from 1 to 1,000/,
      ],
      [{ name: "main", shards: 1.5 }, /shards must be a whole number/],
      [{ name: "main", shards: 1_001 }, /shards must be a whole number/],
    ];
    for (const [options, message] of wrong) {
      assert.throws(() => shard(namespaceOf(), options), message);
    }
  });
});
