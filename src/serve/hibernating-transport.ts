/** The transport of a WebSocket in a Durable Object that may hibernate. */
import type { MessageUid } from "../protocol/errors.ts";
import type { Frame } from "../protocol/frame.ts";
import { type Batch, BATCHING, type WriteQueue } from "../delivery/write-queue.ts";
import { OPEN, type SavedConnection } from "../delivery/transport.ts";
import { StandardTransport } from "../runtimes/standard.ts";

/** The part of workerd's `WebSocket` that this package uses. */
export interface HibernatingSocket {
  /** Ready state, as in a browser. */
  readonly readyState: number;
  /** Bytes not sent yet. Absent on a socket that may hibernate. */
  readonly bufferedAmount?: number;
  /** Sends text. */
  send(data: string): void;
  /** Begins the close handshake. */
  close(code: number, reason: string): void;
  /** Stores a value of at most 16 KiB with the socket. */
  serializeAttachment(value: unknown): void;
  /** Returns the stored value. */
  deserializeAttachment(): unknown;
}

/** Time for a client to answer a ping, in ms. After that, all bytes sent to it count as buffered. */
const ANSWER_TIME = 1_000;

/** A client may be sent so many times `maxBufferedBytes` before it answers: no answer arrives while an event is handled. */
const MAX_UNANSWERED = 4;

/** Assumed reading rate of a client that does not answer pings, in bytes per second. Applies beyond {@link MAX_UNANSWERED}. */
const READ_RATE = 262_144;

/**
 * Estimates the bytes buffered for a hibernating socket, which workerd 2026-07-30 does not report. A client of `noroshi.v1`
 * answers pings, and with `heartbeat.message` every client must: the bytes sent since the client's last message count as
 * buffered, and the client is pinged at half of the limit. For other clients there is no estimate.
 *
 * Histories and snapshots need more proof than any message, because a client may send without reading. They wait for the answer
 * to a `ping` sent after the data that must have been read. To a client that does not answer pings they are sent at a fixed rate.
 */
export class HibernatingTransport extends StandardTransport<HibernatingSocket> {
  /** Limit of the estimate. Absent: the runtime reports the bytes, or the client does not answer pings. */
  #maxBufferedBytes: number | undefined;
  /** Bytes that the client has not confirmed, or not read at {@link READ_RATE}; `at`: when they were counted, in monotonic ms. */
  readonly #unread = { bytes: 0, at: 0, maxBytes: Infinity };
  /** The `ping` that awaits its answer, and how many of the unread bytes were sent before it. */
  #ping: { readonly uid: string; readonly bytes: number } | undefined;
  #now: () => number = () => 0;
  /** Bytes sent since the client's last message. */
  #sentSinceHeard = 0;
  /** When the client was pinged because of `#sentSinceHeard`, in monotonic ms; Infinity: no answer is awaited. */
  #pingedAt = Infinity;
  readonly #answersPings: boolean;
  #closing: SavedConnection["closing"];

  constructor(socket: HibernatingSocket, protocol: string | null, queue: WriteQueue) {
    super(socket, protocol, queue);
    this.#answersPings = protocol === BATCHING;
  }

  limit(maxBufferedBytes: number, now: () => number, asksAll: boolean): void {
    this.#now = now;
    this.#unread.maxBytes = maxBufferedBytes;
    if (!(this.#answersPings || asksAll) || this.socket.bufferedAmount !== undefined) return;
    this.#maxBufferedBytes = maxBufferedBytes;
  }

  get unreadBytes(): number {
    if (this.socket.bufferedAmount !== undefined) return this.bufferedAmount;
    const { bytes, maxBytes } = this.#paced();
    const mayRead = this.#maxBufferedBytes === undefined && bytes <= MAX_UNANSWERED * maxBytes;
    return (mayRead ? 0 : bytes) + (this.batch?.bytes ?? 0);
  }

  #paced(): { bytes: number; readonly maxBytes: number } {
    const unread = this.#unread;
    const now = this.#now();
    if (this.#maxBufferedBytes === undefined) unread.bytes = Math.max(0, unread.bytes - (now - unread.at) * READ_RATE / 1_000);
    unread.at = now;
    return unread;
  }

  ask(): void {
    if (this.#maxBufferedBytes === undefined || this.#ping || this.readyState !== OPEN) return;
    this.write();
    const uid = crypto.randomUUID();
    this.#ping = { uid, bytes: this.#unread.bytes };
    this.socket.send(`{"type":"ping","uid":"${uid}"}`);
  }

  answered(uid: MessageUid | undefined): void {
    const ping = this.#ping;
    // The Directus SDK answers without the `uid`.
    if (!ping || (uid === undefined ? this.#answersPings : uid !== ping.uid)) return;
    this.#ping = undefined;
    this.#unread.bytes -= ping.bytes;
  }

  override get bufferedAmount(): number {
    const waiting = this.#sentSinceHeard + super.bufferedAmount;
    const limit = this.#maxBufferedBytes;
    if (limit === undefined || waiting > MAX_UNANSWERED * limit || this.#now() - this.#pingedAt >= ANSWER_TIME) return waiting;
    return Math.min(waiting, limit);
  }

  override send(frame: Frame): boolean {
    super.send(frame);
    // A frame in a batch is counted when the batch is written.
    if (!this.batch) this.#countWritten(frame);
    return true;
  }

  override write(): void {
    const { batch } = this;
    super.write();
    if (batch) this.#countWritten(batch);
  }

  #countWritten(written: Frame | Batch): void {
    this.#paced().bytes += written.bytes;
    if (this.#maxBufferedBytes === undefined) return;
    this.#sentSinceHeard += written.bytes;
    if (this.#pingedAt < Infinity || this.#sentSinceHeard <= this.#maxBufferedBytes / 2 || this.readyState !== OPEN) return;
    this.#pingedAt = this.#now();
    this.socket.send('{"type":"ping"}');
  }

  heard(): void {
    this.#sentSinceHeard = 0;
    this.#pingedAt = Infinity;
  }

  save(saved: SavedConnection): void {
    this.socket.serializeAttachment(this.#closing ? { ...saved, closing: this.#closing } : saved);
  }

  override close(code: number, reason: string): void {
    this.#closing = { code, reason };
    const saved = savedOf(this.socket);
    try {
      if (saved) this.save(saved);
    } finally {
      super.close(code, reason);
    }
  }
}

/** The connection that {@link HibernatingTransport.save} stored; `null` for a socket of another library. */
export function savedOf(socket: HibernatingSocket): SavedConnection | null {
  const attachment = socket.deserializeAttachment() as Partial<SavedConnection> | null; // Checked next.
  return typeof attachment?.controller === "string" && attachment.handshake ? attachment as SavedConnection : null; // Only `save` writes that.
}
