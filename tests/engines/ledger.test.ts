import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { type LedgerEntry, type LedgerPage, Ledgers } from "../../src/engines/broker/ledger.ts";

const SIZE = 20;
const epoch = "1.a";

const history: readonly LedgerEntry[] = Array.from({ length: SIZE }, (_, index) => {
  return { offset: index + 1, node: "a", number: index + 1, sealed: 0, taken: 0 };
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

  it("read what a known history lacks once for all clients", async () => {
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
});
