/**
 * Finds code that no test defends: changes one expression at a time, as a mistake would, and runs the room's own tests against each change.
 * A change that no test notices has survived.
 *
 *     npm run mutate -- connection              every change of src/connection
 *     npm run mutate -- connection --sample 200 --seed 7
 *     npm run mutate -- connection 412          one change alone
 *
 * All changes are compiled into the code once and chosen by an environment variable, so that a run costs no more than the tests that reach it.
 */
import { spawn } from "node:child_process";
import { mkdirSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { basename, dirname, join, relative } from "node:path";
import process from "node:process";
import { fileURLToPath, pathToFileURL } from "node:url";
import { parseArgs } from "node:util";
import { build } from "esbuild";
import ts from "typescript-5.4";

const root = join(dirname(fileURLToPath(import.meta.url)), "..");
/** A run this many times slower than without a change, and `SLACK` ms more, is a loop without end: the tests have noticed. */
const PATIENCE = 4;
const SLACK = 5_000;

const { values, positionals: [room, only] } = parseArgs({
  allowPositionals: true,
  options: { sample: { type: "string" }, seed: { type: "string", default: "1" } },
});
if (!room) {
  console.error("Write the room, such as: npm run mutate -- connection");
  process.exit(2);
}

interface Mutant {
  readonly place: string;
  readonly before: string;
  readonly after: string;
}

const SWAPS: Partial<Record<ts.SyntaxKind, string>> = {
  [ts.SyntaxKind.LessThanToken]: "<=",
  [ts.SyntaxKind.LessThanEqualsToken]: "<",
  [ts.SyntaxKind.GreaterThanToken]: ">=",
  [ts.SyntaxKind.GreaterThanEqualsToken]: ">",
  [ts.SyntaxKind.EqualsEqualsEqualsToken]: "!==",
  [ts.SyntaxKind.ExclamationEqualsEqualsToken]: "===",
  [ts.SyntaxKind.MinusToken]: "+",
  [ts.SyntaxKind.AmpersandAmpersandToken]: "||",
  [ts.SyntaxKind.BarBarToken]: "&&",
};

const mutants: Mutant[] = [];

/** The source with every change in it, each behind `__mutant(number)`. */
function instrument(path: string): string {
  const text = readFileSync(path, "utf8");
  const file = ts.createSourceFile(path, text, ts.ScriptTarget.ES2022, true);
  const declare = (node: ts.Node, after: string): number => {
    const { line, character } = file.getLineAndCharacterOfPosition(node.getStart());
    const before = node.getText().replace(/\s+/g, " ");
    return mutants.push({ place: `${relative(root, path)}:${line + 1}:${character + 1}`, before, after }) - 1;
  };
  /** The text of the node, with the changes of its children. */
  const inner = (node: ts.Node): string => {
    let out = "";
    let at = node.getFullStart();
    ts.forEachChild(node, (child) => {
      out += text.slice(at, child.getFullStart()) + emit(child);
      at = child.getEnd();
    });
    return out + text.slice(at, node.getEnd());
  };
  const choose = (node: ts.Node, mutated: string, shown = mutated): string =>
    `(__mutant(${declare(node, shown)}) ? ${mutated} : (${inner(node)}))`;
  const emit = (node: ts.Node): string => {
    if (ts.isTypeNode(node) || ts.isInterfaceDeclaration(node) || ts.isTypeAliasDeclaration(node)) return node.getFullText();
    if (ts.isBinaryExpression(node)) {
      const { left, operatorToken, right } = node;
      const swap = SWAPS[operatorToken.kind];
      if (swap) return ` ${choose(node, `(${left.getText()}) ${swap} (${right.getText()})`)}`;
      if (operatorToken.kind === ts.SyntaxKind.QuestionQuestionToken) return ` ${choose(node, `(${left.getText()})`)}`;
    }
    if (ts.isPrefixUnaryExpression(node) && node.operator === ts.SyntaxKind.ExclamationToken) {
      return ` ${choose(node, `(${node.operand.getText()})`)}`;
    }
    if (node.kind === ts.SyntaxKind.TrueKeyword && !ts.isLiteralTypeNode(node.parent)) return ` ${choose(node, "false")}`;
    if (node.kind === ts.SyntaxKind.FalseKeyword && !ts.isLiteralTypeNode(node.parent)) return ` ${choose(node, "true")}`;
    if (ts.isIfStatement(node)) {
      const { expression, thenStatement, elseStatement } = node;
      const shown = expression.getText().replace(/\s+/g, " ");
      const [never, always] = [declare(expression, "false"), declare(expression, `true || ${shown}`)];
      const condition = `(__mutant(${never}) ? false : __mutant(${always}) ? true : (${emit(expression)}))`;
      return ` if (${condition}) ${emit(thenStatement)}${elseStatement ? ` else ${emit(elseStatement)}` : ""}`;
    }
    if (ts.isExpressionStatement(node) && !node.getText().startsWith("super")) {
      // In braces: an `else` that follows belongs to the statement around it.
      return ` { if (!__mutant(${declare(node, "nothing")})) {${inner(node)}} }`;
    }
    return inner(node);
  };
  return emit(file) + text.slice(file.getEnd());
}

/** Answers which change is active; with `cover`, records which changes the tests reach instead. */
const PRELUDE = `
const __active = process.env.MUTANT ?? "";
const __reached = new Set();
globalThis.__mutant ??= __active === "cover"
  ? (number) => (__reached.add(number), false)
  : (number) => number === Number(__active || "-1");
if (__active === "cover") process.on("exit", () => console.log("\\n#reached " + [...__reached].join(" ")));
`;

const sources = join(root, "src", room);
// In the order of their names, so that a change keeps its number.
const instrumented = new Map(
  readdirSync(sources).filter((name) => name.endsWith(".ts")).sort().map((
    name,
  ) => [join(sources, name), instrument(join(sources, name))]),
);
const out = join(root, "node_modules/.mutants", room);
rmSync(out, { recursive: true, force: true });
mkdirSync(out, { recursive: true });
const tests = readdirSync(join(root, "tests", room)).filter((name) => name.endsWith(".test.ts"));
await build({
  absWorkingDir: root,
  entryPoints: tests.map((name) => join(root, "tests", room, name)),
  outdir: out,
  bundle: true,
  splitting: true,
  platform: "node",
  format: "esm",
  packages: "external",
  banner: { js: PRELUDE },
  plugins: [{
    name: "mutants",
    setup({ onLoad }) {
      onLoad({ filter: /\.ts$/ }, ({ path }) => {
        const contents = instrumented.get(path) ?? readFileSync(path, "utf8");
        // Tests find files of the repository by where they are.
        return { contents: contents.replaceAll("import.meta.url", JSON.stringify(pathToFileURL(path).href)), loader: "ts" };
      });
    },
  }],
});

/** Runs one test file, and ends it at the first failure. */
function run(test: string, mutant: string, timeout: number): Promise<{ failed: boolean; output: string }> {
  // Some tests load a second copy of the source, which is TypeScript.
  const args = ["--import", "./scripts/typescript.mjs", "--test-reporter=tap", join(out, test.replace(/\.ts$/, ".js"))];
  const child = spawn(process.execPath, args, {
    cwd: root,
    env: { ...process.env, MUTANT: mutant, SEED: values.seed },
    stdio: ["ignore", "pipe", "ignore"],
  });
  return new Promise((resolve) => {
    let output = "";
    let failed = false;
    const fail = () => {
      failed = true;
      child.kill("SIGKILL");
    };
    const timer = setTimeout(fail, timeout);
    child.stdout.setEncoding("utf8").on("data", (text) => {
      output += text;
      if (!failed && /^\s*not ok/m.test(text)) fail();
    });
    child.on("close", (code) => {
      clearTimeout(timer);
      resolve({ failed: failed || code !== 0, output });
    });
  });
}

/** The tests that reach each change, the fastest first. */
const reachedBy = new Map<number, string[]>();
const usual = new Map<string, number>();
for (const test of tests) {
  const begun = performance.now();
  const { failed, output } = await run(test, "cover", 120_000);
  usual.set(test, performance.now() - begun);
  if (failed) throw new Error(`${test} fails without a change`);
  for (const number of new Set(output.match(/^#reached .*$/gm)?.join(" ").match(/\d+/g))) {
    reachedBy.set(Number(number), [...reachedBy.get(Number(number)) ?? [], test]);
  }
}

const size = values.sample === undefined ? mutants.length : Number(values.sample);
/** The same changes for the same seed, spread over the room. */
const rank = (number: number) => (Math.imul(number + 1, 2_654_435_761) ^ Math.imul(Number(values.seed), 40_503)) >>> 0;
const chosen = only !== undefined
  ? [Number(only)]
  : mutants.map((_, number) => number).sort((a, b) => rank(a) - rank(b)).slice(0, size).sort((a, b) => a - b);
let killed = 0;
let unreached = 0;
for (const number of chosen) {
  const { place, before, after } = mutants[number]!;
  const covering = (reachedBy.get(number) ?? []).sort((a, b) => usual.get(a)! - usual.get(b)!);
  let isKilled = false;
  for (const test of covering) {
    isKilled = (await run(test, String(number), usual.get(test)! * PATIENCE + SLACK)).failed;
    if (isKilled) break;
  }
  if (isKilled) killed++;
  else {
    if (covering.length === 0) unreached++;
    console.log(
      `${covering.length === 0 ? "not reached" : "survived"} ${number} ${place}  ${before.slice(0, 120)}  →  ${
        after.slice(0, 120)
      }`,
    );
  }
}
console.log(
  `${basename(sources)}: ${killed} of ${chosen.length} changes noticed (${
    Math.floor(100 * killed / chosen.length)
  } %), ${unreached} not reached`,
);
