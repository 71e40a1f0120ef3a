import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import process from "node:process";
import { after, describe, it } from "node:test";
import { fileURLToPath } from "node:url";
import { TYPESCRIPT } from "../support/typescript.ts";

const root = join(dirname(fileURLToPath(import.meta.url)), "../..");
const program = join(root, "scripts/publication.ts");

const SET = {
  repository: "https://github.com/someone/noroshi",
  homepage: "https://noroshi.example",
  author: "Someone <someone@noroshi.example>",
};
const UNSET = { ...SET, repository: "https://to-be-set-at-publication.invalid/noroshi" };

describe("publication", () => {
  const folders: string[] = [];
  after(() => folders.forEach((folder) => rmSync(folder, { recursive: true })));

  function create(publication: object): string {
    const folder = mkdtempSync(join(tmpdir(), "noroshi-publication-"));
    folders.push(folder);
    writeFileSync(join(folder, "publication.json"), JSON.stringify(publication));
    writeFileSync(
      join(folder, "package.json"),
      JSON.stringify({ name: "noroshi", version: "1.2.3", license: "MIT", type: "module" }),
    );
    writeFileSync(join(folder, "deno.json"), JSON.stringify({ version: "1.2.3" }));
    writeFileSync(join(folder, "README.md"), '[a](docs/a.md#b) [c](#d) [e](https://e.example) <img src="docs/f.png">');
    return folder;
  }

  function run(folder: string, ...args: string[]): { status: number | null; faults: string[] } {
    const { status, stderr } = spawnSync(process.execPath, [...TYPESCRIPT, program, ...args], {
      cwd: folder,
      encoding: "utf8",
    });
    return { status, faults: stderr.trim().split("\n") };
  }

  it("refuses while the address is not set", () => {
    const folder = create(UNSET);
    assert.equal(run(folder, "write").status, 0);
    assert.deepEqual(run(folder, "check"), { status: 1, faults: ['Cannot publish: set "repository" in publication.json'] });
  });

  it("refuses a manifest with other links, and accepts what it has written", () => {
    const folder = create(SET);
    assert.equal(run(folder, "check").status, 1);
    assert.equal(run(folder, "write").status, 0);
    assert.equal(run(folder, "check", "v1.2.3").status, 0);
    const { repository, bugs } = JSON.parse(readFileSync(join(folder, "package.json"), "utf8"));
    assert.equal(repository.url, "git+https://github.com/someone/noroshi.git");
    assert.equal(bugs.url, "https://github.com/someone/noroshi/issues");
  });

  it("refuses a tag that is not the version", () => {
    const folder = create(SET);
    run(folder, "write");
    assert.deepEqual(run(folder, "check", "v1.2.4"), { status: 1, faults: ["Cannot publish: the tag v1.2.4 is not v1.2.3"] });
  });

  it("makes relative links of the README absolute, and leaves the others", () => {
    const folder = create(SET);
    assert.equal(run(folder, "links").status, 0);
    const at = "https://github.com/someone/noroshi";
    assert.equal(
      readFileSync(join(folder, "README.md"), "utf8"),
      `[a](${at}/blob/v1.2.3/docs/a.md#b) [c](#d) [e](https://e.example) <img src="${at}/raw/v1.2.3/docs/f.png">`,
    );
  });

  it("made the links of this package, and guards its publication", () => {
    const { faults } = run(root, "check");
    assert.deepEqual(
      faults.filter((fault) => fault !== "" && !fault.includes("publication.json") || fault.includes("differs")),
      [],
    );
    const { scripts } = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));
    assert.equal(scripts.prepublishOnly, "npm run publication -- check");
  });
});
