import { type Context, Hono } from "hono";
import type { Channels } from "../channels/channels.ts";
import type { Accountability } from "../application/websocket-client.ts";
import type { Connection } from "../connection/connection.ts";
import type { ConnectionHost } from "../connection/connection-host.ts";
import { ABNORMAL, CloseCode } from "../protocol/close.ts";
import { WebSocketError } from "../protocol/errors.ts";
import { isTooDeep, MAX_DEPTH } from "../protocol/depth.ts";
import { CHANNEL_NAME, MAX_ID_LENGTH, type WebSocketMessage } from "../protocol/protocol.ts";
import type { HistoryRecord } from "../channels/history-record.ts";
import { byteLength } from "../protocol/bytes.ts";
import type { Position } from "../engines/engine.ts";
import { WriteQueue } from "../delivery/write-queue.ts";
import type { Acceptance } from "../runtimes/runtime.ts";
import { ChannelFormat, closeEvent } from "./channel-format.ts";
import { allowOrigin, isPreflight, preflight } from "./cors.ts";
import { STREAM_HEADERS } from "./event-stream.ts";
import { EventTransport } from "./event-transport.ts";
import { type Failure, failureOf, invalid } from "./failure.ts";
import { presentUpgrade, stayOpen } from "./plain-upgrade.ts";
import { endUnread, readBody } from "./read-body.ts";
import { type Answer, RequestTransport } from "./request-transport.ts";

/** Maximum bytes of the body of a publication beside its data. */
const ENVELOPE = 4_096;

/** Publications of one page, unless `limit` asks for fewer. */
const MAX_PAGE = 1_000;

const FORM = 'The body is {"event": "…", "data": …}';

/** A full page never changes. */
const IMMUTABLE = "private, max-age=31536000, immutable";

/**
 * Documented by Hono: `deno doc --lint` treats it as a type of this package.
 *
 * @internal
 */
type Routes = Hono;

/**
 * Offers the channels over HTTP, for servers, curl and `EventSource`, with the same identity, `authorize` and limits as over a
 * socket:
 *
 * - `GET /:channel` that accepts `text/event-stream`: a subscription, which recovers by `Last-Event-ID`
 * - `GET /:channel?after=<epoch>:<offset>&limit=100`: the history as JSON
 * - `POST /:channel` with `{ "event", "data" }`: a publication, once by `Idempotency-Key`
 * - `GET /:channel/presence`: the members
 *
 * @example
 * ```ts
 * app.route("/channels", channelsHttp(channels));
 * ```
 */
export function channelsHttp<C, Schemas>(channels: Channels<C, Schemas>): Routes {
  const routes = new ChannelRoutes(channels as unknown as Channels); // The contract exists in types only.
  return new Hono()
    .use(async (c, next) =>
      isPreflight(c.req.raw) ? preflight(c, "authorization, content-type, idempotency-key, last-event-id") : await next()
    )
    // Hono answers a HEAD by the route of GET and drops the body: its stream would never be read.
    .get("/:channel", (c) => {
      const isStream = c.req.raw.method === "GET" && acceptsStream(c);
      return finish(c, isStream ? routes.subscribe(c).then((answer) => asRetryStream(c, answer)) : routes.read(c));
    })
    .post("/:channel", (c) => finish(c, routes.publish(c)))
    .get("/:channel/presence", (c) => finish(c, routes.presence(c)));
}

/** Sets the response. Clears that of the upgrade route first, whose headers Hono would merge into it. */
async function finish(c: Context, answer: Promise<Response>): Promise<Response> {
  const response = await answer;
  response.headers.append("vary", "Accept, Authorization, Cookie, Origin");
  c.res = undefined;
  return c.res = response;
}

const acceptsStream = (c: Context): boolean => /(?:^|,)\s*text\/event-stream\b/i.test(c.req.header("accept") ?? "");

/** Close codes for the statuses of temporary failures. */
const RETRYABLE: Readonly<Record<number, number>> = { 429: CloseCode.RATE_LIMITED, 503: CloseCode.TRY_AGAIN_LATER };

/**
 * An `EventSource` does not reconnect after an error status. If a later attempt may succeed, the answer is a stream that only
 * says when to reconnect, like a stream that the server ends.
 */
async function asRetryStream(c: Context, answer: Response): Promise<Response> {
  const code = RETRYABLE[answer.status];
  if (code === undefined) return answer;
  const { error } = await answer.json() as { error: { message: string } }; // As every refusal has it.
  const headers = new Headers(answer.headers);
  const retryAfter = headers.get("retry-after");
  for (const name of ["content-length", "retry-after"]) headers.delete(name);
  for (const [name, value] of Object.entries(STREAM_HEADERS)) headers.set(name, value);
  if (!headers.has("access-control-allow-origin")) allowOrigin(c.req.raw, headers);
  return new Response(closeEvent(code, error.message, retryAfter === null ? undefined : 1_000 * Number(retryAfter)), { headers });
}

/** An answer in JSON. Without a body it is a 304: the client has the current one. */
interface Reply {
  readonly headers: Record<string, string>;
  readonly body?: object;
}

class ChannelRoutes {
  readonly #channels: Channels;
  readonly #queue = new WriteQueue();

  constructor(channels: Channels) {
    this.#channels = channels;
  }

  async subscribe(c: Context): Promise<Response> {
    const channel = nameOf(c);
    const recover = positionOf(c.req.header("last-event-id") ?? c.req.query("after"));
    if (!channel || recover === null) {
      return refuse(c, invalid(channel ? "The position is <epoch>:<offset>" : "The channel has no valid name"));
    }
    const { event, presence, query } = c.req.query();
    if (presence && presence !== "true") return refuse(c, invalid("presence is true, or has no value"));
    const { raw } = c.req;
    let answered = (_answer: Answer) => {};
    const answer = new Promise<Answer>((resolve) => answered = resolve);
    let opened: { readonly response: Response; readonly connection: Connection } | undefined;
    const accept = (acceptance: Acceptance) => {
      const transport = new EventTransport(acceptance, {
        queue: this.#queue,
        format: new ChannelFormat({
          answered: (answer) => answered(answer),
          // In a later turn, because the event with the reason is still being written.
          ended: (code) => queueMicrotask(() => connection.close(closeCodeOf(code), code)),
        }),
        pulled: (connection) => connection.heard(),
        over: () => {},
      });
      transport.watch(raw);
      const connection = transport.start();
      if (connection.isPending) connection.close(CloseCode.AUTH_FAILED, "A token is required", "auth");
      else {
        const message = { type: "subscribe", channel, recover, event, query: parsed(query), presence: presence !== undefined };
        connection.message(JSON.stringify(message)); // Omits undefined fields.
      }
      const { headers = new Headers() } = acceptance;
      for (const [name, value] of Object.entries(STREAM_HEADERS)) headers.set(name, value);
      allowOrigin(raw, headers);
      stayOpen(c.env, raw);
      opened = { connection, response: new Response(transport.socket, { headers }) };
      return opened.response;
    };
    const refusal = await this.#openConnection(c, accept);
    if (!opened) return refusal;
    const { connection, response } = opened as { connection: Connection; response: Response }; // Set by the callback.
    const before = c.res; // What answers meanwhile, such as Hono's timeout(), replaces it.
    const stop = whenAborted(raw.signal, () => answered({ close: { code: ABNORMAL, reason: "" } })); // As in `#withConnection`.
    const first = await answer;
    stop();
    const isRead = c.res === before && !raw.signal.aborted;
    if (isRead && "message" in first && first.message["status"] === undefined) return response;
    connection.close(CloseCode.NORMAL, "Refused");
    await response.body?.cancel();
    return refuse(
      c,
      isRead ? failureOf(first) : { status: 503, code: "SERVICE_UNAVAILABLE", message: "Nobody reads the answer" },
    );
  }

  async read(c: Context): Promise<Response> {
    const limit = c.req.query("limit") ?? String(MAX_PAGE);
    const after = positionOf(c.req.query("after"));
    if (after === null) return refuse(c, invalid("after is <epoch>:<offset>"));
    if (!/^\d{1,9}$/.test(limit)) return refuse(c, invalid("limit is a whole number"));
    return await this.#withPermission(c, "history", async (channel, { options: { maxBufferedBytes } }) => {
      const query = { limit: Math.min(Number(limit), MAX_PAGE), ...(after && { after }) };
      const record = pageOf(await this.#channels.history(channel, query), after, maxBufferedBytes);
      const etag = `"${record.epoch}:${record.offset}:${record.publications.length}"`;
      const isFull = record.reason === "limit" && after !== undefined;
      const headers = { etag, "cache-control": isFull && !showsCredential(c) ? IMMUTABLE : "private, no-cache" };
      return { headers, ...(!matches(c.req.header("if-none-match"), etag) && { body: record }) };
    });
  }

  async presence(c: Context): Promise<Response> {
    return await this.#withPermission(c, "presence", async (channel) => {
      const members = await this.#channels.presence(channel);
      return { headers: { "cache-control": "private, no-cache" }, body: { members } };
    });
  }

  async publish(c: Context): Promise<Response> {
    const channel = nameOf(c);
    const key = c.req.header("idempotency-key")?.replace(/^"(.*)"$/, "$1");
    if (!channel) return refuse(c, invalid("The channel has no valid name"));
    if (key !== undefined && (key === "" || key.length > MAX_ID_LENGTH)) {
      return refuse(c, invalid(`Idempotency-Key has 1 to ${MAX_ID_LENGTH} characters`));
    }
    return await this.#withConnection(c, async (transport, maxPayload) => {
      const { deadlines, options: { timeout } } = transport.connection.host;
      const body = await readBody(c.req.raw, maxPayload + ENVELOPE, { deadlines, timeout });
      if (body.end === "late") return refuse(c, { ...invalid("The body took too long"), status: 408 });
      if (body.end === "large") return refuse(c, { ...invalid(`The body has more than ${maxPayload} bytes`), status: 413 });
      if (body.end === "broken") return refuse(c, invalid("The body is not whole"));
      const isDeep = isTooDeep(body.text);
      const { event, data } = Object(isDeep ? null : parsed(body.text));
      // Sent in any case: a malformed one counts against the rate limit too.
      const answer = await transport.request({ type: "publish", channel, event, data, ...(key && { id: key }) });
      if (!("message" in answer) || answer.message["status"] !== "ok") {
        const failure = failureOf(answer);
        if (failure.status !== 400 || typeof event === "string") return refuse(c, failure);
        return refuse(c, { ...failure, message: isDeep ? `Nested deeper than ${MAX_DEPTH} levels` : FORM });
      }
      const { epoch, offset } = answer.message;
      allowOrigin(c.req.raw, c.res.headers);
      return c.json({ epoch, offset });
    });
  }

  /** Answers a client that may subscribe to the channel. What it is sent counts against the rate limit, as for a subscription. */
  async #withPermission(
    c: Context,
    needed: "history" | "presence",
    answer: (channel: string, host: ConnectionHost) => Promise<Reply>,
  ): Promise<Response> {
    const channel = nameOf(c);
    if (!channel) return refuse(c, invalid("The channel has no valid name"));
    return await this.#withConnection(c, async (transport) => {
      const { client, accountability, host } = transport.connection;
      const options = await this.#channels.permit(client, channel);
      const error = revocationOf(transport, accountability);
      if (error) return refuse(c, failureOf(error));
      if (!options[needed]) return refuse(c, { ...invalid(`The channel has no ${needed}`), status: 404 });
      const { headers, body } = await answer(channel, host);
      const late = revocationOf(transport, accountability);
      if (late) return refuse(c, failureOf(late));
      allowOrigin(c.req.raw, c.res.headers);
      if (body === undefined) return c.body(null, 304, headers);
      const text = JSON.stringify(body);
      host.rateGate?.spend(client, byteLength(text));
      return c.body(text, 200, { ...headers, "content-type": "application/json" });
    });
  }

  /** Opens a connection for the time of one request. */
  async #withConnection(
    c: Context,
    answer: (transport: RequestTransport, maxPayload: number) => Promise<Response>,
  ): Promise<Response> {
    let opened: { transport: RequestTransport; maxPayload: number } | undefined;
    const refusal = await this.#openConnection(c, (acceptance) => {
      opened = { transport: new RequestTransport(acceptance), maxPayload: acceptance.maxPayload };
      return new Response(null);
    });
    if (!opened) {
      endUnread(c, refusal);
      return refusal;
    }
    const { transport, maxPayload } = opened as { transport: RequestTransport; maxPayload: number }; // Set by the callback.
    // A middleware may drop the message, which is then never answered.
    const stop = whenAborted(c.req.raw.signal, () => transport.end());
    try {
      if (transport.connection.isPending) return refuse(c, { status: 401, code: "AUTH_FAILED", message: "A token is required" });
      return await answer(transport, maxPayload);
    } catch (error) {
      const shown = WebSocketError.from(error);
      if (!shown) throw error; // Hono's error handler answers 500.
      return refuse(c, failureOf({ message: JSON.parse(shown.toMessage()) as WebSocketMessage })); // As every error encodes itself.
    } finally {
      stop();
      transport.end();
    }
  }

  async #openConnection(c: Context, accept: (acceptance: Acceptance) => Response): Promise<Response> {
    const response = await presentUpgrade(c, accept, async () => await this.#channels.controller.upgrade(c, async () => {}));
    c.res = undefined; // As in `finish`.
    return response as Response; // The route always answers.
  }
}

/** Calls back when the client has disconnected. Returns a function that ends this. */
function whenAborted(signal: AbortSignal, call: () => void): () => void {
  signal.addEventListener("abort", call);
  if (signal.aborted) call();
  return () => signal.removeEventListener("abort", call);
}

function refuse(c: Context, { status, code, message, retryAfter, ...details }: Failure): Response {
  allowOrigin(c.req.raw, c.res.headers);
  endUnread(c);
  if (retryAfter !== undefined) c.header("retry-after", String(Math.max(1, Math.ceil(retryAfter / 1_000))));
  return c.json({ error: { code, message, ...details } }, status);
}

/**
 * Whether `If-None-Match` names the answer: a list, compared weakly, or any (RFC 9110 §13.1.2). nginx makes it weak where it
 * compresses.
 */
const matches = (header: string | undefined, etag: string): boolean =>
  header?.trim() === "*" || header?.match(/"[^"]*"/g)?.includes(etag) === true;

/** Whether the answer may depend on a credential, which an answer from the cache does not check again. */
const showsCredential = ({ req }: Context): boolean =>
  req.header("authorization") !== undefined || req.header("cookie") !== undefined || req.query("access_token") !== undefined;

/**
 * The part of a record that fits into a response: the latest publications, or the first ones after a position. If more follow,
 * the page ends at its last publication, so that it never changes and the next page begins there.
 */
function pageOf(record: HistoryRecord, after: Position | undefined, maxBytes: number): HistoryRecord {
  const { publications: all } = record;
  let bytes = 0;
  const exceeds = (publication: object): boolean => (bytes += byteLength(JSON.stringify(publication))) > maxBytes;
  // At least one: it was published within the limits of the server.
  if (!after) return { ...record, publications: all.slice(Math.min(all.findLastIndex(exceeds) + 1, all.length - 1)) };
  const end = all.findIndex(exceeds);
  const publications = end < 0 ? all : all.slice(0, Math.max(end, 1));
  const reason = record.reason ?? (publications.length < all.length ? "limit" : undefined);
  if (reason !== "limit") return { ...record, publications };
  return { ...record, offset: publications.at(-1)?.offset ?? after.offset, publications, isComplete: false, reason };
}

/** The refusal if the client was closed, has expired, or has other rights since it was authorized. */
function revocationOf({ closed, connection }: RequestTransport, accountability: Accountability): Answer | undefined {
  if (closed) return closed;
  if (connection.state !== "admitted") return errorOf("TOKEN_EXPIRED", "The token has expired");
  if (connection.accountability !== accountability) return errorOf("SERVICE_UNAVAILABLE", "Your rights have changed: try again");
  return undefined;
}

const errorOf = (code: string, message: string): Answer => ({
  message: { type: "server", status: "error", error: { code, message } },
});

/** The close code after the server has ended the subscription: it says whether another connection may succeed. */
const closeCodeOf = (reason: string): number =>
  reason === "FORBIDDEN" ? CloseCode.FORBIDDEN : reason === "TOKEN_EXPIRED" ? CloseCode.AUTH_FAILED : CloseCode.TRY_AGAIN_LATER;

function nameOf(c: Context): string | undefined {
  const name = c.req.param("channel");
  return name !== undefined && CHANNEL_NAME.test(name) ? name : undefined;
}

/** `<epoch>:<offset>`; `null` if it is something else. */
function positionOf(text: string | undefined): Position | undefined | null {
  if (text === undefined || text === "") return undefined;
  const [, epoch, offset] = /^(.{1,64}):(\d{1,16})$/.exec(text) ?? [];
  return epoch !== undefined && Number.isSafeInteger(Number(offset)) ? { epoch, offset: Number(offset) } : null;
}

function parsed(text: string | undefined): unknown {
  try {
    return text === undefined ? undefined : JSON.parse(text);
  } catch {
    return null; // Refused as any other value of the wrong type.
  }
}
