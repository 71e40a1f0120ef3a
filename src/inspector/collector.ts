import type { Observer, Publishing } from "../application/observer.ts";
import { describeCause } from "../base/describe-cause.ts";
import { errorRecord, escapeControls, stackFrameOf } from "../application/log.ts";
import { isThenable } from "../base/guard.ts";
import type { WebSocketClient } from "../application/websocket-client.ts";
import type { WebSocketMessage } from "../protocol/protocol.ts";
import type { ConnectionHost } from "../connection/connection-host.ts";
import type { WebSocketController } from "../controller/controller.ts";
import { measureDelay } from "../otel/event-loop.ts";
import type { CloseCause } from "../protocol/close.ts";
import { DurationSamples, round } from "./durations.ts";
import { Journal } from "./journal.ts";
import { Timeline } from "./timeline.ts";
import { redactUrl } from "./redact.ts";
import { Ring } from "./ring.ts";
import type { ClientDetail, Ending, EntryKind, Snapshot, StreamRow } from "./shown.ts";
import { readUsage, type Usage } from "./usage.ts";

/** Maximum number of open clients with a timeline, and of closed clients that are kept. */
const [MAX_OPEN, MAX_CLOSED] = [20_000, 1_000];

/** Maximum number of channels whose publications are counted in one second. */
const MAX_COUNTED = 1_000;

/** Maximum number of clients whose buffers are read in one second. */
const MAX_SAMPLED = 1_000;

/** Buffers from this size are recorded in a client's timeline, in bytes. */
const NOTABLE_BUFFER = 65_536;

/** Maximum length of text from a client, in characters. */
const MAX_TEXT = 512;

const clean = (text: string): string => escapeControls(text.slice(0, MAX_TEXT)).slice(0, MAX_TEXT);

/** Records what happens on one node: connections always, messages only while the page is open. */
export class Collector {
  readonly refusals: Journal = new Journal();
  readonly errors: Journal = new Journal();
  readonly #controller: WebSocketController<unknown>;
  readonly #node: ConnectionHost;
  readonly #closed = new Ring<ClosedClient>(MAX_CLOSED);
  readonly #timelines = new Map<WebSocketClient, Timeline>();
  readonly #streams = new Map<WebSocketMessage, { client: WebSocketClient; startedAt: number }>();
  readonly #handled = new DurationSamples();
  #seq = 0;
  #received = 0;
  #published = 0;
  #counted = new Map<string, number>();
  #rates: ReadonlyMap<string, number> = new Map();
  #delay = 0;
  /** Whether the page is open on any node. */
  #isPageOpen = false;
  #usage: Usage | undefined;

  constructor(controller: WebSocketController<unknown>, node: ConnectionHost) {
    this.#controller = controller;
    this.#node = node;
  }

  /** Records connections, and is always installed. A connection without incidents costs two map entries. */
  readonly connectionObserver: Observer = {
    opened: (client) => {
      if (this.#timelines.size < MAX_OPEN) this.#timelines.set(client, new Timeline(this.#node.now()));
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
      if (client) this.#timelines.get(client)?.add(now, "refused", `Credentials refused: ${reason}`);
    },
    reported: (error, client) => {
      const now = this.#node.now();
      const summary = clean(describeCause(error, new Error("An error without a message")));
      // Grouped by stack frame, because a client may influence the text of an error and fill the list with different ones.
      this.errors.add(now, stackFrameOf(error), () => {
        const [{ code, error: described }, text] = errorRecord(error, client);
        return {
          kind: "error",
          text: clean(text),
          ...(code !== undefined && { code }),
          ...(client && { client: client.uid }),
          ...(described?.stack !== undefined && { stack: described.stack }),
        };
      });
      if (client) this.#timelines.get(client)?.add(now, "error", summary);
    },
    stream: async (request, client, send) => {
      const startedAt = this.#node.now();
      this.#streams.set(request, { client, startedAt });
      try {
        return await send();
      } finally {
        this.#streams.delete(request);
        if (this.#isPageOpen) this.#count(client, "stream", `Stream ${clean(request.type)} ended`);
      }
    },
  };

  /** Records messages, handlers and publications, and is installed while the page is open. */
  readonly messageObserver: Observer = {
    received: (type, client) => {
      this.#received++;
      if (type === "ping" || type === "pong") return;
      this.#count(client, "message", type === null ? "Sent what cannot be decoded" : `Sent ${clean(type)}`);
    },
    handle: (_request, _client, call) => {
      const startedAt = this.#node.monotonic();
      const result = call();
      const done = () => this.#handled.add(this.#node.monotonic() - startedAt);
      // `then` is called only once, because a query builder runs its query at each call.
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
  start(): () => void {
    this.#isPageOpen = true;
    this.#usage = readUsage(this.#node.monotonic());
    const end = measureDelay((seconds) => this.#delay = Math.max(this.#delay, seconds * 1_000));
    return () => {
      end();
      this.#isPageOpen = false;
      for (const timeline of this.#timelines.values()) timeline.dropMessages();
      for (const { timeline } of this.#closed.list()) timeline?.dropMessages();
    };
  }

  #count(client: WebSocketClient, kind: EntryKind, text: string): void {
    this.#timelines.get(client)?.count(this.#node.now(), kind, text);
  }

  /** Adds an entry to the timeline of a client. */
  record(client: WebSocketClient, kind: EntryKind, text: string): void {
    this.#timelines.get(client)?.add(this.#node.now(), kind, text);
  }

  admitted(client: WebSocketClient): void {
    const timeline = this.#timelines.get(client);
    if (timeline) timeline.admittedAt = this.#node.now();
  }

  timelineOf(client: WebSocketClient): Timeline | undefined {
    return this.#timelines.get(client);
  }

  /** The clients that disconnected last, latest first. */
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

  /** Reads the counters. Call it once a second, because some count since the last call. */
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

  /** The largest buffer of a sample of clients, which differs at each call. */
  #sampleBuffers(): number {
    const clients = this.#controller.clients();
    const step = Math.ceil(clients.size / MAX_SAMPLED);
    let [index, largest] = [Math.floor(Math.random() * step), 0];
    for (const client of clients) {
      if (index++ % step > 0) continue;
      const { bufferedAmount } = client;
      largest = Math.max(largest, bufferedAmount);
      if (bufferedAmount >= NOTABLE_BUFFER) {
        this.record(client, "buffer", `${Math.round(bufferedAmount / 1_024)} KiB wait for the client`);
      }
    }
    return largest;
  }

  #close(client: WebSocketClient, cause: CloseCause, code: number, reason: string): void {
    const timeline = this.#timelines.get(client);
    this.#timelines.delete(client);
    const { uid, accountability, expires_at, handshake } = client;
    const ending = { at: this.#node.now(), cause, code, reason };
    // Only fields are copied here, and details are made on request: in a deployment 10,000 clients disconnect within seconds.
    this.#closed.push({ uid, accountability, expires_at, handshake, timeline, ending });
  }
}

/** Facts about a client that has disconnected, for the list and its timeline. */
interface ClosedClient extends Pick<WebSocketClient, "uid" | "accountability" | "expires_at" | "handshake"> {
  readonly timeline: Timeline | undefined;
  readonly ending: Ending;
}

function detailOf({ uid, accountability: { user, role }, expires_at, handshake, timeline, ending }: ClosedClient) {
  const { url, origin, ip, userAgent, protocol } = handshake;
  const { at, cause, code } = ending;
  const reason = clean(ending.reason);
  const text = `Closed with ${code}${reason && ` “${reason}”`}: ${cause}`;
  return {
    ...{ uid, user, role, ip, url: redactUrl(url), origin, userAgent, protocol, expires_at },
    buffered: 0,
    openedAt: timeline?.openedAt ?? null,
    closed: { at, cause, code, reason },
    channels: [],
    timeline: [...timeline?.list() ?? [], { kind: "closed" as const, text, at, until: at, count: 1 }],
    forgotten: timeline?.forgotten ?? 0,
  };
}
