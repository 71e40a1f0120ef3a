import type { Observer, Publishing } from "../application/observer.ts";
import { describeCause } from "../base/describe-cause.ts";
import { errorRecord, escapeControls, placeOf } from "../application/log.ts";
import { isThenable } from "../base/guard.ts";
import type { WebSocketClient } from "../application/websocket-client.ts";
import type { WebSocketMessage } from "../protocol/protocol.ts";
import type { ConnectionHost } from "../connection/connection-host.ts";
import type { WebSocketController } from "../controller/controller.ts";
import { measureDelay } from "../otel/event-loop.ts";
import type { CloseCause } from "../protocol/close.ts";
import { DurationSamples, round } from "./durations.ts";
import { Journal } from "./journal.ts";
import { Life } from "./timeline.ts";
import { redactUrl } from "./redact.ts";
import { Ring } from "./ring.ts";
import type { ClientDetail, Ending, EntryKind, Snapshot, StreamRow } from "./shown.ts";
import { readUsage, type Usage } from "./usage.ts";

/** Maximum number of open clients whose life is kept, and of closed ones. */
const [MAX_OPEN, MAX_CLOSED] = [20_000, 1_000];

/** Maximum number of channels whose publications are counted in one second. */
const MAX_COUNTED = 1_000;

/** Maximum number of clients whose buffers are read in one second. */
const MAX_SAMPLED = 1_000;

/** Buffers from this size are part of a client's life, in bytes. */
const NOTABLE_BUFFER = 65_536;

/** Maximum length of a text that a client has a say in, in characters. */
const MAX_TEXT = 512;

const clean = (text: string): string => escapeControls(text.slice(0, MAX_TEXT)).slice(0, MAX_TEXT);

/** Follows one node: always what happens to connections, and each message only while somebody looks. */
export class Collector {
  readonly refusals: Journal = new Journal();
  readonly errors: Journal = new Journal();
  readonly #controller: WebSocketController<unknown>;
  readonly #node: ConnectionHost;
  readonly #closed = new Ring<ClosedClient>(MAX_CLOSED);
  readonly #lives = new Map<WebSocketClient, Life>();
  readonly #streams = new Map<WebSocketMessage, { client: WebSocketClient; startedAt: number }>();
  readonly #handled = new DurationSamples();
  #seq = 0;
  #received = 0;
  #published = 0;
  #counted = new Map<string, number>();
  #rates: ReadonlyMap<string, number> = new Map();
  #delay = 0;
  /** Whether somebody looks. */
  #isSeen = false;
  #usage: Usage | undefined;

  constructor(controller: WebSocketController<unknown>, node: ConnectionHost) {
    this.#controller = controller;
    this.#node = node;
  }

  /** Follows connections. A connection without incidents costs two entries of a map. */
  readonly always: Observer = {
    opened: (client) => {
      if (this.#lives.size < MAX_OPEN) this.#lives.set(client, new Life(this.#node.now()));
    },
    closed: (client, cause, { code, reason }) => this.#close(client, cause, code, reason),
    refused: (reason, describe, client) => {
      const now = this.#node.now();
      this.refusals.add(now, reason, () => {
        if (!describe) return { kind: reason, text: "" };
        const [{ code, ip, client: uid }, text] = describe();
        return {
          kind: reason,
          text: clean(text),
          ...(code !== undefined && { code: clean(code) }),
          ...(ip !== undefined && { ip: clean(ip) }),
          ...(uid !== undefined && { client: uid }),
        };
      });
      if (client) this.#lives.get(client)?.add(now, "refused", `Credentials refused: ${reason}`);
    },
    reported: (error, client) => {
      const now = this.#node.now();
      const summary = clean(describeCause(error, new Error("An error without a message")));
      // By their place: a client may choose what is in a text, and fill the list with it.
      this.errors.add(now, placeOf(error), () => {
        const [{ code, error: described }, text] = errorRecord(error, client);
        return {
          kind: "error",
          text: clean(text),
          ...(code !== undefined && { code }),
          ...(client && { client: client.uid }),
          ...(described?.stack !== undefined && { stack: described.stack }),
        };
      });
      if (client) this.#lives.get(client)?.add(now, "error", summary);
    },
    stream: async (request, client, send) => {
      const startedAt = this.#node.now();
      this.#streams.set(request, { client, startedAt });
      try {
        return await send();
      } finally {
        this.#streams.delete(request);
        if (this.#isSeen) this.#count(client, "stream", `Stream ${clean(request.type)} ended`);
      }
    },
  };

  /** Follows messages, handlers and publications. */
  readonly whileSeen: Observer = {
    received: (type, client) => {
      this.#received++;
      if (type === "ping" || type === "pong") return;
      this.#count(client, "message", type === null ? "Sent what cannot be decoded" : `Sent ${clean(type)}`);
    },
    handle: (_request, _client, call) => {
      const startedAt = this.#node.monotonic();
      const result = call();
      const done = () => this.#handled.add(this.#node.monotonic() - startedAt);
      // Its `then` is called once: a query builder runs its query at each call.
      if (isThenable(result)) return Promise.resolve(result).finally(done);
      done();
      return result;
    },
    publish: ({ channel }: Publishing, call) => {
      this.#published++;
      if (this.#counted.size < MAX_COUNTED || this.#counted.has(channel)) {
        this.#counted.set(channel, (this.#counted.get(channel) ?? 0) + 1);
      }
      return call();
    },
  };

  /** Measures the event loop and keeps messages while the page is open. Returns a function that ends both. */
  begin(): () => void {
    this.#isSeen = true;
    this.#usage = readUsage(this.#node.monotonic());
    const end = measureDelay((seconds) => this.#delay = Math.max(this.#delay, seconds * 1_000));
    return () => {
      end();
      this.#isSeen = false;
      for (const life of this.#lives.values()) life.forget();
      for (const { life } of this.#closed.list()) life?.forget();
    };
  }

  #count(client: WebSocketClient, kind: EntryKind, text: string): void {
    this.#lives.get(client)?.count(this.#node.now(), kind, text);
  }

  /** Adds something to the life of a client. */
  note(client: WebSocketClient, kind: EntryKind, text: string): void {
    this.#lives.get(client)?.add(this.#node.now(), kind, text);
  }

  admitted(client: WebSocketClient): void {
    const life = this.#lives.get(client);
    if (life) life.admittedAt = this.#node.now();
  }

  lifeOf(client: WebSocketClient): Life | undefined {
    return this.#lives.get(client);
  }

  /** The latest clients that have gone, the last one first. */
  *closed(): Generator<Omit<ClientDetail, "node"> & { closed: Ending }> {
    for (const client of this.#closed.list().reverse()) yield detailOf(client);
  }

  /** Publications of this node to the channel in the last second. */
  rateOf(channel: string): number {
    return this.#rates.get(channel) ?? 0;
  }

  /** The streams that have not ended, the oldest first. */
  *streams(): Generator<StreamRow> {
    for (const [{ type }, { client: { uid, accountability: { user } }, startedAt }] of this.#streams) {
      yield { type: clean(type), uid, user, startedAt };
    }
  }

  /** Reads the counters. Call it once a second: some are of the time since the last call. */
  snapshot(): Snapshot {
    const { delivery, sender, extension, nodes } = this.#node;
    const { engine, status } = this.#controller;
    const usage = readUsage(this.#node.monotonic());
    const last = this.#usage;
    this.#usage = usage;
    this.#rates = this.#counted;
    this.#counted = new Map();
    const delay = round(this.#delay);
    this.#delay = 0;
    const { channels = 0, subscriptions = 0 } = extension?.stats() ?? {};
    return {
      node: nodes.node,
      at: this.#node.now(),
      seq: ++this.#seq,
      status,
      engine: engine.status,
      isSigned: nodes.isSigned,
      stats: this.#controller.stats(),
      channels,
      subscriptions,
      sent: sender.sent + delivery.published,
      received: this.#received,
      published: this.#published,
      handled: this.#handled.take(),
      delay,
      ...(usage?.memory !== undefined && { memory: usage.memory }),
      ...(usage && last && usage.at > last.at && { cpu: round((usage.cpu - last.cpu) / (usage.at - last.at)) }),
      buffered: this.#sampleBuffers(),
      errors: this.errors.total,
    };
  }

  /** The largest of some buffers, others each time. */
  #sampleBuffers(): number {
    const clients = this.#controller.clients();
    const step = Math.ceil(clients.size / MAX_SAMPLED);
    let [index, largest] = [Math.floor(Math.random() * step), 0];
    for (const client of clients) {
      if (index++ % step > 0) continue;
      const { bufferedAmount } = client;
      largest = Math.max(largest, bufferedAmount);
      if (bufferedAmount >= NOTABLE_BUFFER) {
        this.note(client, "buffer", `${Math.round(bufferedAmount / 1_024)} KiB wait for the client`);
      }
    }
    return largest;
  }

  #close(client: WebSocketClient, cause: CloseCause, code: number, reason: string): void {
    const life = this.#lives.get(client);
    this.#lives.delete(client);
    const { uid, accountability, expires_at, handshake } = client;
    const ending = { at: this.#node.now(), cause, code, reason };
    // Of plain fields, and listed when somebody asks: 10,000 clients leave within seconds in a deploy.
    this.#closed.push({ uid, accountability, expires_at, handshake, life, ending });
  }
}

/** Facts about a client that has disconnected, for the list and its timeline. */
interface ClosedClient extends Pick<WebSocketClient, "uid" | "accountability" | "expires_at" | "handshake"> {
  readonly life: Life | undefined;
  readonly ending: Ending;
}

function detailOf({ uid, accountability: { user, role }, expires_at, handshake, life, ending }: ClosedClient) {
  const { url, origin, ip, userAgent, protocol } = handshake;
  const { at, cause, code } = ending;
  const reason = clean(ending.reason);
  const text = `Closed with ${code}${reason && ` “${reason}”`}: ${cause}`;
  return {
    ...{ uid, user, role, ip, url: redactUrl(url), origin, userAgent, protocol, expires_at },
    buffered: 0,
    openedAt: life?.openedAt ?? null,
    closed: { at, cause, code, reason },
    channels: [],
    timeline: [...life?.list() ?? [], { kind: "closed" as const, text, at, until: at, count: 1 }],
    forgotten: life?.forgotten ?? 0,
  };
}
