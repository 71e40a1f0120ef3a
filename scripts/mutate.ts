/**
 * Finds code that no test defends: changes one expression at a time, as a mistake would, and runs the room's own tests against each change.
 * A change that no test notices has survived.
 *
 *     npm run mutate -- connection              every change of src/connection
 *     npm run mutate -- connection --sample 200 --seed 7
 *     npm run mutate -- connection 412          one change alone
 *
 * All changes are compiled into the code once, and each is chosen by its number while the code runs. So a process loads a test file once and
 * runs only those tests that reach a change. What one run leaves behind cannot decide the next: a test that fails counts if it passes again
 * without the change, and a change that no test has noticed runs once more in new processes, against whole test files.
 */
import { mkdirSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { availableParallelism } from "node:os";
import { basename, dirname, join, relative } from "node:path";
import process from "node:process";
import { fileURLToPath, pathToFileURL } from "node:url";
import { parseArgs } from "node:util";
import { build } from "esbuild";
import { type Change, instrument } from "./mutate/changes.ts";
import { WorkerProcess } from "./mutate/worker-process.ts";

const root = join(dirname(fileURLToPath(import.meta.url)), "..");
/** A test that takes this many times what its whole file takes without a change, and `SLACK` ms more, hangs: it has noticed the change. */
const PATIENCE = 4;
const SLACK = 5_000;
/** Most that a test file takes to load, in ms. */
const LOADING = 60_000;
const NONE = -1;

const { values, positionals: [room, only] } = parseArgs({
  allowPositionals: true,
  options: { sample: { type: "string" }, seed: { type: "string", default: "1" } },
});
if (!room) {
  console.error("Write the room, such as: npm run mutate -- connection");
  process.exit(2);
}
process.env["SEED"] = values.seed; // Of the property tests.

/** Builds the tests with all changes in the room's code. Resolves with the bundle of each test file. */
async function buildTests(room: string, changes: Change[]): Promise<string[]> {
  const sources = join(root, "src", room);
  // In the order of their names, so that a change keeps its number.
  const paths = readdirSync(sources).filter((name) => name.endsWith(".ts")).sort().map((name) => join(sources, name));
  const changed = new Map(paths.map((path) => [path, instrument(relative(root, path), readFileSync(path, "utf8"), changes)]));
  const outdir = join(root, "node_modules/.mutants", room);
  rmSync(outdir, { recursive: true, force: true });
  mkdirSync(outdir, { recursive: true });
  const tests = readdirSync(join(root, "tests", room)).filter((name) => name.endsWith(".test.ts"));
  await build({
    absWorkingDir: root,
    entryPoints: tests.map((name) => join(root, "tests", room, name)),
    outdir,
    bundle: true,
    splitting: true,
    platform: "node",
    format: "esm",
    packages: "external",
    plugins: [{
      name: "changes",
      setup({ onLoad, onResolve }) {
        const stand = new URL("mutate/test-tree.ts", import.meta.url).href;
        onResolve({ filter: /^node:test$/ }, () => ({ path: stand, external: true }));
        onLoad({ filter: /\.ts$/ }, ({ path }) => {
          const contents = changed.get(path) ?? readFileSync(path, "utf8");
          // Tests find files of the repository by where they are.
          return { contents: contents.replaceAll("import.meta.url", JSON.stringify(pathToFileURL(path).href)), loader: "ts" };
        });
      },
    }],
  });
  return tests.map((name) => join(outdir, name.replace(/\.ts$/, ".js")));
}

/** A test file, and what it reaches without a change. */
class TestFile {
  readonly #bundle: string;
  readonly tests: KnownTest[] = [];
  /** The changes that it reaches, while it is loaded or in a test. */
  readonly reached = new Set<number>();
  /** Most that one of its tests may take, in ms. */
  limit: number = LOADING;

  private constructor(bundle: string) {
    this.#bundle = bundle;
  }

  /** Runs all its tests. */
  static async explore(bundle: string): Promise<TestFile> {
    const file = new TestFile(bundle);
    const worker = await file.load();
    for (const change of worker.loaded.reached) file.reached.add(change);
    let sum = 0;
    for (const [number, name] of worker.loaded.tests.entries()) {
      const outcome = await worker.run({ test: number, change: NONE, explore: true }, LOADING);
      if (outcome?.result !== "passed") {
        const why = outcome?.error ?? "its process has ended";
        throw new Error(`The test "${name}" of ${basename(bundle)} fails without a change: ${why}`);
      }
      const { took, reached } = outcome;
      file.tests.push({ file, number, took, reached: new Set(reached) });
      for (const change of reached) file.reached.add(change);
      sum += took;
    }
    worker.end();
    file.limit = sum * PATIENCE + SLACK;
    return file;
  }

  async load(): Promise<WorkerProcess> {
    const worker = await WorkerProcess.load(this.#bundle, NONE, LOADING);
    if (!worker) throw new Error(`Cannot load ${this.#bundle}`);
    return worker;
  }

  /** Whether it fails in a new process that has loaded it with the change. */
  async fails(change: number): Promise<boolean> {
    const worker = await WorkerProcess.load(this.#bundle, change, LOADING);
    if (!worker) return true;
    try {
      for (const { number } of this.tests) {
        const outcome = await worker.run({ test: number, change }, this.limit);
        if (outcome?.result !== "passed") return true;
      }
      return false;
    } finally {
      worker.end();
    }
  }
}

interface KnownTest {
  readonly file: TestFile;
  readonly number: number;
  /** In ms. */
  readonly took: number;
  readonly reached: ReadonlySet<number>;
}

/** Tries changes one after the other, in processes of its own. */
class Lane {
  readonly #files: readonly TestFile[];
  /** The fastest first. */
  readonly #tests: readonly KnownTest[];
  readonly #workers = new Map<TestFile, WorkerProcess>();

  constructor(files: readonly TestFile[]) {
    this.#files = files;
    this.#tests = files.flatMap(({ tests }) => tests).sort((one, other) => one.took - other.took);
  }

  async isNoticed(change: number): Promise<boolean> {
    for (const test of this.#tests) {
      if (test.reached.has(change) && await this.#fails(test, change)) return true;
    }
    for (const file of this.#files) {
      if (file.reached.has(change) && await file.fails(change)) return true;
    }
    return false;
  }

  end(): void {
    for (const worker of this.#workers.values()) worker.end();
  }

  async #fails({ file, number }: KnownTest, change: number): Promise<boolean> {
    let worker = this.#workers.get(file);
    if (worker) {
      const outcome = await worker.run({ test: number, change }, file.limit);
      if (outcome?.result === "passed") return false;
      if (outcome?.result === "failed") {
        const again = await worker.run({ test: number, change: NONE }, file.limit);
        if (again?.result === "passed") return true;
      }
      worker.end();
    }
    // It has ended, or is no longer as it was when it was loaded.
    worker = await file.load();
    const outcome = await worker.run({ test: number, change }, file.limit);
    if (outcome?.result === "passed") this.#workers.set(file, worker);
    else {
      this.#workers.delete(file);
      worker.end();
    }
    return outcome?.result !== "passed";
  }
}

const changes: Change[] = [];
const files: TestFile[] = [];
for (const bundle of await buildTests(room, changes)) files.push(await TestFile.explore(bundle));

const size = values.sample === undefined ? changes.length : Number(values.sample);
/** The same changes for the same seed, spread over the room. */
const rank = (number: number) => (Math.imul(number + 1, 2_654_435_761) ^ Math.imul(Number(values.seed), 40_503)) >>> 0;
const chosen = only !== undefined
  ? [Number(only)]
  : changes.map((_, number) => number).sort((a, b) => rank(a) - rank(b)).slice(0, size).sort((a, b) => a - b);
let noticed = 0;
let unreached = 0;
const waiting = chosen.values();
await Promise.all(Array.from({ length: availableParallelism() }, async () => {
  const lane = new Lane(files);
  for (const number of waiting) {
    if (await lane.isNoticed(number)) {
      noticed++;
      continue;
    }
    const isReached = files.some(({ reached }) => reached.has(number));
    if (!isReached) unreached++;
    const { place, before, after } = changes[number]!; // Below its length.
    const outcome = isReached ? "survived" : "not reached";
    console.log(`${outcome} ${number} ${place}  ${before.slice(0, 120)}  →  ${after.slice(0, 120)}`);
  }
  lane.end();
}));
console.log(
  `${room}: ${noticed} of ${chosen.length} changes noticed (${
    Math.floor(100 * noticed / chosen.length)
  } %), ${unreached} not reached`,
);
