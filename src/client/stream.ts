import type { WebSocketMessage } from "../protocol/protocol.ts";
import type { ClientError } from "./error.ts";

/** Options of {@link Streaming.stream}. */
export interface StreamOptions<Input = unknown> {
  /** Cancels the stream when aborted. The iteration and the result then reject with its reason. */
  signal?: AbortSignal;
  /**
   * Sent to the handler item by item, as fast as the handler reads. The iteration ends when the handler stops reading or the
   * stream ends. An error that it throws ends the input; the stream then rejects with it, unless the handler answers anyway.
   */
  input?: AsyncIterable<Input>;
}

/** Options of {@link Streaming.attach}. */
export interface AttachOptions extends Pick<StreamOptions, "signal"> {
  /** The {@link ClientStream.offset} after which to begin. @default {0} */
  after?: number;
}

/** A running stream of the user. */
export interface StreamInfo {
  /** Id for {@link Streaming.attach}. */
  id: string;
  /** The message type. */
  type: string;
  /** The name that the server has given the stream. */
  key?: string;
}

/** An answer in parts. Iterate over it: the server sends as fast as you read, and ends a stream that nobody reads. */
export interface ClientStream<Item = unknown, Result = unknown> extends AsyncIterable<Item> {
  /**
   * Resolves with the result, after all items were sent. Ignoring it is safe.
   *
   * @throws {ClientError} the server's code, CANCELLED, SLOW_CONSUMER, DISCONNECTED, or another code of {@link BareClient.request}.
   */
  readonly result: Promise<Result>;
  /** The id of a resumable stream, for {@link Streaming.attach}; `undefined` if it is not resumable. Never rejects. */
  readonly id: Promise<string | undefined>;
  /** The number of the last item that was read from a resumable stream; 0 before the first. */
  readonly offset: number;
  /** Asks the handler to stop, and ends the iteration. A `break` and `return()` do the same. */
  cancel(): void;
}

/** What `streams` needs from its client. */
export interface StreamsHost {
  /** Returns a new unique uid. */
  nextUid(): string;
  /** Sends a request and resolves with its answer. @param uid @default a new one */
  request(
    type: string,
    payload: object | undefined,
    options?: { timeout: number; signal?: AbortSignal },
    uid?: string,
  ): Promise<WebSocketMessage>;
  /** Sends a text if the server accepts it now. Returns whether it was sent, or refused with an error. */
  offer(text: string, refused: (error: ClientError) => void): boolean;
  /** Rejects a request that was not sent yet. Returns whether there was one. */
  drop(uid: string, error: unknown): boolean;
  /** Reports an error that no caller can receive. */
  report(error: unknown): void;
}

/** Type of the option `streams` of a client. */
export type StreamsFactory = (host: StreamsHost) => Streams;

/** The streams of one client. */
export interface Streams {
  /** The methods of the client. */
  readonly methods: object;
  /** Handles a message if it belongs to a stream. Returns whether it did. */
  receive(message: WebSocketMessage): boolean;
  /** Sends as many waiting messages as the server accepts now. */
  flush(): void;
  /** Called when the connection is lost. */
  lost(): void;
}

/** @throws {TypeError} for a client without streams, which a caller without types may pass. */
export function checkStreams(client: object): void {
  if ("stream" in client) return;
  throw new TypeError('Cannot stream: pass createClient the option "streams", imported from noroshi/client/streams');
}
