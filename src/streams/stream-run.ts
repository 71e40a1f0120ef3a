import {
  abortCall,
  Call,
  type CallHost,
  type HandlerContext,
  isAbort,
  reasonOf,
  runCall,
  type Streamable,
} from "../application/call.ts";
import type { Observed } from "../application/observer.ts";
import type { OutboundChecks } from "../application/outbound.ts";
import type { WebSocketClient } from "../application/websocket-client.ts";
import type { Deadlines, Timed } from "../base/clock.ts";
import { WebSocketError } from "../protocol/errors.ts";
import type { Frame } from "../protocol/frame.ts";
import { openSource, type Source } from "./source.ts";
import { Stream, type StreamOwner } from "./stream.ts";
import { MAX_KEPT, type StreamLog } from "./stream-log.ts";
import type { RecordKind } from "./stream-record.ts";
import type { Turn } from "./turn.ts";

/** What generators that outlive connections need from their node. */
export interface StreamRunHost {
  readonly deadlines: Deadlines;
  /** Time for a generator to end, in ms. */
  readonly timeout: number;
  readonly turn: Turn;
  readonly observed: Observed;
  readonly outbound: OutboundChecks | undefined;
  report(error: unknown, client?: WebSocketClient): void;
  /** Called at the end. */
  ended(run: StreamRun): void;
}

/** For the inner call of a stream: it has a signal of its own, no input, and cannot return another stream. */
const INNER_CALL_HOST: CallHost = {
  register: () => {},
  open: () => {
    throw new TypeError("Cannot open an input: none is declared");
  },
  unregister: () => {},
  stream: () => Promise.reject(new TypeError("Cannot stream: it is a stream already")),
  control: () => false,
};

/** A generator that goes on without its client: its items are published to the log of the stream. */
export class StreamRun implements StreamOwner, Timed {
  readonly deadline: number = 0;
  readonly heapIndex: number = -1;
  /** Key of the client whose `maxStreams` this stream counts against. */
  readonly owner: string;
  readonly log: StreamLog;
  /** Calls the handler with a signal of its own. */
  readonly call: Call;
  readonly isReachable = true;
  readonly #client: WebSocketClient;
  readonly #host: StreamRunHost;
  readonly #headLength: number;
  #stream: Stream | undefined;
  /** Number of the last item. */
  #number = 0;
  /** Sizes of what is kept, by number. */
  readonly #sizes = new Map<number, number>();
  #kept = 0;
  /** The item up to which the fastest reader has read, and the size of those after it. */
  #reached = 0;
  #ahead = 0;
  /** The item that is being published, or was. */
  #frame: Frame | undefined;
  #isPublished = false;
  #publishing: Promise<unknown> | undefined;
  #end: Promise<void> | undefined;
  #isAbandoned = false;

  constructor(
    owner: string,
    log: StreamLog,
    call: Call,
    handler: (context: HandlerContext<object>) => unknown,
    host: StreamRunHost,
  ) {
    const { type } = log;
    this.owner = owner;
    this.log = log;
    this.#client = call.client;
    this.#host = host;
    this.#headLength = JSON.stringify({ type, status: "next" }).length - 1;
    this.call = new Call(handler, call.client, call.message, { type }, INNER_CALL_HOST);
  }

  /** Calls the handler. */
  run(): unknown {
    return runCall(this.call);
  }

  /** Prepares to publish what the handler has returned, from {@link changed} on. @throws {WebSocketError} ENGINE_UNAVAILABLE */
  async start(streamable: Streamable): Promise<void> {
    let source: Source | undefined;
    try {
      source = openSource(streamable, this.#host.observed.observer);
      await this.log.begin(this);
    } catch (error) {
      this.log.end();
      await source?.return?.();
      throw error;
    }
    this.#stream = new Stream(this.call, this, source, undefined);
    this.#stream.ended.then((result) => this.#endWith("ok", { data: result }), (error) => this.#fail(error));
  }

  /** Aborts the signal, and ends the generator. */
  stop(reason: WebSocketError): void {
    abortCall(this.call, reason);
    this.#stream?.stop();
  }

  /** As {@link stop}, for a node that ends: the readers get the end without waiting for the generator. */
  async abandon(reason: WebSocketError): Promise<void> {
    this.stop(reason);
    this.#isAbandoned = true;
    await this.#fail(reason);
  }

  /** Readers have read, came or went. */
  changed(): void {
    const { deadlines } = this.#host;
    const { isAttached, kind, reached } = this.log;
    for (; this.#reached < Math.min(reached, this.#number); this.#ahead -= this.#sizes.get(this.#reached) ?? 0) this.#reached++;
    if (isAttached || this.#end) deadlines.delete(this);
    else if (this.heapIndex < 0) deadlines.set(this, kind.ttl);
    this.#stream?.advance();
  }

  /** Nobody was attached for too long. */
  due(): void {
    this.stop(new WebSocketError(this.log.type, "STREAM_LOST", "The stream is lost: no client was attached to it"));
  }

  // Called by the stream

  get deadlines(): Deadlines {
    return this.#host.deadlines;
  }

  get timeout(): number {
    return this.#host.timeout;
  }

  admits(stream: Stream): boolean {
    const { turn } = this.#host;
    // Readers that read, or come, call `changed`.
    if (this.#number - this.#reached >= this.log.kind.history.size - 1 || this.#ahead >= MAX_KEPT / 2) return false;
    if (turn.isOpen) return true;
    turn.next(() => stream.advance());
    return false;
  }

  send(stream: Stream, frame: Frame): boolean {
    if (this.#frame !== frame) {
      this.#frame = frame;
      this.#isPublished = false;
      this.#host.turn.spend(frame.bytes);
      const rest = frame.text.slice(this.#headLength);
      const body = `{${rest.slice(rest.startsWith(",") ? 1 : 0)}`;
      let published: Promise<unknown> | undefined;
      try {
        published = this.#append("next", body);
      } catch (error) {
        published = Promise.reject(error); // An engine of this process throws. Handled below.
      }
      if (!published) this.#isPublished = true;
      else {
        this.#publishing = published.then(() => {
          this.#isPublished = true;
          stream.advance();
        }, (error) => {
          // The item was not published: the end of the stream takes its number.
          this.#number--;
          abortCall(this.call, error);
          stream.stop();
        });
      }
    }
    return this.#isPublished;
  }

  watch(): void {}

  check(type: string, item: unknown): void {
    this.#host.outbound?.item(type, item, this.#client);
  }

  report(error: unknown): void {
    this.#host.report(error, this.#client);
  }

  /** Returns a promise only of an engine that another process shares. */
  #append(kind: RecordKind, body: string): Promise<unknown> | undefined {
    const number = ++this.#number;
    this.#sizes.set(number, body.length);
    this.#kept += body.length;
    this.#ahead += body.length;
    const { history } = this.log.kind;
    for (const [oldest, size] of this.#sizes) {
      // What no reader has read is kept in any case.
      if (oldest > this.#reached || this.#sizes.size <= history.size && this.#kept <= MAX_KEPT) break;
      this.#sizes.delete(oldest);
      this.#kept -= size;
    }
    const size = Math.min(this.#sizes.size, history.size);
    const append = () => this.log.append(number, kind, body, size);
    const appended = append();
    if (!(appended instanceof Promise)) return undefined;
    // Published again, it has the same number: readers drop a copy.
    let first: Promise<unknown> | undefined = appended;
    return this.log.whenAvailable(() => {
      const appending = first ?? append();
      first = undefined;
      return appending;
    }, () => this.#isAbandoned || kind === "next" && this.#end !== undefined);
  }

  #fail(error: unknown): Promise<void> {
    const why = isAbort(this.call, error) ? reasonOf(this.call) : error;
    const shown = WebSocketError.from(why);
    if (!shown) this.report(why);
    const answer = shown ?? new WebSocketError(this.log.type, "INTERNAL_ERROR", "Something went wrong");
    // Without details that JSON cannot represent.
    return this.#endWith("error", { error: JSON.parse(answer.toMessage()).error });
  }

  #endWith(kind: RecordKind, fields: { readonly data?: unknown; readonly error?: unknown }): Promise<void> {
    if (this.#end) return this.#end;
    let body: string;
    try {
      body = JSON.stringify(fields);
    } catch (error) {
      return this.#fail(error); // The result is no JSON.
    }
    return this.#end = this.#publishEnd(kind, body);
  }

  async #publishEnd(kind: RecordKind, body: string): Promise<void> {
    this.#host.deadlines.delete(this);
    try {
      await this.#publishing;
      await this.#append(kind, body);
    } catch (error) {
      this.report(error);
    } finally {
      this.log.end();
      this.#host.ended(this);
    }
  }
}
