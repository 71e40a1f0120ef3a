/**
 * Reads the fenced snippets of a page. Words after the language say what the test does with a snippet; no site shows them:
 *
 * - `[name]`: a file of a project. It is type-checked where it is TypeScript.
 * - `run` on `sh`: the commands of a project. The project has the files under the same heading, and those under headings without commands.
 *   The last command starts a server; then `client.ts` runs. Without a `client.ts` the last command ends by itself.
 * - `run` on `ts`: a program that ends by itself.
 * - `no-run`: a part of a program, which is type-checked and not run. On other languages than TypeScript: not tested.
 *
 * `<!-- given: … -->` before a snippet holds declarations that it takes for granted. A comment after `console.log(…);` is what the line prints.
 */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

/** A fenced snippet. */
export interface Snippet {
  readonly page: string;
  /** Line of the fence, from 1. */
  readonly line: number;
  readonly language: string;
  /** Name of the file, where the fence has one. */
  readonly file: string | undefined;
  readonly words: readonly string[];
  readonly heading: string;
  readonly given: string;
  readonly code: string;
}

/** The commands and files of one project. */
export interface Project {
  readonly page: string;
  readonly heading: string;
  readonly commands: readonly string[];
  readonly files: ReadonlyMap<string, Snippet>;
}

/** Languages whose snippets are programs: each of them runs, or is type-checked. */
const PROGRAMS = ["ts", "tsx", "js", "jsx"];

/** The pages whose snippets are tested. */
export function listPages(root: string): string[] {
  const docs = readdirSync(join(root, "docs"), { recursive: true, encoding: "utf8" });
  const pages = docs.map((name) => `docs/${name.replaceAll("\\", "/")}`)
    .filter((name) => name.endsWith(".md") && !name.includes("node_modules") && !name.includes("/."));
  return [...readdirSync(root).filter((name) => name.endsWith(".md")), ...pages].sort();
}

export function readSnippets(root: string, page: string): Snippet[] {
  const text = readFileSync(join(root, page), "utf8").replaceAll("\r\n", "\n");
  const token =
    /^(?<indent> *)(?<fence>`{3,})(?<info>[^\n`]*)\n(?<code>[\s\S]*?)^ *\k<fence> *$|^#+ (?<heading>.*)$|<!-- given:(?<given>[\s\S]*?)-->/gm;
  const snippets: Snippet[] = [];
  let [heading, given] = ["", ""];
  for (const { index, groups = {} } of text.matchAll(token)) {
    if (groups["heading"] !== undefined) heading = groups["heading"];
    else if (groups["given"] !== undefined) given = groups["given"];
    else {
      const [language = "", ...words] = groups["info"]!.trim().split(/\s+/);
      const line = text.slice(0, index).split("\n").length;
      const file = words.find((word) => /^\[.+\]$/.test(word))?.slice(1, -1);
      const code = groups["code"]!.replaceAll(new RegExp(`^${groups["indent"]}`, "gm"), "");
      snippets.push({ page, line, language, file, words, heading, given, code });
      given = "";
    }
  }
  return snippets;
}

/** Whether the test does anything with a snippet. */
export function isMarked({ file, words }: Snippet): boolean {
  return file !== undefined || words.includes("run") || words.includes("no-run");
}

export function isProgram({ language }: Snippet): boolean {
  return PROGRAMS.includes(language);
}

export function where({ page, line }: Snippet): string {
  return `${page}:${line}`;
}

export function listProjects(snippets: readonly Snippet[]): Project[] {
  const starts = snippets.filter(({ language, words }) => language === "sh" && words.includes("run"));
  const headings = new Set(starts.map(({ heading }) => heading));
  return starts.map(({ page, heading, code }) => {
    const files = snippets.filter((snippet) =>
      snippet.file !== undefined && (snippet.heading === heading || !headings.has(snippet.heading))
    );
    return {
      page,
      heading,
      commands: code.split("\n").map((line) => line.replace(/\s+#.*$/, "").trim()).filter((line) => line !== ""),
      files: new Map(files.map((snippet) => [snippet.file!, snippet])),
    };
  });
}

/** What a program prints, by the comments after its `console.log(…);`. */
export function readOutput(code: string): string[] {
  return [...code.matchAll(/\bconsole\.log\(.*\);? \/\/ (.+)$/gm)].map(([, printed]) => printed!);
}
