import type { Deadlines, Timed } from "../base/clock.ts";
import { type Awaitable, type Engine, type Member, PAGE_BYTES, type Position, type Publication } from "../engines/engine.ts";
import { WebSocketError } from "../protocol/errors.ts";
import type { LogReader } from "./log-reader.ts";
import type { StreamKind } from "./resumable-options.ts";
import { eventOf, type RecordKind, recordOf, type StreamRecord } from "./stream-record.ts";
import type { StreamRun } from "./stream-run.ts";

/** What the log of a stream needs from its node. */
export interface StreamLogHost {
  /** The engine of the node. The first read of this property starts it. */
  readonly engine: Engine;
  readonly deadlines: Deadlines;
  report(error: unknown): void;
  /** Called when neither the generator nor a reader of this node uses the log. */
  closed(log: StreamLog): void;
}

/** Number of items that are read first: a reader has probably missed no more. */
const LATEST = 64;

/** Maximum size of the items that are kept of one stream, in characters of JSON. */
export const MAX_KEPT = 4_194_304;

/** Time between two attempts of what an unavailable engine refuses, in ms. */
const RETRY = 250;

/** The member of a stream's channel that shows that its generator is alive. */
const RUN = "run";

/**
 * One stream on one node: a channel of the engine whose publications are the items. Its members are its generator, and each other
 * node with readers, whose data is how far these have read.
 */
export class StreamLog {
  readonly id: string;
  readonly channel: string;
  readonly kind: StreamKind;
  /** The generator, if it runs on this node. */
  run: StreamRun | undefined;
  readonly #host: StreamLogHost;
  readonly #readers = new Set<LogReader>();
  /** The members that stand for the readers of other nodes. */
  readonly #others = new Set<string>();
  /** Whether the generator runs on another node. */
  #isRemote = false;
  #opening: Promise<void> | undefined;
  #isOpen = false;
  #isClosed = false;
  /** The member that stands for the readers of this node. */
  #member: string | undefined;
  /** What that member has announced. */
  #announced = { at: 0, stop: false };
  /** Characters read since. */
  #unannounced = 0;

  constructor(id: string, channel: string, kind: StreamKind, host: StreamLogHost) {
    this.id = id;
    this.channel = channel;
    this.kind = kind;
    this.#host = host;
  }

  get type(): string {
    return this.kind.type;
  }

  /** Whether more may be published. */
  get isRunning(): boolean {
    return this.run !== undefined || this.#isRemote;
  }

  /** Whether it can be read on other nodes. */
  get isShared(): boolean {
    return !this.#host.engine.isAlone;
  }

  get isAttached(): boolean {
    return this.#readers.size + this.#others.size > 0;
  }

  /** Number of the last item that a reader has read. The `after` that a client sends does not count. */
  reached = 0;

  /** Receives what is published from now on. @throws {WebSocketError} ENGINE_UNAVAILABLE */
  async open(): Promise<void> {
    if (!this.#isOpen) await (this.#opening ??= this.#open().finally(() => this.#opening = undefined));
  }

  // Called by the generator

  /** The generator starts here. @throws {WebSocketError} ENGINE_UNAVAILABLE */
  async begin(run: StreamRun): Promise<void> {
    this.run = run;
    await this.open();
    if (!this.#host.engine.isAlone) await this.#ignoringUnavailable((engine) => engine.join(this.channel, { user: RUN }));
  }

  /** The generator has ended. */
  end(): void {
    this.run = undefined;
    if (!this.#host.engine.isAlone) void this.#ignoringUnavailable((engine) => engine.leave(this.channel, RUN));
    for (const reader of [...this.#readers]) reader.fallBehind();
    this.#closeUnused();
  }

  /** @param size number of records to keep. */
  append(number: number, kind: RecordKind, body: string, size: number): Awaitable<unknown> {
    const content = { event: eventOf(number, kind), data: body };
    return this.#host.engine.publish(this.channel, content, { ...this.kind.history, size });
  }

  /** Repeats the call while the engine is unavailable, for at most the `ttl` of the stream. */
  async whenAvailable<Value>(call: () => Awaitable<Value>, isOver: () => boolean): Promise<Value> {
    const { deadlines } = this.#host;
    const until = deadlines.now() + this.kind.ttl;
    for (;;) {
      try {
        return await call();
      } catch (error) {
        const isUnavailable = WebSocketError.from(error)?.code === "ENGINE_UNAVAILABLE";
        if (!isUnavailable || isOver() || this.#host.engine.status === "closed" || deadlines.now() >= until) throw error;
        await new Promise<void>((resolve) => {
          const timer: Timed = { deadline: 0, heapIndex: -1, due: resolve };
          deadlines.set(timer, RETRY);
        });
        if (isOver()) throw error;
      }
    }
  }

  // Called by the readers

  attach(reader: LogReader): void {
    this.#readers.add(reader);
    this.run?.changed();
  }

  detach(reader: LogReader): void {
    if (!this.#readers.delete(reader)) return;
    this.run?.changed();
    this.#closeUnused();
  }

  /** A reader has read a record of this size. */
  readerAdvanced({ at }: LogReader, size: number): void {
    if (this.run) {
      if (at <= this.reached) return;
      this.reached = at;
      return this.run.changed();
    }
    if (!this.#member || at <= this.#announced.at) return;
    this.#unannounced += size;
    if (at - this.#announced.at >= this.kind.history.size / 4 || this.#unannounced >= MAX_KEPT / 16) this.#announce({ at });
  }

  /** Reads what follows an item. @param position that of the last record that the reader has seen. */
  async read(
    after: number,
    position: Position | null,
    isOver: () => boolean,
  ): Promise<{ readonly records: StreamRecord[]; readonly hasMore: boolean; readonly wasRunning: boolean }> {
    return await this.whenAvailable(async () => {
      await this.open();
      const { engine } = this.#host;
      // Before the read: what a generator has published before it went is in the page.
      const { channel, isRunning: wasRunning, kind: { history } } = this;
      let page = position && await engine.read(channel, history, position, Infinity, PAGE_BYTES);
      if (!page?.isComplete) {
        // Reads what the reader has missed, or at most four times as much, instead of all that is kept.
        for (let limit = LATEST;; limit *= 4) {
          page = await engine.read(channel, history, null, Math.min(limit, history.size));
          const [first] = page.publications;
          const isWhole = !first || page.publications.length < limit || recordOf(first).first <= after + 1;
          if (isWhole || limit >= history.size) break;
        }
      }
      const records = page.publications.map(recordOf);
      let bytes = 0;
      // One page, of one new record at least: the others are read when these are sent.
      const end = records.findIndex(({ first, last, body }) =>
        last > after && (bytes += body.length) > PAGE_BYTES && first > after + 1
      );
      return { records: end < 0 ? records : records.slice(0, end), hasMore: end >= 0 || page.hasMore === true, wasRunning };
    }, isOver);
  }

  /** Whether the generator stops for what ends a reader. */
  isStoppedFor(code: string): boolean {
    return code === "CANCELLED" || code === "FORBIDDEN" && !this.kind.authorize;
  }

  stop(reason: WebSocketError): void {
    if (this.run) this.run.stop(reason);
    else this.#announce({ stop: true });
  }

  // Called by the engine

  published(publication: Publication): void {
    const record = recordOf(publication);
    for (const reader of [...this.#readers]) reader.receive(record);
  }

  gap(): void {
    for (const reader of [...this.#readers]) reader.fallBehind();
  }

  present(joined: readonly Member[], left: readonly string[]): void {
    const wasRunning = this.isRunning;
    for (const user of left) {
      if (user === RUN) this.#isRemote = false;
      else this.#others.delete(user);
    }
    for (const member of joined) this.#addMember(member);
    this.run?.changed();
    if (wasRunning && !this.isRunning) this.gap();
  }

  #addMember({ user, data }: Member): void {
    if (user === RUN) this.#isRemote = !this.run;
    else if (user !== this.#member && data !== undefined) {
      const { at, stop } = JSON.parse(data); // Written by `#announce`.
      this.#others.add(user);
      this.reached = Math.max(this.reached, at);
      if (stop) this.run?.stop(new WebSocketError(this.type, "CANCELLED", "The client has cancelled it"));
    }
  }

  async #open(): Promise<void> {
    const { engine } = this.#host;
    try {
      await engine.subscribe(this.channel, this.kind.history);
      this.#isOpen = true;
      if (engine.isAlone) return;
      for (const member of await engine.members(this.channel)) this.#addMember(member);
      if (this.run) return;
      this.#member = crypto.randomUUID();
      this.#announce({});
    } catch (error) {
      if (this.#isOpen) engine.unsubscribe(this.channel);
      this.#isOpen = false;
      throw error;
    } finally {
      // `#opening` is set until the caller's `finally`.
      void Promise.resolve().then(() => this.#closeUnused());
    }
  }

  /** Reports the readers of this node to the node of the generator. */
  #announce(change: Partial<{ at: number; stop: boolean }>): void {
    this.#announced = { ...this.#announced, ...change };
    this.#unannounced = 0;
    const { channel } = this;
    const user = this.#member;
    if (user) void this.#ignoringUnavailable((engine) => engine.join(channel, { user, data: JSON.stringify(this.#announced) }));
  }

  /** An engine that is unavailable remembers members, and announces them later. */
  async #ignoringUnavailable(call: (engine: Engine) => Awaitable<void>): Promise<void> {
    try {
      await call(this.#host.engine);
    } catch (error) {
      if (WebSocketError.from(error)?.code !== "ENGINE_UNAVAILABLE") this.#host.report(error);
    }
  }

  #closeUnused(): void {
    if (this.run || this.#readers.size > 0 || this.#opening || this.#isClosed) return;
    this.#isClosed = true;
    this.#host.closed(this);
    if (!this.#isOpen) return;
    const { channel } = this;
    const user = this.#member;
    if (user) void this.#ignoringUnavailable((engine) => engine.leave(channel, user));
    void this.#ignoringUnavailable((engine) => engine.unsubscribe(channel));
  }
}
