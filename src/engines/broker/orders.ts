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
  readonly unnoticed: number;
  /** Seals an order. */
  seal(body: string): Awaitable<string>;
  /** Opens a stored order. */
  open(envelope: string): Awaitable<Opened | null>;
  malformed(): void;
}

interface Order {
  readonly text: string;
  /** When it was given, in ms of the monotonic clock. */
  readonly at: number;
}

/** Maximum number of orders that wait for the broker, and of received ones that are remembered. */
const [MAX_WAITING, MAX_OBEYED] = [1_000, 10_000];

/** Overlap when missed orders are read after a session has ended, in ms: for orders in flight, and for steps of the broker's clock. */
const SLACK = 60_000;

/** How long a broker keeps an order, in ms. */
const KEPT = 24 * 60 * 60_000;

/**
 * Orders to all nodes, such as to disconnect a user. The broker stores them, and a node that was disconnected reads those it missed.
 * An order carries its age when it was sealed, and its envelope the time of sealing: a late order or a replayed copy does not affect
 * connections opened after it was given.
 */
export class Orders {
  readonly #host: OrdersHost;
  readonly #waiting = new Set<Order>();
  readonly #obeyed = new Set<string>();
  #sent = 0;
  /** All orders up to this time have arrived, in ms of the monotonic clock. The next read starts `#slack` before it. */
  #heard: number;
  #slack = 0;
  /** Whether the current session has read the stored orders. */
  #hasRead = false;

  constructor(host: OrdersHost) {
    this.#host = host;
    this.#heard = this.#now();
  }

  #now(): number {
    return this.#host.host.deadlines.now();
  }

  /** Sends an order to all nodes. While the broker is unavailable this rejects, and `resume` sends the order if it has room for it. */
  async send(text: string): Promise<void> {
    const order = { text, at: this.#now() };
    try {
      // No `await` when the connection is ready: orders and messages keep the order of the calls.
      if (this.#host.link.isStarting) await this.#host.link.tried;
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
    const [, given, text] = body.match(/^(\d{1,12}) ([^]*)$/) ?? [];
    if (given === undefined || text === undefined) return malformed();
    const name = `${node} ${number}`;
    if (node === host.node || this.#obeyed.has(name)) return;
    this.#obeyed.add(name);
    for (const oldest of this.#obeyed) {
      if (this.#obeyed.size <= MAX_OBEYED) break;
      this.#obeyed.delete(oldest);
    }
    const late = Number(given) + (age ?? 0);
    if (age === undefined && late === 0) host.received(text);
    else host.received(text, Math.max(0, late));
  }

  /** The session ended. */
  ended(): void {
    // One that ended before it had read the orders leaves them to the next.
    if (this.#hasRead) this.#heard = this.#now();
    this.#hasRead = false;
    this.#slack = SLACK + this.#host.unnoticed;
  }

  /** After a connect: reads the orders that were missed, and sends those that wait. */
  async resume(): Promise<void> {
    const { host, link, open } = this.#host;
    const asked = this.#now();
    const missed = asked - this.#heard + this.#slack;
    const { envelopes, isWhole } = await link.call("read the orders", (session) => session.kept(link.now() - missed));
    if (!isWhole || missed > KEPT) host.report(new WebSocketError("engine", "ORDERS_LOST", LOST));
    for (const envelope of envelopes) {
      const opened = await open(envelope);
      if (opened) this.received(opened, link.now() - opened.time);
    }
    this.#heard = asked;
    this.#hasRead = link.status === "ready"; // It may have ended while they were opened.
    for (const order of this.#waiting) {
      try {
        await this.#send(order);
        this.#waiting.delete(order);
      } catch (error) {
        return host.report(error);
      }
    }
  }

  #send({ text, at }: Order): Awaitable<void> {
    const { link, seal } = this.#host;
    if (link.status !== "ready") throw unavailable(link, WAITS);
    // Whole seconds: an order sent at once has age 0, and counts as live.
    const age = Math.floor((this.#now() - at) / 1_000) * 1_000;
    const number = this.#sent++;
    return chain(seal(`${age} ${text}`), (envelope) => link.call("order", (session) => session.keep(envelope, number)));
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
