import type { Awaitable, EngineHost } from "../engine.ts";
import { WebSocketError } from "../../protocol/errors.ts";
import { chain } from "./broker.ts";
import type { Opened } from "./envelope.ts";
import type { Reconnection } from "./reconnection.ts";

/** What orders need from their engine. */
export interface OrdersHost {
  readonly host: EngineHost;
  readonly link: Reconnection;
  /** Maximum time until the node notices that it receives nothing from the broker, in ms. */
  readonly maxDetectionTime: number;
  /** Seals an order. */
  seal(body: string): Awaitable<string>;
  /** Opens a stored order. */
  open(envelope: string): Awaitable<Opened | null>;
  malformed(): void;
}

interface Order {
  readonly text: string;
  /** When it was given, in ms of the monotonic clock. */
  readonly givenAt: number;
}

/** Maximum number of orders that wait for the broker, and of handled ones that are remembered. */
const [MAX_WAITING, MAX_HANDLED] = [1_000, 10_000];

/** Orders of this time before the disconnect are read again, in ms: for those in flight, and for steps of the broker's clock. */
const SLACK = 60_000;

/** How long a broker stores an order, in ms. */
const RETENTION = 24 * 60 * 60_000;

/**
 * Orders to all nodes, such as to disconnect a user. The broker stores them, and a node that was disconnected reads those it missed.
 * An order carries its age when it was sealed, and its envelope the time of sealing: a late order or a replayed copy does not affect
 * connections opened after it was given.
 */
export class Orders {
  readonly #host: OrdersHost;
  readonly #waiting = new Set<Order>();
  readonly #handled = new Set<string>();
  #count = 0;
  /** All orders up to this time have arrived, in ms of the monotonic clock. The next read starts `#slack` before it. */
  #receivedUpTo: number;
  #slack = 0;
  /** Whether the current session has read the stored orders. */
  #hasRead = false;
  /** Number of sessions that have ended: shows that one ended while its orders were opened. */
  #endedSessions = 0;

  constructor(host: OrdersHost) {
    this.#host = host;
    this.#receivedUpTo = this.#now();
  }

  #now(): number {
    return this.#host.host.deadlines.now();
  }

  /** Sends an order to all nodes. Rejects while the broker is unavailable; `resume` then sends the order, unless too many wait. */
  async send(text: string): Promise<void> {
    const order = { text, givenAt: this.#now() };
    try {
      // No `await` when the connection is ready: orders and messages keep the order of the calls.
      if (this.#host.link.isStarting) await this.#host.link.firstConnect;
      await this.#send(order);
    } catch (error) {
      if (WebSocketError.from(error)?.code !== "ENGINE_UNAVAILABLE") throw error;
      if (this.#waiting.size >= MAX_WAITING) throw unavailable(this.#host.link, FULL);
      this.#waiting.add(order);
      throw error;
    }
  }

  /** Handles an order, once. @param age time since it was sealed, in ms. Absent for one that arrives live. */
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

  /** The session ended. */
  ended(): void {
    // One that ended before it had read the orders leaves them to the next.
    if (this.#hasRead) this.#receivedUpTo = this.#now();
    this.#hasRead = false;
    this.#endedSessions++;
    this.#slack = SLACK + this.#host.maxDetectionTime;
  }

  /** Runs after a connect: reads the orders that were missed, and sends those that wait. */
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
    // The session has ended while they were opened: the next one reads them again.
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

  #send({ text, givenAt }: Order): Awaitable<void> {
    const { link, seal } = this.#host;
    if (link.status !== "ready") throw unavailable(link, WAITS);
    // Whole seconds: an order sent at once has age 0, and counts as live.
    const age = Math.floor((this.#now() - givenAt) / 1_000) * 1_000;
    const number = this.#count++;
    return chain(seal(`${age} ${text}`), (envelope) => link.call("order", (session) => session.storeOrder(envelope, number)));
  }
}

/** Why an order was not sent now. */
const WAITS = "the broker is away, it is sent when the broker is back";
const FULL = `the broker is away and ${MAX_WAITING} orders wait for it, give this one again when it is back`;
const LOST =
  "Cannot read all orders of other nodes: more were given than the broker keeps, or earlier than it keeps them, while " +
  "this node was cut off; give them again unless the option revalidate is set, or restart this node";

const unavailable = ({ reason }: Reconnection, why: string): WebSocketError =>
  new WebSocketError(
    "engine",
    "ENGINE_UNAVAILABLE",
    `Cannot send the order: ${why}`,
    reason === undefined ? {} : { cause: reason },
  );
