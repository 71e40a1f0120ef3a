import { type Context, Hono } from "hono";
import type { Channels } from "../channels/channels.ts";
import type { Accountability, WebSocketClient } from "../application/websocket-client.ts";
import type { Connection } from "../connection/connection.ts";
import { CloseCode } from "../protocol/close.ts";
import { WebSocketError } from "../protocol/errors.ts";
import { CHANNEL_NAME, MAX_ID_LENGTH, type WebSocketMessage } from "../protocol/protocol.ts";
import type { Position } from "../engines/engine.ts";
import { WriteQueue } from "../delivery/write-queue.ts";
import type { Acceptance } from "../runtimes/runtime.ts";
import { ChannelFormat } from "./channel-format.ts";
import { allowOrigin, isPreflight, preflight } from "./cors.ts";
import { STREAM_HEADERS } from "./event-stream.ts";
import { EventTransport } from "./event-transport.ts";
import { type Failure, failureOf, invalid } from "./failure.ts";
import { presentUpgrade } from "./plain-upgrade.ts";
import { readBody } from "./read-body.ts";
import { type Answer, RequestTransport } from "./request-transport.ts";

/** Maximum bytes of the body of a publication beside its data. */
const ENVELOPE = 4_096;

/** Publications of one page, unless `limit` asks for fewer. */
const MAX_PAGE = 1_000;

/** A full page is the same for ever: only what follows it grows. */
const FOR_EVER = "private, max-age=31536000, immutable";

/**
 * Offers the channels over HTTP, for servers, curl and `EventSource`, with the same identity, `authorize` and limits as over a socket:
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
export function channelsHttp<C, Schemas>(channels: Channels<C, Schemas>): Hono {
  const routes = new ChannelRoutes(channels as unknown as Channels); // The contract exists in types only.
  return new Hono()
    .use(async (c, next) =>
      isPreflight(c.req.raw) ? preflight(c, "authorization, content-type, idempotency-key, last-event-id") : await next()
    )
    // Hono answers a HEAD by the route of GET and drops the body: its stream would never be read.
    .get("/:channel", (c) => finish(c, c.req.raw.method === "GET" && acceptsStream(c) ? routes.subscribe(c) : routes.read(c)))
    .post("/:channel", (c) => finish(c, routes.publish(c)))
    .get("/:channel/presence", (c) => finish(c, routes.presence(c)));
}

/** The route has answered already on the context, whose headers Hono would merge into the answer. */
async function finish(c: Context, answer: Promise<Response>): Promise<Response> {
  const response = await answer;
  c.res = undefined;
  return c.res = response;
}

const acceptsStream = (c: Context): boolean => /(?:^|,)\s*text\/event-stream\b/i.test(c.req.header("accept") ?? "");

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
    let answered = (_answer: Answer) => {};
    const answer = new Promise<Answer>((resolve) => answered = resolve);
    let opened: { readonly response: Response; readonly connection: Connection } | undefined;
    const accept = (acceptance: Acceptance) => {
      const transport = new EventTransport(acceptance, {
        queue: this.#queue,
        format: new ChannelFormat({
          answered: (answer) => answered(answer),
          // In its own turn: the event that says why is being written.
          ended: (code) => queueMicrotask(() => connection.close(closeCodeOf(code), code)),
        }),
        pulled: (connection) => connection.heard(),
        over: () => {},
      });
      const connection = transport.start();
      if (connection.isPending) connection.close(CloseCode.AUTH_FAILED, "A token is required", "auth");
      else {
        const message = { type: "subscribe", channel, recover, event, query: parsed(query), presence: presence !== undefined };
        connection.message(JSON.stringify(message)); // Without what is undefined.
      }
      const { headers } = acceptance;
      for (const [name, value] of Object.entries(STREAM_HEADERS)) headers.set(name, value);
      allowOrigin(c.req.raw, headers);
      opened = { connection, response: new Response(transport.socket, { headers }) };
      return opened.response;
    };
    const refusal = await this.#present(c, accept);
    if (!opened) return refusal;
    const { connection, response } = opened as { connection: Connection; response: Response }; // Set by the callback.
    const before = c.res; // What answers meanwhile, such as Hono's timeout(), replaces it.
    const first = await answer;
    const isRead = c.res === before && !c.req.raw.signal.aborted;
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
    return await this.#permitted(c, async (channel) => {
      const query = { limit: Math.min(Number(limit), MAX_PAGE), ...(after && { after }) };
      const record = await this.#channels.history(channel, query);
      const last = record.reason === "limit" ? record.publications.at(-1)?.offset ?? record.offset : record.offset;
      const etag = `"${record.epoch}:${last}:${record.publications.length}"`;
      const headers = { etag, "cache-control": record.reason === "limit" && after ? FOR_EVER : "private, no-cache" };
      if (c.req.header("if-none-match") === etag) return c.body(null, 304, headers);
      return c.json(record, 200, headers);
    });
  }

  async presence(c: Context): Promise<Response> {
    return await this.#permitted(c, async (channel) => {
      const members = await this.#channels.presence(channel);
      return c.json({ members }, 200, { "cache-control": "private, no-cache" });
    });
  }

  async publish(c: Context): Promise<Response> {
    const channel = nameOf(c);
    const key = c.req.header("idempotency-key")?.replace(/^"(.*)"$/, "$1");
    if (!channel) return refuse(c, invalid("The channel has no valid name"));
    if (key !== undefined && (key === "" || key.length > MAX_ID_LENGTH)) {
      return refuse(c, invalid(`Idempotency-Key has 1 to ${MAX_ID_LENGTH} characters`));
    }
    return await this.#exchange(c, async (transport, maxPayload) => {
      const { text, isWhole } = await readBody(c.req.raw, maxPayload + ENVELOPE);
      if (!isWhole) return refuse(c, { ...invalid(`The body has more than ${maxPayload} bytes`), status: 413 });
      const { event, data } = Object(parsed(text));
      if (typeof event !== "string") return refuse(c, invalid('The body is {"event": "…", "data": …}'));
      const answer = await transport.request({ type: "publish", channel, event, data, ...(key && { id: key }) });
      if (!("message" in answer) || answer.message["status"] !== "ok") return refuse(c, failureOf(answer));
      const { epoch, offset } = answer.message;
      allowOrigin(c.req.raw, c.res.headers);
      return c.json({ epoch, offset });
    });
  }

  /** Answers a client that may subscribe to the channel. */
  async #permitted(c: Context, answer: (channel: string) => Promise<Response>): Promise<Response> {
    const channel = nameOf(c);
    if (!channel) return refuse(c, invalid("The channel has no valid name"));
    return await this.#exchange(c, async (transport) => {
      const { client, accountability } = transport.connection;
      const error = await this.#refusalOf(client, channel) ?? revoked(transport, accountability);
      if (error) return refuse(c, failureOf(error));
      try {
        const response = await answer(channel);
        const error = revoked(transport, accountability);
        if (error) return refuse(c, failureOf(error));
        allowOrigin(c.req.raw, response.headers);
        return response;
      } catch (error) {
        // The channel is declared without a history, or without presence.
        if (error instanceof TypeError) return refuse(c, { ...invalid("The channel does not offer this"), status: 404 });
        throw error;
      }
    });
  }

  async #refusalOf(client: WebSocketClient, channel: string): Promise<Answer | undefined> {
    try {
      await this.#channels.permit(client, channel);
    } catch (error) {
      const shown = WebSocketError.from(error);
      if (!shown) throw error; // Hono's error handler answers 500.
      return { message: JSON.parse(shown.toMessage()) as WebSocketMessage };
    }
  }

  /** Opens a connection for the time of one request. */
  async #exchange(c: Context, answer: (transport: RequestTransport, maxPayload: number) => Promise<Response>): Promise<Response> {
    let opened: { transport: RequestTransport; maxPayload: number } | undefined;
    const refusal = await this.#present(c, (acceptance) => {
      opened = { transport: new RequestTransport(acceptance), maxPayload: acceptance.maxPayload };
      return new Response(null);
    });
    if (!opened) return refusal;
    const { transport, maxPayload } = opened as { transport: RequestTransport; maxPayload: number }; // Set by the callback.
    try {
      if (transport.connection.isPending) return refuse(c, { status: 401, code: "AUTH_FAILED", message: "A token is required" });
      return await answer(transport, maxPayload);
    } finally {
      transport.end();
    }
  }

  async #present(c: Context, accept: (acceptance: Acceptance) => Response): Promise<Response> {
    const response = await presentUpgrade(c, accept, async () => await this.#channels.controller.upgrade(c, async () => {}));
    c.res = undefined; // As in `finish`.
    return response as Response; // The route always answers.
  }
}

function refuse(c: Context, { status, code, message, retryAfter, ...details }: Failure): Response {
  allowOrigin(c.req.raw, c.res.headers);
  if (retryAfter !== undefined) c.header("retry-after", String(Math.max(1, Math.ceil(retryAfter / 1_000))));
  return c.json({ error: { code, message, ...details } }, status);
}

/** The refusal of a client that was closed, expired, or got other rights since it was authorized. */
function revoked({ closed, connection }: RequestTransport, accountability: Accountability): Answer | undefined {
  if (closed) return closed;
  if (connection.state !== "admitted") return errorOf("TOKEN_EXPIRED", "The token has expired");
  if (connection.accountability !== accountability) return errorOf("SERVICE_UNAVAILABLE", "Your rights have changed: try again");
  return undefined;
}

const errorOf = (code: string, message: string): Answer => ({
  message: { type: "server", status: "error", error: { code, message } },
});

/** The close after a subscription that the server has ended: another connection may have more luck, or none. */
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
