/** Run by `limits.test.ts`: its first test never ends. */
import { before, describe, it } from "node:test";
import { setTimeout } from "node:timers";

const holding = setTimeout(() => {}, 2 ** 30);

describe("A suite", () => {
  before(() => {});

  it("hangs", () => new Promise(() => {}));

  it("goes on", { timeout: 2 ** 30 }, () => clearTimeout(holding));
});
