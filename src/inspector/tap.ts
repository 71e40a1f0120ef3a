import type { WebSocketClient } from "../application/websocket-client.ts";
import { guard, type Report } from "../base/guard.ts";
import type { WebSocketMessage } from "../protocol/protocol.ts";
import { redact } from "./redact.ts";
import type { TapBatch, Tapped } from "./shown.ts";

/** Maximum number of messages that a node shows in a second. */
const MAX_MESSAGES = 20;

/** Types that are not shown: credentials have no place here, and heartbeats say nothing. */
const UNSEEN: ReadonlySet<string> = new Set(["auth", "ping", "pong"]);

/** Shows some messages of clients while somebody asks for them. */
export class Tap {
  readonly #redact: (message: WebSocketMessage) => unknown;
  readonly #report: Report;
  #messages: Tapped[] = [];
  #skipped = 0;

  /** @param redact of the application. @param report receives what it throws. */
  constructor(redact: (message: WebSocketMessage) => unknown, report: Report) {
    this.#redact = redact;
    this.#report = report;
  }

  /** @param now of the wall clock, in ms. */
  add(now: number, client: WebSocketClient, message: WebSocketMessage): void {
    if (UNSEEN.has(message.type)) return;
    if (this.#messages.length >= MAX_MESSAGES) return void this.#skipped++;
    const { uid, accountability: { user } } = client;
    // Guarded: `redact` is called on the way of every message, with whatever a client sends.
    guard(() => {
      const shown = this.#redact(message);
      if (shown === undefined) return;
      const tapped = { at: now, uid, user, type: message.type, message: redact(shown) };
      JSON.stringify(tapped); // Throws here, with a BigInt, and not when the batch is sent.
      this.#messages.push(tapped);
    }, (error) => {
      this.#skipped++;
      this.#report(error);
    });
  }

  /** What was seen since the last call. */
  take(node: string): TapBatch {
    const batch = { node, messages: this.#messages, skipped: this.#skipped };
    this.#messages = [];
    this.#skipped = 0;
    return batch;
  }
}
