/**
 * Times the first minutes of a reader: `npm run first-minutes` runs the quick starts of the README, each with an empty folder, an empty home
 * and the programs of its runtime only, as in a fresh container. Prints the seconds from the first command to the answer of the client.
 * Words after the command select quick starts: `npm run first-minutes -- bun node`.
 */
import { existsSync, mkdirSync, mkdtempSync, realpathSync, rmSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { delimiter, dirname, join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { endAll, findNode, runProject, start, type Tools, unpackPackage } from "../tests/docs/projects.ts";
import { listProjects, type Project, readOutput, readSnippets } from "../tests/docs/snippets.ts";

const root = join(dirname(fileURLToPath(import.meta.url)), "..");
const programs = join(root, "node_modules/.bin");
const PAGE = "README.md";

/** What the commands of a container may inherit: how the machine reaches its registries. */
const INHERITED =
  /^(?:https?_proxy|no_proxy|npm_config_registry|jsr_url|ssl_cert_\w+|node_extra_ca_certs|deno_(?:cert|tls_\w+))$/i;

const folder = mkdtempSync(join(tmpdir(), "noroshi-first-minutes-"));
for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, () => process.exit(1));
process.once("exit", () => {
  endAll();
  rmSync(folder, { recursive: true, force: true, maxRetries: 3 });
});

process.exitCode = await main(process.argv.slice(2));

async function main(words: string[]): Promise<number> {
  const projects = listProjects(readSnippets(root, PAGE)).filter(({ heading }) =>
    words.length === 0 || words.includes(heading.toLowerCase())
  );
  const packed = await unpackPackage(folder);
  const node = await findNode(folder);
  if (node === undefined) throw new Error("Cannot run the quick starts: Node is older than 22.18, and npm has no node@24");
  const registry = (await start("npm config get registry", folder, { path: [] }).ended).trim();

  let failures = 0;
  console.log(`${"quick start".padEnd(14)}${"seconds".padStart(9)}  answer`);
  // One after the other: each has the machine to itself.
  for (const project of projects) {
    const place = join(folder, project.heading.toLowerCase());
    const tools = { ...packed, path: [], env: createContainer(place, project, node, registry) };
    const { seconds, answer, isRight } = await time(project, join(place, "chat"), tools);
    if (!isRight) failures++;
    console.log(`${project.heading.padEnd(14)}${seconds.toFixed(1).padStart(9)}  ${isRight ? answer : `✖ ${answer}`}`);
  }
  return failures === 0 && projects.length > 0 ? 0 : 1;
}

async function time(project: Project, folder: string, tools: Tools) {
  const expected = [...project.files.values()].flatMap(({ code }) => readOutput(code)).join(", ");
  const start = performance.now();
  const answer = await runProject(project, folder, tools).then((lines) => lines.join(", "), (error: Error) => error.message);
  return { seconds: (performance.now() - start) / 1000, answer, isRight: answer === expected };
}

/** Returns the environment of a container: an empty home, and a PATH with a shell and the programs of one runtime. */
function createContainer(place: string, { commands }: Project, node: string, registry: string): Record<string, string> {
  const [home, bin, temporary] = ["home", "bin", "tmp"].map((name) => join(place, name)) as [string, string, string];
  for (const path of [home, bin, temporary]) mkdirSync(path, { recursive: true });
  for (const name of ["sh", "env"]) symlinkSync(find(name), join(bin, name));
  const [tool = ""] = commands[0]!.split(" ");
  if (tool === "npm") {
    symlinkSync(join(node, "node"), join(bin, "node"));
    for (const name of ["npm", "npx"]) symlinkSync(find(name), join(bin, name));
  } else symlinkSync(join(programs, tool), join(bin, tool));
  const inherited = Object.entries(process.env).filter(([name]) => INHERITED.test(name)) as [string, string][];
  return { ...Object.fromEntries(inherited), HOME: home, TMPDIR: temporary, PATH: bin, npm_config_registry: registry };
}

function find(program: string): string {
  const path = (process.env["PATH"] ?? "").split(delimiter).map((folder) => join(folder, program)).find((path) =>
    existsSync(path)
  );
  if (path === undefined) throw new Error(`Cannot run the quick starts: ${program} is not installed`);
  return realpathSync(path);
}
