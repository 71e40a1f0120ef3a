import type { Recipient } from "./audience.ts";
import type { CloseCause } from "./close.ts";
import type { ErrorMessage, MessageUid } from "./errors.ts";
import { Frame } from "./frame.ts";
import type { WebSocketMessage } from "./protocol.ts";

/** What JSON can hold. */
export type JsonValue = string | number | boolean | null | readonly JsonValue[] | { readonly [key: string]: JsonValue };

/** Who a client is. Yours to extend with what `authenticate` returns. */
export interface Accountability {
  /** The user's id, of at most 256 bytes; `null` is anonymous, which grants nothing by itself. */
  user: string | null;
  /** The role's id, of at most 256 bytes, or `null`. */
  role: string | null;
  /** What else is known of the client. */
  [claim: string]: unknown;
}

/** How clients prove who they are: see `mode` of the controller's options. */
export type AuthenticationMode = "public" | "handshake" | "strict";

/** Facts copied from the upgrade request, without any credential. */
export interface Handshake {
  /** The authentication mode the client was admitted under. */
  readonly mode: AuthenticationMode;
  /** The requested URL, its `access_token` removed. */
  readonly url: string;
  /** The `Origin` header, which a browser always sends. */
  readonly origin: string | null;
  /** The client's address as the runtime tells it, `null` where it does not. */
  readonly ip: string | null;
  /** The `User-Agent` header. */
  readonly userAgent: string | null;
  /** The subprotocol that was agreed on, `null` for none. */
  readonly protocol: string | null;
}

/** The connection behind a client. */
export interface ClientConnection extends Recipient {
  readonly accountability: Accountability;
  readonly expires_at: number | null;
  readonly readyState: number;
  readonly bufferedAmount: number;
  /** Bytes that the client was sent and is not known to have read. */
  readonly unreadBytes: number;
  readonly socket: unknown;
  /**
   * Whether nothing that was begun for the client may take effect now: it is closing, or its credentials have run out. To be looked at after
   * each `await`, before the effect.
   */
  readonly isSuspended: boolean;
  /** Settles when it is known whether credentials that have run out are renewed; `undefined` when nobody is asked. */
  readonly revalidating: Promise<void> | undefined;
  /** Answers a message that may not be handled any more. */
  refuseMessage(uid: MessageUid | undefined): void;
  /** Whether the client could be handed the frame. */
  send(frame: Frame): boolean;
  /** Has frames sent one at a time from now on, where the option `stopAndWait` has it so; whether that is new. */
  step(): boolean;
  /** Something waits for the client to read: that has a deadline of its own, and takes the place of the heartbeat. */
  spare(): void;
  /** @param cause @default {"server"} */
  close(code: number | undefined, reason: string | undefined, cause?: CloseCause): void;
  /** Keeps what must survive hibernation. */
  save(): void;
}

/** Bytes of JSON that a client's `state` may take; a Durable Object keeps it in an attachment of 16 KiB. */
const MAX_STATE_BYTES = 8192;

/** The connection of a client: for what is built on connections, and is no part of the public interface. */
export let connectionOf: (client: WebSocketClient) => ClientConnection;

/** One connected client: the same object in every event from `connect` to `close`. */
export class WebSocketClient {
  /** Facts copied from the upgrade request. */
  readonly handshake: Handshake;
  readonly #connection: ClientConnection;
  #uid: string | undefined;
  #state: JsonValue;

  static {
    connectionOf = (client) => client.#connection;
  }

  /** Made by the controller; an application receives it in events. */
  constructor(connection: ClientConnection, handshake: Handshake, uid?: string, state: JsonValue = null) {
    this.#connection = connection;
    this.#uid = uid;
    this.handshake = handshake;
    this.#state = freeze(state);
  }

  /** Identifies the connection: random, unique over all nodes. */
  get uid(): string {
    return this.#uid ??= crypto.randomUUID(); // Made when it is asked for: an idle client's would take 100 bytes.
  }

  /** Who the client is. */
  get accountability(): Accountability {
    return this.#connection.accountability;
  }

  /** When the credentials expire, in seconds since 1970 (RFC 7519 §4.1.4); `null` is never. */
  get expires_at(): number | null {
    return this.#connection.expires_at;
  }

  /** What the application keeps with this client: JSON of at most 8 KiB that survives hibernation. @default {null} */
  get state(): JsonValue {
    return this.#state;
  }

  /**
   * Assign a new value to change it: the value is copied and frozen, so that what was not kept cannot be read on any runtime.
   *
   * @throws {TypeError} when it is not JSON or is larger than 8 KiB.
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

  /** 1 open, 2 closing, 3 closed, as `WebSocket.readyState`. */
  get readyState(): number {
    return this.#connection.readyState;
  }

  /** Bytes that were sent and have not left this process, where the runtime tells (else 0). */
  get bufferedAmount(): number {
    return this.#connection.bufferedAmount;
  }

  /** The runtime's own socket, for what only that runtime can do. */
  get socket(): unknown {
    return this.#connection.socket;
  }

  /**
   * Sends a message: a string as it is, an object as JSON. Once the connection is closing it does nothing.
   *
   * @throws {TypeError} for what JSON cannot hold.
   */
  send(message: string | WebSocketMessage | ErrorMessage): void {
    this.#connection.send(Frame.of(message));
  }

  /**
   * Starts the close handshake. Closing twice does nothing.
   *
   * @param code 1000–1003, 1007–1014 or 3000–4999 (RFC 6455 §7.4). @default {1000}
   * @param reason cut to 123 UTF-8 bytes at a character's border.
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
