/** A chat with a model, whose answers outlive the page that has asked for them. */
import { convertToModelMessages, generateId, type LanguageModel, streamText, type UIMessage } from "ai";
import { Hono } from "hono";
import { type Engine, WebSocketController, WebSocketService } from "noroshi";
import { handleChat } from "noroshi/ai";
import * as v from "valibot";

/** The messages of each chat: a database in an application. */
export interface Chats {
  get(key: string): UIMessage[] | undefined | Promise<UIMessage[] | undefined>;
  set(key: string, messages: UIMessage[]): unknown;
}

/** What several nodes share, and the name of this one. */
export interface ChatNode {
  readonly engine?: Engine;
  readonly chats?: Chats;
  readonly name?: string | undefined;
}

export function createChatApp(
  model: LanguageModel,
  { engine, chats = new Map<string, UIMessage[]>(), name }: ChatNode = {},
): { app: Hono; controller: WebSocketController } {
  // A browser is a user: it makes up a name that nobody guesses.
  const controller = new WebSocketController({
    ...(engine && { engine }),
    authenticate: (credentials) =>
      "access_token" in credentials && credentials.access_token.length >= 32
        ? { accountability: { user: credentials.access_token, role: null } }
        : null,
  });
  // The page shows which node serves it.
  new WebSocketService(controller).on("connect", ({ client }) => client.send({ type: "welcome", node: name }));

  handleChat<UIMessage>(controller, async function* ({ client, message: { chatId, messages }, signal }) {
    const user = client.accountability.user!; // There is no anonymous client.
    const key = `${user} ${chatId}`;
    await chats.set(key, messages);
    // Other tabs show the question, and attach to the answer.
    void controller.broadcast({ type: "asked", chatId, node: name }, { user });
    yield* streamText({ model, messages: await convertToModelMessages(messages), abortSignal: signal }).toUIMessageStream({
      originalMessages: messages,
      generateMessageId: generateId,
      onEnd: ({ messages }) => void chats.set(key, messages),
    });
    return undefined;
  });
  controller.handle("history", v.object({ chatId: v.string() }), async ({ client, message: { chatId } }) =>
    await chats.get(`${client.accountability.user} ${chatId}`) ?? []);
  const app = new Hono().get("/websocket", controller.upgrade);
  app.get("/healthz", (c) => c.text(controller.engine.status, controller.engine.status === "ready" ? 200 : 503));
  return { app, controller };
}
