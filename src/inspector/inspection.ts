import type { WebSocketMessage } from "../protocol/protocol.ts";
import { Channels } from "../channels/channels.ts";
import type { Clock, Timed } from "../base/clock.ts";
import type { ConnectionHost } from "../connection/connection-host.ts";
import type { WebSocketControllerOptions } from "../application/options.ts";
import { WebSocketController } from "../controller/controller.ts";
import type { DrainOptions, DrainResult } from "../controller/drain.ts";
import { CloseCode } from "../protocol/close.ts";
import type { UpgradeHandler } from "../controller/upgrade.ts";
import { type InspectedChannels, NodeAnswers } from "./query-handler.ts";
import { Collector } from "./collector.ts";
import { type Note, QuerySchema, readNote, writeNote } from "./query.ts";
import { NodeQuestions } from "./node-queries.ts";
import { CHANNEL, type Snapshot, TAP_CHANNEL, type TapBatch } from "./shown.ts";
import { Tap } from "./tap.ts";

/** The name under which the inspectors of all nodes exchange notes, and that of the observers. */
const NAME = "noroshi/inspector";

/** Time between two snapshots, in ms. */
const PERIOD = 1_000;

/** How long a node keeps measuring after its page was last connected, or another node last asked, in periods. */
const LEASE = 5;

/** How often a drain of the page looks whether the clients have left, in ms. */
const TICK = 50;

/** How long a connection of the page may last, in ms. It comes back by itself, and is authorized again. */
const MAX_AGE = 60_000;

/** What {@link Inspection} is made of. */
export interface InspectionOptions {
  readonly channels: InspectedChannels | undefined;
  redact(message: WebSocketMessage): unknown;
  /** Origins beside the server's own whose pages may connect. */
  readonly origins: readonly string[];
}

/** The controller of the page. Its drain begins when the clients have left, so that one can watch them leave. */
class PageController extends WebSocketController {
  readonly #left: () => Promise<void>;

  constructor(options: WebSocketControllerOptions, left: () => Promise<void>) {
    super(options);
    this.#left = left;
  }

  override async drain(options: DrainOptions = {}): Promise<DrainResult> {
    await this.#left();
    return await super.drain({ ...options, window: 0 });
  }
}

/**
 * Looks at one controller while somebody has the page open on any node. The page is connected to a controller of its own: it is not
 * counted among the clients, and can connect when the one that it looks at refuses everybody.
 */
export class Inspection implements Timed {
  readonly deadline: number = 0;
  readonly heapIndex: number = -1;
  readonly #controller: WebSocketController<unknown>;
  readonly #collector: Collector;
  readonly #questions: NodeQuestions;
  readonly #tap: Tap;
  readonly #host: ConnectionHost;
  readonly #page: WebSocketController;
  readonly #feed: Channels;
  /** The latest snapshot of each node, with the number of periods that it still counts. */
  readonly #snapshots = new Map<string, { snapshot: Snapshot; left: number }>();
  #end: (() => void) | undefined;
  #endTap: (() => void) | undefined;
  /** Periods left for the page to come back. */
  #awaited = 0;
  /** Periods left for which other nodes watch this one, and its messages. */
  #watched = 0;
  #tapped = 0;

  constructor(controller: WebSocketController<unknown>, { channels, redact, origins }: InspectionOptions) {
    this.#controller = controller;
    let host!: ConnectionHost;
    let collector!: Collector;
    controller.observe(NAME, (node) => {
      host = node;
      collector = new Collector(controller, node);
      return collector.always;
    });
    this.#host = host;
    this.#collector = collector;
    this.#tap = new Tap(redact, (error) => host.report(error));
    controller.on("connect", ({ client }) => collector.admitted(client));
    controller.on("auth.success", ({ client }) => collector.note(client, "auth", "Credentials accepted"));

    const { options: { logger, clientIp }, deadlines, nodes, report } = host;
    const node = () => nodes.node;
    const answers = new NodeAnswers(controller, collector, channels, node);
    const others = () => [...this.#snapshots.keys()].filter((other) => other !== nodes.node);
    this.#questions = new NodeQuestions({ answers, deadlines, node, others, send: (note) => this.#send(note), report });
    nodes.listen(NAME, (text) => this.#receive(text));

    const pageOptions: WebSocketControllerOptions = {
      name: NAME,
      origins, // Not those of the controller: their pages are clients, and have no business here.
      logger,
      clientIp,
      clock: clockOf(host),
      maxAge: MAX_AGE,
      maxConnections: 100,
      maxPayload: 16_384,
      maxBufferedBytes: 8_388_608,
    };
    this.#page = new PageController(pageOptions, () => this.#left());
    this.#feed = new Channels(this.#page, {
      [CHANNEL]: {
        authorize: ({ action }) => action === "subscribe",
        snapshot: () => Array.from(this.#snapshots.values(), ({ snapshot }) => ({ ...snapshot })),
      },
      [TAP_CHANNEL]: {
        authorize: ({ action, client }) => action === "subscribe" && new URL(client.handshake.url).searchParams.has("tap"),
      },
    });
    this.#page.handle("look", QuerySchema, ({ message }) => this.#questions.ask(message));
    this.#page.on("connect", () => this.#start());
  }

  /** The route of the page. */
  get upgrade(): UpgradeHandler {
    return this.#page.upgrade;
  }

  report(error: unknown): void {
    this.#host.report(error);
  }

  /** A period is over. */
  due(): void {
    if (this.#controller.isClosed || this.#hasLeft) {
      this.#stop();
      return void (this.#controller.isClosed
        ? this.#page.close()
        : this.#page.close(CloseCode.SERVICE_RESTART, "Service restart"));
    }
    const isOpen = this.#page.clients().size > 0;
    this.#awaited = isOpen ? LEASE : this.#awaited - 1;
    this.#watched--;
    this.#tapped--;
    if (this.#awaited <= 0 && this.#watched <= 0) return this.#stop();
    // Set first: an error below must not end it.
    this.#host.deadlines.set(this, PERIOD);
    this.#look(isOpen);
  }

  /** Whether the clients have left in a drain, which waits for the server and its sockets then: that of the page is one. */
  get #hasLeft(): boolean {
    if (this.#controller.status !== "draining") return false;
    const { active, reserved } = this.#controller.stats();
    return active + reserved === 0;
  }

  /** Resolves when the clients have left in a drain: at once if there is none. */
  #left(): Promise<void> {
    const { deadlines } = this.#host;
    return new Promise((resolve) => {
      const due = () => this.#controller.status === "draining" && !this.#hasLeft ? deadlines.set(timer, TICK) : resolve();
      const timer: Timed = { deadline: 0, heapIndex: -1, due };
      due();
    });
  }

  #look(isOpen: boolean): void {
    const isTapping = isOpen && this.#feed.stats(TAP_CHANNEL).subscriptions > 0;
    this.#follow(isTapping || this.#tapped > 0);
    const snapshot = this.#collector.snapshot();
    for (const [node, kept] of this.#snapshots) if (--kept.left <= 0) this.#snapshots.delete(node);
    if (isOpen) {
      this.#show(snapshot);
      this.#send({ kind: "watch", isTapping });
    }
    if (this.#watched > 0) this.#send({ kind: "snapshot", snapshot });
    const batch = this.#endTap && this.#tap.take(snapshot.node);
    if (!batch || batch.messages.length + batch.skipped === 0) return;
    if (isTapping) this.#publish(TAP_CHANNEL, "tapped", batch);
    if (this.#tapped > 0) this.#send({ kind: "tapped", batch });
  }

  /** Starts measuring: the page was opened on some node. */
  #start(): void {
    if (this.#end) return;
    const { whileSeen } = this.#collector;
    const endObserving = this.#controller.observe(`${NAME}, while it is open`, () => whileSeen);
    const end = this.#collector.begin();
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
    this.#follow(false);
    this.#snapshots.clear();
  }

  /** Switches the tap of this node. */
  #follow(isTapping: boolean): void {
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

  #show(snapshot: Snapshot): void {
    this.#snapshots.set(snapshot.node, { snapshot, left: LEASE });
    this.#publish(CHANNEL, "snapshot", snapshot);
  }

  #publish(channel: string, event: string, data: Snapshot | TapBatch): void {
    this.#feed.publish(channel, event, { ...data });
  }

  #send(note: Note): void {
    this.#host.nodes.send(NAME, writeNote(note));
  }

  #receive(text: string): void {
    // Anybody with access to the broker can send a note, whatever `authorize` says.
    const note = this.#host.nodes.isSigned ? readNote(text) : null;
    if (!note) return;
    const isOpen = this.#page.clients().size > 0;
    if (note.kind === "watch") {
      this.#watched = LEASE;
      if (note.isTapping) this.#tapped = LEASE;
      this.#start();
    } else if (note.kind === "ask") this.#questions.answer(note).catch(this.#host.report);
    else if (note.kind === "answer") this.#questions.receive(note);
    else if (!isOpen) return;
    else if (note.kind === "snapshot") this.#show(note.snapshot as unknown as Snapshot); // As a node of this version sends it.
    else this.#publish(TAP_CHANNEL, "tapped", note.batch as unknown as TapBatch); // As above.
  }
}

/** The clock of the controller that is inspected, which its runtime may replace. */
function clockOf({ deadlines, now, monotonic }: ConnectionHost): Clock {
  return {
    now,
    monotonic,
    setTimeout(callback, delay) {
      const timer: Timed = { deadline: 0, heapIndex: -1, due: callback };
      deadlines.set(timer, delay);
      return timer;
    },
    clearTimeout: (timer) => timer && deadlines.delete(timer as Timed), // What setTimeout returned.
  };
}
