/**
 * `noroshi/ai`: the chat of the AI SDK over the open connection. It imports nothing of the package `ai`, whose version 7 it fits.
 *
 * @example
 * ```ts
 * import { WebSocketController } from "noroshi";
 * import { handleChat } from "noroshi/ai";
 * import { convertToModelMessages, streamText, type UIMessage } from "ai";
 *
 * handleChat<UIMessage>(new WebSocketController(), async ({ message, signal }) =>
 *   streamText({ model, messages: await convertToModelMessages(message.messages), abortSignal: signal }).toUIMessageStream());
 * ```
 *
 * @example
 * ```tsx
 * import { useChat } from "@ai-sdk/react";
 * import { createChatTransport } from "noroshi/ai";
 * import { createClient } from "noroshi/client";
 * import { streams } from "noroshi/client/streams";
 *
 * const transport = createChatTransport(createClient("/websocket", { streams }));
 * const { messages, sendMessage, stop } = useChat({ id, transport, resume: true });
 * ```
 *
 * @module
 */
import * as v from "valibot";
import type { HandlerContext, Streamed } from "../application/call.ts";
import type { WebSocketController } from "../controller/controller.ts";
import type { ResumableOptions } from "../streams/resumable-options.ts";
import type { ChatMessage, ChatRequest } from "./chat-request.ts";
import { type Chunk, mergeChunks } from "./merge-chunks.ts";

export {
  type ChatRequestOptions,
  type ChatTransportOptions,
  createChatTransport,
  type NoroshiChatTransport,
} from "./chat-transport.ts";
export type { ChatMessage, ChatRequest } from "./chat-request.ts";

/**
 * Answers a request of the chat, with `streamText(…).toUIMessageStream()` or another stream of its chunks. Pass the `signal` on as
 * `abortSignal`: it aborts when the user stops the answer, and not when the connection is lost.
 */
export type ChatHandler<Message extends ChatMessage = ChatMessage> = (
  context: HandlerContext<ChatRequest<Message>>,
) => Streamed<object, undefined> | Promise<Streamed<object, undefined>>;

/** Options of {@link handleChat}. */
export interface ChatOptions extends Pick<ResumableOptions, "ttl" | "size" | "authorize"> {
  /** The message type of the requests. @default {"chat"} */
  type?: string;
}

/**
 * Answers the chats of {@link createChatTransport}. An answer goes on when its connection is lost: a client that returns gets the
 * rest, a reloaded page or another tab of the user gets all of it.
 *
 * @throws {TypeError} for a type that already has a handler, or an invalid option.
 */
export function handleChat<Message extends ChatMessage = ChatMessage>(
  controller: WebSocketController,
  handler: ChatHandler<Message>,
  { type = "chat", ...options }: ChatOptions = {},
): void {
  // The schema checks the shape only: the application declares the type of the content.
  controller.handle(type, requestSchema() as v.GenericSchema<unknown, ChatRequest<Message>>, handler, {
    resumable: {
      ...options,
      key: ({ message }) => message.chatId,
      // The items are what the handler has answered.
      merge: (items) => mergeChunks(items as Chunk[]),
    },
  });
}

// Made when it is needed: a page that imports the transport does not load it.
const requestSchema = () =>
  v.object({
    chatId: v.pipe(v.string(), v.minLength(1), v.maxLength(128)),
    trigger: v.picklist(["submit-message", "regenerate-message"]),
    messageId: v.optional(v.string()),
    messages: v.array(v.looseObject({
      id: v.string(),
      role: v.picklist(["system", "user", "assistant"]),
      parts: v.array(v.looseObject({ type: v.string() })),
    })),
    body: v.optional(v.record(v.string(), v.unknown())),
    metadata: v.optional(v.unknown()),
  });
