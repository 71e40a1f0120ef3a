import { type Backlog, Kept } from "./backlog.ts";
import type { Channel } from "./channel.ts";
import type { ResolvedChannel } from "./channel-options.ts";
import type { HistoryPage, Position } from "./engine.ts";
import { endingOf, type PublicationFrame } from "./publication-frame.ts";
import type { SubscriptionRequest } from "./saved-subscription.ts";
import { connectionOf, type WebSocketClient } from "./websocket-client.ts";

/** Bytes of the last snapshot of the channels that were declared so. */
const snapshotBytes = new WeakMap<ResolvedChannel, number>();

export function expectBytes(options: ResolvedChannel, bytes: number): void {
  snapshotBytes.set(options, bytes);
}

/** How much the next one will have, about. */
export const expectedBytes = (options: ResolvedChannel): number => snapshotBytes.get(options) ?? 0;

/** The publications that one subscription is sent: in order, each once, and how far the client has been sent them. */
export class Feed {
  /** Up to here the client has been sent everything. */
  at: Position | null = null;
  /** It was not sent something that is in the history. */
  isBehind = false;
  /** More came than is kept, or something may have been lost. */
  hasOverflowed = false;
  /** How the messages of the subscription end. */
  readonly ending: string;
  readonly #client: WebSocketClient;
  readonly #backlog: Backlog;
  readonly #event: string | undefined;
  /** What was published while nothing can be sent. */
  #kept: Kept<PublicationFrame> | undefined;

  constructor(client: WebSocketClient, backlog: Backlog, { event, uid }: Pick<SubscriptionRequest, "event" | "uid">) {
    this.ending = endingOf(uid);
    this.#client = client;
    this.#backlog = backlog;
    this.#event = event;
  }

  /** Whether what is published is kept, and not sent at once. */
  get isHeld(): boolean {
    return this.#kept !== undefined;
  }

  /** The first that is kept. */
  get first(): PublicationFrame | undefined {
    return this.#kept?.first;
  }

  /** Keeps what is published from now on. */
  hold(): void {
    this.release();
    this.#kept = new Kept(this.#backlog);
    this.hasOverflowed = false;
  }

  /** Forgets what is kept; what is published from now on is sent, or it is behind. */
  release(): void {
    this.#kept?.clear();
    this.#kept = undefined;
  }

  shift(): void {
    this.#kept?.shift();
  }

  takes({ event }: { readonly event: string }): boolean {
    return this.#event === undefined || event === this.#event;
  }

  /** Keeps the frame; `false` when there is no room for it. */
  keep(frame: PublicationFrame): boolean {
    if (this.#kept?.push(frame)) return true;
    this.hasOverflowed = true;
    return false;
  }

  /** Everything up to the position was sent in another way. */
  advance(position: Position | null): void {
    if (position && (position.epoch !== this.at?.epoch || position.offset > this.at.offset)) this.at = position;
  }

  /** Sends one publication, unless it was. */
  send(frame: PublicationFrame): boolean {
    const { position } = frame;
    if (position && this.at && position.epoch === this.at.epoch && position.offset <= this.at.offset) return true;
    if (!connectionOf(this.#client).send(frame.ending(this.ending))) return false;
    if (position) this.at = position;
    return true;
  }

  /** Sends as much of the page as there is room for. Whether that was all; `undefined` when the client cannot be sent to. */
  sendPage({ publications }: HistoryPage, channel: Channel): { readonly isWhole: boolean; readonly bytes: number } | undefined {
    let bytes = 0;
    for (const publication of publications) {
      if (!this.takes(publication)) this.at = publication.position;
      // Looked at before each: a promise for each took a third of a recovery on Bun.
      else if (!this.#backlog.hasRoom) return { isWhole: false, bytes };
      else if (!this.send(channel.frameOf(publication))) return undefined;
      bytes += publication.data.length;
    }
    return { isWhole: true, bytes };
  }
}
