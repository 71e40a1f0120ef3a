import type { Channels } from "../channels/channels.ts";
import type { WebSocketController } from "../controller/controller.ts";
import type { WebSocketClient } from "../application/websocket-client.ts";
import type { Collector } from "./collector.ts";
import type { Query } from "./query.ts";
import { redactUrl } from "./redact.ts";
import type { Answers, ChannelRow, ClientDetail, ClientRow } from "./shown.ts";

/** The channels passed to the inspector, with any contract. */
export type InspectedChannels = Pick<Channels, "declared" | "history" | "presence" | "open" | "ofClient" | "publish">;

/** Maximum number of clients in one part of an answer. */
const ROWS_AT_ONCE = 500;

/** Maximum number of channels and streams in one answer of a node. */
const MAX_LISTED = 500;

/** Answers queries of the page about this node. */
export class QueryHandler {
  readonly #controller: WebSocketController<unknown>;
  readonly #collector: Collector;
  readonly #channels: InspectedChannels | undefined;
  readonly #node: () => string;

  constructor(
    controller: WebSocketController<unknown>,
    collector: Collector,
    channels: InspectedChannels | undefined,
    node: () => string,
  ) {
    this.#controller = controller;
    this.#collector = collector;
    this.#channels = channels;
    this.#node = node;
  }

  /** Yields the parts of the answer. */
  async *handle({ about, text = "", client = "", state = "open", limit = 500 }: Query): AsyncGenerator<Answers[keyof Answers]> {
    if (about === "clients") yield* this.#clients(text.trim().toLowerCase(), state, limit);
    else if (about === "client") yield { client: this.#client(client) };
    else if (about === "channels") yield this.#openChannels(text.trim());
    else if (about === "streams") {
      const rows = [...this.#collector.streams()];
      yield { rows: rows.slice(0, MAX_LISTED), total: rows.length };
    } else if (about === "refusals") yield { rows: this.#collector.refusals.list() };
    else if (about === "errors") yield { rows: this.#collector.errors.list() };
  }

  *#clients(text: string, state: string, limit: number): Generator<Answers["clients"]> {
    const node = this.#node();
    const open = state === "closed" ? [] : this.#openMatching(text);
    const closed = state === "open" ? [] : this.#closedMatching(text, node);
    const total = open.length + closed.length;
    const newest = open.slice(-limit).map((client) => this.#rowOf(client, node));
    const rows = [...newest, ...closed.slice(0, limit)];
    for (let start = 0; start === 0 || start < rows.length; start += ROWS_AT_ONCE) {
      yield { rows: rows.slice(start, start + ROWS_AT_ONCE), total: start === 0 ? total : 0 };
    }
  }

  /** The open clients that match the text, oldest first. */
  #openMatching(text: string): WebSocketClient<unknown>[] {
    // Reading an id creates it, so it is read only if the text may be one.
    const isId = /^[\da-f-]{4,}$/.test(text);
    return [...this.#controller.clients()].filter((client) => {
      const { accountability: { user, role }, handshake: { ip } } = client;
      return matches(text, [user, role, ip]) || isId && client.uid.includes(text);
    });
  }

  /** The closed clients that match the text, latest first. */
  #closedMatching(text: string, node: string): ClientRow[] {
    return [...this.#collector.closed()]
      .filter(({ user, role, ip, uid }) => matches(text, [user, role, ip, uid]))
      .map(({ uid, user, role, ip, openedAt, buffered, closed }) => ({ node, uid, user, role, ip, openedAt, buffered, closed }));
  }

  #rowOf(client: WebSocketClient<unknown>, node: string): ClientRow {
    const { uid, accountability: { user, role }, handshake: { ip }, bufferedAmount: buffered } = client;
    const openedAt = this.#collector.timelineOf(client as WebSocketClient)?.openedAt ?? null; // The contract is a type.
    return { node, uid, user, role, ip, openedAt, buffered };
  }

  #client(uid: string): ClientDetail | null {
    const node = this.#node();
    for (const client of this.#controller.clients()) {
      if (client.uid !== uid) continue;
      const { handshake: { url, origin, userAgent, protocol }, expires_at } = client;
      const timeline = this.#collector.timelineOf(client as WebSocketClient); // As above.
      return {
        ...this.#rowOf(client, node),
        ...{ url: redactUrl(url), origin, userAgent, protocol, expires_at },
        channels: this.#channels?.ofClient(client as WebSocketClient) ?? [], // As above.
        timeline: timeline?.list() ?? [],
        forgotten: timeline?.forgotten ?? 0,
      };
    }
    for (const closed of this.#collector.closed()) if (closed.uid === uid) return { node, ...closed };
    return null;
  }

  #openChannels(text: string): Answers["channels"] {
    const rows: ChannelRow[] = [];
    for (const { name, options, size: subscriptions, position } of this.#channels?.open() ?? []) {
      if (!name.includes(text)) continue;
      rows.push({
        ...{ name, declared: options.name, subscriptions, position, rate: this.#collector.rateOf(name) },
        hasHistory: options.history !== null,
        hasPresence: options.presence !== null,
      });
    }
    rows.sort((a, b) => b.subscriptions - a.subscriptions);
    return { rows: rows.slice(0, MAX_LISTED), total: rows.length };
  }
}

const matches = (text: string, fields: readonly (string | null)[]): boolean =>
  text === "" || fields.some((field) => field?.toLowerCase().includes(text));
