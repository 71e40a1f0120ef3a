import type { BareClient } from "../client/client.ts";
import { checkStreams, type ClientStream } from "../client/stream.ts";
import type { Streaming } from "../client/streams.ts";
import type { ChatMessage, ChatRequest } from "./chat-request.ts";

/** Options of {@link createChatTransport}. */
export interface ChatTransportOptions<Message extends ChatMessage = ChatMessage> {
  /** The message type that {@link handleChat} answers. @default {"chat"} */
  type?: string;
  /** Changes what is sent, such as to the newest message only. @default {(request) => request} */
  prepare?: (request: ChatRequest<Message>) => ChatRequest<Message> | Promise<ChatRequest<Message>>;
  /** Closes the client with the transport. @default {false} */
  closesClient?: boolean;
}

/** The options of the AI SDK that both methods take. */
export interface ChatRequestOptions {
  /** The id of the chat. */
  chatId: string;
  /** Stops the answer when it is aborted. */
  abortSignal?: AbortSignal | undefined;
  /** Must be empty: messages have no headers. */
  headers?: Record<string, string> | Headers | undefined;
  /** Fields for the handler. */
  body?: object | undefined;
  /** Sent to the handler as it is. */
  metadata?: unknown;
}

/** A `ChatTransport` of the AI SDK. */
export interface NoroshiChatTransport<Message extends ChatMessage = ChatMessage> {
  /** An answer is resumed from its beginning. */
  readonly resumeStreamIsReplay: true;
  /** Asks for an answer. The chunks are those of the AI SDK, whose types are not known here. */
  sendMessages(
    options: ChatRequestOptions & {
      trigger: "submit-message" | "regenerate-message";
      messageId: string | undefined;
      messages: Message[];
      abortSignal: AbortSignal | undefined;
    },
  ): Promise<ReadableStream<never>>;
  /** Finds the running answer of a chat; `null`: none. */
  reconnectToStream(options: ChatRequestOptions): Promise<ReadableStream<never> | null>;
  /** Closes the client, with the option `closesClient`. */
  close(): void;
}

/**
 * Creates a `ChatTransport` for `useChat` over the connection of a client. `resume` and `resumeStream` find the running answer of a chat
 * again, after a reload or in another tab. For that the user must be logged in. The client needs the option `streams`.
 *
 * It sends no headers, because messages have none: pass `body` instead.
 *
 * @throws {TypeError} for a client without streams.
 */
export function createChatTransport<Message extends ChatMessage = ChatMessage, C = unknown>(
  client: BareClient<C> & Streaming<C>,
  { type = "chat", prepare = (request) => request, closesClient = false }: ChatTransportOptions<Message> = {},
): NoroshiChatTransport<Message> {
  checkStreams(client);
  const bare = client as unknown as Streaming; // The contract exists in types only.
  /** Of each chat, the last reconnect. */
  const latest = new Map<string, object>();

  return {
    resumeStreamIsReplay: true,
    async sendMessages({ chatId, trigger, messageId, messages, abortSignal, headers, body, metadata }) {
      checkHeaders(headers);
      const request = await prepare({
        ...{ chatId, trigger, messages },
        ...(messageId !== undefined && { messageId }),
        ...(body && { body: body as Record<string, unknown> }), // An object is one.
        ...(metadata !== undefined && { metadata }),
      });
      abortSignal?.throwIfAborted();
      const stream = bare.stream(type, { ...request }, abortSignal && { signal: abortSignal });
      return readableOf(stream, () => stream.cancel());
    },
    async reconnectToStream({ chatId, abortSignal, headers }) {
      checkHeaders(headers);
      const own = {};
      latest.set(chatId, own);
      const running = (await bare.streams()).filter((stream) => stream.type === type && stream.key === chatId).at(-1);
      abortSignal?.throwIfAborted();
      if (!running) return null;
      const stream = bare.attach(running.id);
      const end = async () => {
        await null;
        // A reconnect aborts the earlier one. That must not stop the model.
        if (latest.get(chatId) === own) stream.cancel();
      };
      abortSignal?.addEventListener("abort", end, { once: true });
      const ended = () => {
        abortSignal?.removeEventListener("abort", end);
        if (latest.get(chatId) === own) latest.delete(chatId);
      };
      stream.result.then(ended, ended);
      return readableOf(stream, end);
    },
    close() {
      if (closesClient) void client.close();
    },
  };
}

function checkHeaders(headers: object | undefined): void {
  const isEmpty = !headers || (headers instanceof Headers ? [...headers.keys()] : Object.keys(headers)).length === 0;
  if (!isEmpty) throw new TypeError("Cannot send headers: messages have none, pass body instead");
}

/** @param cancel called when nobody reads it any more. */
function readableOf(stream: ClientStream, cancel: () => unknown): ReadableStream<never> {
  const iterator = stream[Symbol.asyncIterator]();
  return new ReadableStream<never>({
    async pull(controller) {
      const { done, value } = await iterator.next();
      if (done) controller.close();
      else controller.enqueue(value as never); // What the server's handler answers.
    },
    cancel: async () => {
      await cancel();
    },
  }, { highWaterMark: 0 }); // Reads nothing ahead: a read returns credit to the server.
}
