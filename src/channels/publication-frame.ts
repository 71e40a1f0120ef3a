import type { Position, Publication } from "../engines/engine.ts";
import type { MessageUid } from "../protocol/errors.ts";
import { Frame, SuffixedFrame } from "../protocol/frame.ts";

/** Maximum number of endings whose frame is shared. Clients of one program use the same first `uid`s; later ones rarely coincide. */
const MAX_SHARED = 64;

/** A message to the subscriptions of a channel. The body is encoded once; only the `uid` at the end differs. */
export class ChannelFrame extends Frame {
  readonly #body: string;
  #withUid: Map<string, SuffixedFrame> | undefined;

  /** @param body a JSON object without its last brace */
  constructor(body: string) {
    super(`${body}}`, true);
    this.#body = body;
  }

  /** The frame with this ending. The same object is returned again for the first {@link MAX_SHARED} endings. */
  ending(end: string): Frame {
    if (end === "") return this;
    this.#withUid ??= new Map();
    let frame = this.#withUid.get(end);
    if (frame) {
      frame.isShared = true;
      return frame;
    }
    frame = new SuffixedFrame(this, this.#body, end);
    if (this.#withUid.size < MAX_SHARED) this.#withUid.set(end, frame);
    return frame;
  }
}

/** The end of the JSON of each message to a subscription, with its `uid`. */
export const endingOf = (uid: MessageUid | undefined): string => uid === undefined ? "" : `,"uid":${JSON.stringify(uid)}}`;

/** An encoded publication. */
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
