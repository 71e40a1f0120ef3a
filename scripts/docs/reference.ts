/** `docs/reference/options.md`: every option as a table, from the JSDoc of the interfaces. */
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { docs, root } from "./pages.ts";

/** An option, as its declaration and its comment describe it. */
export interface Option {
  readonly name: string;
  readonly type: string;
  readonly isRequired: boolean;
  readonly default: string;
  readonly text: string;
}

interface Declaration {
  readonly parents: readonly string[];
  readonly options: readonly Option[];
}

interface Table {
  readonly title: string;
  readonly intro: string;
  readonly name: string;
  readonly prefix?: string;
}

/** The tables of the page. Options of options follow with their prefix. */
const TABLES: readonly Table[] = [
  {
    title: "The controller",
    intro:
      "`createWebSocketController(options)` and `new WebSocketController(options)`, of `noroshi`. An option that is unknown " +
      "or out of range throws a `TypeError` that says what to write.",
    name: "WebSocketControllerOptions",
  },
  {
    title: "`heartbeat`",
    intro: "Of the controller.",
    name: "HeartbeatOptions",
    prefix: "heartbeat.",
  },
  {
    title: "`rateLimit`",
    intro: "Of the controller.",
    name: "RateLimitOptions",
    prefix: "rateLimit.",
  },
  {
    title: "`jwtAuthenticator`",
    intro: "`jwtAuthenticator(options)`, of `noroshi`.",
    name: "JwtAuthenticatorOptions",
  },
  {
    title: "`handle`",
    intro: "The fourth argument of `controller.handle`.",
    name: "HandleOptions",
  },
  {
    title: "`resumable`",
    intro: "Of `handle`, beside its functions [`merge`, `key` and `authorize`](../guides/resumable-streams.md).",
    name: "ResumableOptions",
    prefix: "resumable.",
  },
  {
    title: "Schedules",
    intro: "`new Schedules(handlers, options)`, of `noroshi/schedules`.",
    name: "SchedulesOptions",
  },
  {
    title: "A channel",
    intro: "`new Channels(controller, { name: options })`, of `noroshi/channels`.",
    name: "ChannelOptions",
  },
  {
    title: "`history`",
    intro: "Of a channel.",
    name: "ChannelHistoryOptions",
    prefix: "history.",
  },
  {
    title: "`presence`",
    intro: "Of a channel.",
    name: "PresenceOptions",
    prefix: "presence.",
  },
  {
    title: "All channels",
    intro: "The third argument of `new Channels`.",
    name: "ChannelsOptions",
  },
  {
    title: "`serve`",
    intro: "`serve(app, options)`, of `noroshi/serve`.",
    name: "ServeOptions",
  },
  {
    title: "`drain`",
    intro: "`controller.drain(options)`, and the option `drain` of `serve`. An unknown option throws a `TypeError`.",
    name: "DrainOptions",
  },
  {
    title: "The client",
    intro: "`createClient(url, options)`, of `noroshi/client`. An unknown option throws a `TypeError`.",
    name: "ClientOptions",
  },
  {
    title: "`withFallback`",
    intro: "`withFallback(options)`, of `noroshi/client/sse`.",
    name: "WithFallbackOptions",
  },
  {
    title: "`fallback`",
    intro: "`fallback(options)`, of `noroshi/http`.",
    name: "FallbackOptions",
  },
  {
    title: "`webhook`",
    intro: "The third argument of `webhook`, of `noroshi/http`.",
    name: "WebhookOptions",
  },
  {
    title: "`channelsOpenApi`",
    intro: "`channelsOpenApi(contract, options)`, of `noroshi/http`.",
    name: "ChannelsOpenApiOptions",
  },
  {
    title: "A request",
    intro: "The third argument of `client.request`.",
    name: "RequestOptions",
  },
  {
    title: "A stream",
    intro: "The third argument of `client.stream`, which the option `streams` of `noroshi/client/streams` adds.",
    name: "StreamOptions",
  },
  {
    title: "`attach`",
    intro: "The second argument of `client.attach`, beside `signal`.",
    name: "AttachOptions",
  },
  {
    title: "A subscription",
    intro: "The second argument of `client.subscribe`.",
    name: "SubscribeOptions",
  },
  {
    title: "`useSubscription`",
    intro: "Of `noroshi/react`, beside those of a subscription.",
    name: "UseSubscriptionOptions",
  },
  {
    title: "Every engine over a broker",
    intro: "Of `redisEngine`, `natsEngine` and `postgresEngine`.",
    name: "BrokerEngineOptions",
  },
  {
    title: "`redisEngine`",
    intro: "Of `noroshi/redis`, beside those of every engine.",
    name: "RedisEngineOptions",
  },
  {
    title: "`natsEngine`",
    intro: "Of `noroshi/nats`, beside those of every engine.",
    name: "NatsEngineOptions",
  },
  {
    title: "`history` of `natsEngine`",
    intro: "Bounds of the stream.",
    name: "NatsHistoryOptions",
    prefix: "history.",
  },
  {
    title: "`postgresEngine`",
    intro: "Of `noroshi/postgres`, beside those of every engine.",
    name: "PostgresEngineOptions",
  },
  {
    title: "`createPublisher`",
    intro: "Of `noroshi/publisher`.",
    name: "PublisherOptions",
  },
  {
    title: "`broadcastChannelEngine`",
    intro: "Of `noroshi/broadcast-channel`.",
    name: "BroadcastChannelEngineOptions",
  },
  {
    title: "`asyncapi`",
    intro: "Of `noroshi/asyncapi`.",
    name: "AsyncApiOptions",
  },
  {
    title: "`answerOnce`",
    intro: "`answerOnce(options)`, of `noroshi/once`.",
    name: "AnswerOnceOptions",
  },
  {
    title: "`observe`",
    intro: "`observe(controller, options)`, of `noroshi/otel`.",
    name: "ObserveOptions",
  },
  {
    title: "`inspector`",
    intro: "`inspector(controller, options)`, of `noroshi/inspector`. An unknown option throws a `TypeError`.",
    name: "InspectorOptions",
  },
  {
    title: "`handleChat`",
    intro: "`handleChat(controller, handler, options)`, of `noroshi/ai`, beside `ttl`, `size` and `authorize` of `resumable`.",
    name: "ChatOptions",
  },
  {
    title: "`createChatTransport`",
    intro: "`createChatTransport(client, options)`, of `noroshi/ai`.",
    name: "ChatTransportOptions",
  },
  {
    title: "`MemoryEngine`",
    intro: "`new MemoryEngine(options)`, of `noroshi`.",
    name: "MemoryEngineOptions",
  },
  {
    title: "`testkit`",
    intro: "`testkit(app, options)`, of `noroshi/testing`. An unknown option throws a `TypeError`.",
    name: "TestkitOptions",
  },
  {
    title: "A connection of the test kit",
    intro: "`t.connect(options)` and `t.client(options)`, beside those of the client, and `t.socket(options)`.",
    name: "TestConnectOptions",
  },
];

const HEAD = `<!-- deno-fmt-ignore-file -->
<!-- Generated from the comments in src/ by scripts/docs/reference.ts: npm run docs:reference -->

# Options

Every option, with its unit and its default. Times are in ms and sizes in bytes unless an option says otherwise.
`;

/** Where the page is. */
export const optionsPage: string = join(docs, "reference/options.md");

/** Writes the page. */
export function writeReference(): void {
  writeFileSync(optionsPage, optionsReference());
}

/** The text of the page. */
export function optionsReference(): string {
  const declarations = readDeclarations();
  const sections = TABLES.map(({ title, intro, name, prefix = "" }) => {
    const options = optionsOf(declarations, name);
    const rows = options.map(({ name, type, isRequired, default: fallback, text }) =>
      `| \`${prefix}${name}\` | ${isRequired ? "required" : cell(fallback)} | ${cell(text)}<br>${code(type)} |`
    );
    return `## ${title}\n\n${intro}\n\n| option | default | |\n| --- | --- | --- |\n${rows.join("\n")}\n`;
  });
  return [HEAD, ...sections].join("\n");
}

/** The options of an interface and of those that it extends. The interface itself comes first. */
function optionsOf(
  declarations: Map<string, Declaration>,
  name: string,
): Option[] {
  const declaration = declarations.get(name);
  if (!declaration) {
    throw new Error(
      `Cannot write the reference: src/ has no "export interface ${name}"`,
    );
  }
  // An engine's own options stand in a table of their own.
  const parents = declaration.parents.filter((parent) => declarations.has(parent) && parent !== "BrokerEngineOptions");
  return [
    ...declaration.options,
    ...parents.flatMap((parent) => optionsOf(declarations, parent)),
  ];
}

const code = (type: string) => `\`${type.replaceAll("|", "\\|")}\``;
/** Text in a cell: one line, and \`|\` and \`<\` outside of code have no meaning of their own. */
const cell = (text: string) =>
  text.split(/(`[^`]*`)/).map((part) =>
    part.startsWith("`") ? part.replaceAll("|", "\\|") : part.replaceAll("|", "\\|").replaceAll("<", "&lt;")
  )
    .join("");

function readDeclarations(): Map<string, Declaration> {
  const files = readdirSync(join(root, "src"), {
    recursive: true,
    encoding: "utf8",
  }).filter((name) => name.endsWith(".ts")).sort();
  const found = new Map<string, Declaration>();
  for (const file of files) {
    const source = readFileSync(join(root, "src", file), "utf8");
    for (const [, name, parents = "", body] of source.matchAll(INTERFACE)) {
      found.set(name!, {
        parents: parents.split(/,\s*/).map((parent) => parent.replace(/<.*/, "").trim()),
        options: readMembers(body!),
      });
    }
  }
  return found;
}

/** As \`deno fmt\` writes them: the closing brace of an interface stands at the beginning of its line. */
const INTERFACE = /^export interface (\w+)(?:<[^{]*?>)?(?: extends ([^{]+?))? \{\n([\s\S]*?)^\}/gm;

/** Members and their comments; the fields of an object type follow with the name of the member in front. */
function readMembers(body: string, indent = "  "): Option[] {
  const options: Option[] = [];
  const lines = body.split("\n");
  let comment: string[] = [];
  for (let at = 0; at < lines.length; at++) {
    const line = lines[at]!;
    if (!line.startsWith(indent) || line.startsWith(`${indent} `)) continue;
    const text = line.slice(indent.length);
    if (text.startsWith("/**")) {
      comment = [];
      for (;; at++) {
        comment.push(
          lines[at]!.replace(/^\s*(?:\/\*\*|\*(?!\/))?\s?/, "").replace(
            /\s*\*\/\s*$/,
            "",
          ),
        );
        if (lines[at]!.includes("*/")) break;
      }
      continue;
    }
    const member = text.match(/^(?:readonly )?(\w+)(\?)?: (.*)$/);
    if (!member) continue;
    const [, name, optional, first] = member;
    let declared = first!;
    const nested: string[] = [];
    while (
      !/;(?: \/\/.*)?$/.test(declared) ||
      (nested.length > 0 && lines[at] !== `${indent}};`)
    ) {
      at++;
      nested.push(lines[at]!);
      declared += ` ${lines[at]!.trim()}`;
    }
    const { text: described, default: fallback } = readComment(
      comment.join("\n"),
    );
    const isObject = first === "{";
    options.push({
      name: name!,
      type: isObject ? "object" : declared.replace(/;(?: \/\/.*)?$/, "").replace(/^\| /, ""),
      isRequired: !optional,
      default: fallback,
      text: described,
    });
    if (isObject) {
      const fields = readMembers(nested.join("\n"), `${indent}  `);
      options.push(
        ...fields.map((field) => ({ ...field, name: `${name}.${field.name}` })),
      );
    }
    comment = [];
  }
  return options;
}

function readComment(comment: string): { text: string; default: string } {
  const [described = "", fallback = ""] = comment.split(/@default\s/);
  const value = fallback.trim().replace(/\s+/g, " ");
  return {
    // A list becomes one line: a cell holds no other.
    text: described.replace(/\{@link ([\w.]+)\}/g, "`$1`").split("\n").map((
      line,
    ) => line.trim().replace(/^- /, "· ")).join(" ").replace(/\s+/g, " ")
      .trim(),
    // `{value}` is a value, and what follows it or stands without braces is text.
    default: value.replace(
      /^\{(.*?)\}(?= |$)(?!\})/,
      (_, inner: string) => `\`${inner}\``,
    ),
  };
}
