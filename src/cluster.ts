import * as v from "valibot";
import { checkMs, type Deadlines, within } from "./clock.ts";
import { cutCloseReason, isCloseCode } from "./close.ts";
import type { BroadcastFilter } from "./broadcast.ts";
import type { Engine } from "./engine.ts";
import { Frame } from "./frame.ts";
import { FIRST_ISSUE } from "./protocol.ts";
import type { DisconnectFilter } from "./revocations.ts";
import type { ControllerStats } from "./stats.ts";

/** A client, as any node of the cluster tells of it. */
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
  /** Nodes that are alive and did not answer. */
  missing: string[];
}

/** Counters of all nodes that answered in time. */
export interface ClusterStats {
  /** By node. */
  nodes: Record<string, ControllerStats>;
  /** Nodes that are alive and did not answer. */
  missing: string[];
}

/** What became of an order to all nodes. */
export interface OrderResult {
  /**
   * The nodes that are alive and have not carried it out in time. They do so when they can be reached, if it was sent. A node that has
   * been cut off for longer than the engine's `lease` is not known to be alive, and carries it out too.
   */
  missing: string[];
  /** Whether it was sent. Where not, an `error` event says why, and it is sent when the engine is back. */
  isSent: boolean;
}

/** There are no other nodes. */
export const ALONE: OrderResult = Object.freeze({ missing: [], isSent: true });

/** How long the other nodes are waited for. */
export interface ClusterQuestion {
  /** In ms. @default {2_000} */
  timeout?: number;
}

/** What the cluster needs of its node. */
export interface ClusterHost {
  readonly deadlines: Deadlines;
  /** Started. */
  readonly engine: Engine;
  /** The name of this node. */
  readonly node: string;
  report(error: unknown): void;
  broadcast(frame: Frame, filter: BroadcastFilter): void;
  /** @param age of an order that comes late, in ms. */
  disconnect(filter: DisconnectFilter, code: number, reason: string, age?: number): void;
  refresh(filter: BroadcastFilter, age?: number): void;
  clients(filter: BroadcastFilter): Iterable<Omit<ClusterClient, "node">>;
  stats(): ControllerStats;
}

/** Clients in one message: a broker takes no more than a megabyte. */
const CLIENTS_A_MESSAGE = 1_000;

const id = v.pipe(v.string(), v.minLength(1), v.maxLength(1_024));
const filter = v.strictObject({ user: v.optional(id), role: v.optional(id) });
/** Of an order that is to be answered. */
const question = v.optional(id);

/** How long the other nodes are waited for, in ms. */
const PATIENCE = 2_000;

/** What nodes send to each other. Fields that a later version adds are ignored, and messages of a type that is not known too. */
const MessageSchema = v.variant("type", [
  v.object({ type: v.literal("broadcast"), text: v.string(), isJson: v.boolean(), filter }),
  v.object({
    type: v.literal("disconnect"),
    filter: v.strictObject({ user: v.optional(id), role: v.optional(id), uid: v.optional(id) }),
    code: v.pipe(v.number(), v.check(isCloseCode)),
    reason: v.pipe(v.string(), v.maxLength(123)),
    question,
  }),
  v.object({ type: v.literal("refresh"), filter, question }),
  v.object({ type: v.literal("ask"), question: id, about: v.picklist(["clients", "stats"]), filter }),
  v.object({
    type: v.literal("answer"),
    question: id,
    node: id,
    clients: v.optional(v.array(v.object({ uid: id, user: v.nullable(id), role: v.nullable(id) }))),
    stats: v.optional(v.record(v.string(), v.number())),
    // Apart from those, which is all that an earlier version reads.
    counts: v.optional(v.record(v.string(), v.record(v.string(), v.number()))),
    isLast: v.boolean(),
  }),
]);

type Message = v.InferOutput<typeof MessageSchema>;
type Answer = Extract<Message, { type: "answer" }>;
type Order = Extract<Message, { type: "disconnect" | "refresh" }>;

/** A question that nodes have yet to answer. */
interface Question {
  readonly waiting: Set<string>;
  readonly take: (answer: Answer) => void;
  done(): void;
}

/**
 * What a node does on the others. Whoever can write to the broker can write this, so that connections are ended and asked about anew only
 * where the engine signs what it sends.
 */
export class Cluster {
  readonly #host: () => ClusterHost;
  readonly #questions = new Map<string, Question>();
  /** Orders that nodes have yet to carry out. */
  readonly #orders = new Map<string, (node: string) => void>();
  #asked = 0;
  #hasWarned = false;

  /** @param host asked for when something is to be sent, for it starts the engine. */
  constructor(host: () => ClusterHost) {
    this.#host = host;
  }

  /** The clients of all nodes that the filter matches. */
  async clients(filter: BroadcastFilter = {}, { timeout = PATIENCE }: ClusterQuestion = {}): Promise<ClusterClients> {
    const host = this.#host();
    const clients: ClusterClient[] = Array.from(host.clients(filter), (client) => ({ node: host.node, ...client }));
    const missing = await this.#ask("clients", filter, timeout, ({ node, clients: others }) => {
      for (const client of others ?? []) clients.push({ node, ...client });
    });
    return { clients, missing };
  }

  /** The counters of all nodes. */
  async stats({ timeout = PATIENCE }: ClusterQuestion = {}): Promise<ClusterStats> {
    const host = this.#host();
    const nodes: Record<string, ControllerStats> = { [host.node]: host.stats() };
    const missing = await this.#ask("stats", {}, timeout, ({ node, stats, counts }) => {
      if (stats) nodes[node] = { ...stats, ...counts } as unknown as ControllerStats; // A node of another version may count more, or less.
    });
    return { nodes, missing };
  }

  // The controller's side

  /** The other nodes are to send the frame to their clients. */
  broadcast({ text, isJson }: Frame, filter: BroadcastFilter): void {
    this.#send({ type: "broadcast", text, isJson, filter });
  }

  /** The other nodes are to close their clients, where the engine signs. */
  disconnect(filter: DisconnectFilter, code: number, reason: string): Promise<OrderResult> {
    // As the close frame has it here: other nodes ignore an order with a longer one.
    return this.#order({ type: "disconnect", filter, code, reason: cutCloseReason(String(reason)) });
  }

  /** The other nodes are to ask about their clients anew, where the engine signs. */
  refresh(filter: BroadcastFilter): Promise<OrderResult> {
    return this.#order({ type: "refresh", filter });
  }

  /** Another node has sent this, or had, so many ms ago. What cannot be read is ignored: it is of another version, or of somebody who has no business here. */
  received(text: string, age?: number): void {
    const message = read(text);
    if (!message) return;
    const host = this.#host();
    switch (message.type) {
      case "broadcast":
        return host.broadcast(
          new Frame(message.text.toWellFormed(), message.isJson && isObject(message.text)),
          defined(message.filter),
        );
      case "disconnect":
      case "refresh":
        if (host.engine.isSigned) this.#obey(message, age);
        return;
      case "ask":
        return this.#answer(message.question, message.about, defined(message.filter));
      case "answer":
        return this.#take(message);
    }
  }

  async #ask(
    about: "clients" | "stats",
    filter: BroadcastFilter,
    timeout: number,
    take: (answer: Answer) => void,
  ): Promise<string[]> {
    checkMs("Cannot ask the cluster: timeout", timeout);
    const { deadlines, engine, node } = this.#host();
    const waiting = new Set(await engine.nodes());
    waiting.delete(node);
    if (waiting.size === 0) return [];
    const name = `${node} ${++this.#asked}`;
    try {
      await within(deadlines, timeout, () =>
        new Promise<void>((done) => {
          this.#questions.set(name, { waiting, take, done });
          this.#send({ type: "ask", question: name, about, filter });
        }), () => new Error("Too late"));
    } catch {
      // Those who have not answered are told of.
    } finally {
      this.#questions.delete(name);
    }
    return [...waiting];
  }

  #answer(question: string, about: "clients" | "stats", filter: BroadcastFilter): void {
    const host = this.#host();
    const answer = { type: "answer", question, node: host.node } as const;
    if (about === "stats") return this.#send({ ...answer, ...divided(host.stats()), isLast: true });
    const clients = [...host.clients(filter)];
    do {
      const some = clients.splice(0, CLIENTS_A_MESSAGE);
      this.#send({ ...answer, clients: some, isLast: clients.length === 0 });
    } while (clients.length > 0);
  }

  #take(answer: Answer): void {
    this.#orders.get(answer.question)?.(answer.node);
    const question = this.#questions.get(answer.question);
    if (!question?.waiting.has(answer.node)) return;
    question.take(answer);
    if (answer.isLast && question.waiting.delete(answer.node) && question.waiting.size === 0) question.done();
  }

  #obey(order: Order, age: number | undefined): void {
    const host = this.#host();
    const filter = defined(order.filter);
    if (order.type === "refresh") host.refresh(filter, age);
    else if (Object.keys(filter).length > 0) host.disconnect(filter, order.code, order.reason, age);
    const { question } = order;
    if (question !== undefined && age === undefined) this.#send({ type: "answer", question, node: host.node, isLast: true });
  }

  #order(order: Order): Promise<OrderResult> {
    return this.#carryOut(this.#host(), order);
  }

  /** Does not reject. The order is on its way when this returns. */
  async #carryOut({ deadlines, engine, node, report }: ClusterHost, order: Order): Promise<OrderResult> {
    if (engine.isAlone) return ALONE;
    if (!engine.isSigned) {
      this.#warn(order.type);
      return { missing: await this.#others(), isSent: false };
    }
    const question = `${node} ${++this.#asked}`;
    const text = JSON.stringify({ ...order, question });
    const done = new Set<string>();
    let look = () => {};
    this.#orders.set(question, (node) => {
      done.add(node);
      look();
    });
    try {
      const sending = (async () => await (engine.order ? engine.order(text) : engine.send(text)))();
      const isSent = sending.then(() => true, (error) => {
        report(error);
        return false;
      });
      const others = await this.#others();
      const missing = () => others.filter((node) => !done.has(node));
      if (!await isSent) return { missing: missing(), isSent: false };
      const carried = () =>
        new Promise<void>((resolve) => {
          look = () => {
            if (missing().length === 0) resolve();
          };
          look();
        });
      // Those that are late are missing.
      await within(deadlines, PATIENCE, carried, () => new Error("Too late")).catch(() => {});
      return { missing: missing(), isSent: true };
    } finally {
      this.#orders.delete(question);
    }
  }

  async #others(): Promise<string[]> {
    const { engine, node } = this.#host();
    let nodes: readonly string[];
    try {
      nodes = await engine.nodes();
    } catch {
      nodes = engine.lastNodes ?? []; // It is away, which is told elsewhere.
    }
    return nodes.filter((other) => other !== node);
  }

  #warn(type: Order["type"]): void {
    if (this.#hasWarned) return;
    this.#hasWarned = true;
    this.#host().report(
      new TypeError(`Cannot ${type} on other nodes: pass the engine a secret, for they take no orders that are not signed`),
    );
  }

  /** What cannot be sent is told, and nobody waits for it. */
  #send(message: Message): void {
    const { engine, report } = this.#host();
    if (engine.isAlone) return;
    (async () => await engine.send(JSON.stringify(message)))().catch(report);
  }
}

/** The counters, and those that are counted by something. */
function divided(all: ControllerStats): Pick<Answer, "stats" | "counts"> {
  const stats: Record<string, number> = {};
  const counts: Record<string, Record<string, number>> = {};
  for (const [name, value] of Object.entries(all)) {
    if (typeof value === "number") stats[name] = value;
    else counts[name] = value;
  }
  return { stats, counts };
}

function read(text: string): Message | null {
  try {
    const parsed = v.safeParse(MessageSchema, JSON.parse(text), FIRST_ISSUE);
    return parsed.success ? parsed.output : null;
  } catch {
    return null; // As above.
  }
}

/** Whether it may stand in an array with others: a text that is none would spoil them. */
function isObject(text: string): boolean {
  try {
    const value: unknown = JSON.parse(text);
    return typeof value === "object" && value !== null && !Array.isArray(value);
  } catch {
    return false; // It goes out as it is, by itself.
  }
}

/** Without the keys that are absent: `{ user: undefined }` is no filter. */
function defined<Filter extends DisconnectFilter>(filter: { [Key in keyof Filter]?: Filter[Key] | undefined }): Filter {
  return Object.fromEntries(Object.entries(filter).filter(([, value]) => value !== undefined)) as Filter; // The same keys, less some.
}
