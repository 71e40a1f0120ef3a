/** Takes the pictures of examples/README.md: `node --import tsx examples/pictures.ts`. It needs Chromium and nats-server. */
import { spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import process from "node:process";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { type Browser, chromium, type Page } from "playwright-core";
import { WebSocket } from "ws";
import { executablePath, QUIET } from "../tests/support/browser.ts";

const here = dirname(fileURLToPath(import.meta.url));
const pictures = join(here, "pictures");

mkdirSync(pictures, { recursive: true });
const browser = await chromium.launch({ executablePath: executablePath!, args: QUIET });
try {
  await withProgram([process.execPath, "--import", "tsx", join(here, "node/main.ts")], {}, (url) => takeNewsroom(browser, url));
  await withProgram([process.execPath, "--import", "tsx", join(here, "cluster/main.ts")], {}, (url) => takeCluster(browser, url));
  const folder = mkdtempSync(join(tmpdir(), "pictures-"));
  const env = { DATABASE: join(folder, "articles.db"), EDITOR_TOKEN: "token-of-ed" };
  const bun = join(here, "../node_modules/.bin/bun");
  await withProgram([bun, join(here, "directus/main.ts")], env, (url) => takeDirectus(browser, url));
  rmSync(folder, { recursive: true });
} finally {
  await browser.close();
}

/** Runs a program until the picture is taken, with the address that it prints. */
async function withProgram(
  [command = "", ...args]: string[],
  env: Record<string, string>,
  take: (url: string) => Promise<void>,
): Promise<void> {
  const child = spawn(command, args, { env: { ...process.env, PORT: "0", ...env }, stdio: ["ignore", "pipe", "inherit"] });
  const exited = new Promise((resolve) => child.on("exit", resolve));
  try {
    for await (const line of createInterface({ input: child.stdout })) {
      const [url] = line.match(/http:\/\/(?:127\.0\.0\.1|localhost):\d+/) ?? [];
      // The nodes of the cluster print their own addresses before that of the newsroom.
      if (!url || /^\w+ +.*Listening/.test(line)) continue;
      await take(url);
      break;
    }
  } finally {
    child.kill("SIGTERM");
    await exited;
  }
}

/** A page of the newsroom, signed in. */
async function enter(browser: Browser, url: string, user: string, password: string): Promise<Page> {
  const context = await browser.newContext({ viewport: { width: 960, height: 640 }, reducedMotion: "reduce" });
  const page = await context.newPage();
  await page.goto(url);
  await page.locator("#accounts button").first().waitFor();
  await page.getByLabel("Name").fill(user);
  await page.getByLabel("Password").fill(password);
  await page.getByRole("button", { name: "Sign in" }).click();
  await page.locator('html[data-status="live"]').waitFor();
  return page;
}

async function say(page: Page, text: string): Promise<void> {
  await page.getByLabel("Message").fill(text);
  await page.getByRole("button", { name: "Send" }).click();
  await page.locator("#note").filter({ hasText: "Sent" }).waitFor();
}

async function takeNewsroom(browser: Browser, url: string): Promise<void> {
  const mika = await enter(browser, url, "mika", "beacon");
  const noor = await enter(browser, url, "noor", "kindling");
  const lena = await enter(browser, url, "lena", "ember");
  for (const page of [mika, noor, lena]) await page.evaluate(() => location.hash = "#harbour");
  await lena.locator("#people li").nth(2).waitFor();
  await say(mika, "Is the ferry in?");
  await noor.locator("#said li").filter({ hasText: "Is the ferry in?" }).waitFor();
  await say(noor, "In sight, twenty minutes late");
  await lena.locator("#said li").filter({ hasText: "twenty minutes" }).waitFor();
  await lena.screenshot({ path: join(pictures, "newsroom.png"), animations: "disabled" });
  for (const page of [mika, noor, lena]) await page.context().close();
}

async function takeCluster(browser: Browser, url: string): Promise<void> {
  const mika = await enter(browser, url, "mika", "beacon");
  const noor = await enter(browser, url, "noor", "kindling");
  const tomas = await enter(browser, url, "tomas", "cinder");
  await say(mika, "I am on one node, and you are on another");
  await tomas.locator("#news li").filter({ hasText: "on another" }).waitFor();
  await tomas.getByText("you alone").waitFor();
  await tomas.screenshot({ path: join(pictures, "cluster.png"), animations: "disabled" });
  for (const page of [mika, noor, tomas]) await page.context().close();
}

/** The messages of a client of the Directus example, as text. */
async function takeDirectus(browser: Browser, url: string): Promise<void> {
  const socket = new WebSocket(`${url.replace("http", "ws")}/websocket`);
  const lines: string[] = [];
  const answers: (() => void)[] = [];
  socket.on("message", (data) => {
    lines.push(`← ${data}`);
    answers.shift()?.();
  });
  await new Promise((resolve, reject) => socket.on("open", resolve).on("error", reject));
  const ask = (message: object, count = 1) => {
    lines.push(`→ ${JSON.stringify(message)}`);
    const answered = Promise.all(Array.from({ length: count }, () => new Promise<void>((resolve) => answers.push(resolve))));
    socket.send(JSON.stringify(message));
    return answered;
  };
  await ask({ type: "auth", access_token: "token-of-ed" });
  await ask({ type: "subscribe", collection: "articles", uid: "1", query: { fields: ["id", "title"] } });
  const data = { slug: "ferry", title: "The ferry is in", status: "published" };
  await ask({ type: "items", action: "create", collection: "articles", uid: "2", data }, 2);
  socket.close();
  const page = await browser.newPage({ viewport: { width: 960, height: 360 } });
  await page.setContent(
    "<style>body{margin:0;padding:24px;background:#15110f;color:#efe6da}pre{white-space:pre-wrap;font:15px/1.7 monospace}</style><pre></pre>",
  );
  await page.locator("pre").evaluate((pre, text) => pre.textContent = text, lines.join("\n"));
  await page.screenshot({ path: join(pictures, "directus.png") });
  await page.close();
}
