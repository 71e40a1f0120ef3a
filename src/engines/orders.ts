import type { Awaitable, EngineHost } from "../engine.ts";
import { WebSocketError } from "../errors.ts";
import { then } from "./broker.ts";
import type { Opened } from "./envelope.ts";
import type { Reconnection } from "./reconnection.ts";

/** What orders need of their engine. */
export interface OrdersHost {
  readonly host: EngineHost;
  readonly link: Reconnection;
  /** Seals an order. */
  seal(body: string): Awaitable<string>;
  /** Opens one that was kept. */
  open(envelope: string): Awaitable<Opened | null>;
  malformed(): void;
}

/** Orders that wait for the broker, and those that are known to have been obeyed. */
const [MAX_WAITING, MAX_OBEYED] = [1_000, 10_000];

/** An order may have been on its way for as long when a session ended, and two looks at a broker's clock be as far apart, in ms. */
const SLACK = 60_000;

/**
 * Orders to all nodes, which the broker keeps: a node that was cut off reads what it has missed. An order says how long before it was
 * sealed it was given, and its envelope when that was, so that a late one, or a copy of one, ends nothing that began after it.
 */
export class Orders {
  readonly #host: OrdersHost;
  #waiting: { readonly text: string; readonly at: number }[] = [];
  readonly #obeyed = new Set<string>();
  #sent = 0;
  /** When this node was last certain to hear the others, in ms of its own monotonic clock, give or take the slack. */
  #heard: number;
  #slack = 0;

  constructor(host: OrdersHost) {
    this.#host = host;
    this.#heard = performance.now();
  }

  /** Hands an order to all nodes. One that cannot be sent is sent when the broker is back. */
  async send(text: string): Promise<void> {
    const order = { text, at: performance.now() };
    try {
      // Not waited for where it is there, so that what is sent next does not overtake it.
      if (this.#host.link.isStarting) await this.#host.link.tried;
      await this.#send(order);
    } catch (error) {
      if (WebSocketError.from(error)?.code === "ENGINE_UNAVAILABLE") {
        this.#waiting.push(order);
        if (this.#waiting.length > MAX_WAITING) this.#waiting.shift();
      }
      throw error;
    }
  }

  /** An order has arrived. @param age how long ago it was sealed, in ms. Absent: it was right now. */
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
    this.#heard = performance.now();
    this.#slack = SLACK;
  }

  /** There is another session: reads what was missed, and sends what waits. */
  async resume(): Promise<void> {
    const { host, link, open } = this.#host;
    const missed = performance.now() - this.#heard + this.#slack;
    for (const envelope of await link.call("read the orders", (session) => session.kept(link.now() - missed))) {
      const opened = await open(envelope);
      if (opened) this.received(opened, link.now() - opened.time);
    }
    this.#heard = performance.now();
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const [index, order] of waiting.entries()) {
      try {
        await this.#send(order);
      } catch (error) {
        this.#waiting = [...waiting.slice(index), ...this.#waiting].slice(-MAX_WAITING);
        return host.report(error);
      }
    }
  }

  #send({ text, at }: { readonly text: string; readonly at: number }): Awaitable<void> {
    const { link, seal } = this.#host;
    if (link.status !== "ready") throw unavailable(link);
    // Less than a second is no delay.
    const age = Math.floor((performance.now() - at) / 1_000) * 1_000;
    const number = this.#sent++;
    return then(seal(`${age} ${text}`), (envelope) => link.call("order", (session) => session.keep(envelope, number)));
  }
}

function unavailable({ reason }: Reconnection): WebSocketError {
  const text = "Cannot order: the broker is away, it is done when it is back";
  return new WebSocketError("engine", "ENGINE_UNAVAILABLE", text, reason === undefined ? {} : { cause: reason });
}
