import { element, fire, message } from "./elements.js";
import { Nodes } from "./nodes.js";
import { Ridge } from "./ridge.js";
import { Room } from "./room.js";
// @ts-ignore -- Built on request (../build-client.ts), so there need not be a file.
import { createClient, withFallback } from "./client.js";

const DESKS = { editor: "Editors", reporter: "Reporters", reader: "Readers" };
const MAX_TEXT = 500;
const KEPT = 200;

const root = document.documentElement;
const at = (id) => document.getElementById(id);
const ui = {
  status: at("status-text"),
  countdown: at("countdown"),
  retry: at("retry"),
  network: at("network"),
  account: at("account"),
  accountName: at("account-name"),
  accountRole: at("account-role"),
  inspector: at("inspector"),
  signOut: at("sign-out"),
  beacons: at("beacons"),
  login: at("login"),
  loginForm: at("login-form"),
  loginError: at("login-error"),
  accounts: at("accounts"),
  user: at("user"),
  password: at("password"),
  newsroom: at("newsroom"),
  composer: at("composer"),
  composerError: at("composer-error"),
  text: at("text"),
  to: at("to"),
  note: at("note"),
  count: at("count"),
  send: at("send"),
  people: at("people"),
  peopleTitle: at("people-title"),
  peopleCount: at("people-count"),
  places: at("places"),
  title: at("wire-title"),
  wireLog: at("wire-log"),
  news: at("news"),
  empty: at("empty"),
  roomLog: at("room-log"),
  said: at("said"),
  roomEmpty: at("room-empty"),
  roomError: at("room-error"),
  toPlace: at("to-place"),
};

function showError(place, error) {
  place.hidden = !error;
  place.replaceChildren(...(error ? [element("code", { text: error.code }), ` ${error.message}`] : []));
}

let accounts = [];
let rooms = [];
let hasInspector = false;
let account = null;
let isOffline = false;
let wire = null;
let ridge = null;
const nodes = new Nodes(at("nodes"), at("node-list"), () => wire.send({ type: "kill" }));
/** Where the reader is: a room, or at the wire. */
let place = null;
let room = null;
let people = [];
let members = [];
let known = new Set();
let sending = false;
let unread = 0;
/** What came over the wire while a room was open. */
let passed = 0;
let ticking;

// Signing in and out

/** The tab keeps its own token, so that another tab can be somebody else. */
const kept = {
  read: () => JSON.parse(sessionStorage.getItem("newsroom") ?? "null"),
  write: (value) => sessionStorage.setItem("newsroom", JSON.stringify(value)),
  clear: () => sessionStorage.removeItem("newsroom"),
};

async function askServer(path, body) {
  let response;
  try {
    response = await fetch(
      path,
      body && { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) },
    );
  } catch {
    throw { code: "UNREACHABLE", message: "The server cannot be reached" };
  }
  const answer = await response.json();
  if (!response.ok) throw answer.error;
  return answer;
}

async function signIn(event) {
  event.preventDefault();
  showError(ui.loginError, null);
  try {
    const signedIn = await askServer("/login", { user: ui.user.value, password: ui.password.value });
    kept.write(signedIn);
    ui.loginForm.reset();
    enter(signedIn);
    ui.text.focus();
  } catch (error) {
    showError(ui.loginError, error);
    ui.password.select();
  }
}

function enter(signedIn) {
  account = signedIn.account;
  ui.accountName.textContent = account.name;
  ui.accountRole.textContent = account.role;
  ui.accountRole.dataset.role = account.role;
  ui.inspector.hidden = !hasInspector || account.role !== "editor";
  ui.to.replaceChildren(...recipients());
  // Readers write to the editors; that nobody else is reached is the server's to say.
  ui.to.value = account.role === "reader" ? "role:editor" : "";
  show("newsroom");
  wire = connect(signedIn.access_token);
  enterPlace();
}

function connect(token) {
  const client = createClient("/websocket", { token, backoff: { cap: 20_000 }, WebSocket: SwitchedSocket });
  client.on("status", ({ status }) => {
    if (client === wire) showStatus(status === "open" ? "live" : status);
  });
  client.on("reconnecting", ({ delay }) => showStatus("waiting", Date.now() + delay));
  client.on("message", ({ message }) => receive(message));
  client.on("error", ({ error }) => {
    if (client.status === "open") showError(ui.composerError, error);
  });
  client.on("close", ({ isFinal }) => {
    // Who signs out has said so already.
    if (isFinal && client === wire) leave(client.error);
  });
  showStatus(client.status);
  return client;
}

/** Back to the form, with nothing left of who was here. */
function leave(error) {
  const left = wire;
  room?.close();
  wire =
    account =
    place =
    room =
      null;
  left.close();
  // The cookie of the inspector is not for scripts. Without the server it stays until the next login.
  fetch("/login", { method: "DELETE", keepalive: true }).catch(() => {});
  setOffline(false);
  kept.clear();
  known = new Set();
  passed = 0;
  ui.news.replaceChildren();
  ui.empty.hidden = false;
  ui.composer.reset();
  ui.note.textContent = "";
  showError(ui.composerError, null);
  people = members = [];
  nodes.clear();
  showPeople();
  showStatus("signed-out");
  show("login");
  showError(ui.loginError, error);
  ui.user.focus();
}

function show(view) {
  root.dataset.view = view;
  ui.login.hidden = view !== "login";
  ui.newsroom.hidden = ui.account.hidden = view === "login";
}

function recipients() {
  const group = (label, options) => element("optgroup", { label }, ...options);
  const option = (value, text) => element("option", { value, text });
  const others = accounts.filter(({ user }) => user !== account.user);
  return [
    option("", "Everybody"),
    group("A desk", Object.entries(DESKS).map(([role, name]) => option(`role:${role}`, name))),
    group("A person", others.map(({ user, name }) => option(`user:${user}`, name))),
  ];
}

function showAccounts() {
  ui.accounts.replaceChildren(...accounts.map(({ user, name, role, password }) => {
    const button = element(
      "button",
      { type: "button" },
      element("b", { text: name }),
      " ",
      element("span", { className: "role", text: role, "data-role": role }),
      " ",
      element("code", { text: `${user} / ${password}` }),
    );
    button.addEventListener("click", () => {
      ui.user.value = user;
      ui.password.value = password;
      ui.loginForm.elements[2].focus();
    });
    return element("li", {}, button);
  }));
  ridge = new Ridge(ui.beacons, accounts);
}

// The connection

const STATUS = { "signed-out": "Not signed in", connecting: "Connecting", live: "Live", waiting: "Connection lost" };

function showStatus(status, retryAt) {
  root.dataset.status = status;
  const offline = status === "waiting" && (isOffline || !navigator.onLine);
  // Who comes back may be served by another node, which has yet to say so.
  if (status !== "live") nodes.serving = null;
  ui.status.textContent = offline ? "You are offline" : STATUS[status];
  ui.retry.hidden = status !== "waiting" || isOffline;
  clearInterval(ticking);
  const tick = () => {
    const seconds = Math.ceil((retryAt - Date.now()) / 1000);
    ui.countdown.textContent = status === "waiting" && seconds > 0 && !isOffline ? `next try in ${seconds} s` : "";
  };
  tick();
  if (status === "waiting") ticking = setInterval(tick, 250);
  room?.connected(status === "live");
  updateSend();
}

/** Sockets that are open. */
const sockets = new Set();

const Socket = withFallback();

/** A constructor of sockets that the button cuts off, and that do not open while the page is offline. */
function SwitchedSocket(url, protocols) {
  if (isOffline) {
    const failed = { readyState: WebSocket.CLOSED, send() {}, close() {} };
    setTimeout(() => failed.onclose?.({ code: 1006, reason: "", wasClean: false }));
    return failed;
  }
  for (const each of sockets) if (each.readyState === WebSocket.CLOSED) sockets.delete(each);
  const socket = new Socket(url, protocols);
  sockets.add(socket);
  return socket;
}

function setOffline(value) {
  isOffline = value;
  ui.network.textContent = value ? "Go online" : "Go offline";
  // No browser lets a page drop a connection. To the server a code of its own is a lost client, not one that has left.
  if (value) { for (const socket of sockets) socket.close(3000, "Offline"); }
  else wire?.connect();
}

function receive(message) {
  if (message.type === "welcome") {
    nodes.serving = message.node ?? null;
    if (message.node) ui.status.textContent = `Live on ${message.node}`;
    const fresh = message.news.filter(({ id }) => !known.has(id));
    // Read aloud one by one they would be a nuisance.
    const log = ui.news.parentElement;
    log.setAttribute("aria-busy", "true");
    for (const news of fresh) addNews(news);
    log.removeAttribute("aria-busy");
  } else if (message.type === "news") {
    if (!addNews(message.news)) return;
    ridge.flare(message.news, people);
    if (!place) return;
    passed++;
    showPlaces();
  } else if (message.type === "clients") {
    people = message.clients;
    if (message.nodes) nodes.show(message.nodes);
    showPeople();
  }
}

// Places

/** The place that the address names: the wire, or a room. */
function enterPlace() {
  if (!account) return;
  place = rooms.find(({ id }) => location.hash === `#${id}`) ?? null;
  room?.close();
  room = null;
  members = [];
  if (!place) passed = 0;
  root.dataset.place = place ? "room" : "wire";
  ui.wireLog.hidden = place !== null;
  ui.roomLog.hidden = place === null;
  ui.roomEmpty.hidden = true;
  ui.title.textContent = place?.name ?? "The wire";
  ui.peopleTitle.firstChild.data = place ? "Here now " : "At their desks ";
  ui.toPlace.textContent = place ? `To ${place.name}` : "";
  ui.note.textContent = "";
  showError(ui.composerError, null);
  showError(ui.roomError, null);
  showPlaces();
  showPeople();
  updateSend();
  if (!place) return;
  const opened = room = new Room(wire, place, ui.said, account.user, {
    said(said) {
      ridge.flare(said, members);
      arrived();
    },
    members(present) {
      members = present.sort((a, b) => a.name.localeCompare(b.name));
      ui.roomEmpty.hidden = ui.said.childElementCount > 0;
      showPeople();
    },
    refused(error) {
      opened.close();
      if (room === opened) room = null;
      members = [];
      ui.roomEmpty.hidden = true;
      showPeople();
      showError(ui.roomError, error);
      updateSend();
    },
  });
  updateSend();
}

function showPlaces() {
  ui.places.replaceChildren(...[{ id: "wire", name: "The wire" }, ...rooms].map(({ id, name }) => {
    const isHere = id === (place?.id ?? "wire");
    return element(
      "li",
      {},
      element(
        "a",
        { href: `#${id}`, text: name, ...(isHere && { "aria-current": "page" }) },
        ...(id === "wire" && passed > 0 ? [" ", badge(passed)] : []),
      ),
    );
  }));
}

const badge = (count) =>
  element("span", { className: "passed", text: count }, element("span", { className: "hidden", text: " new" }));

/** Something new is there, which a hidden tab says in its title. */
function arrived() {
  ui.roomEmpty.hidden = true;
  if (!document.hidden) return;
  unread++;
  showTitle();
}

// News

/** What others are told of whom it is for; nothing where it is for everybody. */
function address({ to }) {
  if (!to) return null;
  if (to.role) return `${DESKS[to.role]} only`;
  if (to.user === account.user) return "You only";
  return `${accounts.find(({ user }) => user === to.user)?.name ?? to.user} only`;
}

/** Newest first. `false` when it is there already: after a reconnection the server sends again what it remembers. */
function addNews(news) {
  if (known.has(news.id)) return false;
  known.add(news.id);
  const item = message(news, { isOwn: news.from.user === account.user, only: address(news) });
  const older = [...ui.news.children].find((other) => Number(other.dataset.at) <= news.at);
  ui.news.insertBefore(item, older ?? null);
  if (ui.news.childElementCount > KEPT) {
    known.delete(ui.news.lastElementChild.dataset.id);
    ui.news.lastElementChild.remove();
  }
  ui.empty.hidden = true;
  arrived();
  return true;
}

function showTitle() {
  document.title = `${unread ? `(${unread}) ` : ""}Newsroom · Noroshi`;
}

/** What was sent to a room last, until it was said. */
let draft = {};

async function post(event) {
  event.preventDefault();
  if (sending || ui.send.disabled) return;
  const [kind, id] = ui.to.value.split(":");
  const text = ui.text.value;
  showError(ui.composerError, null);
  sending = true;
  updateSend();
  try {
    if (place) {
      // Sent again after an error, it is said once. The id needs HTTPS, or localhost.
      if (draft.text !== text || draft.room !== place.id) draft = { text, room: place.id, id: crypto.randomUUID?.() };
      const { heard } = await wire.request("say", { room: place.id, text, draft: draft.id });
      draft = {};
      ui.note.textContent = heard === 0
        ? "Sent; nobody else is here"
        : `Sent to ${heard} ${heard === 1 ? "other" : "others"} here`;
    } else {
      const { reached } = await wire.request("post", { text, ...(id ? { to: { [kind]: id } } : {}) });
      ui.note.textContent = reached === 0
        ? "Sent; nobody is there yet"
        : `Sent to ${reached} open ${reached === 1 ? "tab" : "tabs"}`;
    }
    ui.text.value = "";
  } catch (error) {
    // The text stays, so that nothing is lost with the connection.
    ui.note.textContent = "";
    if (account) showError(ui.composerError, error);
  }
  sending = false;
  updateSend();
}

function updateSend() {
  const length = ui.text.value.trim().length;
  ui.send.disabled = sending || root.dataset.status !== "live" || (place !== null && !room);
  ui.count.hidden = length < MAX_TEXT * 0.8;
  ui.count.textContent = `${length} of ${MAX_TEXT}`;
  ui.count.classList.toggle("over", length > MAX_TEXT);
}

// People

/** Who is in the room, or who is there at all. */
function showPeople() {
  const present = place ? members : people;
  ui.peopleCount.textContent = present.length || "";
  ui.people.replaceChildren(...present.map(({ user, name, role, tabs }) => {
    const self = user === account?.user;
    const item = element(
      "li",
      { "data-user": user },
      fire(),
      element("b", { text: self ? `${name} (you)` : name }),
      " ",
      element("span", { className: "role", text: role, "data-role": role }),
    );
    // Nodes say how many tabs there are, too.
    if (nodes.isShown) item.append(" ", element("span", { className: "on", text: nodes.of(user) }));
    else if (tabs > 1) item.append(" ", element("span", { className: "tabs", text: `${tabs} tabs` }));
    if (self || place) return item;
    const write = element("button", { type: "button", className: "quiet", text: "Write", "aria-label": `Write to ${name}` });
    write.addEventListener("click", () => {
      ui.to.value = `user:${user}`;
      ui.text.focus();
    });
    item.append(write);
    return item;
  }));
  ridge.light(people);
}

ui.loginForm.addEventListener("submit", signIn);
ui.signOut.addEventListener("click", () => leave(null));
ui.retry.addEventListener("click", () => wire.connect());
ui.network.addEventListener("click", () => setOffline(!isOffline));
ui.composer.addEventListener("submit", post);
ui.text.addEventListener("input", () => {
  ui.note.textContent = "";
  showError(ui.composerError, null);
  updateSend();
});
ui.text.addEventListener("keydown", (event) => {
  // While an input method composes, Enter belongs to it.
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  ui.composer.requestSubmit();
});
document.addEventListener("visibilitychange", () => {
  if (document.hidden) return;
  unread = 0;
  showTitle();
});
addEventListener("hashchange", enterPlace);

try {
  ({ accounts, rooms, hasInspector } = await askServer("/demo-accounts"));
  showAccounts();
  const signedIn = kept.read();
  if (signedIn) enter(signedIn);
} catch (error) {
  showError(ui.loginError, error);
}
