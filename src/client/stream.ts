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
  /** For {@link Streaming.attach}. */
  id: string;
  /** The message type. */
  type: string;
  /** The name that the server has given it. */
  key?: string;
}

/** An answer in parts. Iterate over it: the server sends more as you read, and ends a stream that nobody reads. */
export interface ClientStream<Item = unknown, Result = unknown> extends AsyncIterable<Item> {
  /**
   * The result, once all items were sent. Ignoring it is safe.
   *
   * @throws {ClientError} the server's code, CANCELLED, SLOW_CONSUMER, DISCONNECTED, or another code of {@link BareClient.request}.
   */
  readonly result: Promise<Result>;
  /** The id of a resumable stream, for {@link Streaming.attach}; `undefined`: it is not resumable. Never rejects. */
  readonly id: Promise<string | undefined>;
  /** The number of the last item that was read, in a resumable stream; 0: none. */
  readonly offset: number;
  /** Asks the handler to stop, and ends the iteration. A `break` and `return()` do the same. */
  cancel(): void;
}

/** What `streams` needs of its client. */
export interface StreamsHost {
  /** Returns a new unique uid. */
  nextUid(): string;
  /** Sends a request, with a `uid` of its own unless one is given, and resolves with its answer. */
  request(
    type: string,
    payload: object | undefined,
    options?: { timeout: number; signal?: AbortSignal },
    uid?: string,
  ): Promise<WebSocketMessage>;
  /** Sends a text if the server accepts it now. Returns whether it is settled: sent, or refused with an error. */
  offer(text: string, refused: (error: ClientError) => void): boolean;
  /** Rejects a request that was not sent yet. Returns whether there is one. */
  drop(uid: string, error: unknown): boolean;
  /** Reports what cannot be thrown to anybody. */
  report(error: unknown): void;
}

/** What `streams` adds to a client: pass it as the option `streams`. */
export type StreamsFactory = (host: StreamsHost) => Streams;

/** The streams of one client. */
export interface Streams {
  /** The methods of the client. */
  readonly methods: object;
  /** Takes an item, or a message about the input. Returns whether it is of a stream. */
  receive(message: WebSocketMessage): boolean;
  /** Sends what the server accepts now. */
  flush(): void;
  /** The connection is lost. */
  lost(): void;
}

/** @throws {TypeError} for a client without streams, which only JavaScript can pass. */
export function checkStreams(client: object): void {
  if ("stream" in client) return;
  throw new TypeError('Cannot stream: pass createClient the option "streams", imported from noroshi/client/streams');
}
