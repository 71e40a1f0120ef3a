import { checkMs, type Deadlines, within } from "../base/clock.ts";
import type { Contract } from "../protocol/contract-types.ts";
import type { PayloadSchema } from "./schema.ts";
import { WebSocketError } from "../protocol/errors.ts";
import { Frame } from "../protocol/frame.ts";
import { decode, issuePath, type WebSocketMessage } from "../protocol/protocol.ts";
import { checkSchema, parse, SCHEMA } from "./schema.ts";

/** Options of {@link WebSocketClient.ask}. */
export interface AskOptions<Reply = unknown> {
  /** Time for the answer and its validation, in ms. @default {10_000} */
  timeout?: number;
  /** Rejects with its reason when aborted; a later answer counts as late. */
  signal?: AbortSignal;
  /** Validates the answer. @default the schema of the option `contract`; without one, the answer is whatever the client sent */
  reply?: PayloadSchema<unknown, Reply>;
}

/** The connection to the client that is asked. */
export interface AskedConnection {
  readonly accountability: { readonly user: string | null };
  readonly host: { readonly deadlines: Deadlines };
  /** Returns whether the frame was handed to the socket. */
  send(frame: Frame): boolean;
}

interface Question {
  readonly type: string;
  /** The user who was asked. */
  readonly user: string | null;
  resolve(answer: WebSocketMessage): void;
  reject(error: WebSocketError): void;
}

/** Prefix of the `uid` of every question, by which answers are recognised even after their question has ended. */
const PREFIX = "ask:";

/** Types that a client treats as messages of the protocol, and does not answer. */
const RESERVED = new Set(["auth", "ping", "pong", "subscription", "presence"]);

/** Matches frames that may be answers, without decoding them. */
const ANSWER = /"uid":\s*"ask:/;

/** Whether the message answers a question. */
export const isAnswer = ({ uid, status }: WebSocketMessage): boolean =>
  typeof uid === "string" && uid.startsWith(PREFIX) && (status === "ok" || status === "error");

/** The error sent to a client whose answer belongs to no open question. */
export const notAsked = ({ type, uid }: WebSocketMessage): WebSocketError =>
  new WebSocketError(type, "NOT_ASKED", "No question with this uid is open: the answer is late, or is not the first", {
    uid: uid!,
  });

/** Adds the schema that the contract declares for the answer. An answer is input: it is validated in production, too. */
export function withReply<Options extends { reply?: PayloadSchema<unknown, unknown> }>(
  contract: object | undefined,
  type: string,
  options: Options,
): Options {
  const { questions } = (contract ?? {}) as Contract; // Returned by `defineContract`.
  const declared = questions && Object.hasOwn(questions, type) ? questions[type] : undefined;
  return declared?.reply === undefined || options.reply ? options : { ...options, reply: declared.reply };
}

/** Maximum number of open questions to one client. */
const MAX_QUESTIONS = 64;

/** The open questions to one client. */
export class Questions {
  readonly #connection: AskedConnection;
  readonly #open = new Map<string, Question>();

  constructor(connection: AskedConnection) {
    this.#connection = connection;
  }

  get size(): number {
    return this.#open.size;
  }

  async ask<Reply>(type: string, payload: object, { timeout = 10_000, signal, reply }: AskOptions<Reply>): Promise<Reply> {
    const schema = reply && checkSchema(reply);
    if (schema === null) throw new TypeError(`Cannot ask "${type}": reply must be ${SCHEMA}`);
    if (typeof type !== "string" || type === "" || type.length > 64 || "type" in payload || "uid" in payload) {
      throw new TypeError(`Cannot ask "${type}": pass a type of 1 to 64 characters, and a payload without type and uid`);
    }
    if (RESERVED.has(type)) throw new TypeError(`Cannot ask "${type}": the protocol uses this name, choose another`);
    checkMs(`Cannot ask "${type}": timeout`, timeout);
    signal?.throwIfAborted();
    const fail = (code: string, why: string, details?: Record<string, unknown>) =>
      new WebSocketError(type, code, `Cannot ask "${type}": ${why}`, details && { details });
    if (this.#open.size >= MAX_QUESTIONS) throw fail("LIMIT_EXCEEDED", `${MAX_QUESTIONS} questions to the client are open`);
    const { host, accountability: { user } } = this.#connection;
    const uid = `${PREFIX}${crypto.randomUUID()}`;
    const frame = Frame.of({ ...payload, type, uid });
    let abort = () => {};
    const read = async ({ status, data, error }: WebSocketMessage): Promise<Reply> => {
      if (status === "error") throw fail(codeOf(error), "the client refused");
      const parsed = schema && await parse(schema, data);
      if (parsed && !parsed.success) {
        const path = issuePath(parsed.issues[0]!); // A failure has an issue.
        throw fail("INVALID_PAYLOAD", "the answer does not fit", path === "" ? undefined : { path });
      }
      return (parsed ? parsed.output : data) as Reply; // As the schema says, or unchecked.
    };
    try {
      const answered = new Promise<Reply>((resolve, reject) => {
        // Not `resolve(read(answer))`, after which an abort could not reject.
        this.#open.set(uid, { type, user, resolve: (answer) => void read(answer).then(resolve, reject), reject });
        abort = () => reject(signal!.reason); // Called by the signal only.
      });
      if (!this.#connection.send(frame)) throw fail("DISCONNECTED", "the client is not connected, or does not read");
      signal?.addEventListener("abort", abort);
      const late = () => fail("TIMEOUT", `the client did not answer within ${timeout} ms`);
      return await within(host.deadlines, timeout, () => answered, late);
    } finally {
      this.#open.delete(uid);
      signal?.removeEventListener("abort", abort);
    }
  }

  /**
   * Whether the frame answers an open question. Such a frame skips the client's queue, because a middleware that blocks the queue
   * may wait for the answer. Any other message waits, even one with the `uid` of a question.
   */
  isAnsweredBy(text: string): boolean {
    if (this.#open.size === 0 || !ANSWER.test(text)) return false;
    const decoded = decode(text);
    if (!decoded.ok || !isAnswer(decoded.message)) return false;
    return this.#open.get(decoded.message.uid as string)?.type === decoded.message.type; // As `isAnswer` has checked.
  }

  /** Settles the question of an answer. Returns whether it was open. */
  answer(message: WebSocketMessage): boolean {
    const question = this.#open.get(message.uid as string); // As `isAnswer` has checked.
    if (!question) return false;
    this.#open.delete(message.uid as string); // The first answer counts.
    if (question.user === this.#connection.accountability.user) question.resolve(message);
    else question.reject(new WebSocketError(message.type, "FORBIDDEN", `Cannot ask "${message.type}": another user answered`));
    return true;
  }

  /** Rejects all open questions, because the connection has closed. */
  close(): void {
    for (const { reject } of this.#open.values()) {
      reject(new WebSocketError("server", "DISCONNECTED", "Cannot ask: the connection was lost, the client may have acted"));
    }
  }
}

/** The code of an error of a client. Its text is ignored, because the error may be shown to another client. */
export function codeOf(error: unknown): string {
  const code = (error as { code?: unknown } | undefined)?.code;
  return typeof code === "string" && /^[A-Z][A-Z0-9_]{0,63}$/.test(code) ? code : "UNKNOWN";
}
