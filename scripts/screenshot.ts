/**
 * Takes the pictures of the README from the demo, that of the inspector, and those of the tutorial from its chat, in light and dark:
 * `node --import tsx scripts/screenshot.ts`. It needs Chromium, or a browser named in `CHROMIUM`. `inspector` takes that one only.
 */
import { statSync } from "node:fs";
import { dirname, join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { chromium, type Page } from "playwright-core";
import { Hono } from "hono";
import * as v from "valibot";
import { WebSocket } from "ws";
import { createNewsroom } from "../examples/app.ts";
import { readFile } from "../examples/read-file.ts";
import { Channels } from "../src/channels/channels.ts";
import { createClient } from "../src/client/client.ts";
import { WebSocketController } from "../src/controller/controller.ts";
import { inspector } from "../src/inspector/inspector.ts";
import { serve } from "../src/serve/serve.ts";
import { executablePath, QUIET } from "../tests/support/browser.ts";
import { ChatNode, ChatProject, logIn as logInToChat } from "../tests/support/chat-project.ts";

/** Largest size of a picture, in bytes. */
const MAX_SIZE = 150_000;

/** Size of the page, in CSS pixels. */
const PAGE = { width: 1120, height: 720 };

const PASSWORDS: Record<string, string> = { mika: "beacon", noor: "kindling", tomas: "cinder", lena: "ember", kofi: "tinder" };

/** What is said before the picture is taken. */
const NEWS: readonly { user: string; text: string; to?: { role: string } | { user: string } }[] = [
  { user: "lena", text: "Smoke over the ridge, seen from the harbour.", to: { role: "editor" } },
  { user: "noor", text: "The ferry turned back. I am on the quay." },
  { user: "tomas", text: "The mayor speaks at six. Who is going?", to: { role: "reporter" } },
  { user: "mika", text: "Tomás takes the town hall, Noor stays on the quay." },
  { user: "noor", text: "All passengers are safe, says the captain." },
];

/** What the inspector has seen when its picture is taken, in ms. */
const SEEN = 60_000;

if (!executablePath) throw new Error("Cannot take pictures: no browser. Install Chromium or Chrome, or name one in CHROMIUM");
const folder = join(dirname(fileURLToPath(import.meta.url)), "../docs/public/images");
const browser = await chromium.launch({ executablePath, args: QUIET });
if (process.argv[2] === "inspector") {
  await takeInspector();
  await browser.close();
  process.exit();
}
const server = await serve(createNewsroom({ readFile }).app, { port: 0, hostname: "127.0.0.1", onListen: false });
const clients = new Map<string, ReturnType<typeof createClient>>();
for (const user of Object.keys(PASSWORDS)) {
  const client = createClient(`${server.url}websocket`, { token: () => logIn(user), WebSocket });
  await client.ready;
  clients.set(user, client);
}
for (const { user, ...post } of NEWS) await clients.get(user)!.request("post", post);

for (const colorScheme of ["light", "dark"] as const) {
  const page = await browser.newPage({ viewport: PAGE, colorScheme, reducedMotion: "reduce" });
  await page.goto(server.url);
  await page.getByLabel("Name").fill("mika");
  await page.getByLabel("Password").fill(PASSWORDS["mika"]!);
  await page.getByRole("button", { name: "Sign in" }).click();
  await page.getByText(NEWS.at(-1)!.text).waitFor();
  await page.getByPlaceholder("What is happening?").fill("Front page at seven.");
  await save(page, `demo-${colorScheme}`);
  await page.close();
}

await Promise.all([...clients.values()].map((client) => client.close()));
await server.close();
await takeChat();
await takeInspector();
await browser.close();

async function logIn(user: string): Promise<string> {
  const response = await fetch(`${server.url}login`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ user, password: PASSWORDS[user] }),
  });
  const { access_token } = await response.json() as { access_token: string }; // As the demo's route answers.
  return access_token;
}

/** A conversation in the kitchen of examples/chat. */
async function takeChat(): Promise<void> {
  const project = new ChatProject();
  await project.make("ann", "ben", "eve");
  const node = await ChatNode.start(project, {});
  const said = [
    ["ben", "Who has the key of the cellar?"],
    ["eve", "It hangs behind the door, under the coats."],
    ["ben", "Found it. There are eleven jars of plums down here!"],
    ["ann", "Bring two up. I am making a cake."],
    ["eve", "I will be there in ten minutes."],
  ] as const;
  const members = new Map<string, ReturnType<typeof createClient>>();
  for (const user of ["ann", "ben", "eve"]) {
    const { token } = await logInToChat(node.url, user);
    const client = createClient(`${node.url}/websocket`, { token, tokenIn: "protocol", WebSocket });
    client.subscribe("room:kitchen", { presence: true });
    await client.ready;
    members.set(user, client);
  }
  for (const [user, text] of said) await members.get(user)!.request("say", { room: "kitchen", text });
  const { token } = await logInToChat(node.url, "ann");
  for (const colorScheme of ["light", "dark"] as const) {
    const context = await browser.newContext({ viewport: { width: 960, height: 600 }, colorScheme, reducedMotion: "reduce" });
    await context.addCookies([{ name: "session", value: token!, url: node.url, httpOnly: true, sameSite: "Strict" }]);
    const page = await context.newPage();
    await page.goto(`${node.url}/#kitchen`);
    await page.getByText(said.at(-1)![1]).waitFor();
    await page.locator("#people li").nth(2).waitFor();
    await page.getByLabel("Message").fill("The oven is hot");
    await save(page, `chat-${colorScheme}`);
    await context.close();
  }
  await Promise.all([...members.values()].map((client) => client.close()));
  await node.stop();
  project.remove();
}

/** Sixty clients that talk, some that leave or are refused. */
async function takeInspector(): Promise<void> {
  const controller = new WebSocketController({
    node: "harbour",
    logger: false,
    authenticate: (credentials) =>
      "access_token" in credentials && credentials.access_token !== "expired"
        ? { accountability: { user: credentials.access_token, role: "reader" } }
        : null,
  });
  const channels = new Channels(controller, { "room:*": { authorize: () => true, history: { size: 50, ttl: 60_000 } } });
  controller.handle("say", v.object({ text: v.string() }), async ({ message: { text } }) => {
    await new Promise((resolve) => setTimeout(resolve, Math.random() * 30));
    await channels.publish("room:quay", "say", { text });
  });
  const app = new Hono().get("/websocket", controller.upgrade);
  app.route("/inspector", inspector(controller, { channels, authorize: () => true }));
  const server = await serve(app, { port: 0, hostname: "127.0.0.1", onListen: false });
  const connect = (token: string) => createClient(`${server.url}websocket`, { token, WebSocket });
  const clients = Array.from({ length: 60 }, (_, index) => connect(`user-${index}`));
  await Promise.all(clients.map(({ ready }) => ready));
  for (const client of clients) client.subscribe("room:quay");
  const pages = await Promise.all((["light", "dark"] as const).map(async (colorScheme) => {
    const page = await browser.newPage({ viewport: PAGE, colorScheme, reducedMotion: "reduce" });
    await page.goto(`${server.url}inspector`);
    return { page, colorScheme };
  }));
  const talking = setInterval(() => {
    const count = 1 + Math.round(6 * Math.random() * (1.2 + Math.sin(performance.now() / 8_000)));
    for (const client of clients.slice(0, count)) client.request("say", { text: "The ferry turned back" }).catch(() => {});
  }, 150);
  let turn = 0;
  const leaving = setInterval(() => {
    clients.pop()?.close().catch(() => {});
    const late = connect(`late-${++turn}`);
    late.subscribe("room:quay");
    clients.unshift(late);
    if (turn % 2 === 0) connect("expired").ready.catch(() => {});
    if (turn % 3 === 0) void controller.disconnect({ user: `late-${turn - 1}` }, 4403, "Disconnected");
  }, 4_000);
  await new Promise((resolve) => setTimeout(resolve, SEEN));
  for (const { page, colorScheme } of pages) await save(page, `inspector-${colorScheme}`);
  clearInterval(talking);
  clearInterval(leaving);
  await Promise.all(clients.map((client) => client.close()));
  await server.close();
}

async function save(page: Page, name: string): Promise<void> {
  const path = join(folder, `${name}.png`);
  await page.screenshot({ path, animations: "disabled", caret: "hide" });
  const { size } = statSync(path);
  console.log(`${path}: ${size} bytes`);
  if (size > MAX_SIZE) process.exitCode = 1;
}
