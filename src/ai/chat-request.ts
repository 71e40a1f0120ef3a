/** The fields of a `UIMessage` of the AI SDK that are used here. */
export interface ChatMessage {
  /** Unique in the chat. */
  id: string;
  /** Who wrote it. */
  role: "system" | "user" | "assistant";
  /** Texts, files, calls of tools and the like. */
  parts: { type: string }[];
}

/** A request of the chat: the payload of its message. */
export interface ChatRequest<Message extends ChatMessage = ChatMessage> {
  /** The chat, as given to `useChat`. */
  chatId: string;
  /** Why an answer is asked for. */
  trigger: "submit-message" | "regenerate-message";
  /** The message that is regenerated or sent again. */
  messageId?: string;
  /** The messages of the chat, the newest last. The shape is checked, the content of the parts is not. */
  messages: Message[];
  /** The option `body` of `sendMessage`. */
  body?: Record<string, unknown>;
  /** The option `metadata` of `sendMessage`. */
  metadata?: unknown;
}
