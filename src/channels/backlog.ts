import { CloseCode } from "../protocol/close.ts";
import type { Timed } from "../base/clock.ts";
import type { ExtensionHost } from "../application/extension.ts";
import { afterTurn } from "../base/turn.ts";
import type { ChannelFrame } from "./publication-frame.ts";
import { OPEN } from "../delivery/transport.ts";
import { connectionOf, type WebSocketClient } from "../application/websocket-client.ts";

/** Time in ms after which a client that reads nothing is closed while work waits for it; longer if it has more than `maxBufferedBytes` unread. */
const STALL_TIME = 30_000;

/** Shortest and longest interval at which the unread bytes of a client are checked, in ms. */
const MIN_PERIOD = 20;
const MAX_PERIOD = 500;

/** Estimated overhead of a kept frame, in bytes. */
const FRAME_BYTES = 100;

/** Maximum number of frames kept for one subscription. */
const MAX_KEPT = 1_000;

/** Maximum number of snapshots in progress, however small. */
const MAX_AT_ONCE = 4;

/** Work that waits until the client has read, for a subscription or a presence observer. */
interface Waiting {
  readonly waiter: object;
  /** @param isWanted `false` if the waiter was withdrawn. */
  begin(isWanted: boolean): void;
}

/** Work of one kind: reads from the engine, or snapshots. Two queues, so that a slow snapshot does not delay the reads. */
interface Queue {
  /** Bytes reserved by the work in progress. */
  reservedBytes: number;
  waiting: (Waiting & { readonly bytes: number })[];
}

/**
 * Paces everything that waits for one client under one budget: history pages, member lists, snapshots and kept publications. Work
 * begins only as fast as the client reads: pages and lists one after the other, snapshots a few at a time if they are small.
 */
export class Backlog implements Timed {
  readonly deadline: number = 0;
  readonly heapIndex: number = -1;
  readonly #client: WebSocketClient;
  readonly #host: ExtensionHost;
  readonly #queues: Readonly<Record<"engine" | "snapshot", Queue>> = {
    engine: { reservedBytes: 0, waiting: [] },
    snapshot: { reservedBytes: 0, waiting: [] },
  };
  #kept = 0;
  /** Work in progress that waits until the client has read. */
  #paused: Waiting[] = [];
  #isPolling = false;
  #period = MIN_PERIOD;
  /** Unread bytes at the last check. */
  #unread = Infinity;
  /**
   * Time since the client was last seen to read, in ms, as the sum of the intervals between checks. The clock would also count time in which
   * the process stood still, during which the client may have read.
   */
  #stalled = 0;

  constructor(client: WebSocketClient, host: ExtensionHost) {
    this.#client = client;
    this.#host = host;
  }

  /** Maximum number of unread bytes with which more work may begin. */
  get budget(): number {
    return this.#host.maxBufferedBytes / 2;
  }

  /** Whether the client has read enough for more to be sent. */
  get hasRoom(): boolean {
    return connectionOf(this.#client).unreadBytes <= this.budget;
  }

  /**
   * Runs the work once there is room, in the order of the calls. It does not run after {@link withdraw}.
   *
   * @param bytes expected size of the result; with `Infinity` the work runs alone in its queue. @default {Infinity}
   */
  async run(kind: "engine" | "snapshot", waiter: object, work: () => Promise<void>, bytes: number = Infinity): Promise<void> {
    const queue = this.#queues[kind];
    const share = Math.min(Math.max(bytes, this.budget / MAX_AT_ONCE), this.budget);
    if (queue.waiting.length === 0 && this.#admits(queue, share)) queue.reservedBytes += share;
    else {
      const isWanted = await new Promise<boolean>((begin) => {
        queue.waiting.push({ waiter, bytes: share, begin });
        this.#startPolling();
      });
      if (!isWanted) return;
    }
    try {
      await work();
    } finally {
      queue.reservedBytes -= share;
      this.#advance();
    }
  }

  /**
   * Resolves with `true` when there is room, with `false` after {@link withdraw}. Before waiting, release what can be read again; afterwards
   * check {@link hasRoom} again, because other work may have used the room.
   */
  drained(waiter: object): Promise<boolean> {
    return new Promise((begin) => {
      this.#paused.push({ waiter, begin });
      this.#startPolling();
    });
  }

  /** Ends all waits of a waiter, which would otherwise stay in memory until the client has read. */
  withdraw(waiter: object): void {
    const others = <Each extends Waiting>(all: Each[]): Each[] => {
      if (!all.some((each) => each.waiter === waiter)) return all;
      for (const each of all) if (each.waiter === waiter) each.begin(false);
      return all.filter((each) => each.waiter !== waiter);
    };
    this.#paused = others(this.#paused);
    for (const queue of Object.values(this.#queues)) queue.waiting = others(queue.waiting);
  }

  /** Reserves bytes for a kept frame. Returns `false` if there is no room. */
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

  /** Stops checking because the client is gone. Each of its subscriptions withdraws its waits. */
  close(): void {
    this.#host.deadlines.delete(this);
  }

  /** Checks the unread bytes, and closes a client that has read nothing for too long. */
  due(): void {
    this.#isPolling = false;
    const connection = connectionOf(this.#client);
    const { unreadBytes } = connection;
    if (unreadBytes < this.#unread) {
      this.#stalled = 0;
      this.#period = MIN_PERIOD;
    } else {
      this.#stalled += this.#period;
      this.#period = Math.min(2 * this.#period, MAX_PERIOD);
    }
    this.#unread = unreadBytes;
    if (connection.readyState !== OPEN) return;
    if (unreadBytes <= this.budget) {
      for (const { begin } of this.#paused.splice(0)) begin(true);
      return this.#advance();
    }
    if (this.#paused.length === 0 && !this.#isWaiting) return;
    const { maxBufferedBytes } = this.#host;
    if (this.#stalled >= STALL_TIME * Math.max(1, unreadBytes / maxBufferedBytes)) {
      return connection.close(CloseCode.SLOW_CONSUMER, "Too slow", "slow");
    }
    // Reading may take longer than a heartbeat, so this deadline replaces the heartbeat's.
    connection.deferHeartbeat();
    this.#isPolling = true;
    this.#host.deadlines.set(this, this.#period);
  }

  get #isWaiting(): boolean {
    const { engine, snapshot } = this.#queues;
    return engine.waiting.length + snapshot.waiting.length > 0;
  }

  #admits({ reservedBytes }: Queue, bytes: number): boolean {
    return this.hasRoom && (reservedBytes === 0 || reservedBytes + bytes <= this.budget);
  }

  #advance(): void {
    for (const queue of Object.values(this.#queues)) {
      const { waiting } = queue;
      for (let [first] = waiting; first && this.#admits(queue, first.bytes); [first] = waiting) {
        waiting.shift();
        queue.reservedBytes += first.bytes;
        first.begin(true);
      }
    }
    if (this.#isWaiting && !this.hasRoom) this.#startPolling();
  }

  #startPolling(): void {
    if (this.#isPolling) return;
    this.#isPolling = true;
    this.#unread = Infinity;
    this.#period = MIN_PERIOD;
    // Bytes that are only written at the end of this turn do not mean a slow client.
    afterTurn(() => this.due());
  }
}

/** Frames kept while nothing can be sent to a subscription, oldest first. */
export class KeptFrames<Each extends ChannelFrame = ChannelFrame> {
  readonly #backlog: Backlog;
  #frames: Each[] = [];

  constructor(backlog: Backlog) {
    this.#backlog = backlog;
  }

  get first(): Each | undefined {
    return this.#frames[0];
  }

  /** Keeps the frame. Returns `false` if there is no room. */
  push(frame: Each): boolean {
    if (this.#frames.length >= MAX_KEPT || !this.#backlog.keep(frame.bytes + FRAME_BYTES)) return false;
    this.#frames.push(frame);
    return true;
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
