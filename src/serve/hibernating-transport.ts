/** What is written to a socket of a Durable Object, which may hibernate. */
import type { MessageUid } from "../protocol/errors.ts";
import type { Frame } from "../protocol/frame.ts";
import { type Batch, BATCHING, type WriteQueue } from "../delivery/write-queue.ts";
import { OPEN, type SavedConnection } from "../delivery/transport.ts";
import { StandardTransport } from "../runtimes/standard.ts";

/** The part of workerd's socket that is used. */
export interface HibernatingSocket {
  /** As in a browser. */
  readonly readyState: number;
  /** Bytes that wait to be sent. Absent on a socket that may hibernate. */
  readonly bufferedAmount?: number;
  /** Sends text. */
  send(data: string): void;
  /** Begins the close handshake. */
  close(code: number, reason: string): void;
  /** Keeps a value of at most 16 KiB with the socket. */
  serializeAttachment(value: unknown): void;
  /** Returns that value. */
  deserializeAttachment(): unknown;
}

/** Time for a client to answer, in ms. After it, everything that it was sent counts as waiting. */
const ANSWER_TIME = 1_000;

/** How many times the limit a client may be sent before it answers: within one event it cannot answer at all. */
const MAX_UNANSWERED = 4;

/** Assumed reading rate of a client that need not answer, in bytes a second, beyond {@link MAX_UNANSWERED} times the limit. */
const PACE = 262_144;

/**
 * workerd 2026-07-30 does not report how much waits for a hibernating socket. A client of `noroshi.v1` answers pings, and with
 * `heartbeat.message` every client must: what it was sent since it was last heard counts as waiting, and at half of the limit it
 * is pinged. Of other clients nothing is known.
 *
 * Histories and snapshots need more than a sign of life, because a client that sends need not read: they wait for the answer to a
 * `ping` sent after the data that must have been read. A client that need not answer is sent them at a fixed pace.
 */
export class HibernatingTransport extends StandardTransport<HibernatingSocket> {
  /** Absent: the runtime reports the bytes, or the client need not answer. */
  #maxBufferedBytes: number | undefined;
  /** Bytes that the client has not confirmed, or at its pace not read, at a time of the monotonic clock, in ms. */
  readonly #unread = { bytes: 0, at: 0, maxBytes: Infinity };
  /** The `ping` that the client has to answer, and how many of the unread bytes were sent before it. */
  #question: { readonly uid: string; readonly bytes: number } | undefined;
  #now: () => number = () => 0;
  #unheard = 0;
  /** When it was asked, in ms of the monotonic clock; Infinity while it need not answer. */
  #askedAt = Infinity;
  readonly #answers: boolean;
  #closing: SavedConnection["closing"];

  constructor(socket: HibernatingSocket, protocol: string | null, queue: WriteQueue) {
    super(socket, protocol, queue);
    this.#answers = protocol === BATCHING;
  }

  limit(maxBufferedBytes: number, now: () => number, asksAll: boolean): void {
    this.#now = now;
    this.#unread.maxBytes = maxBufferedBytes;
    if (!(this.#answers || asksAll) || this.socket.bufferedAmount !== undefined) return;
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
    if (this.#maxBufferedBytes === undefined) unread.bytes = Math.max(0, unread.bytes - (now - unread.at) * PACE / 1_000);
    unread.at = now;
    return unread;
  }

  ask(): void {
    if (this.#maxBufferedBytes === undefined || this.#question || this.readyState !== OPEN) return;
    this.write();
    const uid = crypto.randomUUID();
    this.#question = { uid, bytes: this.#unread.bytes };
    this.socket.send(`{"type":"ping","uid":"${uid}"}`);
  }

  answered(uid: MessageUid | undefined): void {
    const question = this.#question;
    // The Directus SDK answers without the `uid`.
    if (!question || (uid === undefined ? this.#answers : uid !== question.uid)) return;
    this.#question = undefined;
    this.#unread.bytes -= question.bytes;
  }

  override get bufferedAmount(): number {
    const waiting = this.#unheard + super.bufferedAmount;
    const limit = this.#maxBufferedBytes;
    if (limit === undefined || waiting > MAX_UNANSWERED * limit || this.#now() - this.#askedAt >= ANSWER_TIME) return waiting;
    return Math.min(waiting, limit);
  }

  override send(frame: Frame): boolean {
    super.send(frame);
    // Else it is counted when it is written.
    if (!this.batch) this.#wrote(frame);
    return true;
  }

  override write(): void {
    const { batch } = this;
    super.write();
    if (batch) this.#wrote(batch);
  }

  #wrote(written: Frame | Batch): void {
    this.#paced().bytes += written.bytes;
    if (this.#maxBufferedBytes === undefined) return;
    this.#unheard += written.bytes;
    if (this.#askedAt < Infinity || this.#unheard <= this.#maxBufferedBytes / 2 || this.readyState !== OPEN) return;
    this.#askedAt = this.#now();
    this.socket.send('{"type":"ping"}');
  }

  heard(): void {
    this.#unheard = 0;
    this.#askedAt = Infinity;
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

/** What {@link HibernatingTransport.save} has written, if it was that. */
export function savedOf(socket: HibernatingSocket): SavedConnection | null {
  const attachment = socket.deserializeAttachment() as Partial<SavedConnection> | null; // Anything that can be cloned, and checked here.
  return typeof attachment?.controller === "string" && attachment.handshake ? attachment as SavedConnection : null; // Only `save` writes that.
}
