import { PublicationFrame } from "../channels/publication-frame.ts";
import type { Position } from "../engines/engine.ts";
import { isFinal } from "../protocol/close.ts";
import type { Frame } from "../protocol/frame.ts";
import type { WebSocketMessage } from "../protocol/protocol.ts";
import { event, type EventFormat } from "./event-stream.ts";
import type { Answer } from "./request-transport.ts";

/** Minimum time until an `EventSource` reconnects after a close, in ms. */
const MIN_RETRY = 1_000;

/** Maximum time that a close reason may name, in ms, as in the client. */
const MAX_RETRY = 300_000;

/** What the stream of a channel reports. */
export interface ChannelListener {
  /** The channel has answered: `init`, a refusal, or the close of the connection. */
  answered(answer: Answer): void;
  /** The subscription has ended, so the connection is to be closed. */
  ended(code: string): void;
}

/** Encodes a subscription for clients that do not know the protocol, such as `EventSource`. */
export class ChannelFormat implements EventFormat {
  readonly #listener: ChannelListener;

  constructor(listener: ChannelListener) {
    this.#listener = listener;
  }

  opening(): string {
    return "";
  }

  message(frame: Frame): string {
    if (frame instanceof PublicationFrame) return publicationEvent(frame);
    if (!frame.isJson) return ""; // A broadcast to all clients.
    const message = JSON.parse(frame.text) as WebSocketMessage; // Encoded by the server.
    const { type, event: name } = message;
    if (type === "subscription" && name === "init") {
      this.#listener.answered({ message });
      const { epoch, offset, data, recovered } = message;
      return `${idOf(epoch ? { epoch, offset } as Position : null)}${event("init", { data, recovered })}`; // They come together.
    }
    if (type === "subscription" && name === "unsubscribe") {
      const { reason } = message;
      this.#listener.ended(String(reason));
      return event("unsubscribe", { reason });
    }
    if (type === "presence") return event("presence", { event: name, members: message["members"] });
    if (message["status"] !== "error") return "";
    if (type === "auth") this.#listener.ended("TOKEN_EXPIRED");
    this.#listener.answered({ message });
    return type === "server" ? event("server", message["error"]) : "";
  }

  /** A comment: it keeps the response alive in proxies, and nothing has to answer it. */
  ping(): string {
    return ":\n\n";
  }

  close(code: number, reason: string): string {
    this.#listener.answered({ close: { code, reason } });
    const named = Number(/\bretry=(\d+)/.exec(reason)?.[1] ?? 0); // PROTOCOL.md §6.
    return closeEvent(code, reason, Math.min(Math.max(named, MIN_RETRY), MAX_RETRY));
  }
}

/**
 * The last event of a stream.
 *
 * @param retryAfter minimum time until an `EventSource` reconnects, in ms. The maximum is four seconds more, or twice that.
 */
export function closeEvent(code: number, reason: string, retryAfter: number = MIN_RETRY): string {
  // Random, so that the clients of a draining node do not all reconnect at once.
  const spread = Math.max(retryAfter, 4 * MIN_RETRY) * Math.random();
  return `${isFinal(code) ? "" : `retry: ${retryAfter + Math.floor(spread)}\n`}${event("close", { code, reason })}`;
}

const idOf = (position: Position | null): string => position ? `id: ${position.epoch}:${position.offset}\n` : "";

/** Names of the stream's own events and of `EventSource`, and names that look escaped. */
const OWN = /^(?:~|(?:close|error|init|open|presence|server|unsubscribe)$)/;

/** The name of a publication in the stream. A line break would end the field; an own name would forge an event of the stream. */
const nameOf = (name: string): string => name.replaceAll(/[\r\n]/g, " ").replace(OWN, "~$&");

/** The key before the data of a publication. A name cannot contain it, because JSON escapes its quotes. */
const DATA = ',"data":';

/** Copies the data from the JSON of the frame. */
function publicationEvent({ text, event: name, position }: PublicationFrame): string {
  const end = position ? `,"offset":${position.offset}}`.length : 1;
  const data = text.slice(text.indexOf(DATA) + DATA.length, -end);
  return `${idOf(position)}event: ${nameOf(name)}\ndata: ${data}\n\n`;
}
