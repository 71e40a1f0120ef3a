/**
 * Makes every link to the project from `publication.json`, the one place that has its address. Values with `.invalid` in them are not set
 * yet.
 *
 * - `check [tag]` refuses to publish: while a value is not set, when a manifest differs, or when the tag is not the version.
 * - `write` writes the links of the manifests.
 * - `links` makes the links of README.md absolute, so that they work on npm and JSR. The release workflow does so in its own copy.
 */
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import process from "node:process";

/** What `publication.json` holds. */
interface Publication {
  /** Web address of the repository, without `.git`. */
  readonly repository: string;
  readonly homepage: string;
  /** Name and address, as npm's `author`. */
  readonly author: string;
}

type Manifest = Record<string, unknown>;

/** The packages that are published from here. */
const MANIFESTS = ["package.json", "create/package.json"].filter((path) => existsSync(path));

const [command, tag] = process.argv.slice(2);
const publication: Publication = read("publication.json") as never; // Its interface describes the file.
const { version } = read("package.json");

if (command === "check") check();
else if (command === "write") write();
else if (command === "links") writeFileSync("README.md", absoluteLinks(readFileSync("README.md", "utf8")));
else fail([`Cannot run "${command ?? ""}": use check, write or links`]);

function check(): void {
  const unset = Object.entries(publication).filter(([, value]) => value.includes(".invalid"));
  const differing = MANIFESTS.filter((path) => JSON.stringify(linked(read(path))) !== JSON.stringify(read(path)));
  const versions = ["deno.json", ...MANIFESTS].filter((path) => read(path)["version"] !== version);
  fail([
    ...unset.map(([name]) => `Cannot publish: set "${name}" in publication.json`),
    ...differing.map((path) => `Cannot publish: ${path} differs from publication.json, run "npm run publication -- write"`),
    ...versions.map((path) => `Cannot publish: ${path} does not have the version ${version} of package.json`),
    ...(tag !== undefined && tag !== `v${version}` ? [`Cannot publish: the tag ${tag} is not v${version}`] : []),
  ]);
}

function write(): void {
  for (const path of MANIFESTS) writeFileSync(path, JSON.stringify(linked(read(path)), null, 2) + "\n");
}

/** The manifest with its links, which follow the license. */
function linked(manifest: Manifest): Manifest {
  const { repository, homepage, author } = publication;
  const directory = manifest["name"] === "noroshi" ? {} : { directory: "create" };
  const links = {
    author,
    homepage,
    repository: { type: "git", url: `git+${repository}.git`, ...directory },
    bugs: { url: `${repository}/issues` },
  };
  const others = Object.entries(manifest).filter(([name]) => !Object.hasOwn(links, name));
  return Object.fromEntries(
    others.flatMap(([name, value]) => name === "license" ? [[name, value], ...Object.entries(links)] : [[name, value]]),
  );
}

/** npm and JSR show the README without the files that it links to. */
function absoluteLinks(text: string): string {
  const to = (kind: "blob" | "raw", path: string) => `${publication.repository}/${kind}/v${version}/${path}`;
  return text
    .replaceAll(/(?<=\]\()(?![a-z]+:|#|\/)[^)\s]+(?=\))/g, (path) => to("blob", path))
    .replaceAll(/(?<=(?:src|srcset)=")(?![a-z]+:|\/)[^"]+(?=")/g, (path) => to("raw", path));
}

function read(path: string): Manifest {
  return JSON.parse(readFileSync(path, "utf8"));
}

function fail(faults: readonly string[]): void {
  for (const fault of faults) console.error(fault);
  if (faults.length > 0) process.exitCode = 1;
}
