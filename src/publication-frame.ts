import type { Position, Publication } from "./engine.ts";
import type { MessageUid } from "./errors.ts";
import { EndedFrame, Frame } from "./frame.ts";

/** Ends that are looked for among those there are: clients of one kind begin with the same, and else each has its own. */
const MAX_SHARED = 64;

/** A message to the subscriptions of a channel: its body is encoded once, and only the `uid` at its end differs. */
export class ChannelFrame extends Frame {
  readonly #body: string;
  #withUid: Map<string, EndedFrame> | undefined;

  /** @param body a JSON object without its last brace. */
  constructor(body: string) {
    super(`${body}}`, true);
    this.#body = body;
  }

  /** The frame for subscriptions with this end; the same object for all that have one of the first ends. */
  ending(end: string): Frame {
    if (end === "") return this;
    this.#withUid ??= new Map();
    let frame = this.#withUid.get(end);
    if (frame) {
      frame.isShared = true;
      return frame;
    }
    frame = new EndedFrame(this, this.#body, end);
    if (this.#withUid.size < MAX_SHARED) this.#withUid.set(end, frame);
    return frame;
  }
}

/** How the messages of a subscription end. */
export const endingOf = (uid: MessageUid | undefined): string => uid === undefined ? "" : `,"uid":${JSON.stringify(uid)}}`;

/** A publication on its way to subscriptions. */
export class PublicationFrame extends ChannelFrame {
  readonly event: string;
  readonly position: Position | null;

  constructor(channel: string, { event, data, position }: Publication) {
    const offset = position ? `,"offset":${position.offset}` : "";
    super(`{"type":"subscription","event":${JSON.stringify(event)},"channel":"${channel}","data":${data}${offset}`);
    this.event = event;
    this.position = position;
  }
}
