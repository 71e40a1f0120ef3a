import { useChat } from "@ai-sdk/react";
import { type UIMessage } from "ai";
import { createClient } from "noroshi/client";
import { streams } from "noroshi/client/streams";
import { createChatTransport } from "noroshi/ai";
import { createElement as h, useEffect, useRef, useState } from "react";
import { createRoot } from "react-dom/client";

/** Kept in the browser, so that all its tabs are one user. */
const kept = (name: string) => localStorage[name] ??= crypto.randomUUID();
const chatId: string = kept("chat");

const client = createClient("/websocket", { token: kept("user"), streams });
const transport = createChatTransport<UIMessage>(client);
const loadHistory = () => client.request("history", { chatId }) as Promise<UIMessage[]>; // As chat.ts answers.

/** Of several nodes, the one that serves this page, and the one that writes the answer. `own` is known before the page is rendered. */
let nodes: { own?: string; writer?: string } = {};
let showNodes = (_nodes: typeof nodes) => {};
client.on("message", ({ message: { type, node } }) => {
  if (type === "welcome") nodes = { ...nodes, own: node as string }; // As chat.ts sends it, and below.
  if (type === "asked") nodes = { ...nodes, writer: node as string };
  showNodes(nodes);
});

const textOf = ({ parts }: UIMessage) => parts.map((part) => part.type === "text" ? part.text : "").join("");

function Chat({ initial }: { initial: UIMessage[] }) {
  const { messages, setMessages, sendMessage, resumeStream, stop, status, error } = useChat({
    id: chatId,
    messages: initial,
    transport,
    resume: true,
  });
  const [text, setText] = useState("");
  const [shown, setShown] = useState(nodes);
  const end = useRef<HTMLDivElement>(null);
  const isBusy = status === "submitted" || status === "streaming";

  useEffect(() => {
    showNodes = setShown;
    setShown(nodes);
  }, []);
  // Another tab has asked.
  useEffect(() => {
    const onMessage = async ({ message }: { message: { type: string; [name: string]: unknown } }) => {
      if (message.type !== "asked" || message["chatId"] !== chatId || isBusy) return;
      setMessages(await loadHistory());
      await resumeStream();
    };
    client.on("message", onMessage);
    return () => client.off("message", onMessage);
  }, [isBusy]);
  useEffect(() => void end.current?.scrollIntoView({ block: "end" }), [messages]);

  const send = (event: { preventDefault(): void }) => {
    event.preventDefault();
    if (text.trim() === "" || isBusy) return;
    void sendMessage({ text });
    setText("");
  };

  return h(
    "main",
    { "data-status": status, "data-node": shown.own, "data-writer": shown.writer },
    h("header", null, h("h1", null, "Ask the model"), h("p", null, shown.own ? `Served by ${shown.own}.` : "Reload in mid-answer, or open a second tab.")),
    h(
      "div",
      { className: "messages", role: "log", tabIndex: 0, "aria-label": "Messages" },
      messages.map((message) => h("p", { key: message.id, className: message.role }, textOf(message))),
      error && h("p", { className: "error", role: "alert" }, error.message),
      h("div", { ref: end }),
    ),
    h(
      "form",
      { onSubmit: send },
      h("input", {
        value: text,
        onChange: (event: { target: { value: string } }) => setText(event.target.value),
        placeholder: "Your question",
        "aria-label": "Your question",
        autoFocus: true,
      }),
      isBusy ? h("button", { type: "button", onClick: () => void stop() }, "Stop") : h("button", { type: "submit" }, "Send"),
    ),
  );
}

createRoot(document.getElementById("root")!).render(h(Chat, { initial: await loadHistory() })); // It is in index.html.
