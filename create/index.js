#!/usr/bin/env node
import { relative, resolve } from "node:path";
import process from "node:process";
import { createInterface } from "node:readline";
import { parseArgs } from "node:util";
import { CLIENTS, COMMANDS, generate, RUNTIMES } from "./generate.js";

const HELP = `npm create noroshi@latest [folder] -- [options]

  --runtime ${RUNTIMES.join("|")}
  --client  ${CLIENTS.join("|")}
  --yes     asks nothing and takes the defaults
`;

async function main() {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      runtime: { type: "string" },
      client: { type: "string" },
      yes: { type: "boolean", short: "y" },
      help: { type: "boolean", short: "h" },
    },
  });
  if (values.help) return console.log(HELP);
  if (positionals.length > 1) {
    throw new Error(
      `Cannot create the project: pass one folder, not ${positionals.length}`,
    );
  }
  const questions = values.yes ? undefined : new Questions();
  try {
    const folder = positionals[0] ??
      await questions?.ask("Folder", "noroshi-chat") ?? "noroshi-chat";
    const runtime = await choose(
      "runtime",
      values.runtime,
      RUNTIMES,
      thisRuntime(),
      questions,
    );
    const client = await choose(
      "client",
      values.client,
      CLIENTS,
      "plain",
      questions,
    );
    await generate(resolve(folder), { runtime, client });
    const { install, start, test } = COMMANDS[runtime];
    const place = relative(process.cwd(), resolve(folder));
    console.log(`\nCreated a chat on ${runtime}.\n`);
    for (const line of [...(place ? [`cd ${place}`] : []), install, start]) {
      console.log(`  ${line}`);
    }
    console.log(
      `\nThen open the address that it prints in two tabs. Its tests: ${test}`,
    );
  } finally {
    questions?.close();
  }
}

/** What started this program, where that is known. */
function thisRuntime() {
  if ("Deno" in globalThis) return "deno";
  return process.env["npm_config_user_agent"]?.startsWith("bun/") ? "bun" : "node";
}

/**
 * @template {string} Choice
 * @param {string} name
 * @param {string | undefined} given
 * @param {readonly Choice[]} choices
 * @param {Choice} preset
 * @param {Questions | undefined} questions
 * @returns {Promise<Choice>}
 */
async function choose(name, given, choices, preset, questions) {
  const isChoice = (/** @type {string | undefined} */ value) => choices.find((choice) => choice === value);
  if (given !== undefined) {
    const choice = isChoice(given);
    if (choice) return choice;
    throw new Error(
      `Cannot create the project: --${name} is one of ${choices.join(", ")}, not "${given}"`,
    );
  }
  while (questions) {
    const choice = isChoice(
      await questions.ask(
        `${name[0]?.toUpperCase()}${name.slice(1)}: ${choices.join(", ")}`,
        preset,
      ),
    );
    if (choice) return choice;
  }
  return preset;
}

/** Asks on the terminal. It reads line by line, so that answers may be piped in. */
class Questions {
  #reader = createInterface({ input: process.stdin });
  #lines = this.#reader[Symbol.asyncIterator]();

  /**
   * @param {string} question
   * @param {string} preset the answer to an empty line
   */
  async ask(question, preset) {
    process.stdout.write(`${question} [${preset}] `);
    const { value, done } = await this.#lines.next();
    if (done) throw new Error("\nCannot ask: the input has ended, pass --yes");
    return value.trim() || preset;
  }

  close() {
    this.#reader.close();
  }
}

try {
  await main();
} catch (error) {
  console.error(error instanceof Error ? error.message : error);
  process.exitCode = 1;
}
