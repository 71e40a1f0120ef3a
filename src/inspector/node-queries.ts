import type { Deadlines, Timed } from "../base/clock.ts";
import type { NodeAnswers } from "./query-handler.ts";
import type { Note, Query } from "./query.ts";
import type { Answers, Part } from "./shown.ts";

/** How long to wait for the other nodes, in ms. */
const PATIENCE = 2_000;

/** What questions to the nodes need. */
export interface QuestionsHost {
  readonly answers: NodeAnswers;
  readonly deadlines: Deadlines;
  /** The name of this node. */
  node(): string;
  /** The other nodes that have an inspector. */
  others(): readonly string[];
  send(note: Note): void;
  report(error: unknown): void;
}

/** One question with answers outstanding. */
interface Open {
  readonly waiting: Set<string>;
  take(part: Part): void;
  done(): void;
}

/** Asks the nodes, and answers for this one. */
export class NodeQuestions {
  readonly #host: QuestionsHost;
  readonly #open = new Map<string, Open>();
  #asked = 0;

  constructor(host: QuestionsHost) {
    this.#host = host;
  }

  /** The answers of all nodes, or of the one that the query names, as they come in. A node that does not answer in time is left out. */
  ask(query: Query): ReadableStream<Part> {
    const { answers, deadlines, others, report } = this.#host;
    const node = this.#host.node();
    const waiting = new Set(others().filter((other) => query.node === undefined || query.node === other));
    const id = `${node} ${++this.#asked}`;
    let end = () => {};
    return new ReadableStream<Part>({
      start: (parts) => {
        const timer: Timed = { deadline: 0, heapIndex: -1, due: () => end() };
        let isDone = query.node !== undefined && query.node !== node;
        end = () => {
          if (!this.#open.delete(id)) return;
          deadlines.delete(timer);
          parts.close();
        };
        const look = () => {
          if (isDone && waiting.size === 0) end();
        };
        this.#open.set(id, {
          waiting,
          take: (part) => parts.enqueue(part),
          done: look,
        });
        if (waiting.size > 0) {
          deadlines.set(timer, PATIENCE);
          this.#host.send({ kind: "ask", id, query });
        }
        const own = async () => {
          for await (const data of answers.answer(query)) {
            if (!this.#open.has(id)) return;
            parts.enqueue({ node, data });
          }
        };
        if (isDone) return look();
        own().catch(report).finally(() => {
          isDone = true;
          look();
        });
      },
      cancel: () => {
        this.#open.delete(id);
      },
    });
  }

  /** Answers another node. */
  async answer({ id, query }: Extract<Note, { kind: "ask" }>): Promise<void> {
    const node = this.#host.node();
    if (query.node !== undefined && query.node !== node) return;
    for await (const data of this.#host.answers.answer(query)) this.#host.send({ kind: "answer", id, node, data });
    this.#host.send({ kind: "answer", id, node });
  }

  /** Another node has answered. Without `data` it was the last part. */
  receive({ id, node, data }: Extract<Note, { kind: "answer" }>): void {
    const open = this.#open.get(id);
    if (!open?.waiting.has(node)) return;
    if (data) return open.take({ node, data: data as Answers[keyof Answers] }); // As a node of this version sends it.
    open.waiting.delete(node);
    open.done();
  }
}
