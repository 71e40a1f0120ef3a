import { CloseCode } from "./close.ts";
import type { Timed } from "./clock.ts";
import type { ExtensionHost } from "./extension.ts";
import { afterTurn } from "./outbox.ts";
import type { ChannelFrame } from "./publication-frame.ts";
import { OPEN } from "./transport.ts";
import { connectionOf, type WebSocketClient } from "./websocket-client.ts";

/** How long a client may read nothing while something waits for it, in ms: for each `maxBufferedBytes` that it was sent. */
const STALL_TIME = 30_000;

/** Between two looks at what a client has read, in ms: the first, and at most. */
const MIN_PERIOD = 20;
const MAX_PERIOD = 500;

/** What a kept frame takes beside its text, in bytes. */
const FRAME_BYTES = 100;

/** Frames that are kept for one subscription. */
const MAX_KEPT = 1_000;

/** Work that is done at most so many at a time, however small. */
const MAX_AT_ONCE = 4;

/** What waits until there is room for it. */
interface Waiting {
  readonly bytes: number;
  begin(): void;
}

/**
 * What waits for one client: pages of histories, snapshots, lists of members and publications that it cannot be sent yet. All of it is under one
 * budget. What has to be fetched is fetched one after the other, and only as fast as the client reads.
 */
export class Backlog implements Timed {
  deadline = 0;
  place = -1;
  readonly #client: WebSocketClient;
  readonly #host: ExtensionHost;
  /** Bytes that the work under way may bring. */
  #taken = 0;
  #kept = 0;
  #line: Waiting[] = [];
  /** Work under way that the client has to read for first. */
  #paused: (() => void)[] = [];
  #isLooking = false;
  #period = MIN_PERIOD;
  /** What the client had not read at the last look, and when it was last seen to read, in ms of the monotonic clock. */
  #unread = Infinity;
  #readAt = 0;

  constructor(client: WebSocketClient, host: ExtensionHost) {
    this.#client = client;
    this.#host = host;
  }

  /** Bytes that the client need not have read for more to be fetched. */
  get budget(): number {
    return this.#host.maxBufferedBytes / 2;
  }

  /** Whether the client has read most of what it was sent. */
  get hasRoom(): boolean {
    return connectionOf(this.#client).unreadBytes <= this.budget;
  }

  /** Does the work when it is its turn: at once while there is room, else first come, first served. @param bytes that it brings, about. */
  async run(bytes: number, work: () => Promise<void>): Promise<void> {
    const share = Math.min(Math.max(bytes, this.budget / MAX_AT_ONCE), this.budget);
    if (this.#line.length === 0 && this.#admits(share)) this.#taken += share;
    else {
      await new Promise<void>((begin) => {
        this.#line.push({ bytes: share, begin });
        this.#look();
      });
    }
    try {
      await work();
    } finally {
      this.#taken -= share;
      this.#advance();
    }
  }

  /** Resolves when the client has room, or is gone. Nothing should be held meanwhile that can be fetched again. */
  async drained(): Promise<void> {
    await new Promise<void>((begin) => {
      this.#paused.push(begin);
      this.#look();
    });
  }

  /** Takes the bytes of something that is kept, while there is room. */
  keep(bytes: number): boolean {
    const { maxBufferedBytes } = this.#host;
    const unread = Math.min(connectionOf(this.#client).unreadBytes, this.budget);
    if (this.#kept + bytes + unread > maxBufferedBytes) return false;
    this.#kept += bytes;
    return true;
  }

  release(bytes: number): void {
    this.#kept -= bytes;
  }

  /** The client is gone: whatever waits ends. */
  close(): void {
    this.#host.deadlines.delete(this);
    for (const begin of this.#paused.splice(0)) begin();
    for (const { bytes, begin } of this.#line.splice(0)) {
      this.#taken += bytes;
      begin();
    }
  }

  /** Looks what the client has read. One that reads nothing for too long is closed. */
  due(): void {
    this.#isLooking = false;
    const connection = connectionOf(this.#client);
    const { unreadBytes } = connection;
    const now = this.#host.monotonic();
    if (unreadBytes < this.#unread) {
      this.#readAt = now;
      this.#period = MIN_PERIOD;
    }
    this.#unread = unreadBytes;
    if (connection.readyState !== OPEN) return this.close();
    if (unreadBytes <= this.budget) {
      this.#unread = Infinity;
      for (const begin of this.#paused.splice(0)) begin();
      return this.#advance();
    }
    if (this.#line.length + this.#paused.length === 0) return;
    const { maxBufferedBytes } = this.#host;
    if (now - this.#readAt >= STALL_TIME * Math.max(1, unreadBytes / maxBufferedBytes)) {
      return connection.close(CloseCode.SLOW_CONSUMER, "Too slow", "slow");
    }
    // What it was sent may take longer than a heartbeat: this deadline takes its place.
    connection.spare();
    this.#isLooking = true;
    this.#host.deadlines.set(this, this.#period);
    this.#period = Math.min(2 * this.#period, MAX_PERIOD);
  }

  #admits(bytes: number): boolean {
    return this.hasRoom && (this.#taken === 0 || this.#taken + bytes <= this.budget);
  }

  #advance(): void {
    for (let [first] = this.#line; first && this.#admits(first.bytes); [first] = this.#line) {
      this.#line.shift();
      this.#taken += first.bytes;
      first.begin();
    }
    if (this.#line.length > 0 && !this.hasRoom) this.#look();
  }

  #look(): void {
    if (this.#isLooking) return;
    this.#isLooking = true;
    this.#unread = Infinity;
    this.#period = MIN_PERIOD;
    // What waits for the end of the turn is not for want of reading.
    afterTurn(() => this.due());
  }
}

/** What was published while a subscription can be sent nothing, the oldest first. */
export class Kept<Each extends ChannelFrame = ChannelFrame> {
  readonly #backlog: Backlog;
  #frames: Each[] = [];

  constructor(backlog: Backlog) {
    this.#backlog = backlog;
  }

  get first(): Each | undefined {
    return this.#frames[0];
  }

  /** `false`: there is no room for it. */
  push(frame: Each): boolean {
    if (this.#frames.length >= MAX_KEPT || !this.#backlog.keep(frame.bytes + FRAME_BYTES)) return false;
    return this.#frames.push(frame) > 0;
  }

  shift(): Each | undefined {
    const frame = this.#frames.shift();
    if (frame) this.#backlog.release(frame.bytes + FRAME_BYTES);
    return frame;
  }

  clear(): void {
    while (this.shift());
  }
}
