import type { Deadlines, Timed } from "../base/clock.ts";
import type { QueryHandler } from "./query-handler.ts";
import type { InspectorMessage, Query } from "./query.ts";
import type { Answers, Part } from "./shown.ts";

/** How long to wait for the other nodes, in ms. */
const ANSWER_TIMEOUT = 2_000;

/** What {@link NodeQueries} needs from its node. */
export interface NodeQueriesHost {
  readonly handler: QueryHandler;
  readonly deadlines: Deadlines;
  /** The name of this node. */
  node(): string;
  /** The other nodes that have an inspector. */
  others(): readonly string[];
  send(message: InspectorMessage): void;
  report(error: unknown): void;
}

/** A query with answers outstanding. */
interface PendingQuery {
  /** The nodes that have not sent their last part. */
  readonly waiting: Set<string>;
  receive(part: Part): void;
  /** Ends the answer if no node is left. */
  endIfComplete(): void;
}

/** Sends queries to the nodes, and answers those of other nodes. */
export class NodeQueries {
  readonly #host: NodeQueriesHost;
  readonly #pending = new Map<string, PendingQuery>();
  #queryCount = 0;

  constructor(host: NodeQueriesHost) {
    this.#host = host;
  }

  /** Streams the answers of all nodes, or of the one that the query names. Answers that come too late are left out. */
  query(query: Query): ReadableStream<Part> {
    const { handler, deadlines, others, report } = this.#host;
    const node = this.#host.node();
    const waiting = new Set(others().filter((other) => query.node === undefined || query.node === other));
    const id = `${node} ${++this.#queryCount}`;
    let end = () => {};
    return new ReadableStream<Part>({
      start: (parts) => {
        const timer: Timed = { deadline: 0, heapIndex: -1, due: () => end() };
        let isDone = query.node !== undefined && query.node !== node;
        end = () => {
          if (!this.#pending.delete(id)) return;
          deadlines.delete(timer);
          parts.close();
        };
        const endIfComplete = () => {
          if (isDone && waiting.size === 0) end();
        };
        this.#pending.set(id, {
          waiting,
          receive: (part) => parts.enqueue(part),
          endIfComplete,
        });
        if (waiting.size > 0) {
          deadlines.set(timer, ANSWER_TIMEOUT);
          this.#host.send({ kind: "ask", id, query });
        }
        const own = async () => {
          for await (const data of handler.handle(query)) {
            if (!this.#pending.has(id)) return;
            parts.enqueue({ node, data });
          }
        };
        if (isDone) return endIfComplete();
        own().catch(report).finally(() => {
          isDone = true;
          endIfComplete();
        });
      },
      cancel: () => {
        this.#pending.delete(id);
      },
    });
  }

  /** Answers the query of another node. */
  async answer({ id, query }: Extract<InspectorMessage, { kind: "ask" }>): Promise<void> {
    const node = this.#host.node();
    if (query.node !== undefined && query.node !== node) return;
    for await (const data of this.#host.handler.handle(query)) this.#host.send({ kind: "answer", id, node, data });
    this.#host.send({ kind: "answer", id, node });
  }

  /** Receives an answer of another node. Without `data` it was the last part. */
  receive({ id, node, data }: Extract<InspectorMessage, { kind: "answer" }>): void {
    const pending = this.#pending.get(id);
    if (!pending?.waiting.has(node)) return;
    if (data) return pending.receive({ node, data: data as Answers[keyof Answers] }); // True for nodes of this version.
    pending.waiting.delete(node);
    pending.endIfComplete();
  }
}
