#!/usr/bin/env node
import { readFile } from "node:fs/promises";
import process from "node:process";
import { type ContractChange, diffContracts } from "./contract-diff.ts";
import type { AsyncApiDocument } from "./document.ts";
import { isSchema } from "./json-schema.ts";

const USAGE = `Usage: noroshi contract diff <old.json> <new.json>

Lists what is different between two documents of noroshi/asyncapi.
Exits with 0 if no change breaks clients of the old contract, with 1 if one does, with 2 if it cannot compare them.`;

process.exitCode = await main(process.argv.slice(2));

async function main(words: readonly string[]): Promise<number> {
  const [subject, verb, before, after, ...others] = words;
  if (words.includes("--help")) {
    console.log(USAGE);
    return 0;
  }
  if (subject !== "contract" || verb !== "diff" || before === undefined || after === undefined || others.length > 0) {
    console.error(USAGE);
    return 2;
  }
  let changes: readonly ContractChange[];
  try {
    changes = diffContracts(await readDocument(before), await readDocument(after));
  } catch (error) {
    console.error(`Cannot compare: ${error instanceof Error ? error.message : String(error)}`);
    return 2; // Not 1, which a CI takes for a breaking change.
  }
  for (const { isBreaking, text } of changes) console.log(`${isBreaking ? "breaking  " : "compatible"}  ${text}`);
  const count = changes.filter(({ isBreaking }) => isBreaking).length;
  console.log(
    changes.length === 0 ? "No changes" : `${changes.length} ${changes.length === 1 ? "change" : "changes"}, ${count} breaking`,
  );
  return count > 0 ? 1 : 0;
}

async function readDocument(path: string): Promise<AsyncApiDocument> {
  const text = await readFile(path, "utf8");
  let value: unknown;
  try {
    value = JSON.parse(text.replace(/^\ufeff/, ""));
  } catch (cause) {
    throw new TypeError(`${path} is not JSON`, { cause });
  }
  if (
    !isSchema(value) || typeof value["asyncapi"] !== "string" || !isSchema(value["channels"]) || !isSchema(value["operations"])
  ) {
    throw new TypeError(`${path} is no document of noroshi/asyncapi`);
  }
  return value as unknown as AsyncApiDocument; // As far as it is read, of another version at most.
}
