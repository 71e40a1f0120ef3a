import { PGlite } from "@electric-sql/pglite";
import { openAsBlob } from "node:fs";
import { writeFile } from "node:fs/promises";
import { sharedPath } from "./shared.ts";

/** An empty database. It copies one: to make the first takes seconds. */
export async function createPGlite(): Promise<PGlite> {
  return await PGlite.create({ loadDataDir: await openAsBlob(await sharedPath("pglite.tar", makeTemplate)) });
}

async function makeTemplate(path: string): Promise<void> {
  const client = await PGlite.create();
  const dump = await client.dumpDataDir("none");
  await client.close();
  await writeFile(path, dump.stream());
}
