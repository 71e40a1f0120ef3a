/** A chat with a model, whose answers outlive the page that has asked for them. */
import { convertToModelMessages, generateId, type LanguageModel, streamText, type UIMessage } from "ai";
import { Hono } from "hono";
import { WebSocketController } from "noroshi";
import { handleChat } from "noroshi/ai";
import * as v from "valibot";

export function createChatApp(model: LanguageModel): { app: Hono; controller: WebSocketController } {
  // A browser is a user: it makes up a name that nobody guesses.
  const controller = new WebSocketController({
    authenticate: (credentials) =>
      "access_token" in credentials && credentials.access_token.length >= 32
        ? { accountability: { user: credentials.access_token, role: null } }
        : null,
  });
  /** In memory: a database in an application. */
  const chats = new Map<string, UIMessage[]>();

  handleChat<UIMessage>(controller, async function* ({ client, message: { chatId, messages }, signal }) {
    const user = client.accountability.user!; // There is no anonymous client.
    const key = `${user} ${chatId}`;
    chats.set(key, messages);
    // Other tabs show the question, and attach to the answer.
    void controller.broadcast({ type: "asked", chatId }, { user });
    yield* streamText({ model, messages: await convertToModelMessages(messages), abortSignal: signal }).toUIMessageStream({
      originalMessages: messages,
      generateMessageId: generateId,
      onEnd: ({ messages }) => void chats.set(key, messages),
    });
    return undefined;
  });
  controller.handle("history", v.object({ chatId: v.string() }), ({ client, message: { chatId } }) =>
    chats.get(`${client.accountability.user} ${chatId}`) ?? []);
  return { app: new Hono().get("/websocket", controller.upgrade), controller };
}
