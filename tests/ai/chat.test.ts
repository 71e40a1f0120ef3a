/** The chat of the AI SDK, with its own model for tests, over clients in memory. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { Chat } from "@ai-sdk/react";
import { convertToModelMessages, streamText, type UIMessage } from "ai";
import { MockLanguageModelV4 } from "ai/test";
import { WebSocketController } from "../../mod.ts";
import { createChatTransport, handleChat } from "../../src/ai/ai.ts";
import { mergeChunks } from "../../src/ai/merge-chunks.ts";
import { createClient } from "../../src/client/client.ts";
import { ClientError } from "../../src/client/error.ts";
import { testkit } from "../../src/testing/testkit.ts";

type Model = ConstructorParameters<typeof MockLanguageModelV4>[0] & object;
type Part = Awaited<ReturnType<Extract<Model["doStream"], (...options: never[]) => unknown>>>["stream"] extends
  ReadableStream<infer Part> ? Part : never;

/** An app whose model writes what the test says, when it says so. */
function create() {
  const controller = new WebSocketController({
    mode: "public",
    authenticate: (credentials) =>
      "access_token" in credentials ? { accountability: { user: credentials.access_token, role: null } } : null,
  });
  const calls: { prompt: unknown; aborted: Promise<unknown> }[] = [];
  let parts!: ReadableStreamDefaultController<Part>;
  let wake = () => {};
  const model = new MockLanguageModelV4({
    doStream: ({ prompt, abortSignal }) => {
      const aborted = new Promise((resolve) => abortSignal?.addEventListener("abort", () => resolve(abortSignal.reason.code)));
      calls.push({ prompt, aborted });
      const stream = new ReadableStream<Part>({ start: (controller) => void (parts = controller) });
      parts.enqueue({ type: "stream-start", warnings: [] });
      parts.enqueue({ type: "text-start", id: "t" });
      wake();
      return Promise.resolve({ stream });
    },
  });
  handleChat<UIMessage>(
    controller,
    async ({ message, signal }) =>
      streamText({ model, messages: await convertToModelMessages(message.messages), abortSignal: signal })
        .toUIMessageStream({ generateMessageId: () => `answer-${calls.length}` }),
  );
  const t = testkit(controller);
  return {
    t,
    calls,
    /** Resolves when the model was asked so many times. */
    async asked(count = 1): Promise<void> {
      while (calls.length < count) await new Promise<void>((resolve) => wake = resolve);
    },
    write: (delta: string) => parts.enqueue({ type: "text-delta", id: "t", delta }),
    end() {
      parts.enqueue({ type: "text-end", id: "t" });
      parts.enqueue({
        type: "finish",
        finishReason: { unified: "stop", raw: undefined },
        usage: {
          inputTokens: { total: 1, noCache: 1, cacheRead: undefined, cacheWrite: undefined },
          outputTokens: { total: 1, text: 1, reasoning: undefined },
        },
      });
      parts.close();
    },
    /** A page of a user with the chat "garden" open. */
    async open(token = "ann", messages: UIMessage[] = []) {
      const client = await t.connect({ token });
      const chat = new Chat({ id: "garden", transport: createChatTransport(client), messages });
      return { client, chat };
    },
  };
}

const textOf = (chat: Chat<UIMessage>): string =>
  chat.messages.at(-1)?.parts.map((part) => part.type === "text" ? part.text : "").join("") ?? "";

/** Resolves when the newest message is that text. */
const shows = (chat: Chat<UIMessage>, text: string): Promise<void> =>
  new Promise((resolve) => {
    const stop = chat["~registerMessagesCallback"](() => {
      if (textOf(chat) !== text) return;
      stop();
      resolve();
    });
    if (textOf(chat) === text) resolve();
  });

const question: UIMessage = { id: "q", role: "user", parts: [{ type: "text", text: "Is it raining?" }] };

describe("createChatTransport and handleChat", () => {
  it("stream an answer as the model writes it, to its end", async () => {
    const { t, open, asked, write, end, calls } = create();
    const { chat } = await open();
    const sent = chat.sendMessage({ text: "Is it raining?" });
    await asked();
    assert.match(JSON.stringify(calls[0]?.prompt), /Is it raining\?/);
    write("It ");
    await shows(chat, "It ");
    assert.equal(chat.status, "streaming");
    write("rains.");
    end();
    await sent;
    assert.deepEqual([textOf(chat), chat.status, chat.messages.length], ["It rains.", "ready", 2]);
    await t.close();
  });

  it("stop the model when the user stops the answer", async () => {
    const { t, open, asked, write, calls } = create();
    const { chat } = await open();
    void chat.sendMessage({ text: "Is it raining?" });
    await asked();
    write("It ");
    await shows(chat, "It ");
    await chat.stop();
    assert.equal(await calls[0]?.aborted, "CANCELLED");
    assert.deepEqual([textOf(chat), chat.status], ["It ", "ready"]);
    await t.close();
  });

  it("go on after a reload in mid-answer, with what was written first", async () => {
    const { t, open, asked, write, end, calls } = create();
    const before = await open();
    void before.chat.sendMessage({ text: "Is it raining?" });
    await asked();
    for (const word of ["It ", "is ", "still "]) write(word);
    await shows(before.chat, "It is still ");
    await before.client.close();
    const { chat } = await open("ann", [question]);
    const resumed = chat.resumeStream();
    await shows(chat, "It is still ");
    write("raining.");
    end();
    await resumed;
    assert.deepEqual([textOf(chat), chat.messages.length, calls.length], ["It is still raining.", 2, 1]);
    await t.close();
  });

  it("show the same answer in a second tab, which may stop it", async () => {
    const { t, open, asked, write, calls } = create();
    const first = await open();
    const sent = first.chat.sendMessage({ text: "Is it raining?" });
    await asked();
    write("It ");
    const second = await open("ann", [question]);
    void second.chat.resumeStream();
    await shows(second.chat, "It ");
    // A page that becomes visible resumes again.
    void second.chat.resumeStream();
    for (const _ of "ab") assert.equal((await second.client.streams()).length, 1);
    write("is ");
    await Promise.all([shows(first.chat, "It is "), shows(second.chat, "It is ")]);
    await second.chat.stop();
    assert.equal(await calls[0]?.aborted, "CANCELLED");
    await sent;
    assert.notEqual(first.chat.status, "streaming");
    await t.close();
  });

  it("go on after a lost connection, without a word from the application", async () => {
    const { t, open, asked, write, end } = create();
    const { client, chat } = await open();
    const sent = chat.sendMessage({ text: "Is it raining?" });
    await asked();
    write("It ");
    await shows(chat, "It ");
    t.cut(client);
    write("rains.");
    end();
    await t.advance(10_000);
    await sent;
    assert.deepEqual([textOf(chat), chat.status], ["It rains.", "ready"]);
    await t.close();
  });

  it("find no answer of another user, of another chat, or of none", async () => {
    const { t, open, asked } = create();
    const { client, chat } = await open();
    void chat.sendMessage({ text: "Is it raining?" });
    await asked();
    const other = await open("ben");
    const find = (of: typeof client, chatId: string) => createChatTransport(of).reconnectToStream({ chatId });
    assert.equal(await find(other.client, "garden"), null);
    assert.equal(await find(client, "harbour"), null);
    assert.notEqual(await find(client, "garden"), null);
    await t.close();
  });

  it("refuse a request with a wrong shape, and a wrong option", async () => {
    const { t, open } = create();
    const { client } = await open();
    const request = { chatId: "garden", trigger: "submit-message", messages: [question] };
    for (
      const [change, path] of [[{ chatId: "" }, "chatId"], [{ messages: [{}] }, "messages.0.id"], [
        { trigger: 1 },
        "trigger",
      ]] as const
    ) {
      await assert.rejects(client.stream("chat", { ...request, ...change }).result, (error: ClientError) => {
        assert.deepEqual([error.code, error.details["path"]], ["INVALID_PAYLOAD", path]);
        return true;
      });
    }
    assert.throws(() => handleChat(new WebSocketController(), () => new ReadableStream(), { ttl: -1 }), TypeError);
    assert.throws(() => handleChat(new WebSocketController(), 1 as never), /^TypeError: .*must be a function/);
    await t.close();
  });
});

describe("createChatTransport", () => {
  const send = { chatId: "garden", trigger: "submit-message", messageId: undefined, abortSignal: undefined } as const;

  it("sends what prepare makes of the request, and no headers", async () => {
    const { t, open, asked, calls } = create();
    const { client } = await open();
    const transport = createChatTransport(client, {
      prepare: ({ messages, ...rest }) => ({ ...rest, messages: messages.slice(-1) }),
    });
    await transport.sendMessages({ ...send, messages: [{ ...question, id: "0" }, question], body: { place: "garden" } });
    await asked();
    assert.equal(JSON.stringify(calls[0]?.prompt).split("raining").length, 2);
    for (const headers of [{ a: "b" }, new Headers({ a: "b" })]) {
      await assert.rejects(transport.sendMessages({ ...send, messages: [question], headers }), TypeError);
      await assert.rejects(transport.reconnectToStream({ chatId: "garden", headers }), TypeError);
    }
    await t.close();
  });

  it("leaves nothing at the signal of an answer that has ended", async () => {
    const { t, open, asked, end } = create();
    const { client, chat } = await open();
    const sent = chat.sendMessage({ text: "Is it raining?" });
    await asked();
    const { signal } = new AbortController();
    let listeners = 0;
    const counted = (method: "addEventListener" | "removeEventListener", count: number) => {
      const original: (...args: unknown[]) => void = signal[method].bind(signal) as never; // Called as it was.
      signal[method] = (...args: unknown[]) => {
        listeners += count;
        original(...args);
      };
    };
    counted("addEventListener", 1);
    counted("removeEventListener", -1);
    const answer = await createChatTransport(client).reconnectToStream({ chatId: "garden", abortSignal: signal });
    assert.equal(listeners, 1);
    end();
    for await (const _ of answer!);
    await sent;
    await t.advance(0);
    assert.equal(listeners, 0);
    await t.close();
  });

  it("says what a client without streams needs", () => {
    const client = createClient("ws://localhost", { lazy: true, WebSocket: class {} as never });
    // @ts-expect-error -- it has no streams
    assert.throws(() => createChatTransport(client), { name: "TypeError", message: /noroshi\/client\/streams$/ });
  });

  it("closes the client with closesClient, and not without it", async () => {
    const { t, open } = create();
    const { client } = await open();
    createChatTransport(client).close?.();
    assert.equal(client.status, "open");
    createChatTransport(client, { closesClient: true }).close?.();
    assert.equal(client.status, "closed");
    await t.close();
  });
});

describe("mergeChunks", () => {
  it("joins consecutive pieces of one text, reasoning and tool input, and nothing else", () => {
    const text = (id: string, delta: string) => ({ type: "text-delta", id, delta }) as const;
    const reasoning = (id: string, delta: string) => ({ type: "reasoning-delta", id, delta }) as const;
    const input = (toolCallId: string, inputTextDelta: string) =>
      ({ type: "tool-input-delta", toolCallId, inputTextDelta }) as const;
    const marked = { ...text("a", "!"), providerMetadata: { some: { mark: 1 } } };
    assert.deepEqual(
      mergeChunks([
        ...[text("a", "1"), text("a", "2"), text("a", "3"), text("b", "4"), reasoning("b", "5"), reasoning("b", "6")],
        ...[input("a", "7"), input("a", "8"), input("b", "9"), text("a", "0"), marked, text("a", "1")],
      ]),
      [
        ...[text("a", "123"), text("b", "4"), reasoning("b", "56"), input("a", "78"), input("b", "9")],
        ...[text("a", "0"), marked, text("a", "1")],
      ],
    );
  });
});
