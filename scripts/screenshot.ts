/**
 * Takes the pictures of the README from the demo, in light and dark: `node --import tsx scripts/screenshot.ts`. It needs Chromium, or a
 * browser named in `CHROMIUM`.
 */
import { statSync } from "node:fs";
import { dirname, join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { chromium } from "playwright-core";
import { WebSocket } from "ws";
import { createNewsroom } from "../examples/app.ts";
import { readFile } from "../examples/read-file.ts";
import { createClient } from "../src/client/client.ts";
import { serve } from "../src/serve/serve.ts";
import { executablePath, QUIET } from "../tests/support/browser.ts";

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
  const path = join(folder, `demo-${colorScheme}.png`);
  await page.screenshot({ path, animations: "disabled", caret: "hide" });
  await page.close();
  const { size } = statSync(path);
  console.log(`${path}: ${size} bytes`);
  if (size > MAX_SIZE) process.exitCode = 1;
}

await Promise.all([...clients.values()].map((client) => client.close()));
await browser.close();
await server.close();

async function logIn(user: string): Promise<string> {
  const response = await fetch(`${server.url}login`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ user, password: PASSWORDS[user] }),
  });
  const { access_token } = await response.json() as { access_token: string }; // As the demo's route answers.
  return access_token;
}
