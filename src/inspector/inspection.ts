import type { WebSocketMessage } from "../protocol/protocol.ts";
import { Channels } from "../channels/channels.ts";
import type { Clock, Timed } from "../base/clock.ts";
import type { ConnectionHost } from "../connection/connection-host.ts";
import type { WebSocketControllerOptions } from "../application/options.ts";
import { WebSocketController } from "../controller/controller.ts";
import type { DrainOptions, DrainResult } from "../controller/drain.ts";
import { CloseCode } from "../protocol/close.ts";
import type { UpgradeHandler } from "../controller/upgrade.ts";
import { type InspectedChannels, QueryHandler } from "./query-handler.ts";
import { Collector } from "./collector.ts";
import { decodeMessage, encodeMessage, type InspectorMessage, QuerySchema } from "./query.ts";
import { NodeQueries } from "./node-queries.ts";
import { CHANNEL, type Snapshot, TAP_CHANNEL, type TapBatch } from "./shown.ts";
import { Tap } from "./tap.ts";

/** The name under which the inspectors of all nodes exchange messages, and the name of their observers. */
const NAME = "noroshi/inspector";

/** Time between two snapshots, in ms. */
const PERIOD = 1_000;

/** How long a node keeps measuring after the page was last connected to it, or another node last asked, in periods. */
const LEASE = 5;

/** How often a drain of the page's controller checks whether the clients have disconnected, in ms. */
const TICK = 50;

/** Maximum age of a connection of the page, in ms. The page reconnects, and is authorized again. */
const MAX_AGE = 60_000;

/** Options of {@link Inspection}. */
export interface InspectionOptions {
  readonly channels: InspectedChannels | undefined;
  redact(message: WebSocketMessage): unknown;
  /** Origins beside the server's own whose pages may connect. */
  readonly origins: readonly string[];
}

/** The controller of the page. Its drain begins when the clients have disconnected, so that the page shows their drain. */
class PageController extends WebSocketController {
  readonly #clientsDisconnected: () => Promise<void>;

  constructor(options: WebSocketControllerOptions, clientsDisconnected: () => Promise<void>) {
    super(options);
    this.#clientsDisconnected = clientsDisconnected;
  }

  override async drain(options: DrainOptions = {}): Promise<DrainResult> {
    await this.#clientsDisconnected();
    return await super.drain({ ...options, window: 0 });
  }
}

/**
 * Inspects one controller while the page is open on any node. The page connects to a separate controller, so that it is not
 * counted as a client, and can connect while the inspected controller refuses clients.
 */
export class Inspection implements Timed {
  readonly deadline: number = 0;
  readonly heapIndex: number = -1;
  readonly #controller: WebSocketController<unknown>;
  readonly #collector: Collector;
  readonly #queries: NodeQueries;
  readonly #tap: Tap;
  readonly #host: ConnectionHost;
  readonly #page: WebSocketController;
  readonly #pageChannels: Channels;
  /** The latest snapshot of each node, with the number of periods that it stays valid. */
  readonly #snapshots = new Map<string, { snapshot: Snapshot; left: number }>();
  #end: (() => void) | undefined;
  #endTap: (() => void) | undefined;
  /** Periods until measuring stops unless the page reconnects to this node. */
  #pageLease = 0;
  /** Periods for which other nodes still request snapshots of this node; `#tapLease`: its messages. */
  #watchLease = 0;
  #tapLease = 0;

  constructor(controller: WebSocketController<unknown>, { channels, redact, origins }: InspectionOptions) {
    this.#controller = controller;
    let host!: ConnectionHost;
    let collector!: Collector;
    controller.observe(NAME, (node) => {
      host = node;
      collector = new Collector(controller, node);
      return collector.connectionObserver;
    });
    this.#host = host;
    this.#collector = collector;
    this.#tap = new Tap(redact, (error) => host.report(error));
    controller.on("connect", ({ client }) => collector.admitted(client));
    controller.on("auth.success", ({ client }) => collector.record(client, "auth", "Credentials accepted"));

    const { options: { logger, clientIp }, deadlines, nodes, report } = host;
    const node = () => nodes.node;
    const handler = new QueryHandler(controller, collector, channels, node);
    const others = () => [...this.#snapshots.keys()].filter((other) => other !== nodes.node);
    this.#queries = new NodeQueries({ handler, deadlines, node, others, send: (message) => this.#send(message), report });
    nodes.listen(NAME, (text) => this.#receive(text));

    const pageOptions: WebSocketControllerOptions = {
      name: NAME,
      origins, // The controller's origins are those of clients.
      logger,
      clientIp,
      clock: clockOf(host),
      maxAge: MAX_AGE,
      maxConnections: 100,
      maxPayload: 16_384,
      maxBufferedBytes: 8_388_608,
    };
    this.#page = new PageController(pageOptions, () => this.#clientsDisconnected());
    this.#pageChannels = new Channels(this.#page, {
      [CHANNEL]: {
        authorize: ({ action }) => action === "subscribe",
        snapshot: () => Array.from(this.#snapshots.values(), ({ snapshot }) => ({ ...snapshot })),
      },
      [TAP_CHANNEL]: {
        authorize: ({ action, client }) => action === "subscribe" && new URL(client.handshake.url).searchParams.has("tap"),
      },
    });
    this.#page.handle("look", QuerySchema, ({ message }) => this.#queries.query(message));
    this.#page.on("connect", () => this.#start());
  }

  /** The route of the page. */
  get upgrade(): UpgradeHandler {
    return this.#page.upgrade;
  }

  report(error: unknown): void {
    this.#host.report(error);
  }

  /** Called at the end of each period. */
  due(): void {
    if (this.#controller.isClosed || this.#isDrained) {
      this.#stop();
      return void (this.#controller.isClosed
        ? this.#page.close()
        : this.#page.close(CloseCode.SERVICE_RESTART, "Service restart"));
    }
    const isOpen = this.#page.clients().size > 0;
    this.#pageLease = isOpen ? LEASE : this.#pageLease - 1;
    this.#watchLease--;
    this.#tapLease--;
    if (this.#pageLease <= 0 && this.#watchLease <= 0) return this.#stop();
    // Set first, so that an error below does not end the periods.
    this.#host.deadlines.set(this, PERIOD);
    this.#measure(isOpen);
  }

  /** Whether a drain has closed all clients. It then waits for the server's connections, and the page has one of them. */
  get #isDrained(): boolean {
    if (this.#controller.status !== "draining") return false;
    const { active, reserved } = this.#controller.stats();
    return active + reserved === 0;
  }

  /** Resolves when a drain has closed all clients; at once without a drain. */
  #clientsDisconnected(): Promise<void> {
    const { deadlines } = this.#host;
    return new Promise((resolve) => {
      const due = () => this.#controller.status === "draining" && !this.#isDrained ? deadlines.set(timer, TICK) : resolve();
      const timer: Timed = { deadline: 0, heapIndex: -1, due };
      due();
    });
  }

  #measure(isOpen: boolean): void {
    const isTapping = isOpen && this.#pageChannels.stats(TAP_CHANNEL).subscriptions > 0;
    this.#setTapping(isTapping || this.#tapLease > 0);
    const snapshot = this.#collector.snapshot();
    for (const [node, kept] of this.#snapshots) if (--kept.left <= 0) this.#snapshots.delete(node);
    if (isOpen) {
      this.#publishSnapshot(snapshot);
      this.#send({ kind: "watch", isTapping });
    }
    if (this.#watchLease > 0) this.#send({ kind: "snapshot", snapshot });
    const batch = this.#endTap && this.#tap.take(snapshot.node);
    if (!batch || batch.messages.length + batch.skipped === 0) return;
    if (isTapping) this.#publish(TAP_CHANNEL, "tapped", batch);
    if (this.#tapLease > 0) this.#send({ kind: "tapped", batch });
  }

  /** Starts measuring: the page was opened on some node. */
  #start(): void {
    if (this.#end) return;
    const { messageObserver } = this.#collector;
    const endObserving = this.#controller.observe(`${NAME}, while it is open`, () => messageObserver);
    const end = this.#collector.start();
    this.#end = () => {
      endObserving();
      end();
    };
    this.#host.deadlines.set(this, 1); // The first snapshot comes at once.
  }

  /** Stops measuring: the page is not open on any node. */
  #stop(): void {
    this.#end?.();
    this.#end = undefined;
    this.#setTapping(false);
    this.#snapshots.clear();
  }

  /** Switches the tap of this node. */
  #setTapping(isTapping: boolean): void {
    if (isTapping === (this.#endTap !== undefined)) return;
    if (!isTapping) {
      this.#endTap?.();
      return void (this.#endTap = undefined);
    }
    this.#endTap = this.#controller.observe(`${NAME}, while it taps`, () => ({
      received: (_type, client, message) => {
        if (message) this.#tap.add(this.#host.now(), client, message);
      },
    }));
  }

  #publishSnapshot(snapshot: Snapshot): void {
    this.#snapshots.set(snapshot.node, { snapshot, left: LEASE });
    this.#publish(CHANNEL, "snapshot", snapshot);
  }

  #publish(channel: string, event: string, data: Snapshot | TapBatch): void {
    this.#pageChannels.publish(channel, event, { ...data });
  }

  #send(message: InspectorMessage): void {
    this.#host.nodes.send(NAME, encodeMessage(message));
  }

  #receive(text: string): void {
    // Only signed: anybody with access to the broker can send a message, without being authorized.
    const message = this.#host.nodes.isSigned ? decodeMessage(text) : null;
    if (!message) return;
    const isOpen = this.#page.clients().size > 0;
    if (message.kind === "watch") {
      this.#watchLease = LEASE;
      if (message.isTapping) this.#tapLease = LEASE;
      this.#start();
    } else if (message.kind === "ask") this.#queries.answer(message).catch(this.#host.report);
    else if (message.kind === "answer") this.#queries.receive(message);
    else if (!isOpen) return;
    // The casts are true for nodes of this version.
    else if (message.kind === "snapshot") this.#publishSnapshot(message.snapshot as unknown as Snapshot);
    else this.#publish(TAP_CHANNEL, "tapped", message.batch as unknown as TapBatch);
  }
}

/** The clock of the inspected controller, which its runtime may replace. */
function clockOf({ deadlines, now, monotonic }: ConnectionHost): Clock {
  return {
    now,
    monotonic,
    setTimeout(callback, delay) {
      const timer: Timed = { deadline: 0, heapIndex: -1, due: callback };
      deadlines.set(timer, delay);
      return timer;
    },
    clearTimeout: (timer) => timer && deadlines.delete(timer as Timed), // Returned by `setTimeout`.
  };
}
