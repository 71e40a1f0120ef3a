import { abortCall, type Call, reasonOf, requestOf, type Streamable } from "../application/call.ts";
import type { Deadlines, Timed } from "../base/clock.ts";
import { guard } from "../base/guard.ts";
import type { Observed } from "../application/observer.ts";
import type { OutboundChecks } from "../application/outbound.ts";
import { BATCHING } from "../delivery/write-queue.ts";
import { OPEN } from "../delivery/transport.ts";
import { WebSocketError } from "../protocol/errors.ts";
import type { Frame } from "../protocol/frame.ts";
import { type ClientConnection, connectionOf, type WebSocketClient } from "../application/websocket-client.ts";
import { CreditWindow } from "./credit-window.ts";
import { LogReader } from "./log-reader.ts";
import { openSource } from "./source.ts";
import { Stream, type StreamOwner } from "./stream.ts";
import type { StreamMarks } from "./stream-marks.ts";
import type { Turn } from "./turn.ts";

/** What streams need from the controller. */
export interface StreamsHost {
  readonly options: {
    readonly maxBufferedBytes: number;
    readonly maxStreams: number;
    readonly streamTimeout: number;
    readonly timeout: number;
  };
  readonly deadlines: Deadlines;
  readonly observed: Observed;
  /** Absent: items are not checked against a contract. */
  readonly outbound: OutboundChecks | undefined;
  report(error: unknown, client?: WebSocketClient): void;
}

/** Time between two checks of what a client has read, in ms. It doubles from the minimum to the maximum. */
const MIN_PERIOD = 20;
const MAX_PERIOD = 500;

/** The calls of one client that can be aborted. Its streams take turns, and share what may wait for the client. */
export class ClientCalls implements StreamOwner, Timed {
  readonly deadline: number = 0;
  readonly heapIndex: number = -1;
  readonly #client: WebSocketClient;
  readonly #connection: ClientConnection;
  readonly #host: StreamsHost;
  readonly #turn: Turn;
  readonly #marks: StreamMarks;
  readonly #calls = new Map<Call, Stream | undefined>();
  /** Number of streams that have not ended. */
  streams = 0;
  /** The user and the role that the calls began with. */
  #rights: string;
  /** Streams that may go on once there is room, in their order. */
  #queue: Stream[] = [];
  /** Time until the next check, in ms; 0: in the next turn. */
  #period = 0;
  #isNext = false;
  /** Unread bytes at the last check. */
  #unread = Infinity;

  constructor(client: WebSocketClient, host: StreamsHost, turn: Turn, marks: StreamMarks) {
    this.#client = client;
    this.#connection = connectionOf(client);
    this.#host = host;
    this.#turn = turn;
    this.#marks = marks;
    this.#rights = rightsOf(client);
  }

  add(call: Call): void {
    if (!this.#calls.has(call)) this.#calls.set(call, undefined);
  }

  /** Returns whether none is left. */
  delete(call: Call): boolean {
    if (this.#calls.get(call)) {
      this.streams--;
      this.#marks.delete(call);
    }
    this.#calls.delete(call);
    if (this.#calls.size > 0) return false;
    this.deadlines.delete(this);
    return true;
  }

  /** Starts a stream. Settles with its result. @throws the error to answer the request with. */
  async stream(call: Call, streamable: Streamable): Promise<unknown> {
    // A reader of a log runs nothing of the application.
    const source = openSource(streamable, streamable instanceof LogReader ? undefined : this.#host.observed.observer);
    const refusal = reasonOf(call) ?? this.#refusal(call);
    if (refusal) {
      guard(() => source.return?.(), (error) => this.report(error));
      throw refusal;
    }
    const { uid } = requestOf(call);
    const hasCredit = uid !== undefined && this.#client.handshake.protocol === BATCHING;
    const stream = new Stream(call, this, source, hasCredit ? new CreditWindow(this.#budget) : undefined);
    this.#calls.set(call, stream);
    this.streams++;
    this.#marks.add(call);
    stream.advance();
    return await stream.ended;
  }

  /** Number of streams that the client can continue on another node. */
  get portable(): number {
    let count = 0;
    for (const stream of this.#calls.values()) if (stream?.isPortable) count++;
    return count;
  }

  /** Ends the streams, and no other calls. */
  endStreams(reasonFor: (call: Call) => unknown): void {
    for (const [call, stream] of [...this.#calls]) {
      if (!stream) continue;
      abortCall(call, reasonFor(call));
      stream.stop();
    }
  }

  /** Aborts calls. Returns whether one of them was not aborted before. @param uid of the request. @default all calls */
  abort(reasonFor: (call: Call) => unknown, uid?: unknown): boolean {
    let isFirst = false;
    for (const [call, stream] of [...this.#calls]) {
      if (uid !== undefined && requestOf(call).uid !== uid) continue;
      isFirst ||= !reasonOf(call);
      abortCall(call, reasonFor(call));
      stream?.stop();
    }
    return isFirst;
  }

  /** Takes a credit back. Returns whether it was asked for. */
  credit(uid: unknown, credit: number): boolean {
    for (const [call, stream] of this.#calls) {
      if (!stream || requestOf(call).uid !== uid) continue;
      if (!stream.window?.restore(credit)) return false;
      stream.waitingSince = undefined;
      stream.advance();
      return true;
    }
    return false;
  }

  /** The client was admitted or suspended, has other rights, or is gone. */
  changed(): void {
    if (this.#connection.readyState !== OPEN) return void this.abort(gone);
    if (!this.isReachable) return;
    const rights = rightsOf(this.#client);
    if (rights !== this.#rights) {
      this.#rights = rights;
      this.abort(({ message: { type } }) => new WebSocketError(type, "FORBIDDEN", "The rights of the client have changed"));
    }
    for (const stream of [...this.#calls.values()]) stream?.advance();
    if (this.#queue.length > 0) this.#resume();
  }

  // Called by the streams

  get deadlines(): Deadlines {
    return this.#host.deadlines;
  }

  get timeout(): number {
    return this.#host.options.timeout;
  }

  get isReachable(): boolean {
    return !this.#connection.isSuspended || this.#connection.readyState !== OPEN;
  }

  admits(stream: Stream): boolean {
    if (this.#queue.length === 0 && this.#hasRoom) return true;
    this.#enqueue(stream);
    return false;
  }

  send(stream: Stream, frame: Frame): boolean {
    const isSent = this.#hasRoom && this.#connection.send(frame);
    if (isSent) this.#turn.sent(frame.bytes);
    else this.#enqueue(stream);
    return isSent;
  }

  watch(stream: Stream): void {
    stream.waitingSince ??= this.deadlines.now();
    if (this.heapIndex < 0) this.deadlines.set(this, this.#longest);
  }

  check(type: string, item: unknown): void {
    this.#host.outbound?.item(type, item, this.#client);
  }

  report(error: unknown): void {
    this.#host.report(error, this.#client);
  }

  /** Checks what the client has read, and ends the streams that it has not read for too long. */
  due(): void {
    const now = this.deadlines.now();
    const { unreadBytes } = this.#connection;
    // As long as the client reads older bytes, the stream behind them is not slow.
    const isMoving = unreadBytes < this.#unread || this.#connection.isSuspended;
    this.#unread = unreadBytes;
    // Reading may take longer than a heartbeat.
    if (unreadBytes > this.#budget) this.#connection.deferHeartbeat();
    const { streamTimeout } = this.#host.options;
    let isWaiting = false;
    for (const [call, stream] of [...this.#calls]) {
      if (stream?.waitingSince === undefined) continue;
      if (isMoving) stream.waitingSince = now;
      if (now - stream.waitingSince < streamTimeout) isWaiting = true;
      else {
        abortCall(call, new WebSocketError(call.message.type, "SLOW_CONSUMER", "The client does not read the stream"));
        stream.stop();
      }
    }
    if (this.#queue.length > 0) this.#resume();
    if (isWaiting && this.heapIndex < 0) this.deadlines.set(this, this.#longest);
  }

  /** Bytes that may wait for the client before its streams do. */
  get #budget(): number {
    return this.#host.options.maxBufferedBytes / 4;
  }

  get #longest(): number {
    return Math.min(MAX_PERIOD, this.#host.options.streamTimeout);
  }

  get #hasRoom(): boolean {
    const { isSuspended, unreadBytes, heldBytes } = this.#connection;
    return this.#turn.isOpen && !isSuspended && Math.max(unreadBytes, heldBytes) <= this.#budget;
  }

  #refusal(call: Call): WebSocketError | undefined {
    const { type, uid } = requestOf(call);
    if (this.#connection.readyState !== OPEN) return gone(call);
    if (this.streams >= this.#host.options.maxStreams) {
      return new WebSocketError(type, "LIMIT_EXCEEDED", "Too many streams at once");
    }
    for (const [other, stream] of this.#calls) {
      if (stream && uid !== undefined && requestOf(other).uid === uid) {
        return new WebSocketError(type, "INVALID_PAYLOAD", "A stream with this uid has not ended", { details: { path: "uid" } });
      }
    }
    return undefined;
  }

  #enqueue(stream: Stream): void {
    if (this.#queue.includes(stream)) return;
    stream.waitingSince ??= this.deadlines.now();
    this.#queue.push(stream);
    this.#schedule();
  }

  #schedule(): void {
    if (this.#period > 0) {
      this.deadlines.set(this, Math.min(this.#period, this.#longest));
      this.#period = Math.min(2 * this.#period, MAX_PERIOD);
    } else if (!this.#isNext) {
      this.#isNext = true;
      this.#turn.next(this.#resume);
    }
  }

  /** Resumes the streams in their order, as far as there is room. */
  readonly #resume = (): void => {
    this.#isNext = false;
    const queue = this.#queue.filter(({ call }) => this.#calls.has(call));
    let next = 0;
    this.#queue = [];
    for (; next < queue.length && this.#hasRoom; next++) {
      const stream = queue[next]!; // As the loop condition says.
      stream.waitingSince = undefined;
      stream.step();
    }
    // Those that were resumed may wait again, behind the others.
    this.#queue = [...queue.slice(next), ...this.#queue];
    // Bytes that are only written at the end of this turn do not mean a slow client.
    this.#period = next > 0 || !this.#turn.isOpen ? 0 : Math.max(this.#period, MIN_PERIOD);
    if (this.#queue.length > 0) this.#schedule();
  };
}

const rightsOf = ({ accountability: { user, role } }: WebSocketClient): string => JSON.stringify([user, role]);

/** The reason of a call whose client has disconnected. */
export const gone = ({ message: { type } }: Call): WebSocketError =>
  new WebSocketError(type, "DISCONNECTED", "The client has disconnected");
