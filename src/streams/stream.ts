import { abortCall, type Call, isAbort, reasonOf, requestOf } from "../application/call.ts";
import { type Deadlines, within } from "../base/clock.ts";
import { byteLength } from "../protocol/bytes.ts";
import { WebSocketError } from "../protocol/errors.ts";
import { Frame } from "../protocol/frame.ts";
import type { CreditWindow } from "./credit-window.ts";
import { LogReader } from "./log-reader.ts";
import { Part, type Source } from "./source.ts";

/** The client of a stream, with its other streams. */
export interface StreamOwner {
  readonly deadlines: Deadlines;
  /** Time for a source to end, in ms. */
  readonly timeout: number;
  /** Whether the client can be sent the end of a stream: its credentials have not expired. */
  readonly isReachable: boolean;
  /** Whether the stream may go on now. If not, it is resumed in its turn. */
  admits(stream: Stream): boolean;
  /** Whether the item was handed to the socket. If not, the stream is resumed later. */
  send(stream: Stream, frame: Frame): boolean;
  /** The stream waits for a credit. */
  watch(stream: Stream): void;
  /** Checks an item against the contract. */
  check(type: string, item: unknown): void;
  report(error: unknown): void;
}

/** One answer in parts. It holds at most one item that is not sent, and reads the next when the client may be sent it. */
export class Stream {
  readonly call: Call;
  /** Settles when the end of the stream may be sent: with the result, or with the error. */
  readonly ended: Promise<unknown>;
  /** Since when it waits for the client to read, in ms; `undefined`: it does not. Its owner sets it, and the end clears it. */
  waitingSince: number | undefined;
  /** Absent: the items are sent as fast as the transport takes them. */
  readonly window: CreditWindow | undefined;
  readonly #owner: StreamOwner;
  readonly #head: string;
  /** Absent after the end. */
  #source: Source | undefined;
  #reading: Promise<IteratorResult<unknown>> | undefined;
  #held: Frame | undefined;
  #isStopping = false;
  /** Sends the end of the stream. Set while it waits for the client to renew its credentials. */
  #end: (() => void) | undefined;
  #resolve!: (result: unknown) => void;
  #reject!: (error: unknown) => void;

  constructor(call: Call, owner: StreamOwner, source: Source, window: CreditWindow | undefined) {
    this.call = call;
    this.window = window;
    this.#owner = owner;
    this.#source = source;
    this.#head = this.#headOf("next");
    this.ended = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
  }

  /** Whether the client can continue the stream on another node: it was sent the id. */
  get isPortable(): boolean {
    return !!this.#source && !this.#held && LogReader.isPortable(this.#source);
  }

  /** Goes on as far as the client may be sent more. */
  advance(): void {
    if (this.#end && this.#owner.isReachable) this.#end();
    if (this.#isStopping || this.#reading) return;
    if (!this.#held && this.window && !this.window.isOpen) return this.#owner.watch(this);
    if (this.#owner.admits(this)) this.step();
  }

  /** Sends the item that it holds, or reads the next. */
  step(): void {
    if (this.#isStopping || this.#reading) return;
    const frame = this.#held;
    if (!frame) return this.#read();
    if (!this.#owner.send(this, frame)) return;
    this.#held = undefined;
    this.advance();
  }

  /** Ends the source and then the stream, with the reason that its call was aborted for. */
  stop(): void {
    const source = this.#source;
    if (this.#isStopping || !source) return;
    this.#isStopping = true;
    this.#held = undefined;
    this.waitingSince = undefined;
    const reading = this.#reading;
    const { deadlines, timeout } = this.#owner;
    const { type } = requestOf(this.call);
    const reason = reasonOf(this.call);
    const late = () => new Error(`Cannot end the stream "${type}": it ignores its signal, and did not return in ${timeout} ms`);
    // A generator runs `return` once the item it is at is there.
    const ending = () => Promise.allSettled([reading, (async () => await source.return?.())()]);
    void within(deadlines, timeout, ending, late).then(([read, returned]) => {
      const failed = [read, returned].find((each) => each.status === "rejected" && !isAbort(this.call, each.reason));
      if (failed?.status === "rejected") return this.#fail(failed.reason);
      // A resumed stream ends in `return`, if no read was pending.
      const result = [read, returned].map((each) => each.status === "fulfilled" ? resultOf(each.value) : undefined)
        .find((each) => each !== undefined);
      const isCancelled = reason instanceof WebSocketError && reason.code === "CANCELLED";
      if (isCancelled && result !== undefined) this.#finish(() => this.#resolve(result));
      else this.#finish(() => this.#reject(reason));
    }).catch((error) => {
      this.#owner.report(error);
      this.#finish(() => this.#reject(reason));
    });
  }

  /** An error of the source, while it is stopped. */
  #fail(error: unknown): void {
    const reason = reasonOf(this.call);
    // The reason is an error of its own, such as an item that is no JSON: that one is answered.
    if (!(reason instanceof WebSocketError)) this.#owner.report(error);
    this.#finish(() => this.#reject(reason instanceof WebSocketError ? error : reason));
  }

  #read(): void {
    try {
      this.#reading = Promise.resolve(this.#source!.next()); // Present until the end.
    } catch (error) {
      return this.#finish(() => this.#reject(error));
    }
    this.#reading.then(this.#onItem, this.#onError);
  }

  readonly #onItem = (result: IteratorResult<unknown>): void => {
    if (this.#isStopping) return;
    this.#reading = undefined;
    try {
      const { done, value } = result;
      if (done) return this.#finish(() => this.#resolve(value));
      this.#held = this.#frameOf(value);
      this.advance();
    } catch (error) {
      // The item is no JSON. A `toJSON` may throw anything.
      abortCall(this.call, error ?? new TypeError("Cannot send the item"));
      this.stop();
    }
  };

  readonly #onError = (error: unknown): void => {
    if (this.#isStopping) return;
    this.#reading = undefined;
    this.#finish(() => this.#reject(error));
  };

  /** @throws {TypeError} for an item that JSON cannot represent. */
  #frameOf(item: unknown): Frame {
    if (item instanceof Part) return this.#sealed(this.#headOf(item.status) + `,${item.fields}`);
    let text = this.#head;
    if (item !== undefined) {
      const json: string | undefined = JSON.stringify(item);
      if (json === undefined) throw new TypeError("Cannot send the item: JSON cannot represent it");
      text += `,"data":${json}`;
    }
    const frame = this.#sealed(text);
    this.#owner.check(requestOf(this.call).type, item);
    return frame;
  }

  /** Adds the credit, if one is due. */
  #sealed(text: string): Frame {
    const bytes = byteLength(text);
    const credit = this.window?.add(bytes);
    const end = credit === undefined ? "}" : `,"credit":${credit}}`;
    return new Frame(text + end, true, bytes + end.length, false);
  }

  /** The beginning of a message, up to its data. */
  #headOf(status: string): string {
    const { type, uid } = requestOf(this.call);
    return JSON.stringify({ type, status, uid }).slice(0, -1); // Drops an undefined `uid`.
  }

  /** @param settle sends the end, once the client can be sent it. */
  #finish(settle: () => void): void {
    this.#isStopping = true;
    this.#source = this.#reading = this.#held = undefined;
    if (this.#owner.isReachable) return settle();
    this.#end = () => {
      this.#end = undefined;
      settle();
    };
  }
}

/** The result that a generator ended with. */
const resultOf = (last: unknown): unknown => {
  const { done, value } = (last ?? {}) as Partial<IteratorResult<unknown>>; // Whatever `return` returned.
  return done ? value : undefined;
};
