/** Links of the pages: between each other, and out of `docs/` to files of the repository. */
import { existsSync, readFileSync } from "node:fs";
import { dirname, join, posix } from "node:path";
import { docs, root } from "./pages.ts";

/** The part of markdown-it that is used here. */
interface MarkdownIt {
  core: {
    ruler: {
      push(
        name: string,
        rule: (
          state: { tokens: Token[]; env: { relativePath?: string } },
        ) => void,
      ): void;
    };
  };
}

interface Token {
  type: string;
  children: Token[] | null;
  attrGet(name: string): string | null;
  attrSet(name: string, value: string): void;
}

/** Files outside of `docs/` that are pages of the site. */
const PAGES: Record<string, string> = {
  "PROTOCOL.md": "reference/protocol.md",
  "README.md": "index.md",
};

/** The id of a heading, as GitHub makes it. */
export function slugify(heading: string): string {
  return heading.toLowerCase().trim().replace(
    /[^\p{L}\p{M}\p{N}\p{Pc}\- ]/gu,
    "",
  ).replaceAll(" ", "-");
}

/**
 * A plugin of markdown-it. A link to a file of the repository leads to it there, where `repository` of package.json names an
 * address; until then its text stands without a link. A file that does not exist fails the build.
 */
export function repositoryLinks(md: MarkdownIt): void {
  const address = repositoryAddress();
  md.core.ruler.push(
    "repository-links",
    ({ tokens, env: { relativePath = "" } }) => {
      for (const { children } of tokens) {
        if (children) {
          rewrite(children, relativePath, address);
        }
      }
    },
  );
}

function rewrite(
  tokens: Token[],
  page: string,
  address: string | undefined,
): void {
  // Links do not nest, so the next close belongs to the last open.
  let isDropped = false;
  for (let index = 0; index < tokens.length; index++) {
    const token = tokens[index]!;
    if (token.type === "link_close" && isDropped) tokens.splice(index--, 1);
    if (token.type !== "link_open") continue;
    const target = outside(page, token.attrGet("href") ?? "");
    isDropped = false;
    if (!target) continue;
    const [path, hash] = target;
    if (!existsSync(join(root, path))) {
      throw new Error(`Dead link in docs/${page}: ${path} does not exist`);
    }
    if (PAGES[path]) {
      token.attrSet(
        "href",
        posix.relative(posix.dirname(page), PAGES[path]) + hash,
      );
    } else if (address) {
      token.attrSet("href", `${address}/blob/main/${path}${hash}`);
    } else {
      isDropped = true;
      tokens.splice(index--, 1);
    }
  }
}

/** The path from the root of the repository and the fragment, for a link that leaves `docs/`. */
function outside(
  page: string,
  href: string,
): [path: string, hash: string] | undefined {
  if (/^(?:[a-z][a-z+.-]*:|\/|#)/i.test(href)) return undefined;
  const [path = "", hash] = href.split("#");
  const target = posix.join("docs", dirname(page), path);
  if (target.startsWith("docs/")) return undefined;
  return [target.replace(/\/$/, ""), hash === undefined ? "" : `#${hash}`];
}

/** Where the repository is, from `repository` of package.json; `undefined` until that names a page of the web. */
function repositoryAddress(): string | undefined {
  const { repository } = JSON.parse(
    readFileSync(join(root, "package.json"), "utf8"),
  ) as {
    repository?: string | { url?: string };
  }; // As npm defines it.
  const url = (typeof repository === "string" ? repository : repository?.url ?? "")
    .replace(/^git\+/, "").replace(/\.git$/, "");
  return URL.canParse(url) && new URL(url).protocol === "https:" &&
      !/\.invalid$/.test(new URL(url).hostname)
    ? url
    : undefined;
}

/** All relative links of a Markdown text, code left out. */
export function linksOf(text: string): string[] {
  const prose = text.replace(/^( *)(`{3,})[\s\S]*?^\1\2 *$/gm, "").replace(
    /`[^`\n]*`/g,
    "",
  );
  return [...prose.matchAll(/\]\(([^()\s]+)\)/g)].map(([, href]) => href!)
    .filter((href) => !/^[a-z][a-z+.-]*:/i.test(href));
}

export { docs };
