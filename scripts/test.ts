/**
 * Runs every check and test of the project, some stages beside each other, and sums them up. `npm test` runs all;
 * `npm test -- unit bun` runs the stages whose name has each of these words.
 */
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, dirname, join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { buildPackage } from "../tests/support/packed.ts";
import { idleOfMachine, type Outcome, type Row, runStages, type Stage } from "./stages.ts";

/** Tests of the whole product, which start browsers, bundlers and servers themselves: a stage each, on Node. */
const PRODUCT = "tests/product";

/** What the documentation promises: a stage each, on Node. */
const DOCS = "tests/docs";

/** The black-box suites, which start servers on the four runtimes themselves: a stage each. */
const RUNTIMES = "tests/runtimes";

/** The engines and their brokers: a stage for each runtime. */
const ENGINES = "tests/engines";

/**
 * Tests that start brokers run on Node, which speaks to them as the other runtimes do. Those run the mixed suite in its place, in which nodes
 * of all three meet at each broker, and what a driver of PostgreSQL does when connections hang or end.
 */
const NODE_BROKERS =
  /\/(?:nats|postgres(?!-(?:faults|nodes|silent)\.)|redis|nodes|orders|replay|start|unreadable)[\w-]*\.test\.ts$/;

/** Its nodes on Node pass the suites of their brokers. */
const MIXED = "tests/engines/mixed.test.ts";

/** What a test file has that needs a process or globals of its own: the default controller, the heap, globals, or hooks of all tests. */
const NEEDS_PROCESS =
  /create\w*Controller|getWebSocketController|heap\.ts|second-copy|process\.on|(?<!" in )globalThis|\bmock\b|Date\.now =|^(?:before|after)(?:Each)?\(/m;

/** What a test of the engines has that starts a program, a worker or a database. */
const STARTS_PROGRAM = /support\/(?:brokers|postgres)\.ts|postgres-fixture|sharded-objects|pglite|child_process/;

/** After this many ms a test program is treated as hanging, and is ended. */
const STAGE_TIMEOUT = 30 * 60_000;

/** Bun's own limit is 5 s, which the other runtimes do not have (ms). Limits are for what hangs: a busy machine must not reach them. */
const BUN_TEST_TIMEOUT = 300_000;

/** Where temporary files are in memory, if anywhere: a broker that waits for a busy disk says nothing, and is taken to be away. */
const IN_MEMORY: Record<string, string> = existsSync("/dev/shm") ? { TMPDIR: "/dev/shm" } : {};

const IS_WINDOWS = process.platform === "win32";
const root = join(dirname(fileURLToPath(import.meta.url)), "..");
const modules = join(root, "node_modules");

// The programs themselves, not their links in .bin: Windows starts those through a shell only.
const NODE = process.execPath;
const BUN = join(modules, "bun/bin/bun.exe"); // Called so on every platform.
const DENO = join(modules, "deno", IS_WINDOWS ? "deno.exe" : "deno");
const TSC = join(modules, "typescript/bin/tsc");

/** TypeScript checks again what has changed since the last run, and all that depends on it. */
const incremental = (name: string) => ["--incremental", "--tsBuildInfoFile", `node_modules/.cache/${name}.tsbuildinfo`] as const;

const CHECKS: readonly (readonly [command: string, ...args: string[]])[] = [
  [NODE, TSC, ...incremental("tests")],
  [NODE, TSC, "-p", "tsconfig.build.json", "--noEmit", ...incremental("package")],
  // TypeScript has checked the tests above; Deno checks what its users import and run.
  [DENO, "check", "mod.ts", "src", "examples"],
  [DENO, "lint"],
  [DENO, "fmt", "--check"],
  // Types are checked above; slow ones are still found.
  [DENO, "publish", "--dry-run", "--allow-dirty", "--no-check"],
];

/** Runs the test files that `TEST_FILES` names. */
const TOGETHER = "scripts/together.ts";

/** Runs a test program that writes a JUnit report, and says how. */
const UNIT: Record<string, (files: string[], report: string) => [command: string, ...args: string[]]> = {
  node: (files, report) => [
    ...[NODE, "--import", "./scripts/typescript.mjs", "--test-reporter=spec", "--test-reporter-destination=stdout"] as const,
    ...["--test-reporter=junit", `--test-reporter-destination=${report}`],
    ...files,
  ],
  // Isolated, as the test files are on the other runtimes: they would share the default controller.
  bun: (files, report) => [
    ...[BUN, "test", "--isolate", `--timeout=${BUN_TEST_TIMEOUT}`, "--reporter=junit", `--reporter-outfile=${report}`] as const,
    ...files.map((file) => `./${file}`), // Without the dot it is a filter.
  ],
  deno: (files, report) => [DENO, "test", "-A", "--no-check", `--junit-path=${report}`, ...files],
};

/** What a test file has that takes the packed package. */
const NEEDS_PACKAGE = /\b(?:un)?packPackage\b/;

/** Files that several stages share, for as long as this process runs. */
const shared = mkdtempSync(join(tmpdir(), "noroshi-tests-"));
process.once("exit", () => rmSync(shared, { recursive: true, force: true }));

let tarball: Promise<string> | undefined;

/** Whether there is one stage only, which prints while it runs. */
let isAlone = false;

const running = new Set<ChildProcess>();
for (const signal of ["SIGINT", "SIGTERM"] as const) {
  process.once(signal, () => {
    for (const child of running) end(child);
    process.exit(1);
  });
}

process.exitCode = await main(process.argv.slice(2));

async function main(words: string[]): Promise<number> {
  const stages = listStages().filter(({ name }) => words.every((word) => name.split(" ").includes(word)));
  if (stages.length === 0) {
    console.error(`No stage has the words "${words.join(" ")}". There are: ${listStages().map(({ name }) => name).join(", ")}`);
    return 1;
  }
  completeInstall();
  isAlone = stages.length === 1;
  const idle = idleOfMachine();
  return printSummary(await runStages(stages), idle);
}

function listStages(): Stage[] {
  const unit = listUnitFolders().flatMap(listTests);
  return [
    { name: "check", run: runChecks },
    ...Object.keys(UNIT).map((runtime) => ({
      name: `unit ${runtime}`,
      run: () => runGroups(runtime, unitGroups(runtime, unit)),
    })),
    ...Object.keys(UNIT).map((runtime) => ({
      name: `engines ${runtime}`,
      // They wait for brokers most of the time.
      run: () => runGroups(runtime, engineGroups(engineTests(runtime)), 4, IN_MEMORY),
    })),
    ...listTests(RUNTIMES).map((file) => ({
      name: `runtimes ${basename(file, ".test.ts")}`,
      run: () => runTests("node", [file]),
    })),
    ...listTests(PRODUCT).map((file) => ({
      name: basename(file, ".test.ts"),
      run: () => runProductTests(file),
    })),
    ...listTests(DOCS).map((file) => ({
      name: `docs ${basename(file, ".test.ts")}`,
      run: () => runProductTests(file),
    })),
  ];
}

/** The folders whose tests run in each runtime: `tests/` and one for each room of `src/`. */
function listUnitFolders(): string[] {
  const folders = readdirSync(join(root, "tests"), { withFileTypes: true }).filter((entry) => entry.isDirectory());
  const rooms = folders.map(({ name }) => `tests/${name}`).filter((folder) =>
    ![PRODUCT, DOCS, RUNTIMES, ENGINES].includes(folder)
  );
  return ["tests", ...rooms.sort(), `${RUNTIMES}/units`];
}

function engineTests(runtime: string): string[] {
  return listTests(ENGINES).filter((file) => runtime === "node" ? file !== MIXED : !NODE_BROKERS.test(file));
}

function listTests(folder: string): string[] {
  return readdirSync(join(root, folder)).filter((name) => name.endsWith(".test.ts")).sort().map((name) => `${folder}/${name}`);
}

/** npm leaves out install scripts when told to; what they would have done for Bun and Deno is done here. */
function completeInstall(): void {
  const isComplete = (program: string) => spawnSync(program, ["--version"], { stdio: "ignore" }).status === 0;
  if (!isComplete(BUN)) spawnSync(NODE, ["install.js"], { cwd: join(modules, "bun"), stdio: "inherit" });
  if (!isComplete(DENO)) spawnSync(NODE, ["install.cjs"], { cwd: join(modules, "deno"), stdio: "inherit" });
}

async function runChecks(): Promise<Outcome> {
  const outcome: Outcome = { passed: 0, failures: [], skipped: 0, output: "" };
  await someAtOnce(2, CHECKS, async ([command, ...args]) => {
    const name = [command, ...args].filter((word) => word !== NODE).map((word) => basename(word, ".exe")).join(" ");
    const { code, output } = await execute(command, args, "collect");
    outcome.output += `${code === 0 ? "✔" : "✖"} ${name}\n`;
    if (code === 0) outcome.passed++;
    else {
      outcome.failures.push(name);
      outcome.output += output;
    }
  });
  return outcome;
}

/** The package is built once for all of them. */
async function runProductTests(file: string): Promise<Outcome> {
  if (!NEEDS_PACKAGE.test(readFileSync(join(root, file), "utf8"))) return await runTests("node", [file]);
  try {
    tarball ??= buildPackage(shared);
    return await runTests("node", [file], undefined, { NOROSHI_TARBALL: await tarball });
  } catch (error) {
    return { passed: 0, failures: [`Cannot pack the package: ${error}`], skipped: 0, output: "" };
  }
}

async function runTests(
  runtime: string,
  files: string[],
  output: "show" | "collect" = isAlone ? "show" : "collect",
  env: Record<string, string> = {},
): Promise<Outcome> {
  const folder = mkdtempSync(join(tmpdir(), "noroshi-test-"));
  const report = join(folder, "junit.xml");
  try {
    // Node runs one file, which is this one. The others give each file that is named globals of its own.
    const together = runtime === "node" ? files : files.filter(sharesProcess);
    const named = together.length > 1 || runtime === "node"
      ? [...files.filter((file) => !together.includes(file)), TOGETHER]
      : files;
    const [command, ...args] = UNIT[runtime]!(named, report);
    const own = { TEST_FILES: together.join("\n"), NOROSHI_SHARED: shared };
    const { code, output: collected } = await execute(command, args, output, { ...env, ...own });
    const outcome = { ...readReport(report, files), output: collected };
    // A module that does not load, or a hook that fails, may be missing in the report.
    if (code !== 0 && outcome.failures.length === 0) outcome.failures.push(`It exited with ${code}: ${files.join(" ")}`);
    return outcome;
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** On Node most files share a process, and each of the others is one. */
function unitGroups(runtime: string, files: string[]): string[][] {
  if (runtime !== "node") return [files];
  return [files.filter(sharesProcess), ...files.filter((file) => !sharesProcess(file)).map((file) => [file])];
}

/** A process for each that starts a broker: Bun ends the processes of all files when a test of one runs out of time. */
function engineGroups(files: string[]): string[][] {
  return [...files.filter((file) => !sharesProcess(file)).map((file) => [file]), files.filter(sharesProcess)];
}

function sharesProcess(file: string): boolean {
  if (!file.startsWith("tests/") || file.startsWith(RUNTIMES)) return false;
  const text = readFileSync(join(root, file), "utf8");
  return !NEEDS_PROCESS.test(text) && !(file.startsWith(ENGINES) && STARTS_PROGRAM.test(text));
}

/** A process for each group, so many at once. What several print is shown one after the other. */
async function runGroups(runtime: string, groups: string[][], count = 2, env: Record<string, string> = {}): Promise<Outcome> {
  const total: Outcome = { passed: 0, failures: [], skipped: 0, output: "" };
  await someAtOnce(count, groups, async (files) => {
    const mode = groups.length > 1 || !isAlone ? "collect" : "show";
    const { passed, failures, skipped, output } = await runTests(runtime, files, mode, env);
    total.output += output;
    total.passed += passed;
    total.failures.push(...failures.map((failure) => files.length > 1 ? failure : `${files[0]}: ${failure}`));
    total.skipped += skipped;
  });
  return total;
}

async function someAtOnce<Item>(count: number, items: readonly Item[], run: (item: Item) => Promise<void>): Promise<void> {
  const waiting = items.values();
  const runNext = async (): Promise<void> => {
    // All take from the same: each item is run once.
    for (const item of waiting) await run(item);
  };
  await Promise.all(Array.from({ length: count }, runNext));
}

/** Counts the tests of a JUnit report as Node, Bun and Deno write it. One that is missing or odd counts as a failure. */
function readReport(path: string, files: string[]): Omit<Outcome, "output"> {
  let xml: string;
  try {
    xml = readFileSync(path, "utf8");
  } catch {
    return { passed: 0, failures: [`It left no report: ${files.join(" ")}`], skipped: 0 }; // It crashed.
  }
  const cases = [...xml.matchAll(/<testcase((?:\s+[\w:]+="[^"]*")*)\s*(?:\/>|>([\s\S]*?)<\/testcase>)/g)].map(
    ([, attributes = "", body = ""]) => ({ name: attributes.match(/\sname="([^"]*)"/)?.[1] ?? "", body }),
  );
  const outcome: Omit<Outcome, "output"> = { passed: 0, failures: [], skipped: 0 };
  if (cases.length !== xml.split("<testcase").length - 1) outcome.failures.push("Its report cannot be read");
  for (const { name, body } of cases) {
    // Deno reports a suite beside its tests.
    if (cases.some((other) => other.name.startsWith(`${name} &gt; `))) continue;
    const failure = body.match(/<(?:failure|error)\b(?:\s+[\w:]+="[^"]*")*\s*(?:\/>|>([^<]*))/);
    if (failure) outcome.failures.push(`${unescape(name)}\n${firstLines(unescape(failure[1] ?? ""))}`);
    else if (/<skipped\b/.test(body)) outcome.skipped++;
    // Node reports a file as a test of its own when no test in it came to its end, even where the process exited with 0.
    else if (files.some((file) => name === join(root, file))) {
      outcome.failures.push(`No test ran in ${name}`);
    } else outcome.passed++;
  }
  return outcome;
}

/** Reverses what XML needs. */
function unescape(text: string): string {
  const characters: Record<string, string> = { lt: "<", gt: ">", quot: '"', apos: "'", amp: "&" };
  return text.replace(
    /&(?:#(\d+)|(\w+));/g,
    (whole, code, name) => code ? String.fromCodePoint(Number(code)) : characters[name] ?? whole,
  );
}

/** What a report says of a failure, as far as it helps to find it. */
function firstLines(text: string): string {
  return text.split("\n").filter((line) => line.trim() !== "").slice(0, 16).map((line) => `    ${line}`).join("\n");
}

function execute(
  command: string,
  args: string[],
  output: "show" | "collect",
  env: Record<string, string> = {},
): Promise<{ code: number; output: string }> {
  return new Promise((resolve) => {
    const pipe = output === "show" ? "inherit" : "pipe";
    // In a process group of its own, so that all it started can be ended with it.
    const child = spawn(command, args, {
      cwd: root,
      env: { ...process.env, ...env },
      stdio: ["ignore", pipe, pipe],
      detached: !IS_WINDOWS,
    });
    running.add(child);
    let collected = "";
    for (const stream of [child.stdout, child.stderr]) stream?.setEncoding("utf8").on("data", (text) => collected += text);
    const timer = setTimeout(() => {
      console.error(`Ended after ${STAGE_TIMEOUT / 1000} s: ${command} ${args.join(" ")}`);
      end(child);
    }, STAGE_TIMEOUT);
    const done = (code: number) => {
      clearTimeout(timer);
      running.delete(child);
      resolve({ code, output: collected });
    };
    child.on("error", (error) => {
      console.error(`Cannot start ${command}: ${error.message}`);
      done(1);
    });
    // What a program that failed has left behind may hold its output open, so that it would never close.
    child.on("exit", () => endGroup(child));
    child.on("close", (code) => done(code ?? 1));
  });
}

/** Ends a program and all it started. */
function end(child: ChildProcess): void {
  if (child.pid === undefined) return;
  if (IS_WINDOWS) spawnSync("taskkill", ["/pid", String(child.pid), "/t", "/f"]);
  else endGroup(child);
}

/** Ends what a program has started. On Windows that is unknown once it has ended. */
function endGroup({ pid }: ChildProcess): void {
  if (IS_WINDOWS || pid === undefined) return;
  try {
    process.kill(-pid, "SIGKILL");
  } catch (error) {
    // Nothing is left, which macOS says otherwise.
    if (!["ESRCH", "EPERM"].includes((error as { code: string }).code)) throw error;
  }
}

function printSummary(rows: readonly Row[], idle: () => number): number {
  // Once more and last: what was printed of them is thousands of lines above.
  for (const { name, failures } of rows) for (const failure of failures) console.log(`\n✖ ${name}: ${failure.trimEnd()}`);

  const print = (name: string, ...columns: string[]) =>
    console.log(name.padEnd(24) + columns.map((text) => text.padStart(9)).join(""));
  console.log("");
  print("stage", "passed", "failed", "skipped", "from", "seconds");
  let [passed, failed, skipped] = [0, 0, 0];
  for (const { name, from, seconds, ...row } of rows) {
    print(
      `${row.failures.length ? "✖" : "✔"} ${name}`,
      `${row.passed}`,
      `${row.failures.length}`,
      `${row.skipped}`,
      from.toFixed(1),
      seconds.toFixed(1),
    );
    passed += row.passed;
    failed += row.failures.length;
    skipped += row.skipped;
  }
  if (rows.length > 1) {
    const seconds = Math.max(...rows.map(({ from, seconds }) => from + seconds));
    console.log(`\nIt took ${Math.round(seconds)} s, and ${Math.round(100 * idle())} % of the machine was idle.`);
  }
  console.log(`\n${passed} passed, ${failed} failed${skipped ? `, ${skipped} skipped` : ""}`);
  return failed ? 1 : 0;
}
