/** The messages between nodes: broadcasts, orders that change rights, and questions about clients and counters. */
import { type AskAllQuestion, type AskAllResult, askClients, AskedClients, type QuestionHost, splitReplies } from "./ask-all.ts";
import { withReply } from "../application/questions.ts";
import { checkMs, type Deadlines, within } from "../base/clock.ts";
import { ClusterOrders } from "./cluster-orders.ts";
import { cutCloseReason } from "../protocol/close.ts";
import { type BroadcastFilter, checkFilter } from "../delivery/broadcast.ts";
import type { Engine } from "../engines/engine.ts";
import { Frame } from "../protocol/frame.ts";
import { guard } from "../base/guard.ts";
import { type Answer, askerOf, type Message, type Order, read } from "./cluster-message.ts";
import type { DisconnectFilter } from "../connection/revocations.ts";
import type { ControllerStats } from "./stats.ts";
import type { WebSocketClient } from "../application/websocket-client.ts";

/** A client on any node of the cluster. */
export interface ClusterClient {
  /** The node it is connected to. */
  node: string;
  /** Its `uid`. */
  uid: string;
  /** Its user, or `null`. */
  user: string | null;
  /** Its role, or `null`. */
  role: string | null;
}

/** Clients of all nodes that answered in time. */
export interface ClusterClients {
  /** In no order. */
  clients: ClusterClient[];
  /** Nodes that are alive but did not answer in time. */
  missing: string[];
}

/** Counters of all nodes that answered in time. */
export interface ClusterStats {
  /** Counters by node name. */
  nodes: Record<string, ControllerStats>;
  /** Nodes that are alive but did not answer in time. */
  missing: string[];
}

/** The outcome of an order to all nodes. */
export interface OrderResult {
  /**
   * Live nodes that have not confirmed the order in time. If it was sent, they carry it out once they are reachable. A node that
   * is unreachable for longer than the engine's `lease` is not listed, but carries it out too.
   */
  missing: string[];
  /**
   * Whether it was sent. If not, an `error` event says why, and it is sent when the engine is available again, unless 1,000
   * orders wait already.
   */
  isSent: boolean;
}

/** The result of an order when there are no other nodes. */
export const ALONE: OrderResult = Object.freeze({ missing: [], isSent: true });

/** Options of a question to all nodes. */
export interface ClusterQuestion {
  /** How long to wait for the other nodes, in ms. @default {2_000} */
  timeout?: number;
}

/** What the cluster needs from its node. */
export interface ClusterHost {
  readonly deadlines: Deadlines;
  /** Already started. */
  readonly engine: Engine;
  /** The name of this node. */
  readonly node: string;
  report(error: unknown): void;
  receiveBroadcast(frame: Frame, filter: BroadcastFilter): void;
  /** @param age how long ago a late order was given, in ms; absent: just now. */
  disconnect(filter: DisconnectFilter, code: number, reason: string, age?: number): void;
  refresh(filter: BroadcastFilter, age?: number): void;
  /** The admitted clients of this node that match. */
  clients(filter: BroadcastFilter): WebSocketClient[];
  stats(): ControllerStats;
}

/** Clients in one message: NATS limits a message to 1 MiB by default. */
const MAX_CLIENTS_PER_MESSAGE = 1_000;

/** How long to wait for the other nodes, in ms. */
const ANSWER_TIMEOUT = 2_000;

/** `Omit` of each member of a union. */
type DistributiveOmit<T, Key extends PropertyKey> = T extends unknown ? Omit<T, Key> : never;

/** A question with answers outstanding. `waiting` holds the nodes that have not answered. */
interface PendingQuestion {
  readonly waiting: Set<string>;
  readonly receive: (answer: Answer) => void;
  done(): void;
}

/**
 * Sends broadcasts, orders and questions to the other nodes, and handles theirs. Anybody with access to the broker can send
 * messages, so orders (`disconnect`, `refresh`) are accepted only from an engine that signs.
 */
export class Cluster {
  readonly #host: () => ClusterHost;
  readonly #orders: ClusterOrders;
  readonly #questions = new Map<string, PendingQuestion>();
  /** Listeners of messages of optional features, by name. */
  readonly #listeners = new Map<string, (text: string) => void>();
  #questionCount = 0;

  /**
   * Created by the controller.
   *
   * @param host called on first use only, because it starts the engine.
   */
  constructor(host: () => ClusterHost) {
    this.#host = host;
    this.#orders = new ClusterOrders(host, () => this.#newQuestion());
  }

  /**
   * Returns the clients of all nodes that the filter matches.
   *
   * @throws {TypeError} for an invalid timeout.
   * @throws {WebSocketError} ENGINE_UNAVAILABLE if the engine cannot list the nodes.
   */
  async clients(filter: BroadcastFilter = {}, { timeout = ANSWER_TIMEOUT }: ClusterQuestion = {}): Promise<ClusterClients> {
    const host = this.#host();
    const clients: ClusterClient[] = host.clients(filter).map((client) => ({ node: host.node, ...recordOf(client) }));
    const missing = await this.#ask({ type: "ask", about: "clients", filter }, timeout, ({ node, clients: others }) => {
      for (const client of others ?? []) clients.push({ node, ...client });
    });
    return { clients, missing };
  }

  /**
   * Returns the counters of all nodes.
   *
   * @throws {TypeError} for an invalid timeout.
   * @throws {WebSocketError} ENGINE_UNAVAILABLE if the engine cannot list the nodes.
   */
  async stats({ timeout = ANSWER_TIMEOUT }: ClusterQuestion = {}): Promise<ClusterStats> {
    const host = this.#host();
    const nodes: Record<string, ControllerStats> = { [host.node]: host.stats() };
    const missing = await this.#ask({ type: "ask", about: "stats", filter: {} }, timeout, ({ node, stats, counts }) => {
      if (stats) nodes[node] = { ...stats, ...counts } as unknown as ControllerStats; // Another version may have more or fewer counters.
    });
    return { nodes, missing };
  }

  // Called by the controller

  /**
   * See {@link WebSocketController.askAll}.
   * @internal
   */
  async askAll<Reply>(
    asking: QuestionHost,
    ...[type, payload = {}, filter = {}, options = {}]: AskAllQuestion<Reply>
  ): Promise<AskAllResult<Reply>> {
    const host = this.#host();
    const asked = new AskedClients(type, payload, withReply(asking.options.contract, type, options), asking);
    asking.outbound?.question(type, payload);
    const { request } = asked;
    const others = this.#ask({ type: "ask.clients", filter: checkFilter(filter), request }, asked.answerTimeout, (answer) => {
      asked.add(answer.node, answer);
    });
    others.catch(() => {}); // Awaited below, once the clients here have answered.
    asked.add(host.node, await askClients(host.clients(filter), request));
    return await asked.result(await others);
  }

  // Implements NodeMessages of connection-host.ts

  /** @internal */
  get node(): string {
    return this.#host().node;
  }

  /** @internal */
  get isSigned(): boolean {
    const { isAlone, isSigned } = this.#host().engine;
    return isAlone || isSigned || false;
  }

  /** @internal */
  send(name: string, text: string): void {
    this.#send({ type: "note", to: name, text });
  }

  /** @internal */
  listen(name: string, listener: (text: string) => void): () => void {
    if (this.#listeners.has(name)) throw new TypeError(`Cannot listen: "${name}" has a listener already, end that first`);
    const own = (text: string) => listener(text);
    this.#listeners.set(name, own);
    return () => {
      if (this.#listeners.get(name) === own) this.#listeners.delete(name);
    };
  }

  /** Asks the other nodes to send the frame to their clients. */
  sendBroadcast({ text, isJson }: Frame, filter: BroadcastFilter): void {
    this.#send({ type: "broadcast", text, isJson, filter });
  }

  /** Orders the other nodes to close matching clients; requires an engine that signs. */
  disconnect(filter: DisconnectFilter, code: number, reason: string): Promise<OrderResult> {
    // Cut as in a close frame, because other nodes ignore an order with a longer reason.
    return this.#order({ type: "disconnect", filter, code, reason: cutCloseReason(String(reason)) });
  }

  /** Orders the other nodes to revalidate matching clients; requires an engine that signs. */
  refresh(filter: BroadcastFilter): Promise<OrderResult> {
    return this.#order({ type: "refresh", filter });
  }

  /**
   * Handles a message of another node. An invalid one is ignored: it is from another version, or forged.
   *
   * @param age how long ago a late order was given, in ms; absent: just now.
   */
  received(text: string, age?: number): void {
    const message = read(text);
    if (!message) return;
    const host = this.#host();
    switch (message.type) {
      case "broadcast":
        return host.receiveBroadcast(
          new Frame(message.text.toWellFormed(), message.isJson && isObject(message.text)),
          defined(message.filter),
        );
      case "disconnect":
      case "refresh":
        if (host.engine.isSigned) this.#execute(message, age);
        return;
      case "ask":
        return this.#answer(message.question, message.about, defined(message.filter));
      case "ask.clients":
        return this.#askClients(message);
      case "answer":
        return this.#receiveAnswer(message);
      case "note":
        return guard(() => this.#listeners.get(message.to)?.(message.text), host.report);
    }
  }

  #order(order: Order): Promise<OrderResult> {
    return this.#host().engine.isAlone ? Promise.resolve(ALONE) : this.#orders.send(order);
  }

  async #ask(
    asked: DistributiveOmit<Extract<Message, { type: "ask" | "ask.clients" }>, "question">,
    timeout: number,
    receive: (answer: Answer) => void,
  ): Promise<string[]> {
    checkMs("Cannot ask the cluster: timeout", timeout);
    const { deadlines, engine, node } = this.#host();
    const waiting = new Set(await engine.nodes());
    waiting.delete(node);
    if (waiting.size === 0) return [];
    const name = this.#newQuestion();
    try {
      await within(deadlines, timeout, () =>
        new Promise<void>((done) => {
          this.#questions.set(name, { waiting, receive, done });
          this.#send({ ...asked, question: name });
        }), () => new Error("Too late"));
    } catch {
      // Timed out: the nodes still waiting are returned as missing.
    } finally {
      this.#questions.delete(name);
    }
    return [...waiting];
  }

  #answer(question: string, about: "clients" | "stats", filter: BroadcastFilter): void {
    const host = this.#host();
    const answer = { type: "answer", question, node: host.node } as const;
    if (about === "stats") return this.#send({ ...answer, ...splitStats(host.stats()), isLast: true });
    const clients = host.clients(filter).map(recordOf);
    do {
      const part = clients.splice(0, MAX_CLIENTS_PER_MESSAGE);
      this.#send({ ...answer, clients: part, isLast: clients.length === 0 });
    } while (clients.length > 0);
  }

  #askClients({ question, filter, request }: Extract<Message, { type: "ask.clients" }>): void {
    const host = this.#host();
    const answer = { type: "answer", question, node: host.node } as const;
    askClients(host.clients(defined(filter)), request).then(({ replies, failed }) => {
      for (const part of splitReplies(replies)) this.#send({ ...answer, replies: part, isLast: false });
      this.#send({ ...answer, failed, isLast: true });
    }).catch(host.report);
  }

  #receiveAnswer(answer: Answer): void {
    this.#orders.confirmed(answer.question, answer.node);
    const question = this.#questions.get(answer.question);
    if (!question?.waiting.has(answer.node)) return;
    question.receive(answer);
    if (answer.isLast && question.waiting.delete(answer.node) && question.waiting.size === 0) question.done();
  }

  #execute(order: Order, age: number | undefined): void {
    const host = this.#host();
    const filter = defined(order.filter);
    if (order.type === "refresh") host.refresh(filter, age);
    else if (Object.keys(filter).length > 0) host.disconnect(filter, order.code, order.reason, age);
    const { question } = order;
    if (question !== undefined && age === undefined) this.#send({ type: "answer", question, node: host.node, isLast: true });
  }

  /** A name for a question or an order. It begins with the node, so that answers can be addressed to it. */
  #newQuestion(): string {
    return `${this.#host().node} ${++this.#questionCount}`;
  }

  /** Sends without waiting; a failure is reported. */
  #send(message: Message): void {
    const { engine, report } = this.#host();
    if (engine.isAlone) return;
    (async () => await engine.send(JSON.stringify(message), askerOf(message)))().catch(report);
  }
}

const recordOf = ({ uid, accountability: { user, role } }: WebSocketClient): Omit<ClusterClient, "node"> => ({ uid, user, role });

/** Splits the stats into plain counters and counters by reason or cause. */
function splitStats(all: ControllerStats): Pick<Answer, "stats" | "counts"> {
  const stats: Record<string, number> = {};
  const counts: Record<string, Record<string, number>> = {};
  for (const [name, value] of Object.entries(all)) {
    if (typeof value === "number") stats[name] = value;
    else counts[name] = value;
  }
  return { stats, counts };
}

/** Whether the text is a JSON object, which may share a batch array with others; any other text would corrupt the batch. */
function isObject(text: string): boolean {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === "object" && value !== null && !Array.isArray(value);
  } catch {
    return false; // Sent unchanged, in a frame of its own.
  }
}

/** Drops undefined keys: `{ user: undefined }` is not a valid filter. */
function defined<Filter extends DisconnectFilter>(filter: { [Key in keyof Filter]?: Filter[Key] | undefined }): Filter {
  return Object.fromEntries(Object.entries(filter).filter(([, value]) => value !== undefined)) as Filter; // Only optional keys are removed.
}
