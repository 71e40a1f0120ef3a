import type { PayloadSchema } from "../application/schema.ts";
import type { OutboundChecks } from "../application/outbound.ts";
import { askUnchecked, type WebSocketClient } from "../application/websocket-client.ts";
import { checkSchema, parse, SCHEMA } from "../application/schema.ts";
import { type Deadlines, isMs, MS, within } from "../base/clock.ts";
import type { BroadcastFilter } from "../delivery/broadcast.ts";
import type { Contract, QuestionArguments } from "../protocol/contract-types.ts";
import { type ErrorCode, WebSocketError } from "../protocol/errors.ts";
import { jsonOf } from "../protocol/protocol.ts";

/** Options of {@link WebSocketController.askAll}. */
export interface AskAllOptions<Reply = unknown> {
  /**
   * Time for the clients to answer, in ms, and for each answer to be validated. Other nodes have a second more.
   *
   * @default {10_000}
   */
  timeout?: number;
  /** Validates each answer. @default the schema of the option `contract`; without one, an answer is whatever the client sent */
  reply?: PayloadSchema<unknown, Reply>;
}

/**
 * The arguments of {@link WebSocketController.askAll}: the type, the payload, which clients are asked, and options. The call
 * rejects with a TypeError if one of them is invalid, and with ENGINE_UNAVAILABLE if the engine cannot list the nodes.
 */
export type AskAllQuestion<Reply = unknown, C = Contract, Type extends string = string> = [
  type: Type,
  ...question: QuestionArguments<C, Type, [filter?: BroadcastFilter, options?: AskAllOptions<Reply>]>,
];

/** What a question to many clients needs from its controller. */
export interface QuestionHost {
  readonly options: { readonly contract: object | undefined };
  readonly outbound: OutboundChecks | undefined;
  readonly deadlines: Deadlines;
  report(error: unknown): void;
}

/** The answer of one client. */
export interface AskReply<Reply = unknown> {
  /** The node it is connected to. */
  node: string;
  /** Its `uid`. */
  uid: string;
  /** Its user, or `null`. */
  user: string | null;
  /** Its answer. */
  data: Reply;
}

/** A client or a node without an answer. */
export interface AskMissing {
  /** The node. */
  node: string;
  /** The client. Absent: no client of the node answered, or could be asked. */
  uid?: string;
  /**
   * Why, as a rejection of {@link WebSocketClient.ask}. `LIMIT_EXCEEDED`: more than 1,000 clients of a node, or a reply over 16
   * KiB.
   */
  code: ErrorCode;
}

/** The outcome of {@link WebSocketController.askAll}. */
export interface AskAllResult<Reply = unknown> {
  /** In no particular order. */
  replies: AskReply<Reply>[];
  /** In no particular order. */
  missing: AskMissing[];
}

/** A question as nodes exchange it. */
export interface AskRequest {
  readonly type: string;
  /** An object, as JSON. */
  readonly payload: string;
  /** In ms. */
  readonly timeout: number;
}

/** The answers of the clients of one node, or some of them. */
export interface AskAnswers {
  /** `data` as JSON. */
  readonly replies?: { readonly uid: string; readonly user: string | null; readonly data?: string | undefined }[] | undefined;
  readonly failed?: { readonly uid?: string | undefined; readonly code: string }[] | undefined;
}

/** The answers of all clients of one node. */
interface AllAnswers {
  readonly replies: { uid: string; user: string | null; data?: string }[];
  readonly failed: { uid?: string; code: string }[];
}

/** Maximum number of clients that one node asks, and of characters in one reply. */
const [MAX_CLIENTS, MAX_REPLY] = [1_000, 16_384];

/** Characters of replies in one message between nodes: NATS limits a message to 1 MiB by default. */
const MAX_PART = 200_000;

/** Additional time for the answers of other nodes, in ms. */
const SLACK = 1_000;

/** Asks the clients of this node. Never rejects. */
export async function askClients(clients: readonly WebSocketClient[], request: AskRequest): Promise<AllAnswers> {
  const answers: AllAnswers = { replies: [], failed: [] };
  if (clients.length > MAX_CLIENTS) return { ...answers, failed: [{ code: "LIMIT_EXCEEDED" }] };
  const { type, payload, timeout } = request;
  await Promise.all(clients.map(async (client) => {
    const { uid, accountability: { user } } = client;
    try {
      const data = await askUnchecked(client, type, JSON.parse(payload), { timeout });
      const text = data === undefined ? undefined : JSON.stringify(data);
      if (text !== undefined && text.length > MAX_REPLY) answers.failed.push({ uid, code: "LIMIT_EXCEEDED" });
      else answers.replies.push(text === undefined ? { uid, user } : { uid, user, data: text });
    } catch (error) {
      answers.failed.push({ uid, code: WebSocketError.from(error)?.code ?? "INTERNAL_ERROR" });
    }
  }));
  return answers;
}

/** Splits replies into parts, one for each message between nodes. */
export function splitReplies<Reply extends { data?: string | undefined }>(replies: readonly Reply[]): Reply[][] {
  const parts: Reply[][] = [];
  let size = Infinity;
  for (const reply of replies) {
    if (size > MAX_PART) {
      parts.push([]);
      size = 0;
    }
    size += 200 + (reply.data?.length ?? 0);
    parts.at(-1)!.push(reply); // The first reply has added a part.
  }
  return parts;
}

/** One question to clients of all nodes, and their answers so far. */
export class AskedClients<Reply> {
  readonly request: AskRequest;
  /** How long to wait for other nodes, in ms. */
  readonly answerTimeout: number;
  readonly #schema: ReturnType<typeof checkSchema> | undefined;
  readonly #host: QuestionHost;
  readonly #replies: AskReply<Reply>[] = [];
  readonly #missing: AskMissing[] = [];
  /** Validations in progress. None rejects. */
  readonly #validations: Promise<void>[] = [];

  /** @throws {TypeError} for an invalid type, payload or option. */
  constructor(type: string, payload: object, { timeout = 10_000, reply }: AskAllOptions<Reply>, host: QuestionHost) {
    this.#host = host;
    const fail = (remedy: string) => new TypeError(`Cannot ask "${type}": ${remedy}`);
    if (!isMs(timeout) || !isMs(timeout + SLACK)) throw fail(`timeout must be ${MS}, less a second`);
    if (typeof type !== "string" || type === "" || type.length > 64) {
      throw fail("the type must be a string of 1 to 64 characters");
    }
    if (typeof payload !== "object" || payload === null || "type" in payload || "uid" in payload) {
      throw fail("the payload must be an object without type and uid");
    }
    this.#schema = reply && checkSchema(reply);
    if (this.#schema === null) throw fail(`reply must be ${SCHEMA}`);
    const text = jsonOf(payload);
    if (text === undefined) throw fail("pass a payload that JSON can represent");
    this.request = { type, payload: text, timeout };
    this.answerTimeout = timeout + SLACK;
  }

  add(node: string, { replies = [], failed = [] }: AskAnswers): void {
    for (const { uid, code } of failed) this.#missing.push(uid === undefined ? { node, code } : { node, uid, code });
    for (const { uid, user, data } of replies) {
      this.#validations.push(this.#validate({ node, uid, user }, data));
    }
  }

  /**
   * Validates a reply as it arrives, so that the times of asynchronous schemas do not add up. Never rejects.
   *
   * @param text JSON of a node that may run another version
   */
  async #validate(from: Pick<AskReply, "node" | "uid" | "user">, text: string | undefined): Promise<void> {
    const schema = this.#schema;
    const { node, uid } = from;
    const { type, timeout } = this.request;
    const late = new WebSocketError(type, "TIMEOUT", `Cannot validate the answer to "${type}" within ${timeout} ms`);
    try {
      const data: unknown = text === undefined ? undefined : JSON.parse(text);
      const parsed = schema && await within(this.#host.deadlines, timeout, () => parse(schema, data), () => late);
      if (parsed?.success === false) this.#missing.push({ node, uid, code: "INVALID_PAYLOAD" });
      else this.#replies.push({ ...from, data: (parsed ? parsed.output : data) as Reply }); // As the schema says, or unchecked.
    } catch (error) {
      this.#missing.push({ node, uid, code: error === late ? "TIMEOUT" : "INTERNAL_ERROR" });
      this.#host.report(error);
    }
  }

  /** @param nodes that did not answer in time. */
  async result(nodes: readonly string[]): Promise<AskAllResult<Reply>> {
    await Promise.all(this.#validations);
    return { replies: this.#replies, missing: [...this.#missing, ...nodes.map((node) => ({ node, code: "TIMEOUT" as const }))] };
  }
}
