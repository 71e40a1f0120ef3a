import type { Recipient } from "../delivery/audience.ts";
import type { CloseCause } from "../protocol/close.ts";
import type { AnswerOf, AskedType, Contract, MessageFrom, QuestionArguments } from "../protocol/contract-types.ts";
import type { ErrorMessage, MessageUid } from "../protocol/errors.ts";
import { Frame } from "../protocol/frame.ts";
import type { WebSocketMessage } from "../protocol/protocol.ts";
import { type AskedConnection, type AskOptions, Questions, withReply } from "./questions.ts";

/** Any value that JSON can represent. */
export type JsonValue = string | number | boolean | null | readonly JsonValue[] | { readonly [key: string]: JsonValue };

/** Identity and rights of a client. `authenticate` may add further claims. */
export interface Accountability {
  /** The user's id, at most 256 bytes; `null`: anonymous. */
  user: string | null;
  /** The role's id, at most 256 bytes; `null`: none. */
  role: string | null;
  /** Further claims. */
  [claim: string]: unknown;
}

/** How clients authenticate: see the option `mode`. */
export type AuthenticationMode = "public" | "handshake" | "strict";

/** Facts copied from the upgrade request, without credentials. */
export interface Handshake {
  /** The option `mode` at the time of the upgrade. */
  readonly mode: AuthenticationMode;
  /** The requested URL without its `access_token`. */
  readonly url: string;
  /** The `Origin` header, which browsers always send; `null`: none. */
  readonly origin: string | null;
  /** The client's address, as the option `clientIp` finds it; `null`: unknown. */
  readonly ip: string | null;
  /** The `User-Agent` header; `null`: none. */
  readonly userAgent: string | null;
  /** The selected subprotocol; `null`: none. */
  readonly protocol: string | null;
}

/** The connection behind a client. */
export interface ClientConnection extends Recipient, AskedConnection {
  readonly accountability: Accountability;
  readonly expires_at: number | null;
  readonly readyState: number;
  /** Whether frames are carried by HTTP, and not by a WebSocket. */
  readonly isOverHttp: boolean;
  readonly bufferedAmount: number;
  /** Bytes sent that the client has not confirmed to have read. */
  readonly unreadBytes: number;
  readonly socket: unknown;
  /**
   * Whether the connection is closing or its credentials have expired, so that pending work must not take effect. Check it after
   * each `await`, before the effect.
   */
  readonly isSuspended: boolean;
  /** Settles when `revalidate` has renewed or refused expired credentials; `undefined`: no call is pending. */
  readonly revalidating: Promise<void> | undefined;
  /** Answers a message that may no longer be handled. */
  refuseMessage(uid: MessageUid | undefined): void;
  /** Returns whether the frame was handed to the socket. */
  send(frame: Frame): boolean;
  /** Sends the answer to a request that was accepted, also if the credentials have expired since. */
  answer(frame: Frame): void;
  /** Starts sending frames one at a time if `stopAndWait` is `"collection"` and applies; returns whether that is new. */
  step(): boolean;
  /** Defers the heartbeat while sent data waits to be read, because reading has a deadline of its own. */
  deferHeartbeat(): void;
  /** @param cause @default {"server"} */
  close(code: number | undefined, reason: string | undefined, cause?: CloseCause): void;
  /** `outbound` is absent if nothing is checked against a contract. */
  readonly host: AskedConnection["host"] & {
    readonly outbound?: {
      message(frame: Frame, client: WebSocketClient): void;
      question(type: string, payload: unknown, client: WebSocketClient): void;
    } | undefined;
    readonly options?: { readonly contract: object | undefined };
  };
  /** Saves the state that must survive hibernation. */
  save(): void;
}

/** Maximum bytes of JSON of a client's `state`: it shares a Durable Object's attachment, at most 16 KiB, with the connection. */
const MAX_STATE_BYTES = 8192;

/** Returns the connection of a client: internal, for the code built on connections. */
export let connectionOf: (client: WebSocketClient) => ClientConnection;

/** Returns the open questions to a client; `undefined` if it was never asked: internal, as {@link connectionOf}. */
export let questionsOf: (client: WebSocketClient) => Questions | undefined;

/** Asks a client a question that is checked already, and does not apply the contract: internal, as {@link connectionOf}. */
export let askUnchecked: (client: WebSocketClient, ...question: Parameters<Questions["ask"]>) => Promise<unknown>;

/**
 * Sends the answer to a request of the client, even if its credentials have expired since. Internal, as {@link connectionOf}.
 *
 * @throws {TypeError} for a message that JSON cannot represent.
 */
export function sendAnswer(client: WebSocketClient, message: string | WebSocketMessage): void {
  connectionOf(client).answer(Frame.of(message));
}

/** One connected client: the same object in every event from `connect` to `close`. `C` is the contract of its controller. */
export class WebSocketClient<C = Contract> {
  /** Facts copied from the upgrade request. */
  readonly handshake: Handshake;
  readonly #connection: ClientConnection;
  /** The latest accountability, once it is frozen. */
  #frozen: Accountability | undefined;
  #uid: string | undefined;
  #state: JsonValue;
  #questions: Questions | undefined;

  static {
    connectionOf = (client) => client.#connection;
    questionsOf = (client) => client.#questions;
    askUnchecked = (client, ...question) => (client.#questions ??= new Questions(client.#connection)).ask(...question);
  }

  /** Created by the controller; an application receives clients in events. */
  constructor(connection: ClientConnection, handshake: Handshake, uid?: string, state: JsonValue = null) {
    this.#connection = connection;
    this.#uid = uid;
    this.handshake = handshake;
    this.#state = freeze(state);
  }

  /** The id of the connection: random, unique across all nodes. */
  get uid(): string {
    return this.#uid ??= crypto.randomUUID(); // Lazy: it takes 100 bytes, which an idle client saves.
  }

  /** Identity and rights of the client. */
  get accountability(): Accountability {
    const { accountability } = this.#connection;
    // Frozen when it is first read, because freezing takes 2 µs.
    if (accountability !== this.#frozen) this.#frozen = Object.freeze(accountability);
    return accountability;
  }

  /** When the credentials expire, in seconds since 1970 (RFC 7519 §4.1.4); `null`: never. */
  get expires_at(): number | null {
    return this.#connection.expires_at;
  }

  /** The application's data about this client: at most 8 KiB of JSON, which survives hibernation. @default {null} */
  get state(): JsonValue {
    return this.#state;
  }

  /**
   * Replaces the state with a frozen copy: a change in place, which hibernation would lose, throws on every runtime.
   *
   * @throws {TypeError} for a value that JSON cannot represent, or one larger than 8 KiB.
   */
  set state(value: JsonValue) {
    const text: string | undefined = JSON.stringify(value);
    if (text === undefined) throw new TypeError("Cannot keep the state: it is not JSON");
    if (text.length > MAX_STATE_BYTES || new TextEncoder().encode(text).byteLength > MAX_STATE_BYTES) {
      throw new TypeError("Cannot keep the state: it is larger than 8 KiB, keep an id and store the rest elsewhere");
    }
    this.#state = freeze(JSON.parse(text));
    this.#connection.save();
  }

  /** As `WebSocket.readyState`: 1 open, 2 closing, 3 closed. */
  get readyState(): number {
    return this.#connection.readyState;
  }

  /** Bytes sent that have not left this process; 0 if the runtime does not report it. */
  get bufferedAmount(): number {
    return this.#connection.bufferedAmount;
  }

  /** The runtime's own socket, for features of that runtime. */
  get socket(): unknown {
    return this.#connection.socket;
  }

  /**
   * Sends a message: a string unchanged, an object as JSON. Does nothing once the connection is closing.
   *
   * @throws {TypeError} for a message that JSON cannot represent.
   */
  send(message: string | MessageFrom<C> | ErrorMessage): void {
    const frame = Frame.of(message as string | WebSocketMessage); // A message of a contract is one, too.
    this.#connection.host.outbound?.message(frame, this as WebSocketClient<unknown> as WebSocketClient); // Its contract is a type.
    this.#connection.send(frame);
  }

  /**
   * Asks the client and resolves with the `data` of its answer. Ignoring the promise is safe. A question does not outlive the
   * connection, nor the hibernation of a Durable Object.
   *
   * @throws {WebSocketError} as a rejection: TIMEOUT; DISCONNECTED; FORBIDDEN if another user answered; INVALID_PAYLOAD for an
   * answer that does not fit; LIMIT_EXCEEDED if 64 questions are open; the code of the client's error. An aborted signal rejects
   * with its reason.
   * @throws {TypeError} as a rejection, for an invalid type, payload or option.
   */
  ask<Type extends AskedType<C>, Reply extends AnswerOf<C, Type> = AnswerOf<C, Type>>(
    type: Type,
    ...question: QuestionArguments<C, Type, [options?: AskOptions<Reply>]>
  ): Promise<Reply> {
    const { host } = this.#connection;
    const [payload = {}, options = {}] = question as [payload?: object, options?: AskOptions<Reply>]; // A payload is an object.
    const client = this as WebSocketClient<unknown> as WebSocketClient; // As in `send`.
    const asked = askUnchecked(client, type, payload, withReply(host.options?.contract, type, options));
    asked.catch(() => {}); // The caller gets the rejection.
    host.outbound?.question(type, payload, client);
    return asked as Promise<Reply>; // As the schema says, or unchecked.
  }

  /**
   * Starts the close handshake. A second call does nothing.
   *
   * @param code 1000–1003, 1007–1014 or 3000–4999 (RFC 6455 §7.4). @default {1000}
   * @param reason truncated to 123 UTF-8 bytes, never within a character.
   * @throws {TypeError} for any other code.
   */
  close(code?: number, reason?: string): void {
    this.#connection.close(code, reason);
  }
}

function freeze(value: JsonValue): JsonValue {
  if (typeof value === "object" && value !== null) {
    for (const child of Object.values(value)) freeze(child);
    Object.freeze(value);
  }
  return value;
}
