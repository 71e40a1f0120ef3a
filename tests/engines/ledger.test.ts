import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { Ledger, type LedgerEntry, type LedgerPage, Ledgers } from "../../src/engines/broker/ledger.ts";

const SIZE = 20;
const epoch = "1.a";

const history: readonly LedgerEntry[] = Array.from({ length: SIZE }, (_, index) => {
  return { offset: index + 1, node: "a", number: index + 1, sealedAt: 0, storedAt: 0 };
});

const pageAfter = (offset: number): LedgerPage => ({
  position: { epoch, offset: SIZE },
  entries: history.filter((entry) => entry.offset > offset),
  isComplete: true,
});

describe("The ledgers of a node", () => {
  it("read an unknown history once for all clients that recover at the same time", async () => {
    const ledgers = new Ledgers();
    let reads = 0;
    const judge = (offset: number) =>
      ledgers.judge("log", pageAfter(offset), { epoch, offset }, SIZE, (after) => {
        reads++;
        return new Promise((resolve) => setImmediate(() => resolve(pageAfter(after?.offset ?? 0))));
      });
    const verdicts = await Promise.all(Array.from({ length: SIZE }, (_, offset) => judge(offset)));
    assert.equal(reads, 1);
    assert.deepEqual(verdicts.map((each) => each.length), history.map((_, index) => SIZE - index));
    assert.ok(verdicts.flat().every((verdict) => verdict === "genuine"));
  });

  it("read the missing part of a known history once for all clients", async () => {
    const ledgers = new Ledgers();
    const asked: (number | undefined)[] = [];
    let end = 10;
    const upToEnd = (offset: number) => {
      const page = pageAfter(offset);
      return { ...page, position: { epoch, offset: end }, entries: page.entries.filter((entry) => entry.offset <= end) };
    };
    const judge = (offset: number) =>
      ledgers.judge("log", upToEnd(offset), { epoch, offset }, SIZE, (after) => {
        asked.push(after?.offset);
        return new Promise((resolve) => setImmediate(() => resolve(upToEnd(after?.offset ?? 0))));
      });
    await judge(5);
    end = SIZE;
    await Promise.all([15, 16, 17].map(judge));
    assert.deepEqual(asked, [undefined, 10]);
  });

  /** The verdicts of a ledger on publications, each at the next offset. */
  const judgeAll = (found: readonly Pick<LedgerEntry, "node" | "sealedAt" | "storedAt">[], size = SIZE) => {
    const ledger = new Ledger(epoch);
    return found.map((each, index) => {
      const verdict = ledger.judge({ ...each, offset: index + 1, number: 1 });
      ledger.trim(size);
      return { verdict, size: ledger.size };
    });
  };

  it("accept a publication of a transaction that lasts up to an hour, once", () => {
    const lasted = (node: string, sealedAt: number, storedAt: number) => ({ node, sealedAt, storedAt });
    const verdicts = judgeAll([
      lasted("a", 3_600_000, 3_600_000),
      lasted("tx.1", 0, 3_600_000),
      lasted("tx.1", 0, 3_600_000),
      lasted("tx.2", -1, 3_600_000),
      lasted("b", 3_500_000, 3_600_000),
    ]);
    assert.deepEqual(verdicts.map(({ verdict }) => verdict), ["genuine", "genuine", "replayed", "stale", "stale"]);
  });

  it("remember the last transactions of a channel, and accept no copy of earlier ones", () => {
    const transactions = Array.from({ length: 60_000 }, (_, time) => ({ node: `tx.${time}`, sealedAt: time, storedAt: time }));
    const judged = judgeAll([...transactions, { ...transactions[0]!, storedAt: 60_000 }, {
      ...transactions[59_999]!,
      storedAt: 60_000,
    }]);
    assert.ok(judged.slice(0, 60_000).every(({ verdict }) => verdict === "genuine"));
    assert.deepEqual(judged.slice(-2).map(({ verdict }) => verdict), ["stale", "replayed"]);
    assert.equal(judged.at(-1)?.size, 50_000 + SIZE);
  });
});
