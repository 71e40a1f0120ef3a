import { type Backlog, KeptFrames } from "./backlog.ts";
import type { Channel } from "./channel.ts";
import type { ResolvedChannel } from "./channel-options.ts";
import type { HistoryPage, Position } from "../engines/engine.ts";
import { endingOf, type PublicationFrame } from "./publication-frame.ts";
import type { SubscriptionRequest } from "./saved-subscription.ts";
import { connectionOf, type WebSocketClient } from "../application/websocket-client.ts";

/** Size in bytes of the last `init` with a snapshot, by channel declaration. */
const snapshotBytes = new WeakMap<ResolvedChannel, number>();

/** Records the size of a snapshot as the estimate for the next one. */
export function expectBytes(options: ResolvedChannel, bytes: number): void {
  snapshotBytes.set(options, bytes);
}

/** Expected size of the next snapshot, in bytes; 0 before the first. */
export const expectedBytes = (options: ResolvedChannel): number => snapshotBytes.get(options) ?? 0;

/** Sends publications to one subscription in order, each once, and tracks the position that the client has reached. */
export class Feed {
  /** Position up to which the client has been sent everything. */
  at: Position | null = null;
  /** Whether a publication could not be kept, or may have been lost. */
  hasOverflowed = false;
  /** End of the JSON of each message, with the `uid`. */
  readonly ending: string;
  readonly #client: WebSocketClient;
  readonly #backlog: Backlog;
  readonly #event: string | undefined;
  /** Publications kept while none can be sent. */
  #kept: KeptFrames<PublicationFrame> | undefined;

  constructor(client: WebSocketClient, backlog: Backlog, { event, uid }: Pick<SubscriptionRequest, "event" | "uid">) {
    this.ending = endingOf(uid);
    this.#client = client;
    this.#backlog = backlog;
    this.#event = event;
  }

  /** Whether publications are kept instead of sent. */
  get isHeld(): boolean {
    return this.#kept !== undefined;
  }

  /** The oldest kept publication. */
  get first(): PublicationFrame | undefined {
    return this.#kept?.first;
  }

  /** Keeps publications from now on, and drops those kept so far. */
  hold(): void {
    this.release();
    this.#kept = new KeptFrames(this.#backlog);
    this.hasOverflowed = false;
  }

  /** Drops the kept publications and stops keeping. */
  release(): void {
    this.#kept?.clear();
    this.#kept = undefined;
  }

  shift(): void {
    this.#kept?.shift();
  }

  accepts({ event }: { readonly event: string }): boolean {
    return this.#event === undefined || event === this.#event;
  }

  /** Keeps the frame. Returns `false` if it or an earlier one did not fit: `at` must not pass a publication that was not sent. */
  keep(frame: PublicationFrame): boolean {
    if (!this.hasOverflowed && this.#kept?.push(frame)) return true;
    this.hasOverflowed = true;
    return false;
  }

  /** Records that everything up to the position was sent through a group. */
  advance(position: Position | null): void {
    if (position && (position.epoch !== this.at?.epoch || position.offset > this.at.offset)) this.at = position;
  }

  /** Sends one publication, unless it was sent before. Returns `false` if the client cannot receive it. */
  send(frame: PublicationFrame): boolean {
    const { position } = frame;
    if (position && this.at && position.epoch === this.at.epoch && position.offset <= this.at.offset) return true;
    if (!connectionOf(this.#client).send(frame.ending(this.ending))) return false;
    if (position) this.at = position;
    return true;
  }

  /** Sends as much of the page as there is room for. Returns `undefined` if the client cannot receive messages. */
  sendPage(
    { publications, position, hasMore }: HistoryPage,
    channel: Channel,
  ): { readonly isAllSent: boolean; readonly bytes: number } | undefined {
    let bytes = 0;
    for (const publication of publications) {
      if (!this.accepts(publication)) {
        this.at = publication.position;
        continue;
      }
      // Checked without a promise: one per publication took a third of a recovery on Bun.
      if (!this.#backlog.hasRoom) return { isAllSent: false, bytes };
      const frame = channel.frameOf(publication);
      if (!this.send(frame)) return undefined;
      bytes += frame.bytes;
    }
    if (!hasMore) this.at = position;
    return { isAllSent: true, bytes };
  }
}
