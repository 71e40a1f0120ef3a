import { CloseCode } from "./close.ts";
import type { Timed } from "./clock.ts";
import type { ExtensionHost } from "./extension.ts";
import { afterTurn } from "./turn.ts";
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

/** Snapshots that are made at most at a time, however small. */
const MAX_AT_ONCE = 4;

/** What is fetched from the engine, one after the other, and what the application makes, which may take long. */
interface Line {
  /** Bytes that the work under way may bring. */
  taken: number;
  readonly waiting: { readonly bytes: number; begin(): void }[];
}

/**
 * What waits for one client: pages of histories, snapshots, lists of members and publications that it cannot be sent yet. All of it is under one
 * budget. Histories and lists are read one after the other, and snapshots made, a few at a time where they are small, only as fast as the
 * client reads.
 */
export class Backlog implements Timed {
  deadline = 0;
  place = -1;
  readonly #client: WebSocketClient;
  readonly #host: ExtensionHost;
  readonly #lines: Readonly<Record<"engine" | "snapshot", Line>> = {
    engine: { taken: 0, waiting: [] },
    snapshot: { taken: 0, waiting: [] },
  };
  #kept = 0;
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

  /**
   * Does the work when it is its turn: at once while there is room, else first come, first served.
   *
   * @param bytes that it brings, about. @default {Infinity} which is done alone
   */
  async run(kind: "engine" | "snapshot", work: () => Promise<void>, bytes: number = Infinity): Promise<void> {
    const line = this.#lines[kind];
    const share = Math.min(Math.max(bytes, this.budget / MAX_AT_ONCE), this.budget);
    if (line.waiting.length === 0 && this.#admits(line, share)) line.taken += share;
    else {
      await new Promise<void>((begin) => {
        line.waiting.push({ bytes: share, begin });
        this.#look();
      });
    }
    try {
      await work();
    } finally {
      line.taken -= share;
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
    for (const line of Object.values(this.#lines)) {
      for (const { bytes, begin } of line.waiting.splice(0)) {
        line.taken += bytes;
        begin();
      }
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
    if (this.#paused.length === 0 && !this.#isWaiting) return;
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

  get #isWaiting(): boolean {
    const { engine, snapshot } = this.#lines;
    return engine.waiting.length + snapshot.waiting.length > 0;
  }

  #admits({ taken }: Line, bytes: number): boolean {
    return this.hasRoom && (taken === 0 || taken + bytes <= this.budget);
  }

  #advance(): void {
    for (const line of Object.values(this.#lines)) {
      const { waiting } = line;
      for (let [first] = waiting; first && this.#admits(line, first.bytes); [first] = waiting) {
        waiting.shift();
        line.taken += first.bytes;
        first.begin();
      }
    }
    if (this.#isWaiting && !this.hasRoom) this.#look();
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
