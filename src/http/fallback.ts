import type { Context, MiddlewareHandler } from "hono";
import * as v from "valibot";
import type { Connection } from "../connection/connection.ts";
import { isCloseCode, NO_STATUS } from "../protocol/close.ts";
import { FIRST_ISSUE } from "../protocol/protocol.ts";
import { WriteQueue } from "../delivery/write-queue.ts";
import { consoleLogger } from "../application/log.ts";
import type { DescribedRefusal, Refusals } from "../application/refusals.ts";
import { afterTurn } from "../base/turn.ts";
import type { Acceptance } from "../runtimes/runtime.ts";
import { allowOrigin, allowPage, isPreflight, preflight } from "./cors.ts";
import { event, type EventFormat, messageEvent, STREAM_HEADERS } from "./event-stream.ts";
import { EventTransport } from "./event-transport.ts";
import { hasToken, presentUpgrade, stayOpen } from "./plain-upgrade.ts";
import { type Body, endUnread, readBody } from "./read-body.ts";

/** Options of {@link fallback}. */
export interface FallbackOptions {
  /**
   * Name of this node: 1 to 64 letters, digits or `_`. The `connection` parameter of each POST begins with it, so that a proxy
   * can route by it. A POST that reaches another node is answered 409 with the name of the right one.
   *
   * @default a random one
   */
  node?: string;
}

/** Maximum characters of all frames in one POST, even if `maxPayload` is smaller. A single frame may be longer. */
const MAX_BATCH = 65_536;

/** Frames of one POST. A message has at least 12 characters. */
const MAX_FRAMES = 8_192;

/**
 * Maximum number of bodies of one connection that begin with its secret and are read at once: a POST, and its repeat while a
 * proxy still sends the first. Another one is read whole, regardless of its beginning.
 */
const MAX_BODIES = 2;

/** JSON takes up to six bytes for a byte of a frame (`\u0000`), and the envelope some more. */
const maxBodyOf = (maxPayload: number): number => 6 * Math.max(maxPayload, MAX_BATCH) + 4_096;

/** Whether a client may close with the code; 1005 stands for none. */
const isClientCode = (code: number): boolean => isCloseCode(code) || code === NO_STATUS;

const Envelope = v.object({
  secret: v.string(),
  sequence: v.pipe(v.number(), v.safeInteger(), v.minValue(1)),
  frames: v.optional(v.array(v.string()), []),
  pong: v.optional(v.nullable(v.number())),
  close: v.optional(v.object({ code: v.pipe(v.number(), v.check(isClientCode)), reason: v.string() })),
});

/** The messages of PROTOCOL.md, and the events of its §8 around them. */
const FORMAT: Omit<EventFormat, "opening"> = {
  message: ({ text }) => messageEvent(text),
  ping: (number) => event("ping", number ?? null),
  close: (code, reason) => event("close", { code, reason }),
};

/** A connection that a POST may name. */
interface Open {
  readonly transport: EventTransport;
  readonly secret: string;
  readonly maxBody: number;
  /** Whether a body is being read whose secret is not known before its end. */
  isReading: boolean;
  /** Bodies that are being read, and begin with the secret. */
  bodies: number;
}

/**
 * Documented by Hono: `deno doc --lint` treats it as a type of this package.
 *
 * @internal
 */
type Middleware = MiddlewareHandler;

/**
 * Lets clients that cannot open a WebSocket use the same route over HTTP: a GET that accepts `text/event-stream` opens a
 * connection, whose messages arrive by POST (PROTOCOL.md §8). Register it before `controller.upgrade`, which admits these clients
 * too; other requests pass.
 *
 * @example
 * ```ts
 * app.use("/websocket", fallback());
 * app.get("/websocket", controller.upgrade);
 * ```
 *
 * @throws {TypeError} for an unknown option, or an invalid name.
 */
export function fallback(options: FallbackOptions = {}): Middleware {
  return new FallbackRoute(options).handle;
}

class FallbackRoute {
  readonly #open = new Map<string, Open>();
  // One for each route: the objects of a Worker share module variables, and must not write to each other's streams.
  readonly #queue = new WriteQueue();
  #node: string | undefined;

  constructor({ node, ...unknown }: FallbackOptions) {
    for (const name of Object.keys(unknown)) throw new TypeError(`Cannot create the fallback: unknown option "${name}"`);
    if (node !== undefined && !/^\w{1,64}$/.test(node)) {
      throw new TypeError('Cannot create the fallback: option "node" must be 1 to 64 letters, digits or "_"');
    }
    this.#node = node;
  }

  // Not in the constructor: Workers forbid randomness while a module loads.
  get #name(): string {
    return this.#node ??= randomId();
  }

  readonly handle: MiddlewareHandler = async (c, next) => {
    const { method } = c.req.raw;
    const connection = c.req.query("connection");
    if (method === "POST" && connection !== undefined) {
      const open = this.#open.get(connection);
      if (open) return await this.#receive(c, connection, open);
      await next(); // Another route may have a parameter of this name.
      if (!UNROUTED.has(c.res.status)) return;
      c.res = undefined; // Otherwise Hono keeps it.
      c.res = this.#unknown(c, connection);
      return;
    }
    // Registered for all paths, it leaves the preflights of other routes to them.
    if (isPreflight(c.req.raw) && !c.req.routePath.endsWith("*")) return preflight(c, "authorization");
    const { headers } = c.req.raw;
    if (method === "GET" && !headers.has("upgrade") && acceptsStream(headers.get("accept"))) return await this.#connect(c, next);
    return await next();
  };

  async #connect(c: Context, next: () => Promise<void>): Promise<Response | void> {
    const { raw } = c.req;
    if (!URL.canParse(raw.url)) return refuse(c, 400, "The request target is not a URL");
    if (hasToken(c.req.query("protocols") ?? "")) {
      return refuse(c, 400, "Cannot take a token from the parameter protocols: send it in the Authorization header");
    }
    let transport: EventTransport | undefined;
    const accept = (acceptance: Acceptance) => {
      transport = this.#accept(acceptance);
      transport.watch(raw);
      const { headers = new Headers() } = acceptance;
      for (const [name, value] of Object.entries(STREAM_HEADERS)) headers.set(name, value);
      allowOrigin(raw, headers);
      stayOpen(c.env, raw);
      return new Response(transport.socket, { headers });
    };
    try {
      await presentUpgrade(c, accept, next);
    } finally {
      if (!c.res.headers.get("content-type")?.startsWith("text/event-stream")) transport?.abandon();
    }
  }

  #accept(acceptance: Acceptance): EventTransport {
    const id = `${this.#name}.${randomId()}`;
    const secret = randomId() + randomId();
    const { protocol, maxPayload } = acceptance;
    const transport = new EventTransport(acceptance, {
      queue: this.#queue,
      format: { ...FORMAT, opening: () => event("open", { connection: id, secret, protocol }) },
      opened: ({ host }) => this.#refusals = host.refusals,
      over: () => this.#open.delete(id),
    });
    this.#open.set(id, { transport, secret, maxBody: maxBodyOf(maxPayload), isReading: false, bodies: 0 });
    return transport;
  }

  async #receive(c: Context, id: string, open: Open): Promise<Response> {
    const { transport, secret, maxBody } = open;
    const { connection } = transport;
    if (!connection) return this.#unknown(c, id); // The client has not read its secret yet.
    const start = `{"secret":"${secret}"`;
    const { text, end } = await this.#read(c.req.raw, open, connection, start);
    if (end === "refused") {
      return tooMany(
        c,
        connection,
        "The connection has too many requests in progress, or this one does not begin with its secret",
      );
    }
    if (end === "late") return refuse(c, 408, "The body took too long");
    if (end === "broken") return refuse(c, 400, "The body is not whole");
    if (end === "large") {
      if (text.startsWith(start)) transport.refuseBody();
      return refuse(c, 413, `The body has more than ${maxBody} bytes`);
    }
    const parsed = v.safeParse(Envelope, parse(text), FIRST_ISSUE);
    if (!parsed.success) return refuse(c, 400, "The body is not of the form that PROTOCOL.md §8 describes");
    const { frames } = parsed.output;
    if (parsed.output.secret !== secret) return this.#unknown(c, id);
    if (frames.length > 1 && (frames.length > MAX_FRAMES || frames.reduce((sum, { length }) => sum + length, 0) > MAX_BATCH)) {
      transport.refuseBody();
      return refuse(c, 413, `The frames have more than ${MAX_BATCH} characters, or are more than ${MAX_FRAMES}`);
    }
    const receipt = await transport.receive(parsed.output, text.length);
    if (receipt === "gap") return refuse(c, 400, "The sequence has a gap");
    if (receipt === "repeated") return tooMany(c, connection, "The request was repeated too often");
    // The answers to the messages go first: writing the response to the POST takes Node as long as all of them.
    if (transport.writeNow()) await new Promise<void>(afterTurn);
    allowPage(c);
    return c.body(null, 204);
  }

  /**
   * Reads a body. The first one is read whole, because its stream would cost Node as much as the rest of a small request. Others
   * are read only if they begin with the secret, so that requests with only the name of the connection cannot block its client.
   */
  async #read(
    request: Request,
    open: Open,
    { host: { deadlines, options: { timeout } } }: Connection,
    start: string,
  ): Promise<Body> {
    const limit = { deadlines, timeout };
    if (!open.isReading) {
      open.isReading = true;
      return await readBody(request, open.maxBody, limit).finally(() => open.isReading = false);
    }
    let [isCounted, isOver] = [false, false];
    const allows = (text: string) => {
      if (isOver || !text.startsWith(start) || open.bodies === MAX_BODIES) return false;
      open.bodies++;
      return isCounted = true;
    };
    return await readBody(request, open.maxBody, limit, { length: start.length, allows }).finally(() => {
      isOver = true;
      if (isCounted) open.bodies--;
    });
  }

  /** The refusals of the last connection's controller. Absent: there was no connection yet. */
  #refusals: Pick<Refusals, "add"> | undefined;
  #loggedAt = -Infinity;

  #unknown(c: Context, id: string): Response {
    const node = id.slice(0, Math.max(0, id.lastIndexOf(".")));
    if (node === this.#name) return refuse(c, 404, "There is no such connection");
    if (this.#refusals) this.#refusals.add("node", () => MISROUTED);
    else if (performance.now() - this.#loggedAt >= LOG_PERIOD) {
      this.#loggedAt = performance.now();
      const [fields, message] = MISROUTED;
      consoleLogger().warn({ event: "noroshi.upgrade.refused", reason: "node", ...fields }, message);
    }
    return refuse(c, 409, "The connection is on another node: let the proxy route by the connection parameter", { node });
  }
}

/** Statuses of a POST that no other route has handled. */
const UNROUTED: ReadonlySet<number> = new Set([404, 405, 426]);

const MISROUTED: DescribedRefusal = [
  { code: "INVALID_REQUEST" },
  'Refused a POST of a connection on another node: let the proxy route by the name before the "." in the parameter connection, ' +
  'and give each node a name, fallback({ node: "a" })',
];

/** Answers 429, and counts the refusal. */
function tooMany(c: Context, { client: { handshake: { ip } }, host: { refusals } }: Connection, message: string): Response {
  const code = "REQUESTS_EXCEEDED";
  refusals.add("posts", () => [{ code, ...(ip !== null && { ip }) }, `Refused a POST of the fallback: ${message}`]);
  return refuse(c, 429, message, { code });
}

/** Minimum time between two log lines, in ms. */
const LOG_PERIOD = 1_000;

/** Answers in HTTP, with a body like that of a refused upgrade. */
function refuse(c: Context, status: 400 | 404 | 408 | 409 | 413 | 429, message: string, details: object = {}): Response {
  allowPage(c);
  endUnread(c);
  return c.json({ error: { code: "INVALID_REQUEST", message, ...details } }, status);
}

/** Whether the client asks for an event stream. */
const acceptsStream = (accept: string | null): boolean => accept !== null && /(?:^|,)\s*text\/event-stream\b/i.test(accept);

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined; // Answered 400.
  }
}

const randomId = (): string => crypto.randomUUID().replaceAll("-", "");
