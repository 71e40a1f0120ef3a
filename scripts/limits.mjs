/**
 * `node:test` with a limit for each test and each hook that names none of its own, so that one that hangs costs minutes. A limit of a suite
 * would be one for all of its tests together. `typescript-hooks.mjs` gives it to each test file; Bun has such a limit by `--timeout`.
 */
import {
  after as nodeAfter,
  afterEach as nodeAfterEach,
  before as nodeBefore,
  beforeEach as nodeBeforeEach,
  it as nodeIt,
} from "node:test";
import process from "node:process";

export * from "node:test";

/** In ms. A busy machine must not reach it. */
const LIMIT = Number(process.env.TEST_LIMIT ?? 300_000);

const limit = { timeout: LIMIT };
/** Hooks install packages and build sites. */
const hookLimit = { timeout: 3 * LIMIT };

export const it = (name, options, run) =>
  typeof options === "function" ? nodeIt(name, limit, options) : nodeIt(name, { ...limit, ...options }, run);
export { it as test };

const limitHook = (register) => (run, options) => register(run, { ...hookLimit, ...options });

export const [before, after] = [limitHook(nodeBefore), limitHook(nodeAfter)];
export const [beforeEach, afterEach] = [limitHook(nodeBeforeEach), limitHook(nodeAfterEach)];
