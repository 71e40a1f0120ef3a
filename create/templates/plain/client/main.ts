import type { Said } from "../src/contract.ts";
import { type ChatClient, createChatClient, STATUS } from "./chat-client.ts";

/** An element of index.html. */
function find<Element extends HTMLElement = HTMLElement>(id: string): Element {
  return document.getElementById(id) as Element; // Each is there, with that type.
}

const [login, composer] = [find<HTMLFormElement>("login"), find<HTMLFormElement>("composer")];
const [status, error, people, said] = [find("status"), find("error"), find("people"), find("said")];

login.addEventListener("submit", (event) => {
  event.preventDefault();
  start(createChatClient(new FormData(login).get("name") as string)); // A text input.
});

function start(client: ChatClient): void {
  login.hidden = true;
  said.hidden = composer.hidden = false;
  client.on("status", ({ status: now }) => status.textContent = STATUS[now]);
  client.on("error", ({ error }) => show(error));
  client.subscribe("chat", {
    // At first, and again after a gap.
    onInit: ({ data }) => said.replaceChildren(...data.map(draw)),
    onEvent({ data }) {
      said.append(draw(data));
      said.scrollTop = said.scrollHeight;
    },
    onPresence: ({ present }) => people.replaceChildren(...present.map(({ user }) => element("li", user))),
    onError: show,
  });
  composer.addEventListener("submit", async (event) => {
    event.preventDefault();
    const input = composer.elements.namedItem("text") as HTMLInputElement; // It is one.
    try {
      await client.request("say", { text: input.value }, { idempotent: true });
      input.value = "";
      show(undefined);
    } catch (error) {
      show(error); // The text stays, so that nothing is lost.
    }
  });
  composer.querySelector("input")?.focus();
}

function show(problem: unknown): void {
  error.hidden = problem === undefined;
  error.textContent = problem instanceof Error ? problem.message : String(problem ?? "");
}

function draw({ from, text, at }: Said): HTMLElement {
  const time = element("time", new Date(at).toLocaleTimeString());
  const item = element("li");
  item.append(element("b", from), " ", time, element("div", text));
  return item;
}

/** Text, never markup: others have written it. */
function element(tag: string, text = ""): HTMLElement {
  const made = document.createElement(tag);
  made.textContent = text;
  return made;
}
