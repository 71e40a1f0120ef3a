/** `llms.txt` and `llms-full.txt` (https://llmstxt.org): the pages as plain text for language models. */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { type DocsPage, listSections } from "./pages.ts";

const SUMMARY = `# Noroshi

> The realtime WebSocket service for Hono apps: one WebSocketService, the same on Bun, Deno, Node and Cloudflare Durable Objects.
`;

/** Writes both files into the built site. */
export function writeLlms(outDir: string): void {
  writeFileSync(join(outDir, "llms.txt"), llms());
  writeFileSync(join(outDir, "llms-full.txt"), llmsFull());
}

/** A list of all pages, with the first sentence of each. */
export function llms(): string {
  const sections = listSections().map(({ title, pages }) =>
    `## ${title}\n\n${pages.map((page) => `- [${page.title}](/${page.path}.html): ${firstSentence(page)}`).join("\n")}\n`
  );
  return [SUMMARY, ...sections].join("\n");
}

/** All pages, one after the other. Measurements are left out: they are tables of figures, and half of the text. */
export function llmsFull(): string {
  const pages = listSections().flatMap(({ pages }) => pages).filter((
    { path },
  ) => path !== "internals/measurements");
  return [
    SUMMARY,
    ...pages.map(({ path, text }) => `<!-- /${path}.html -->\n\n${text.trim()}\n`),
  ].join("\n");
}

/** The first sentence of a page, and further ones until they say something. */
function firstSentence({ text }: DocsPage): string {
  const prose = text.replace(/<!--[\s\S]*?-->|^```[\s\S]*?^```$/gm, "");
  const paragraph = prose.split(/\n{2,}/).map((block) => block.trim()).find((block) => /^[A-Z`[]/.test(block)) ?? "";
  const plain = paragraph.replaceAll("\n", " ").replace(/\[([^\]]*)\]\([^)]*\)/g, "$1");
  return plain.match(/^.{30,}?[.:](?=\s|$)/)?.[0].replace(/:$/, ".") ?? plain;
}
