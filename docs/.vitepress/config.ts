/** The documentation site. It imports nothing of VitePress, so that the checks of the repository need none of its packages. */
import { addApi } from "../../scripts/docs/api.ts";
import { repositoryLinks, slugify } from "../../scripts/docs/links.ts";
import { writeLlms } from "../../scripts/docs/llms.ts";
import { sidebar } from "../../scripts/docs/pages.ts";

/** The part of markdown-it that is used here. */
interface MarkdownIt {
  options: { highlight?: unknown };
  render(source: string, env: { frontmatter?: { search?: boolean } }): string;
}

/** Renders a page for the search index, without highlighting: the index has no colours, and highlighting takes seconds. */
function renderForSearch(
  source: string,
  env: { frontmatter?: { search?: boolean } },
  md: MarkdownIt,
): string {
  const { highlight } = md.options;
  md.options.highlight = null;
  try {
    const html = md.render(source, env);
    return env.frontmatter?.search === false ? "" : html;
  } finally {
    md.options.highlight = highlight;
  }
}

export default {
  lang: "en",
  title: "Noroshi",
  description: "The realtime WebSocket service for Hono apps on Bun, Deno, Node and Cloudflare Durable Objects",
  srcExclude: ["README.md"],
  // Everything under `node_modules` is ignored already.
  cacheDir: "node_modules/.vitepress",
  head: [["link", { rel: "icon", type: "image/svg+xml", href: "/icon.svg" }]],
  markdown: {
    // The ids of headings are those of GitHub, so that one link works in the repository and on the site.
    anchor: { slugify },
    config: repositoryLinks,
  },
  themeConfig: {
    logo: "/icon.svg",
    nav: [
      { text: "Start", link: "/start/bun", activeMatch: "^/start/" },
      { text: "Tutorial", link: "/tutorial/set-up", activeMatch: "^/tutorial/" },
      {
        text: "Guides",
        link: "/guides/authenticate",
        activeMatch: "^/guides/",
      },
      {
        text: "Migrate",
        link: "/migrate/socket-io",
        activeMatch: "^/migrate/",
      },
      {
        text: "Reference",
        link: "/reference/options",
        activeMatch: "^/(reference|performance)",
      },
    ],
    sidebar: sidebar(),
    outline: { level: [2, 3] },
    search: { provider: "local", options: { _render: renderForSearch } },
    docFooter: { prev: "Previous", next: "Next" },
  },
  buildEnd({ outDir }: { outDir: string }): void {
    writeLlms(outDir);
    addApi(outDir);
  },
};
