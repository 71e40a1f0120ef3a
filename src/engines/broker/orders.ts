import type { Awaitable, EngineHost } from "../engine.ts";
import { WebSocketError } from "../../protocol/errors.ts";
import { chain } from "./broker.ts";
import type { Opened } from "./envelope.ts";
import type { Reconnection } from "./reconnection.ts";

/** What {@link Orders} needs from its engine. */
export interface OrdersHost {
  readonly host: EngineHost;
  readonly link: Reconnection;
  /** Maximum time in which the node notices that it receives nothing from the broker, in ms. */
  readonly maxDetectionTime: number;
  /** Seals an order. */
  seal(body: string): Awaitable<string>;
  /** Opens a stored order. */
  open(envelope: string): Awaitable<Opened | null>;
  malformed(): void;
}

interface Order {
  readonly text: string;
  /** When {@link Orders.send} was called, in ms of the monotonic clock. */
  readonly requestedAt: number;
}

/** Maximum number of orders that wait for the broker, and of handled orders that are kept to recognize repeats. */
const [MAX_WAITING, MAX_HANDLED] = [1_000, 10_000];

/** Time before a disconnect whose orders are read again, in ms: some may not have arrived, and the broker's clock may have changed. */
const SLACK = 60_000;

/** Time that a broker stores an order, in ms. */
const RETENTION = 24 * 60 * 60_000;

/**
 * Orders to all nodes, such as to disconnect a user. The broker stores them, and a node that was disconnected reads those that it has
 * missed. An order contains its age when it was sealed, and its envelope the time of sealing, so that a late order or a replayed copy does
 * not affect connections that were opened after the order was requested.
 */
export class Orders {
  readonly #host: OrdersHost;
  readonly #waiting = new Set<Order>();
  readonly #handled = new Set<string>();
  #count = 0;
  /** Time up to which all orders have arrived, in ms of the monotonic clock. The next read starts `#slack` before it. */
  #receivedUpTo: number;
  #slack = 0;
  /** Whether the current session has read the stored orders. */
  #hasRead = false;
  /** Number of sessions that have ended. */
  #endedSessions = 0;

  constructor(host: OrdersHost) {
    this.#host = host;
    this.#receivedUpTo = this.#now();
  }

  #now(): number {
    return this.#host.host.deadlines.now();
  }

  /** Sends an order to all nodes. Rejects while the broker is unavailable; then {@link resume} sends the order, unless too many wait. */
  async send(text: string): Promise<void> {
    const order = { text, requestedAt: this.#now() };
    try {
      // No `await` if the connection is ready, so that orders and messages are sent in the order of the calls.
      if (this.#host.link.isStarting) await this.#host.link.firstConnect;
      await this.#send(order);
    } catch (error) {
      if (WebSocketError.from(error)?.code !== "ENGINE_UNAVAILABLE") throw error;
      if (this.#waiting.size >= MAX_WAITING) throw unavailable(this.#host.link, FULL);
      this.#waiting.add(order);
      throw error;
    }
  }

  /** Handles an order, unless it was handled before. @param age time since it was sealed, in ms. Absent if it arrived live. */
  received({ node, number, body }: Opened, age?: number): void {
    const { host, malformed } = this.#host;
    const [, ageAtSealing, text] = body.match(/^(\d{1,12}) ([^]*)$/) ?? [];
    if (ageAtSealing === undefined || text === undefined) return malformed();
    const name = `${node} ${number}`;
    if (node === host.node || this.#handled.has(name)) return;
    this.#handled.add(name);
    for (const oldest of this.#handled) {
      if (this.#handled.size <= MAX_HANDLED) break;
      this.#handled.delete(oldest);
    }
    const late = Number(ageAtSealing) + (age ?? 0);
    if (age === undefined && late === 0) host.received(text);
    else host.received(text, Math.max(0, late));
  }

  /** Called when the session has ended. */
  ended(): void {
    // If the session has not read the orders, the next one does.
    if (this.#hasRead) this.#receivedUpTo = this.#now();
    this.#hasRead = false;
    this.#endedSessions++;
    this.#slack = SLACK + this.#host.maxDetectionTime;
  }

  /** Called after a connect. Reads the missed orders, and sends those that wait. */
  async resume(): Promise<void> {
    const { host, link, open } = this.#host;
    const session = this.#endedSessions;
    const start = this.#now();
    const span = start - this.#receivedUpTo + this.#slack;
    const { envelopes, isWhole } = await link.call("read the orders", (session) => session.storedOrders(link.now() - span));
    if (!isWhole || span > RETENTION) host.report(new WebSocketError("engine", "ORDERS_LOST", LOST));
    for (const envelope of envelopes) {
      const opened = await open(envelope);
      if (opened) this.received(opened, link.now() - opened.time);
    }
    // If the session has ended meanwhile, the next one reads them again.
    if (session !== this.#endedSessions) return;
    this.#receivedUpTo = start;
    this.#hasRead = true;
    for (const order of this.#waiting) {
      try {
        await this.#send(order);
        this.#waiting.delete(order);
      } catch (error) {
        return host.report(error);
      }
    }
  }

  #send({ text, requestedAt }: Order): Awaitable<void> {
    const { link, seal } = this.#host;
    if (link.status !== "ready") throw unavailable(link, WAITS);
    // In whole seconds, so that an order that is sent at once has age 0 and counts as live.
    const age = Math.floor((this.#now() - requestedAt) / 1_000) * 1_000;
    const number = this.#count++;
    return chain(seal(`${age} ${text}`), (envelope) => link.call("order", (session) => session.storeOrder(envelope, number)));
  }
}

/** Why an order was not sent now. */
const WAITS = "the broker is away, it is sent when the broker is back";
const FULL = `the broker is away and ${MAX_WAITING} orders wait for it, send this one again when it is back`;
const LOST =
  "Cannot read all orders of other nodes: while this node was cut off, more were sent than the broker keeps, or it was cut off " +
  "for longer than the broker keeps them; send them again unless the option revalidate is set, or restart this node";

const unavailable = ({ reason }: Reconnection, why: string): WebSocketError =>
  new WebSocketError(
    "engine",
    "ENGINE_UNAVAILABLE",
    `Cannot send the order: ${why}`,
    reason === undefined ? {} : { cause: reason },
  );
