import { within } from "../base/clock.ts";
import type { ClusterHost, OrderResult } from "./cluster.ts";
import type { Order } from "./cluster-message.ts";

/** How long to wait for the confirmations of other nodes, in ms. */
const CONFIRM_TIMEOUT = 2_000;

/** Sends orders to the other nodes, and waits for their confirmations. Nodes accept them only from an engine that signs. */
export class ClusterOrders {
  readonly #host: () => ClusterHost;
  readonly #newQuestion: () => string;
  /** Orders with confirmations outstanding, by question; each is called with the node that confirms. */
  readonly #pending = new Map<string, (node: string) => void>();
  #hasWarned = false;

  /** @param newQuestion returns a unique name, to which the confirmations refer. */
  constructor(host: () => ClusterHost, newQuestion: () => string) {
    this.#host = host;
    this.#newQuestion = newQuestion;
  }

  /** A node has carried out the order. Ignored if it is not an order of this node. */
  confirmed(question: string, node: string): void {
    this.#pending.get(question)?.(node);
  }

  /** Never rejects. Hands the order to the engine before it returns. */
  send(order: Order): Promise<OrderResult> {
    return this.#send(this.#host(), order);
  }

  async #send({ deadlines, engine, report }: ClusterHost, order: Order): Promise<OrderResult> {
    if (!engine.isSigned) {
      this.#warn(order.type);
      return { missing: await this.#others(), isSent: false };
    }
    const question = this.#newQuestion();
    const text = JSON.stringify({ ...order, question });
    const confirmed = new Set<string>();
    let resolveIfComplete = () => {};
    this.#pending.set(question, (node) => {
      confirmed.add(node);
      resolveIfComplete();
    });
    try {
      const sending = (async () => await (engine.order ? engine.order(text) : engine.send(text)))();
      const isSent = sending.then(() => true, (error) => {
        report(error);
        return false;
      });
      const others = await this.#others();
      const missing = () => others.filter((node) => !confirmed.has(node));
      if (!await isSent) return { missing: missing(), isSent: false };
      const allConfirmed = () =>
        new Promise<void>((resolve) => {
          resolveIfComplete = () => {
            if (missing().length === 0) resolve();
          };
          resolveIfComplete();
        });
      // A timeout is not an error: the late nodes are in `missing`.
      await within(deadlines, CONFIRM_TIMEOUT, allConfirmed, () => new Error("Too late")).catch(() => {});
      return { missing: missing(), isSent: true };
    } finally {
      this.#pending.delete(question);
    }
  }

  async #others(): Promise<string[]> {
    const { engine, node } = this.#host();
    let nodes: readonly string[];
    try {
      nodes = await engine.nodes();
    } catch {
      nodes = engine.lastNodes ?? []; // The engine is unavailable and reports that itself.
    }
    return nodes.filter((other) => other !== node);
  }

  #warn(type: Order["type"]): void {
    if (this.#hasWarned) return;
    this.#hasWarned = true;
    this.#host().report(
      new TypeError(`Cannot ${type} on other nodes: they accept only signed orders, pass the engine a secret`),
    );
  }
}
