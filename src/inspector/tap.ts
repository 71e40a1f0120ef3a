import type { WebSocketClient } from "../application/websocket-client.ts";
import { guard, type Report } from "../base/guard.ts";
import type { WebSocketMessage } from "../protocol/protocol.ts";
import { redact } from "./redact.ts";
import type { TapBatch, Tapped } from "./shown.ts";

/** Maximum number of messages that a node shows in a second. */
const MAX_MESSAGES = 20;

/** Types that are not shown: `auth` has credentials, and heartbeats are of no interest. */
const HIDDEN_TYPES: ReadonlySet<string> = new Set(["auth", "ping", "pong"]);

/** Records some messages of clients while the page shows them. */
export class Tap {
  readonly #redact: (message: WebSocketMessage) => unknown;
  readonly #report: Report;
  #messages: Tapped[] = [];
  #skipped = 0;

  /** @param redact the option of the inspector. @param report receives its errors. */
  constructor(redact: (message: WebSocketMessage) => unknown, report: Report) {
    this.#redact = redact;
    this.#report = report;
  }

  /** @param now the time of the wall clock, in ms. */
  add(now: number, client: WebSocketClient, message: WebSocketMessage): void {
    if (HIDDEN_TYPES.has(message.type)) return;
    if (this.#messages.length >= MAX_MESSAGES) return void this.#skipped++;
    const { uid, accountability: { user } } = client;
    // Guarded, because an error of `redact` must not affect the handling of the message.
    guard(() => {
      const shown = this.#redact(message);
      if (shown === undefined) return;
      const tapped = { at: now, uid, user, type: message.type, message: redact(shown) };
      JSON.stringify(tapped); // A BigInt throws here instead of when the batch is sent.
      this.#messages.push(tapped);
    }, (error) => {
      this.#skipped++;
      this.#report(error);
    });
  }

  /** Returns what was recorded since the last call. */
  take(node: string): TapBatch {
    const batch = { node, messages: this.#messages, skipped: this.#skipped };
    this.#messages = [];
    this.#skipped = 0;
    return batch;
  }
}
