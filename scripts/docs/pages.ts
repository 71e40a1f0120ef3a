/** The pages of the documentation, in the order in which a reader meets them. */
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

/** The root of the repository. */
export const root: string = join(
  dirname(fileURLToPath(import.meta.url)),
  "../..",
);

/** The folder of the pages. */
export const docs: string = join(root, "docs");

/** A page of the site. */
export interface DocsPage {
  /** Its path below `docs/`, without `.md`. */
  readonly path: string;
  /** Its first heading. */
  readonly title: string;
  /** Its name in the sidebar, where a heading that is a question is too long. */
  readonly name: string;
  /** Its text, with the files that it includes. */
  readonly text: string;
}

/** A group of pages in the sidebar. */
export interface DocsSection {
  readonly title: string;
  readonly pages: readonly DocsPage[];
}

/** For each section its folder, and the names of its first pages; the others follow by their names. */
const SECTIONS: readonly {
  title: string;
  folder: string;
  first: readonly string[];
}[] = [
  {
    title: "Start",
    folder: "start",
    first: ["bun", "deno", "node", "cloudflare", "client", "react", "side-by-side"],
  },
  {
    title: "Tutorial",
    folder: "tutorial",
    first: ["set-up", "log-in", "test", "rooms", "history", "page", "two-nodes", "deploy"],
  },
  {
    title: "Guides: server",
    folder: "guides",
    first: [
      ...[
        "authenticate",
        "jwt",
        "cookie-sessions",
        "custom-authentication",
        "origins",
        "revoke-rights",
      ],
      ...[
        "channels",
        "authorize-channels",
        "recovery",
        "presence",
        "validate",
        "contract",
        "asyncapi",
        "handler-errors",
      ],
      ...["streams", "stream-input", "resumable-streams", "ai-chat", "answers"],
      ...["limits", "slow-consumers", "hibernation", "call-an-object", "shards", "schedule", "object-storage"],
    ],
  },
  {
    title: "Guides: client",
    folder: "guides",
    first: [
      "client-connection",
      "client-messages",
      "client-subscriptions",
      "without-websockets",
      "channels-over-http",
      "webhooks",
      "react-native",
      "bundlers-and-typescript",
    ],
  },
  {
    title: "Guides: run it",
    folder: "guides",
    first: [
      ...[
        "test-an-app",
        "test-failures",
        "test-kit",
        "deploy",
        "drain",
        "deploy-systemd",
        "deploy-containers",
        "deploy-kubernetes",
        "deploy-nginx",
        "deploy-caddy",
        "deploy-fly",
        "other-edges",
        "scale-out",
        "redis",
        "nats",
        "postgres",
        "publish-without-a-connection",
        "worker-threads",
      ],
      ...["metrics", "tracing", "logs", "inspector"],
      ...[
        "upgrade",
        "hot-reload",
        "beside-other-libraries",
        "deno-permissions",
      ],
    ],
  },
  {
    title: "Migrate",
    folder: "migrate",
    first: ["socket-io", "ws", "hono-websocket", "partykit", "directus"],
  },
  {
    title: "Reference",
    folder: "reference",
    first: [
      "api",
      "options",
      "errors",
      "log",
      "protocol",
      "compatibility",
      "promises",
    ],
  },
  {
    title: "Internals",
    folder: "internals",
    first: ["architecture", "runtimes", "cluster", "reliability", "capacity", "measurements", "readme"],
  },
];

/** All sections that have pages. */
export function listSections(): DocsSection[] {
  const named = new Set(
    SECTIONS.flatMap(({ folder, first }) => first.map((name) => `${folder}/${name}`)),
  );
  const taken = new Set<string>();
  const sections = SECTIONS.map(({ title, folder, first }): DocsSection => {
    const names = [
      ...first,
      ...namesIn(folder).filter((name) => !named.has(`${folder}/${name}`) && !taken.has(`${folder}/${name}`)),
    ];
    const paths = names.map((name) => `${folder}/${name}`).filter((path) => existsSync(join(docs, `${path}.md`)));
    for (const path of paths) taken.add(path);
    if (folder === "reference" && existsSync(join(docs, "performance.md"))) {
      paths.push("performance");
    }
    return { title, pages: paths.map(readPage) };
  });
  return sections.filter(({ pages }) => pages.length > 0);
}

function namesIn(folder: string): string[] {
  const path = join(docs, folder);
  return existsSync(path)
    ? readdirSync(path).filter((name) => name.endsWith(".md")).map((name) => basename(name, ".md")).sort()
    : [];
}

function readPage(path: string): DocsPage {
  const file = join(docs, `${path}.md`);
  const text = readFileSync(file, "utf8").replace(/^---\n[\s\S]*?\n---\n/, "")
    .replace(
      /<!--\s*@include:\s*(\S+)\s*-->/g,
      (_, included: string) => readFileSync(join(dirname(file), included), "utf8"),
    )
    // A file of `@/` is there to be copied, not to be read: it stays a reference.
    .replace(
      /^<<< (?!@)(\S+?)(?:#([\w-]+))?(?:\{(\w+)\})?(?: \[.+\])?$/gm,
      (_, imported: string, region?: string, language = "") =>
        `\`\`\`${language}\n${readRegion(join(dirname(file), imported), region).trimEnd()}\n\`\`\``,
    );
  return { path, title: text.match(/^# (.+)$/m)?.[1] ?? path, name: nameOf(basename(path)), text };
}

/** The text of a file, or of a region of it, as VitePress imports it. */
function readRegion(file: string, region?: string): string {
  const lines = readFileSync(file, "utf8").split("\n");
  if (region === undefined) return lines.join("\n");
  const [start, end] = ["region", "endregion"].map((word) => lines.findIndex((line) => line.trim() === `# ${word} ${region}`));
  if (start === -1 || end === -1) throw new Error(`Cannot import ${file}: it has no region "${region}"`);
  const own = lines.slice(start! + 1, end);
  const indent = Math.min(...own.filter((line) => line !== "").map((line) => line.search(/\S/)));
  return own.map((line) => line.slice(indent)).join("\n");
}

/** Names that a file name does not spell. */
const NAMES: Record<string, string> = {
  api: "API",
  "ai-chat": "AI chat",
  asyncapi: "AsyncAPI",
  "bundlers-and-typescript": "Bundlers and TypeScript",
  "client-connection": "Connection",
  "client-messages": "Messages",
  "client-subscriptions": "Subscriptions",
  cluster: "Between nodes",
  contract: "Types from end to end",
  "deno-permissions": "Permissions on Deno",
  "deploy-caddy": "Deploy: Caddy",
  "deploy-containers": "Deploy: Docker",
  "deploy-fly": "Deploy: Fly.io",
  "deploy-kubernetes": "Deploy: Kubernetes",
  "deploy-nginx": "Deploy: nginx",
  "deploy-systemd": "Deploy: systemd",
  directus: "Directus",
  "hono-websocket": "Hono's WebSocket helpers",
  jwt: "JSON Web Tokens",
  nats: "NATS",
  partykit: "PartyKit, PartyServer",
  postgres: "PostgreSQL",
  "react-native": "React Native",
  "socket-io": "Socket.IO",
  ws: "ws",
};

function nameOf(file: string): string {
  const words = file.replaceAll("-", " ");
  return NAMES[file] ?? words.charAt(0).toUpperCase() + words.slice(1);
}

/** The sidebar of the site. The section of the page that is read is open. */
export function sidebar(): { text: string; collapsed: boolean; items: { text: string; link: string }[] }[] {
  return listSections().map(({ title, pages }, index) => ({
    text: title,
    collapsed: index > 0,
    items: pages.map(({ path, name }) => ({ text: name, link: `/${path}` })),
  }));
}
