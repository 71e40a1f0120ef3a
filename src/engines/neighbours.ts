import * as v from "valibot";
import { type Deadlines, within } from "../clock.ts";
import { ENVELOPE_KINDS } from "./envelope-kind.ts";
import { isJson, parse } from "./envelope.ts";
import { type PlacedMember, toPlaced } from "./presence.ts";
import type { EnvelopeNumbers, ReplayGuard } from "./replay-guard.ts";

/** What neighbours need of their node. */
export interface NeighboursHost {
  readonly node: string;
  readonly deadlines: Deadlines;
  readonly guard: ReplayGuard;
  /** How long others are waited for, in ms. */
  readonly patience: number;
  /** Sends to all nodes, in the order of the calls. What cannot be sent is reported. */
  send(body: string): void;
  /** The members of this node. */
  members(channel: string): PlacedMember[];
}

/** Members in one answer, and characters of their data. */
const [MEMBERS_AN_ANSWER, LENGTH_OF_AN_ANSWER] = [1_000, 300_000];

/** ms between two greetings of nodes that are not known. */
const GREETING_PAUSE = 1_000;

const name = v.pipe(v.string(), v.maxLength(64));
const count = v.pipe(v.number(), v.safeInteger(), v.minValue(0));
const MemberSchema = v.object({
  user: v.pipe(v.string(), v.minLength(1), v.maxLength(512)),
  data: v.optional(v.pipe(v.string(), v.check(isJson))),
  place: v.optional(v.pipe(v.number(), v.safeInteger(), v.minValue(0))),
});

const ControlSchema = v.variant("type", [
  // A node greets all others, or one.
  v.object({ type: v.literal("hello"), to: v.optional(name) }),
  // To one that has greeted: the numbers that this node had when it first heard of it.
  v.object({
    type: v.literal("numbers"),
    to: name,
    numbers: v.object(Object.fromEntries(ENVELOPE_KINDS.map((kind) => [kind, count]))),
    /** Whether the other one is to state its own. */
    asks: v.boolean(),
  }),
  v.object({ type: v.literal("who"), question: count, channel: v.string(), nodes: v.array(name) }),
  v.object({ type: v.literal("here"), to: name, question: count, members: v.array(MemberSchema), isLast: v.boolean() }),
]);

/** A question about the members of a channel. */
interface Question {
  readonly waiting: Set<string>;
  readonly members: Map<string, PlacedMember[]>;
  done(): void;
}

/**
 * What the engines of nodes that sign say to each other. A node that starts greets the others, and each states its numbers: see
 * {@link ReplayGuard}. Who is in a channel a broker can only suggest, for a copy of what it held before looks as good: the nodes say.
 */
export class Neighbours {
  readonly #host: NeighboursHost;
  readonly #questions = new Map<number, Question>();
  #asked = 0;
  #greeted = -Infinity;
  /** Called when another node has stated its numbers. */
  #learned = new Set<() => void>();

  constructor(host: NeighboursHost) {
    this.#host = host;
  }

  /** Greets the nodes. Resolves when all of these have stated their numbers, or have been waited for long enough. */
  async greet(nodes: readonly string[]): Promise<void> {
    const { deadlines, guard, patience } = this.#host;
    const isKnown = () => nodes.every((node) => guard.knows(node));
    this.#send({ type: "hello" });
    if (isKnown()) return;
    let look!: () => void;
    const known = new Promise<void>((resolve) => this.#learned.add(look = () => isKnown() && resolve()));
    // Those that do not answer have died, or greet when they come back.
    await within(deadlines, patience, () => known, () => new Error("Too late")).catch(() => {});
    this.#learned.delete(look);
  }

  /** Something came from a node that has not stated its numbers. It may be a copy of what one has sent that is gone. */
  meet(node: string): void {
    if (performance.now() - this.#greeted < GREETING_PAUSE) return;
    this.#greeted = performance.now();
    this.#send({ type: "hello", to: node });
  }

  /** The members of the channel on these nodes, of those that answer in time. */
  async ask(channel: string, nodes: readonly string[]): Promise<ReadonlyMap<string, readonly PlacedMember[]>> {
    const { deadlines, patience } = this.#host;
    const question = ++this.#asked;
    const members = new Map<string, PlacedMember[]>();
    try {
      await within(deadlines, patience, () =>
        new Promise<void>((done) => {
          this.#questions.set(question, { waiting: new Set(nodes), members, done });
          this.#send({ type: "who", question, channel, nodes: [...nodes] });
        }), () => new Error("Too late"));
    } catch {
      // Those that have not answered are absent.
    }
    const { waiting } = this.#questions.get(question)!; // Set above.
    this.#questions.delete(question);
    for (const node of waiting) members.delete(node);
    return members;
  }

  /** What another node says; `false` for what cannot be read. */
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
        guard.learn(node, control.numbers as EnvelopeNumbers); // Of all kinds.
        for (const look of this.#learned) look();
        return true;
      case "who":
        if (control.nodes.includes(own)) this.#answer(node, control.question, control.channel);
        return true;
      case "here":
        this.#take(node, control.question, control.members.map(toPlaced), control.isLast);
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

  #take(node: string, number: number, members: readonly PlacedMember[], isLast: boolean): void {
    const question = this.#questions.get(number);
    if (!question?.waiting.has(node)) return;
    question.members.set(node, [...question.members.get(node) ?? [], ...members]);
    if (isLast && question.waiting.delete(node) && question.waiting.size === 0) question.done();
  }

  #send(control: v.InferOutput<typeof ControlSchema>): void {
    this.#host.send(JSON.stringify(control));
  }
}
