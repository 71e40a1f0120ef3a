/**
 * Replaces `node:test` while the tests of a room run against changes of its code. It collects the tests, so that one process can run each of
 * them many times. It has those functions that the tests of the rooms use.
 */
type Body = (context: { name: string }) => unknown;
type Hook = "before" | "beforeEach" | "afterEach" | "after";
interface Options {
  skip?: boolean | string;
}

class Suite {
  readonly hooks: Record<Hook, Body[]> = { before: [], beforeEach: [], afterEach: [], after: [] };
  readonly #name: string;
  readonly #parent: Suite | undefined;
  #hasBegun = false;

  constructor(name: string, parent?: Suite) {
    this.#name = name;
    this.#parent = parent;
  }

  /** It and those around it, the outermost first. */
  get all(): Suite[] {
    return [...this.#parent?.all ?? [], this];
  }

  async begin(): Promise<void> {
    if (this.#hasBegun) return;
    this.#hasBegun = true;
    await this.call("before");
  }

  async end(): Promise<void> {
    if (this.#hasBegun) await this.call("after");
  }

  async call(hook: Hook): Promise<void> {
    for (const body of this.hooks[hook]) await body({ name: this.#name });
  }
}

/** A test, with all that runs before and after it. */
class Test {
  readonly name: string;
  readonly #suite: Suite;
  readonly #body: Body;

  constructor(name: string, suite: Suite, body: Body) {
    this.name = name;
    this.#suite = suite;
    this.#body = body;
  }

  /** Rejects if the test fails. */
  async run(): Promise<void> {
    const suites = this.#suite.all;
    for (const suite of suites) await suite.begin();
    try {
      for (const suite of suites) await suite.call("beforeEach");
      await this.#body({ name: this.name });
    } finally {
      for (const suite of suites.reverse()) await suite.call("afterEach");
    }
  }
}

let suite = new Suite("");
const suites = [suite];

/** The tests of the loaded file. */
export const tests: Test[] = [];

export function describe(name: string, ...rest: [Body] | [Options, Body]): void {
  const [options, body] = split(rest);
  if (options.skip) return;
  const outer = suite;
  suites.push(suite = new Suite(name, outer));
  if (body({ name }) instanceof Promise) throw new Error(`Cannot run the suite "${name}": it is asynchronous`);
  suite = outer;
}

export function it(name: string, ...rest: [Body] | [Options, Body]): void {
  const [options, body] = split(rest);
  if (!options.skip) tests.push(new Test(name, suite, body));
}

export const before = (body: Body): void => void suite.hooks.before.push(body);
export const beforeEach = (body: Body): void => void suite.hooks.beforeEach.push(body);
export const afterEach = (body: Body): void => void suite.hooks.afterEach.push(body);
export const after = (body: Body): void => void suite.hooks.after.push(body);

/** Runs the hooks `after`, those of the innermost suites first. */
export async function endSuites(): Promise<void> {
  for (const suite of suites.toReversed()) await suite.end();
}

const split = (rest: [Body] | [Options, Body]): [Options, Body] => rest.length === 1 ? [{}, rest[0]] : rest;
