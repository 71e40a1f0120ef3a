import * as v from "valibot";
import { type Deadlines, within } from "../../base/clock.ts";
import { ENVELOPE_KINDS } from "./envelope-kind.ts";
import { isJson, parse } from "./envelope.ts";
import { type PlacedMember, toPlaced } from "./presence.ts";
import type { EnvelopeNumbers, ReplayGuard } from "./replay-guard.ts";

/** What neighbours need from their engine. */
export interface NeighboursHost {
  readonly node: string;
  readonly deadlines: Deadlines;
  readonly guard: ReplayGuard;
  /** How long to wait for answers of other nodes, in ms. */
  readonly timeout: number;
  /** Sends to all nodes, in the order of the calls. Reports failures itself. */
  send(body: string): void;
  /** The members of a channel on this node. */
  members(channel: string): PlacedMember[];
}

/** Maximum number of members, and characters of their data, in one message of an answer. */
const [MEMBERS_AN_ANSWER, LENGTH_OF_AN_ANSWER] = [1_000, 300_000];

/** Minimum time between two greetings of unknown nodes, in ms. */
const GREETING_PAUSE = 1_000;

const name = v.pipe(v.string(), v.maxLength(64));
const count = v.pipe(v.number(), v.safeInteger(), v.minValue(0));
const MemberSchema = v.object({
  user: v.pipe(v.string(), v.minLength(1), v.maxLength(512)),
  data: v.optional(v.pipe(v.string(), v.check(isJson))),
  place: v.optional(v.pipe(v.number(), v.safeInteger(), v.minValue(0))),
});

const ControlSchema = v.variant("type", [
  // A greeting, to one node or to all.
  v.object({ type: v.literal("hello"), to: v.optional(name) }),
  // Answer to a greeting: the sender's numbers at the time when it first heard of the node that greeted.
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

/** A query for the members of a channel that awaits answers. */
interface Question {
  readonly waiting: Set<string>;
  readonly members: Map<string, PlacedMember[]>;
  done(): void;
}

/**
 * The control messages between nodes that sign. A starting node greets the others, and each answers with its numbers: see
 * {@link ReplayGuard}. Nodes also confirm their own members, because a replayed copy of a stored member has a valid signature.
 */
export class Neighbours {
  readonly #host: NeighboursHost;
  readonly #questions = new Map<number, Question>();
  #asked = 0;
  #greeted = -Infinity;
  /** Callbacks for numbers that other nodes have stated. */
  #learned = new Set<() => void>();

  constructor(host: NeighboursHost) {
    this.#host = host;
  }

  /** Greets all nodes. Resolves when these have stated their numbers, or after `timeout`. */
  async greet(nodes: readonly string[]): Promise<void> {
    const { deadlines, guard, timeout } = this.#host;
    const isKnown = () => nodes.every((node) => guard.knows(node));
    this.#send({ type: "hello" });
    if (isKnown()) return;
    let look!: () => void;
    const known = new Promise<void>((resolve) => this.#learned.add(look = () => isKnown() && resolve()));
    // A node that does not answer is dead, or greets on its reconnect.
    await within(deadlines, timeout, () => known, () => new Error("Too late")).catch(() => {});
    this.#learned.delete(look);
  }

  /** An envelope came from an unknown node: greet it. The node may also be gone, and the envelope a copy. */
  meet(node: string): void {
    const now = this.#host.deadlines.now();
    if (now - this.#greeted < GREETING_PAUSE) return;
    this.#greeted = now;
    this.#send({ type: "hello", to: node });
  }

  /** Queries the members of a channel. Nodes that do not answer within `timeout` are missing from the result. */
  async ask(channel: string, nodes: readonly string[]): Promise<ReadonlyMap<string, readonly PlacedMember[]>> {
    const { deadlines, timeout } = this.#host;
    const question = ++this.#asked;
    const members = new Map<string, PlacedMember[]>();
    try {
      await within(deadlines, timeout, () =>
        new Promise<void>((done) => {
          this.#questions.set(question, { waiting: new Set(nodes), members, done });
          this.#send({ type: "who", question, channel, nodes: [...nodes] });
        }), () => new Error("Too late"));
    } catch {
      // Timeout: nodes without a complete answer are removed below.
    }
    const { waiting } = this.#questions.get(question)!; // Set above.
    this.#questions.delete(question);
    for (const node of waiting) members.delete(node);
    return members;
  }

  /** Handles a control message; `false` when it is malformed. */
  received(node: string, body: string): boolean {
    const control = parse(ControlSchema, body);
    if (!control) return false;
    const { guard, node: own } = this.#host;
    if (node === own || ("to" in control && control.to !== undefined && control.to !== own)) return true;
    switch (control.type) {
      case "hello":
        this.#state(node);
        return true;
      case "numbers":
        if (control.asks) this.#state(node);
        guard.learn(node, control.numbers as EnvelopeNumbers); // The schema requires all kinds.
        for (const look of this.#learned) look();
        return true;
      case "who":
        if (control.nodes.includes(own)) this.#answer(node, control.question, control.channel);
        return true;
      case "here":
        this.#receiveMembers(node, control.question, control.members.map(toPlaced), control.isLast);
        return true;
    }
  }

  #state(node: string): void {
    const { guard } = this.#host;
    this.#send({ type: "numbers", to: node, numbers: guard.meet(node), asks: !guard.knows(node) });
  }

  #answer(node: string, question: number, channel: string): void {
    const members = this.#host.members(channel);
    let part: PlacedMember[] = [];
    let length = 0;
    const send = (isLast: boolean) => {
      this.#send({ type: "here", to: node, question, members: part, isLast });
      part = [];
      length = 0;
    };
    for (const member of members) {
      const size = member.data?.length ?? 0;
      if (part.length >= MEMBERS_AN_ANSWER || length + size > LENGTH_OF_AN_ANSWER) send(false);
      part.push(member);
      length += size;
    }
    send(true);
  }

  #receiveMembers(node: string, number: number, members: readonly PlacedMember[], isLast: boolean): void {
    const question = this.#questions.get(number);
    if (!question?.waiting.has(node)) return;
    question.members.set(node, [...question.members.get(node) ?? [], ...members]);
    if (isLast && question.waiting.delete(node) && question.waiting.size === 0) question.done();
  }

  #send(control: v.InferOutput<typeof ControlSchema>): void {
    this.#host.send(JSON.stringify(control));
  }
}
