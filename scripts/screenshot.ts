/**
 * Takes the pictures of the README from the demo, and those of the tutorial from its chat, in light and dark: `node --import tsx scripts/screenshot.ts`. It needs Chromium, or a
 * browser named in `CHROMIUM`.
 */
import { statSync } from "node:fs";
import { dirname, join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { chromium, type Page } from "playwright-core";
import { WebSocket } from "ws";
import { createNewsroom } from "../examples/app.ts";
import { readFile } from "../examples/read-file.ts";
import { createClient } from "../src/client/client.ts";
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

if (!executablePath) throw new Error("Cannot take pictures: no browser. Install Chromium or Chrome, or name one in CHROMIUM");
const folder = join(dirname(fileURLToPath(import.meta.url)), "../docs/public/images");
const server = await serve(createNewsroom({ readFile }).app, { port: 0, hostname: "127.0.0.1", onListen: false });
const browser = await chromium.launch({ executablePath, args: QUIET });
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

async function save(page: Page, name: string): Promise<void> {
  const path = join(folder, `${name}.png`);
  await page.screenshot({ path, animations: "disabled", caret: "hide" });
  const { size } = statSync(path);
  console.log(`${path}: ${size} bytes`);
  if (size > MAX_SIZE) process.exitCode = 1;
}
