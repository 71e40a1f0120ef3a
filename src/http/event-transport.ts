import type { Connection } from "../connection/connection.ts";
import { FLOOD } from "../connection/gate.ts";
import { CLOSED, CLOSING, OPEN, type Transport } from "../delivery/transport.ts";
import type { Batch, WriteQueue, Writer } from "../delivery/write-queue.ts";
import { ABNORMAL, answerCloseCode, CloseCode, cutCloseReason, NO_STATUS } from "../protocol/close.ts";
import type { Frame } from "../protocol/frame.ts";
import type { Acceptance } from "../runtimes/runtime.ts";
import type { EventFormat } from "./event-stream.ts";

/** The contents of one POST of the client. */
export interface Post {
  /** Number of the POST, from 1. */
  readonly sequence: number;
  /** Text frames, in order. */
  readonly frames: readonly string[];
  /** Answers a `ping` event, with its number. */
  readonly pong?: number | null | undefined;
  /** Closes the connection. */
  readonly close?: { readonly code: number; readonly reason: string } | undefined;
}

/** Outcome of a POST: `gap` if an earlier one is missing, `repeated` if it was repeated too often. */
export type Receipt = "accepted" | "gap" | "repeated";

/** Times that a client may repeat a POST (PROTOCOL.md §8). */
const MAX_REPEATS = 8;

/** What {@link EventTransport} needs from its route. */
export interface EventTransportHost {
  /** Holds frames until the end of the turn. */
  readonly queue: WriteQueue;
  readonly format: EventFormat;
  /** Called when the stream is read for the first time. */
  opened?(connection: Connection): void;
  /** Called when the runtime pulls the next chunk, which shows that a client that cannot answer pings is alive. */
  pulled?(connection: Connection): void;
  /** Called when the connection has ended or was never opened. */
  over(): void;
}

const encoder = new TextEncoder();

/**
 * A {@link Transport} that sends frames in an event stream and receives them in requests. A chunk is enqueued when the runtime
 * pulls it, after it has written the one before. So waiting bytes are counted here, and bounded as for a socket.
 */
export class EventTransport implements Transport, Writer {
  readonly socket: ReadableStream<Uint8Array>;
  readonly isOverHttp: boolean = true;
  readyState: number = OPEN;
  batch: Batch | undefined = undefined;
  ponged?: (number: number | undefined) => void;
  readonly #host: EventTransportHost;
  #acceptance: Acceptance | undefined;
  #connection: Connection | undefined;
  #stream!: ReadableStreamDefaultController<Uint8Array>;
  #waiting: Uint8Array[] = [];
  #waitingBytes = 0;
  /** Bytes of the last chunk, until the runtime pulls the next one. */
  #bytesSent = 0;
  #isWanted = false;
  /** Set when the close event is written. */
  #close: { readonly code: number; readonly reason: string } | undefined;
  #sequence = 0;
  /** Repeated POSTs since the last new one. */
  #repeats = 0;
  /** Pings without an answer. */
  #pings = 0;
  #pause: { readonly over: Promise<void>; end(): void } | undefined;

  constructor(acceptance: Acceptance, host: EventTransportHost) {
    this.#host = host;
    this.#acceptance = acceptance;
    this.socket = new ReadableStream({
      start: (stream) => void (this.#stream = stream),
      pull: () => this.#pulled(),
      cancel: () => this.#ended(ABNORMAL, "", false),
    }, { highWaterMark: 0 }); // The stream itself buffers nothing, because that could not be counted.
  }

  /** Absent: the stream has not been read yet. */
  get connection(): Connection | undefined {
    return this.#connection;
  }

  get bufferedAmount(): number {
    return this.#bytesSent + this.#waitingBytes + (this.batch?.bytes ?? 0);
  }

  send(frame: Frame): boolean {
    this.#host.queue.push(this, frame);
    return true;
  }

  write(): void {
    const { batch } = this;
    if (!batch) return;
    this.batch = undefined;
    if (this.readyState !== OPEN) return;
    const encode = () => encoder.encode(batch.frames().map((frame) => this.#host.format.message(frame)).join(""));
    this.#put(batch.isShared ? batch.encoded ??= encode() : encode());
  }

  /** Writes the frames that wait for the end of the turn. Returns whether there were any. */
  writeNow(): boolean {
    if (!this.batch) return false;
    this.write();
    return true;
  }

  ping(number?: number): void {
    if (this.readyState !== OPEN) return;
    this.#pings++;
    this.#put(encoder.encode(this.#host.format.ping(number)));
    if (this.#host.pulled) this.ponged?.(number); // Such a client does not answer, but reads each event as it comes.
  }

  pause(): void {
    if (this.#pause) return;
    let end = () => {};
    const over = new Promise<void>((resolve) => end = resolve);
    this.#pause = { over, end };
  }

  resume(): void {
    this.#pause?.end();
    this.#pause = undefined;
  }

  get isPaused(): boolean {
    return this.#pause !== undefined;
  }

  close(code: number, reason: string): void {
    this.write();
    if (this.readyState !== OPEN) return;
    this.readyState = CLOSING;
    this.#close = { code, reason };
    this.#put(encoder.encode(this.#host.format.close(code, reason)));
  }

  terminate(): void {
    this.#abort();
    this.#ended(ABNORMAL, "", false);
  }

  /** Starts the connection, which otherwise starts when the stream is read. */
  start(): Connection {
    const acceptance = this.#acceptance!; // Called once.
    this.#acceptance = undefined; // Releases the request, which it refers to.
    this.#put(encoder.encode(this.#host.format.opening()));
    this.#connection = acceptance.open(this);
    this.#host.opened?.(this.#connection);
    return this.#connection;
  }

  /**
   * Ends the connection when the client has disconnected. Needed on workerd only, which cancels the stream at the next write.
   * Before its Worker has passed on the response, it aborts the signal of the request, with the compatibility flag
   * `enable_request_signal`. Elsewhere the stream is cancelled at once, and a listener would keep the request in memory.
   */
  watch(request: Request): void {
    if (!("WebSocketPair" in globalThis)) return;
    request.signal.addEventListener("abort", () => this.#ended(ABNORMAL, "", false));
  }

  /** The response with the stream was replaced by another: no connection opens. */
  abandon(): void {
    if (!this.#connection) this.#ended(ABNORMAL, "", false);
  }

  /**
   * Handles the contents of a POST, unless it is a repeat. While reading is paused, it resolves when reading goes on, which slows
   * down a client that sends one POST at a time.
   *
   * @param bytes size of the POST. A POST without messages counts as a message, unless it answers a ping or closes.
   */
  async receive({ sequence, frames, pong, close }: Post, bytes: number): Promise<Receipt> {
    const connection = this.#connection;
    if (!connection) return "gap";
    if (sequence === this.#sequence + 1) {
      this.#sequence = sequence;
      this.#repeats = 0;
      if (this.isPaused) connection.close(CloseCode.RATE_LIMITED, FLOOD, "rate"); // It did not wait for the answer.
      const now = connection.heard();
      if (pong !== undefined && this.#pings > 0) this.#pings--;
      else if (frames.length === 0 && !close) connection.host.rateGate?.accepts(connection, bytes, now);
      if (pong !== undefined) this.ponged?.(pong ?? undefined);
      for (const frame of frames) connection.message(frame);
      if (close) this.#closedBy(close.code, close.reason);
    } else if (++this.#repeats > MAX_REPEATS) {
      connection.close(CloseCode.RATE_LIMITED, "Too many repeated requests", "rate");
      return "repeated";
    } else if (sequence > this.#sequence) return "gap";
    await this.#pause?.over;
    return "accepted";
  }

  /** A POST was too large to be read. */
  refuseBody(): void {
    this.#connection?.close(CloseCode.MESSAGE_TOO_BIG, "Message too big", "payload");
  }

  #closedBy(code: number, reason: string): void {
    if (this.readyState !== OPEN) return;
    const cut = cutCloseReason(reason);
    this.close(code === NO_STATUS ? CloseCode.NORMAL : answerCloseCode(code), cut);
    if (this.#waiting.length > 0) this.#abort(); // It no longer reads.
    this.#ended(code, cut, true);
  }

  /** Breaks off the response, which is an error for the client. */
  #abort(): void {
    this.#stream.error(new DOMException("The connection was closed", "AbortError"));
  }

  #pulled(): void {
    this.#bytesSent = 0;
    this.#isWanted = true;
    if (this.#connection) this.#host.pulled?.(this.#connection);
    // Only now, because middleware may have replaced the response, and then this stream is never read.
    if (this.#acceptance) this.start();
    else this.#flush();
  }

  #put(chunk: Uint8Array): void {
    if (chunk.byteLength === 0) return;
    this.#waiting.push(chunk);
    this.#waitingBytes += chunk.byteLength;
    this.#flush();
  }

  #flush(): void {
    const chunk = this.#isWanted ? this.#waiting.shift() : undefined;
    if (!chunk) return;
    this.#isWanted = false;
    this.#waitingBytes -= chunk.byteLength;
    this.#bytesSent = chunk.byteLength;
    this.#stream.enqueue(chunk);
    const close = this.#close;
    if (!close || this.#waiting.length > 0) return;
    this.#stream.close();
    queueMicrotask(() => this.#ended(close.code, close.reason, true)); // As every runtime does, after `close()` has returned.
  }

  #ended(code: number, reason: string, wasClean: boolean): void {
    this.readyState = CLOSED;
    this.#waiting = [];
    this.resume();
    this.#acceptance?.abandoned();
    this.#acceptance = undefined;
    this.#connection?.closed(code, reason, wasClean);
    this.#host.over();
  }
}
