import { type Call, reasonOf } from "../application/call.ts";
import { WebSocketError } from "../protocol/errors.ts";
import { Part, type Source } from "./source.ts";
import type { StreamLog } from "./stream-log.ts";
import { mergeRecords, type StreamRecord } from "./stream-record.ts";

/** Records that wait for one reader. One that has more reads the history instead. */
const MAX_WAITING = 64;
const MAX_WAITING_BYTES = 262_144;

/** One client's reading of a stream: what is kept, then what is published, in order and each once. */
export class LogReader implements Source {
  /** Number of the last item that was read. */
  at: number;
  readonly #log: StreamLog;
  /** Absent: it only waits for the end. */
  readonly #call: Call | undefined;
  #isOpen = false;
  readonly #isFirst: boolean;
  /** Records that wait for `next`: read from the history, or published since. */
  #waiting: StreamRecord[] = [];
  #bytes = 0;
  /** The last record that was seen. Absent: none. */
  #last: StreamRecord | undefined;
  /** Whether publications are added to `#waiting`. If not, the reader reads the history once `#waiting` is empty. */
  #isLive = false;
  #isReading = false;
  /** Whether items are skipped, because only the end is wanted. */
  #skips = false;
  #isDetached = false;
  #wake: (() => void) | undefined;

  /** @param isFirst whether nothing was published before. */
  constructor(log: StreamLog, after: number, call: Call | undefined, isFirst = false) {
    this.at = after;
    this.#isLive = this.#isFirst = isFirst;
    this.#log = log;
    this.#call = call;
    log.attach(this);
  }

  /** Whether the client of the source can continue the stream on another node. */
  static isPortable(source: Source): boolean {
    return #log in source && source.#isOpen && source.#log.isShared;
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  /** @throws {WebSocketError} the end of the stream, if that is an error. */
  async next(): Promise<IteratorResult<Part, unknown>> {
    this.#isReading = true;
    try {
      return await this.#next();
    } catch (error) {
      this.#detach();
      throw error;
    } finally {
      this.#isReading = false;
    }
  }

  /** Ends the reading. If the client has cancelled the stream, its generator is stopped, and the end awaited. */
  async return(): Promise<unknown> {
    const reason = this.#call && reasonOf(this.#call);
    if (reason === undefined && this.#isFirst && !this.#isOpen) {
      // Refused before the client was sent the id: no client can read the stream.
      this.#log.stop(new WebSocketError(this.#log.type, "CANCELLED", "The request was refused"));
    }
    if (!(reason instanceof WebSocketError) || !this.#log.isStoppedFor(reason.code)) return this.#detach();
    return await this.stop(reason);
  }

  /** Stops the generator. Resolves with the end of the stream. */
  async stop(reason: WebSocketError): Promise<unknown> {
    this.#skips = true;
    this.#log.stop(reason);
    this.#awake();
    return this.#isReading || this.#isDetached ? undefined : await this.next();
  }

  /** Receives a record that was published. */
  receive(record: StreamRecord): void {
    if (!this.#isLive) return;
    this.#isLive = this.#waiting.length < MAX_WAITING && this.#bytes < MAX_WAITING_BYTES;
    if (this.#isLive) this.#add(record);
    this.#awake();
  }

  /** Publications may be missing, or the generator has gone. */
  fallBehind(): void {
    this.#isLive = false;
    this.#awake();
  }

  async #next(): Promise<IteratorResult<Part, unknown>> {
    const { id, type } = this.#log;
    if (!this.#isOpen) {
      // Read first: the id of a stream that does not exist is not sent.
      if (!this.#isLive && this.#waiting.length === 0) await this.#read();
      this.#isOpen = true;
      if (!this.#skips) return { done: false, value: new Part("open", `"id":${JSON.stringify(id)}`) };
    }
    for (;;) {
      if (this.#isDetached) return { done: true, value: undefined };
      const record = this.#waiting.shift();
      if (record) {
        const { kind, first, last, body } = record;
        this.#bytes -= body.length;
        // A copy, published again after an uncertain failure.
        if (last <= this.at) continue;
        if (first > this.at + 1 && !this.#skips) throw lost();
        if (kind === "next") {
          this.at = last;
          this.#log.readerAdvanced(this, body.length);
          if (!this.#skips) return { done: false, value: new Part("next", `${fieldsOf(body)}"offset":${last}`) };
          continue;
        }
        this.#detach();
        const { data, error } = JSON.parse(body);
        if (kind === "ok") return { done: true, value: data };
        const { code, message, ...details } = error;
        throw new WebSocketError(type, code, message, { details });
      }
      if (!this.#isLive || !this.#log.isRunning) await this.#read();
      else await new Promise<void>((resolve) => this.#wake = resolve);
    }
  }

  /** Reads what follows from the history. */
  async #read(): Promise<void> {
    const log = this.#log;
    this.#isLive = true;
    const seen = this.#last;
    const { records, hasMore, wasRunning } = await log.read(this.at, seen?.position ?? null, () => this.#isDetached);
    const since = this.#waiting;
    this.#waiting = [];
    this.#bytes = 0;
    // `receive` has set it meanwhile, to a record that is added below or read again.
    this.#last = records.at(-1) ?? seen;
    const end = this.#last?.last ?? 0;
    if (end < this.at) throw lost();
    let { at } = this;
    const fresh = records.filter(({ last }) => last > at && (at = last) > 0);
    if (!wasRunning && fresh.length + since.length === 0) throw lost();
    if ((fresh[0]?.first ?? 0) > this.at + 1 && !this.#skips) throw lost();
    const isWhole = fresh.every(({ first }, index) => first === this.at + 1 + index);
    const { merge } = log.kind;
    for (const record of merge && isWhole && !this.#skips ? mergeRecords(fresh, merge) : fresh) this.#add(record);
    if (hasMore) this.#isLive = false;
    else if (this.#isLive) { for (const record of since) if (record.last > end) this.#add(record); }
  }

  #add(record: StreamRecord): void {
    this.#waiting.push(record);
    this.#bytes += record.body.length;
    this.#last = record;
  }

  #detach(): void {
    if (this.#isDetached) return;
    this.#isDetached = true;
    this.#waiting = [];
    this.#awake();
    this.#log.detach(this);
  }

  #awake(): void {
    this.#wake?.();
    this.#wake = undefined;
  }
}

/** The fields of a JSON object, each followed by a comma. */
const fieldsOf = (body: string): string => body === "{}" ? "" : `${body.slice(1, -1)},`;

/** One text for every cause: a foreign user must not learn whether the stream exists. */
export const lost = (): WebSocketError =>
  new WebSocketError(
    "stream.resume",
    "STREAM_LOST",
    "The stream is lost: its node has gone, or it is not kept, or there is none",
  );
