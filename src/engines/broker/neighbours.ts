import * as v from "valibot";
import type { Deadlines, Timed } from "../../base/clock.ts";
import { ENVELOPE_KINDS } from "./envelope-kind.ts";
import { isJson, parse } from "./envelope.ts";
import { fromWire, type RankedMember, toWire } from "./presence.ts";
import type { EnvelopeNumbers, ReplayGuard } from "./replay-guard.ts";

/** What {@link Neighbours} needs from its engine. */
export interface NeighboursHost {
  readonly node: string;
  readonly deadlines: Deadlines;
  readonly guard: ReplayGuard;
  /** Silence after which the broker counts as unavailable, in ms. */
  readonly timeout: number;
  /** Sends to all nodes, in the order of the calls. Reports failures itself. */
  send(body: string): void;
  /** The members of a channel on this node. */
  members(channel: string): RankedMember[];
}

/** Maximum number of members, and characters of their data, in one message of an answer. */
const [MAX_MEMBERS, MAX_LENGTH] = [1_000, 300_000];

/** Maximum time to wait for the answers of other nodes, in ms, on top of the time that the broker takes. */
const ANSWER_TIME = 1_000;

/** Minimum time between two greetings of unknown nodes, in ms. */
const GREETING_PAUSE = 1_000;

const name = v.pipe(v.string(), v.maxLength(64));
const count = v.pipe(v.number(), v.safeInteger(), v.minValue(0));
const MemberSchema = v.object({
  user: v.pipe(v.string(), v.minLength(1), v.maxLength(512)),
  data: v.optional(v.pipe(v.string(), v.check(isJson))),
  place: v.optional(v.pipe(v.number(), v.safeInteger(), v.minValue(0))),
});

/** `who` asks for the members of a channel, and `here` answers it. */
const ControlSchema = v.variant("type", [
  // A greeting, to one node or to all.
  v.object({ type: v.literal("hello"), to: v.optional(name) }),
  // Answers a greeting: the sender's numbers when it first heard of the node that greeted.
  v.object({
    type: v.literal("numbers"),
    to: name,
    numbers: v.object(Object.fromEntries(ENVELOPE_KINDS.map((kind) => [kind, count]))),
    /** Whether the receiver has to answer with its own numbers. */
    asks: v.boolean(),
  }),
  v.object({ type: v.literal("who"), question: count, channel: v.string(), nodes: v.array(name) }),
  v.object({ type: v.literal("here"), to: name, question: count, members: v.array(MemberSchema), isLast: v.boolean() }),
]);

/** A query for the members of a channel. */
interface MemberQuery {
  readonly waiting: Set<string>;
  readonly members: Map<string, RankedMember[]>;
  resolve(): void;
}

type Control = v.InferOutput<typeof ControlSchema>;

/** A question that the broker has not returned to this node yet. */
interface Asked {
  readonly body: string;
  returned(): void;
}

/**
 * The control messages between nodes that sign. A node that starts greets the others, and each answers with its numbers: see
 * {@link ReplayGuard}. Nodes also answer queries for their members: see {@link MemberVerifier}.
 */
export class Neighbours {
  readonly #host: NeighboursHost;
  readonly #queries = new Map<number, MemberQuery>();
  readonly #asked = new Set<Asked>();
  #queryCount = 0;
  #lastGreeting = -Infinity;
  /** Callbacks for numbers that other nodes have stated. */
  #listeners = new Set<() => void>();

  constructor(host: NeighboursHost) {
    this.#host = host;
  }

  /** Greets all nodes. Resolves when these have stated their numbers, or have had the time to. */
  async greet(nodes: readonly string[]): Promise<void> {
    const { guard } = this.#host;
    const isKnown = () => nodes.every((node) => guard.knows(node));
    if (isKnown()) return this.#send({ type: "hello" });
    let check!: () => void;
    const known = new Promise<void>((resolve) => this.#listeners.add(check = () => isKnown() && resolve()));
    // A node that does not answer is dead, or will greet when it reconnects.
    await this.#ask({ type: "hello" }, known);
    this.#listeners.delete(check);
  }

  /** Greets an unknown node that has sent an envelope, at most once per {@link GREETING_PAUSE}. */
  greetUnknown(node: string): void {
    const now = this.#host.deadlines.now();
    if (now - this.#lastGreeting < GREETING_PAUSE) return;
    this.#lastGreeting = now;
    this.#send({ type: "hello", to: node });
  }

  /** Queries nodes for their members of a channel. Nodes that do not answer in time are missing from the result. */
  async queryMembers(channel: string, nodes: readonly string[]): Promise<ReadonlyMap<string, readonly RankedMember[]>> {
    const question = ++this.#queryCount;
    const members = new Map<string, RankedMember[]>();
    const waiting = new Set(nodes);
    const answered = new Promise<void>((resolve) => this.#queries.set(question, { waiting, members, resolve }));
    await this.#ask({ type: "who", question, channel, nodes: [...nodes] }, answered);
    this.#queries.delete(question);
    for (const node of waiting) members.delete(node);
    return members;
  }

  /** Handles a control message. Returns `false` if it is malformed. */
  received(node: string, body: string): boolean {
    const control = parse(ControlSchema, body);
    if (!control) return false;
    const { guard, node: own } = this.#host;
    if (node === own) { for (const asked of this.#asked) if (asked.body === body) asked.returned(); }
    if (node === own || ("to" in control && control.to !== undefined && control.to !== own)) return true;
    switch (control.type) {
      case "hello":
        this.#sendNumbers(node);
        return true;
      case "numbers":
        if (control.asks) this.#sendNumbers(node);
        guard.learn(node, control.numbers as EnvelopeNumbers); // The schema requires all kinds.
        for (const check of this.#listeners) check();
        return true;
      case "who":
        if (control.nodes.includes(own)) this.#sendMembers(node, control.question, control.channel);
        return true;
      case "here":
        this.#receiveMembers(node, control.question, control.members.map(fromWire), control.isLast);
        return true;
    }
  }

  #sendNumbers(node: string): void {
    const { guard } = this.#host;
    this.#send({ type: "numbers", to: node, numbers: guard.meet(node), asks: !guard.knows(node) });
  }

  #sendMembers(node: string, question: number, channel: string): void {
    const members = this.#host.members(channel);
    let part: RankedMember[] = [];
    let length = 0;
    const send = (isLast: boolean) => {
      this.#send({ type: "here", to: node, question, members: part.map(toWire), isLast });
      part = [];
      length = 0;
    };
    for (const member of members) {
      const size = member.data?.length ?? 0;
      if (part.length >= MAX_MEMBERS || length + size > MAX_LENGTH) send(false);
      part.push(member);
      length += size;
    }
    send(true);
  }

  #receiveMembers(node: string, number: number, members: readonly RankedMember[], isLast: boolean): void {
    const query = this.#queries.get(number);
    if (!query?.waiting.has(node)) return;
    query.members.set(node, [...query.members.get(node) ?? [], ...members]);
    if (isLast && query.waiting.delete(node) && query.waiting.size === 0) query.resolve();
  }

  /**
   * Sends a question, and resolves when it is answered or the nodes have had the time to. That begins when the broker has returned the
   * question to this node: if it is slow, the nodes have received the question no earlier, and their answers take as long again.
   */
  async #ask(question: Control, answered: Promise<void>): Promise<void> {
    const { deadlines, timeout } = this.#host;
    const body = JSON.stringify(question);
    let asked!: Asked;
    await new Promise<void>((resolve) => {
      const timer: Timed = { deadline: 0, heapIndex: -1, due: resolve };
      const start = deadlines.now();
      asked = { body, returned: () => deadlines.set(timer, Math.min(timeout, ANSWER_TIME + deadlines.now() - start)) };
      this.#asked.add(asked);
      deadlines.set(timer, timeout);
      void answered.then(() => {
        deadlines.delete(timer);
        resolve();
      });
      this.#host.send(body);
    });
    this.#asked.delete(asked);
  }

  #send(control: Control): void {
    this.#host.send(JSON.stringify(control));
  }
}
