import { toJsonSchema } from "@valibot/to-json-schema";
import { type Context, Hono } from "hono";
import { bodyLimit } from "hono/body-limit";
import { deleteCookie, getCookie, setCookie } from "hono/cookie";
import { sign, verify } from "hono/jwt";
import { secureHeaders } from "hono/secure-headers";
import * as v from "valibot";
import {
  CloseCode,
  type ClusterClient,
  type Engine,
  jwtAuthenticator,
  type MessageFrom,
  type WebSocketClient,
  WebSocketController,
  WebSocketError,
  WebSocketService,
} from "../mod.ts";
import { asyncapi, asyncapiPage } from "../src/asyncapi/asyncapi.ts";
import { Channels } from "../src/channels/channels.ts";
import type { inspector } from "../src/inspector/inspector.ts";
import { fallback } from "../src/http/http.ts";
import { contract, type Desk, type News, type Person, type Role, ROLES, type Said } from "./contract.ts";

type Controller = WebSocketController<typeof contract>;

/** Who can sign in. The passwords are shown on the page: this is a demo. */
const ACCOUNTS: readonly { user: string; name: string; role: Role; password: string }[] = [
  { user: "mika", name: "Mika", role: "editor", password: "beacon" },
  { user: "noor", name: "Noor", role: "reporter", password: "kindling" },
  { user: "tomas", name: "Tomás", role: "reporter", password: "cinder" },
  { user: "lena", name: "Lena", role: "reader", password: "ember" },
  { user: "kofi", name: "Kofi", role: "reader", password: "tinder" },
];

/** Where people talk among themselves. */
const ROOMS: readonly { id: string; name: string; roles: readonly Role[] }[] = [
  { id: "harbour", name: "Harbour", roles: ROLES },
  { id: "town-hall", name: "Town hall", roles: ROLES },
  { id: "night-desk", name: "Night desk", roles: ["editor", "reporter"] },
];

const LoginSchema = v.object({ user: v.string(), password: v.string() });

/** Options of {@link createNewsroom}. */
export interface NewsroomOptions {
  /** Reads a file of `public/` by its name: from disk on Bun, Deno and Node, from the static assets on Cloudflare. */
  readFile(name: string): Promise<string>;
  /**
   * Signs the tokens: at least 32 bytes. Absent or empty: a random one, so that everybody signs in anew after a restart. On
   * Cloudflare that is each time the object was evicted (who is connected stays so): set one there with
   * `wrangler secret put JWT_SECRET`.
   */
  secret?: string | undefined;
  /** How many messages a newcomer is shown, and of each room are kept for who comes back. @default {50} */
  historySize?: number;
  /** `inspector` of `noroshi/inspector`, for the editors. Absent: there is none, such as in a Durable Object. */
  inspector?: typeof inspector;
  /** Where this is one newsroom on several nodes. */
  cluster?: {
    /** Where they meet. */
    engine: Engine;
    /** What this one is called. */
    node: string;
    /** Ends this node, as if its machine had failed: the page has a button for it. */
    kill(): void;
  };
}

/**
 * A newsroom: its page, its login and its wire. Everything it knows is made here, on each call, because Cloudflare calls it
 * once for each Durable Object and the objects of an isolate share the module's variables.
 */
export function createNewsroom(options: NewsroomOptions): { app: Hono; controller: Controller } {
  // Not at module scope: Workers forbid randomness there.
  const secret = options.secret || crypto.randomUUID() + crypto.randomUUID();
  const { cluster, historySize = 50 } = options;
  const controller: Controller = new WebSocketController({
    authenticate: jwtAuthenticator({ secret }),
    ...(cluster && { engine: cluster.engine, node: cluster.node }),
  });
  const channels = createChannels(controller, historySize);
  addNews(controller, channels, cluster?.node);
  addRooms(controller, channels);
  if (cluster) controller.handle("kill", contract.requests.kill, cluster.kill);

  const app = new Hono();
  app.use(secureHeaders({
    contentSecurityPolicy: {
      defaultSrc: ["'none'"],
      scriptSrc: ["'self'"],
      styleSrc: ["'self'"],
      imgSrc: ["data:"],
      connectSrc: ["'self'"],
      baseUri: ["'none'"],
      formAction: ["'none'"],
      frameAncestors: ["'none'"],
    },
  }));
  app.use("/websocket", fallback());
  app.get("/websocket", controller.upgrade);
  app.get("/asyncapi", asyncapiPage(asyncapi(contract, { info: { title: "Newsroom", version: "1.0.0" }, toJsonSchema })));
  if (options.inspector) {
    app.route("/inspector", options.inspector(controller, { channels, authorize: (c) => isEditor(c, secret) }));
  }
  addLogin(app, secret, options.inspector !== undefined);
  for (const [path, name, type] of PAGE) {
    app.get(path, async (c) => c.body(await options.readFile(name), 200, { "content-type": type, "cache-control": "no-cache" }));
  }
  return { app, controller };
}

const PAGE = [
  ["/", "index.html", "text/html; charset=utf-8"],
  ["/app.css", "app.css", "text/css; charset=utf-8"],
  ["/app.js", "app.js", "text/javascript; charset=utf-8"],
  ["/client.js", "client.js", "text/javascript; charset=utf-8"],
  ["/elements.js", "elements.js", "text/javascript; charset=utf-8"],
  ["/nodes.js", "nodes.js", "text/javascript; charset=utf-8"],
  ["/ridge.js", "ridge.js", "text/javascript; charset=utf-8"],
  ["/room.js", "room.js", "text/javascript; charset=utf-8"],
] as const;

/** The cookie of the inspector, whose page has no token of its own. */
const COOKIE = "newsroom-inspector";

async function isEditor(c: Context, secret: string): Promise<boolean | Response> {
  const claims = await verify(getCookie(c, COOKIE) ?? "", secret, "HS256").catch(() => undefined);
  return claims?.["role"] === "editor" || c.redirect("/");
}

function addLogin(app: Hono, secret: string, hasInspector: boolean): void {
  const refusal = (code: string, message: string) => ({ error: { code, message } });

  app.get(
    "/demo-accounts",
    (c) => c.json({ accounts: ACCOUNTS, rooms: ROOMS.map(({ id, name }) => ({ id, name })), hasInspector }),
  );

  const limit = bodyLimit({ maxSize: 1024, onError: (c) => c.json(refusal("INVALID_PAYLOAD", "That is too long"), 413) });
  app.post("/login", limit, async (c) => {
    const credentials = v.safeParse(LoginSchema, await c.req.json().catch(() => null));
    if (!credentials.success) return c.json(refusal("INVALID_PAYLOAD", "Send user and password"), 400);
    const { user, password } = credentials.output;
    const account = ACCOUNTS.find((account) => account.user === user && account.password === password);
    if (!account) return c.json(refusal("AUTH_FAILED", "That name and password do not go together"), 401);
    const { name, role } = account;
    const now = Math.floor(Date.now() / 1000);
    const access_token = await sign({ sub: user, role, iat: now, exp: now + 12 * 60 * 60 }, secret, "HS256");
    if (role === "editor") setCookie(c, COOKIE, access_token, { path: "/inspector", httpOnly: true, sameSite: "Strict" });
    else deleteCookie(c, COOKIE, { path: "/inspector" });
    return c.json({ access_token, account: { user, name, role } });
  });
  app.delete("/login", (c) => {
    deleteCookie(c, COOKIE, { path: "/inspector" });
    return c.body(null, 204);
  });
}

/** What is kept: of the wire, for newcomers, and of each room, for who comes back too. */
function createChannels(controller: Controller, historySize: number) {
  const history = { size: historySize, ttl: 12 * 60 * 60_000 };
  return new Channels(controller, {
    // Nobody subscribes to it: news are not for everybody, and go out by the service.
    wire: { authorize: () => false, history },
    "room:*": {
      authorize: ({ client, channel, action }) => action === "subscribe" && mayEnter(client, channel),
      snapshot: async ({ history }) => (await history()).publications,
      history,
      presence: { data: ({ client }) => ({ ...identify(client.accountability) }) },
    },
  });
}

type NewsroomChannels = ReturnType<typeof createChannels>;

/** How long other nodes may take to say whom they serve. One that was just killed says nothing. */
const PATIENCE = { timeout: 500 };

/** The wire of the newsroom: all of it goes through the service. In a cluster the node has a name. */
function addNews(controller: Controller, channels: NewsroomChannels, node: string | undefined): void {
  const service = new WebSocketService(controller);

  let told = "";
  const tellClients = async ({ onlyChanges = false } = {}) => {
    const [{ clients }, { nodes, missing }] = await Promise.all([
      controller.cluster.clients({}, PATIENCE),
      controller.cluster.stats(PATIENCE),
    ]);
    const message: MessageFrom<typeof contract> = {
      type: "clients",
      clients: people(clients),
      ...(node && { nodes: desks(Object.keys(nodes), missing, clients) }),
    };
    const text = JSON.stringify(message);
    if (!onlyChanges || text !== told) service.broadcast(message);
    told = text;
  };
  service.on("connect", async ({ client }) => {
    try {
      const { publications } = await channels.history("wire");
      client.send({ type: "welcome", node, news: publications.map(({ data }) => data).filter((news) => isFor(news, client)) });
    } catch {
      // The broker is away, and the engine has said so. Who comes back may get to a node that reaches it.
      return client.close(CloseCode.TRY_AGAIN_LATER, "Try again later");
    }
    await tellClients();
  });
  service.on("close", () => tellClients());
  // A node that was killed does not say that its clients are gone: the others look. What fails here, the engine has told.
  if (node) setInterval(() => void tellClients({ onlyChanges: true }).catch(() => {}), 1_000);

  controller.handle("post", contract.requests.post, async ({ client, message: { text, to = null } }) => {
    const from = identify(client.accountability);
    if (from.role === "reader" && !(to && "role" in to && to.role === "editor")) {
      throw new WebSocketError("post", "FORBIDDEN", "Readers write to the editors");
    }
    if (to && "user" in to && !ACCOUNTS.some(({ user }) => user === to.user)) {
      throw new WebSocketError("post", "NOT_FOUND", "There is no such account");
    }
    // Asked first: who is answered with an error writes again, and must not have been heard.
    const { clients } = await controller.cluster.clients(to ?? {}, PATIENCE);
    const news: News = { id: crypto.randomUUID(), at: Date.now(), from, to, text };
    await channels.publish("wire", "news", news);

    service.broadcast({ type: "news", news }, to ?? {});
    // Who writes to others sees it too, in each tab, but not twice.
    const includesSender = !to || ("role" in to ? to.role === from.role : to.user === from.user);
    if (!includesSender) service.broadcast({ type: "news", news }, { user: from.user });
    return { id: news.id, reached: clients.filter(({ user }) => user !== from.user).length };
  });
}

/** The rooms: a channel each. Clients do not publish themselves, for who says something is not for them to say. */
function addRooms(controller: Controller, channels: NewsroomChannels): void {
  controller.handle("say", contract.requests.say, async ({ client, message: { room, text, draft } }) => {
    const channel = channelOf(room);
    if (!mayEnter(client, channel)) throw new WebSocketError("say", "FORBIDDEN", "This room is not for you");
    const from = identify(client.accountability);
    const others = (await channels.presence(channel)).filter(({ user }) => user !== from.user);
    const said: Said = { id: crypto.randomUUID(), at: Date.now(), from, text };
    // A broker that hangs may refuse it, and publish it when it goes on: who then sends it again says it once.
    await channels.publish(channel, "say", said, draft === undefined ? {} : { id: `${from.user} ${draft}` });
    return { id: said.id, heard: others.length };
  });
}

const channelOf = (room: string) => `room:${room}` as const;

function mayEnter({ accountability: { role } }: WebSocketClient, channel: string): boolean {
  return ROOMS.some(({ id, roles }) => channelOf(id) === channel && roles.some((each) => each === role));
}

/** Who a client is. The token says the user and the role; jwtAuthenticator lets none in without a user. */
function identify({ user, role }: { user: string | null; role: string | null }): Person {
  const id = user ?? "";
  return { user: id, name: ACCOUNTS.find((account) => account.user === id)?.name ?? id, role };
}

function isFor({ from, to }: News, { accountability: { user, role } }: WebSocketClient): boolean {
  return !to || from.user === user || ("role" in to ? to.role === role : to.user === user);
}

/** The clients as people: the tabs of one user are counted. */
function people(clients: readonly ClusterClient[]): (Person & { tabs: number })[] {
  const people = new Map<string, Person & { tabs: number }>();
  for (const client of clients) {
    const person = identify(client);
    people.set(person.user, { ...person, tabs: (people.get(person.user)?.tabs ?? 0) + 1 });
  }
  return [...people.values()].sort((a, b) => a.name.localeCompare(b.name));
}

/** The nodes, and the user of each client that one serves. */
function desks(nodes: readonly string[], missing: readonly string[], clients: readonly ClusterClient[]): Desk[] {
  // The option `node` is followed by a hyphen and twelve digits, others after each start.
  const desks = [...missing, ...nodes].map((node): [name: string, Desk] => {
    const users = clients.filter((client) => client.node === node).map(({ user }) => user ?? "");
    const name = node.slice(0, -13);
    return [name, { name, isAway: missing.includes(node), users }];
  });
  // One that was killed and is there again is told of as both for a while: the last one counts.
  return [...new Map(desks).values()].sort((a, b) => a.name.localeCompare(b.name));
}
