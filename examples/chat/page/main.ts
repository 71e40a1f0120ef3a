import { createClient, type Subscription } from "noroshi/client";
import type { contract, Room, Said } from "../contract.ts";
import { createMessage, createPerson, find } from "./elements.ts";
import { logIn, logOut, whoAmI } from "./session.ts";

const STATUS = {
  connecting: "Connecting…",
  open: "Connected",
  waiting: "Connection lost. Trying again…",
  closed: "Disconnected",
};

const client = createClient<typeof contract>("/websocket", {
  lazy: true, // It connects when the page enters a room.
  renew: async () => await whoAmI() !== null,
});
const login = find<HTMLFormElement>("login");
const composer = find<HTMLFormElement>("composer");
const messages = find("messages");
let me = "";
let room: Room = "lobby";
let subscription: Pick<Subscription, "unsubscribe"> | undefined;
/** Of the message being written, also when it is sent again. */
let id = crypto.randomUUID();
let loggingOut: Promise<void> | undefined;

client.on("status", async ({ status }) => {
  find("status").textContent = STATUS[status];
  document.body.dataset.status = status;
  if (status !== "closed") return;
  // The server closes the connection first and then answers. Only its answer removes the cookie.
  await Promise.allSettled([loggingOut]);
  leave(); // Logged out here or elsewhere, or the session has ended.
});

function enter(user: string): void {
  me = user;
  find("me").textContent = user;
  document.body.dataset.view = "chat";
  client.connect();
  openRoom();
  find("text").focus();
}

function leave(): void {
  subscription?.unsubscribe();
  document.body.dataset.view = "login";
  find("user").focus();
}

function openRoom(): void {
  room = (location.hash.slice(1) || "lobby") as Room; // The server refuses any other.
  for (const link of document.querySelectorAll<HTMLAnchorElement>("#rooms a")) {
    link.ariaCurrent = link.hash === `#${room}` ? "page" : null;
  }
  find("room").textContent = room;
  messages.replaceChildren();
  find("people").replaceChildren();
  showError("");
  subscription?.unsubscribe();
  subscription = client.subscribe(`room:${room}`, {
    onInit({ data }) {
      messages.replaceChildren();
      data.forEach(show);
    },
    onEvent: ({ data }) => show(data),
    onPresence: ({ present }) =>
      find("people").replaceChildren(
        ...present.map(({ user }) => createPerson(user)),
      ),
    onError: ({ message }) => showError(message),
  });
}

function show(said: Said): void {
  if (document.getElementById(said.id)) return; // What is said while the snapshot is made may come twice.
  messages.append(createMessage(said, me));
}

function showError(message: string): void {
  find("error").textContent = message;
}

login.addEventListener("submit", async (event) => {
  event.preventDefault();
  const [user, password] = [
    find<HTMLInputElement>("user"),
    find<HTMLInputElement>("password"),
  ];
  find("login-error").textContent = "";
  try {
    const name = await logIn(user.value, password.value);
    login.reset();
    enter(name);
  } catch (error) {
    find("login-error").textContent = (error as Error).message; // Of fetch.
    password.select();
  }
});

composer.addEventListener("input", () => id = crypto.randomUUID());
composer.addEventListener("submit", async (event) => {
  event.preventDefault();
  const input = find<HTMLInputElement>("text");
  const text = input.value;
  input.value = "";
  showError("");
  try {
    await client.request("say", { id, room, text });
  } catch (error) {
    showError((error as Error).message); // Of the client.
    input.value ||= text;
  }
});

find("logout").addEventListener("click", async () => {
  loggingOut = logOut();
  try {
    await loggingOut;
    await client.close();
  } catch (error) {
    showError((error as Error).message); // Of fetch.
  }
});
addEventListener("hashchange", () => me && openRoom());

const user = await whoAmI().catch(() => null);
if (user === null) leave();
else enter(user);
