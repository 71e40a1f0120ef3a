/** `npm run cluster`: three nodes on three runtimes behind a front, of which one after the other is killed. */
import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { dirname, join } from "node:path";
import process from "node:process";
import { createInterface } from "node:readline";
import { after, before, describe, test } from "node:test";
import { fileURLToPath } from "node:url";
import type { Browser, Page } from "playwright-core";
import { WebSocket } from "ws";
import { type Client, createClient } from "../../src/client/client.ts";
import { launchBrowser, noBrowser } from "../support/browser.ts";
import { lacks } from "../support/brokers.ts";
import { PATIENT } from "../support/patient.ts";
import { TYPESCRIPT } from "../support/typescript.ts";
import { inTime, until } from "../support/waiting.ts";

const root = join(dirname(fileURLToPath(import.meta.url)), "../..");

/** What `npm run cluster` has started. */
class Cluster {
  url = "";
  /** By name, of what runs now. */
  readonly pids = new Map<string, number>();
  readonly #child: ChildProcess;
  readonly #exited: Promise<number | null>;
  #wake = () => {};

  constructor() {
    const env = { ...process.env, PORT: "0", NO_COLOR: "1" };
    const args = [...TYPESCRIPT, "examples/cluster/main.ts"];
    this.#child = spawn(process.execPath, args, { cwd: root, env, stdio: ["ignore", "pipe", "pipe"] });
    this.#exited = new Promise((resolve) => this.#child.on("exit", resolve));
  }

  /** Resolves once it has told its address. */
  async start(): Promise<void> {
    const said: string[] = [];
    for (const input of [this.#child.stdout!, this.#child.stderr!]) { // Piped.
      createInterface({ input }).on("line", (line) => {
        said.push(line);
        const [, name, pid] = line.match(/^(\S+) +pid (\d+)$/) ?? [];
        if (name) this.pids.set(name, Number(pid));
        this.url ||= line.match(/http:\/\/localhost:\d+/)?.[0] ?? "";
        this.#wake();
      });
    }
    const ended = this.#exited.then((code) => assert.fail(`The cluster exited with ${code}: ${said.join("\n")}`));
    await Promise.race([this.until(() => this.url !== ""), ended]);
  }

  /** Resolves when it is so, after a line of its output. */
  async until(isSo: () => boolean): Promise<void> {
    const so = async () => {
      while (!isSo()) await new Promise<void>((resolve) => this.#wake = resolve);
    };
    await inTime(isSo, () => ({ url: this.url, pids: this.pids }), so());
  }

  /** What Ctrl-C does. Resolves with the exit code. */
  stop(): Promise<number | null> {
    this.#child.kill("SIGINT");
    return this.#exited;
  }
}

async function signIn(url: string, user: string, password: string): Promise<string> {
  const response = await fetch(`${url}/login`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ user, password }),
  });
  return (await response.json()).access_token;
}

/** What the nodes tell of themselves. */
interface Desk {
  name: string;
  isAway: boolean;
  users: string[];
}

/** Somebody in the harbour, with all that is heard there. */
class Listener {
  readonly heard: string[] = [];
  present: string[] = [];
  desks: Desk[] = [];
  /** The node that serves it, from the welcome of a connection on. */
  node: string | undefined;
  gaps = 0;
  readonly client: Client;
  #wake = () => {};

  constructor(url: string, token: string) {
    const client = this.client = createClient(`${url}/websocket`.replace("http", "ws"), {
      token,
      backoff: { base: 100, cap: 1_000 },
      ...PATIENT,
      WebSocket: WebSocket as unknown as typeof globalThis.WebSocket, // Node 20 has none of its own.
    });
    client.on("status", ({ status }) => {
      if (status !== "open") this.node = undefined;
      this.#wake();
    });
    client.on("message", ({ message }) => {
      if (message.type === "welcome") this.node = message["node"] as string;
      if (message.type === "clients") this.desks = message["nodes"] as Desk[];
      this.#wake();
    });
    client.subscribe("room:harbour", {
      onEvent: ({ data }) => {
        this.heard.push((data as { text: string }).text);
        this.#wake();
      },
      onGap: () => this.gaps++,
      onPresence: ({ present }) => {
        this.present = present.map(({ user }) => user).sort();
        this.#wake();
      },
    });
  }

  /** Says so many things one after the other. Resolves with those that were acknowledged. */
  async say(count: number, name: string, said = (_text: string) => {}): Promise<string[]> {
    const acknowledged: string[] = [];
    for (let n = 1; n <= count; n++) {
      const text = `${name} ${n}`;
      // When the node is killed meanwhile, nobody knows whether it was said.
      await this.client.request("say", { room: "harbour", text }).then(() => acknowledged.push(text), () => {});
      said(text);
    }
    return acknowledged;
  }

  /** Resolves when it is so, after anything it was told. */
  async until(isSo: () => boolean): Promise<void> {
    const so = async () => {
      while (!isSo()) await new Promise<void>((resolve) => this.#wake = resolve);
    };
    await inTime(isSo, () => {
      const { node, heard, present, desks, gaps, client: { status } } = this;
      return { status, node, heard, present, desks, gaps };
    }, so());
  }
}

const elsewhere = "Bun" in globalThis || "Deno" in globalThis ? "the cluster is tested from Node" : false;

/** Whether each thread of the process is stopped: some go on for a moment after SIGSTOP was sent. */
const isStopped = (pid: number): boolean =>
  readdirSync(`/proc/${pid}/task`).every((id) => /\) T /.test(readFileSync(`/proc/${pid}/task/${id}/stat`, "utf8")));

describe("npm run cluster", { skip: elsewhere || lacks("nats-server") }, () => {
  let cluster: Cluster;

  before(async () => {
    cluster = new Cluster();
    await cluster.start();
  });
  after(() => cluster?.stop());

  test("it loses, doubles and reorders nothing when a node is killed", { timeout: 300_000 }, async (t) => {
    const { url, pids } = cluster;
    const tokens = await Promise.all([
      signIn(url, "mika", "beacon"),
      signIn(url, "noor", "kindling"),
      signIn(url, "lena", "ember"),
    ]);
    const listeners = [...tokens, ...tokens].map((token) => new Listener(url, token));
    t.after(() => listeners.forEach(({ client }) => client.close()));
    const areAll = (isSo: (listener: Listener) => boolean) =>
      Promise.all(listeners.map((listener) => listener.until(() => isSo(listener))));

    await areAll(({ node, present }) => node !== undefined && present.length === 3);
    const killed = listeners[0]!;
    const other = listeners.find(({ node }) => node !== killed.node);
    assert.ok(other, "all are on one node");

    const acknowledged = await other.say(10, "before");
    const name = killed.node!; // As waited for.
    const pid = pids.get(name)!;
    // While both are talking, one of them on the node that is killed.
    const during = await Promise.all([
      other.say(15, "other", (text) => {
        if (text === "other 5") process.kill(pid, "SIGKILL");
      }),
      killed.say(15, "killed"),
    ]);
    assert.equal(during[0].length, 15);
    // On another one, or on the one that was started in its place.
    await areAll(({ node }) => node !== undefined && (node !== name || pids.get(name) !== pid));
    const last = await killed.say(10, "after");
    assert.equal(last.length, 10);
    await areAll(({ heard }) => heard.includes("after 10"));

    const all = [...acknowledged, ...during.flat(), ...last];
    for (const { heard, gaps } of listeners) {
      assert.equal(gaps, 0);
      assert.equal(new Set(heard).size, heard.length);
      assert.deepEqual(all.filter((text) => !heard.includes(text)), []);
      assert.deepEqual(heard, listeners[0]!.heard);
    }
    for (const said of [acknowledged, ...during, last]) {
      assert.deepEqual(listeners[0]!.heard.filter((text) => said.includes(text)), said);
    }

    // It is started again, and all agree on who is where.
    await cluster.until(() => pids.get(name) !== pid);
    await areAll(({ present, desks }) =>
      present.join() === "lena,mika,noor" && desks.length === 3 && desks.every(({ isAway }) => !isAway) &&
      desks.flatMap(({ users }) => users).length === 6
    );
  });

  test("it loses nothing in silence while the broker hangs for longer than it is waited for", { timeout: 300_000 }, async (t) => {
    const { url, pids } = cluster;
    const tokens = await Promise.all([signIn(url, "mika", "beacon"), signIn(url, "noor", "kindling")]);
    const listeners = tokens.map((token) => new Listener(url, token));
    t.after(() => listeners.forEach(({ client }) => client.close()));
    const [mika] = listeners as [Listener, Listener];
    await Promise.all(listeners.map((each) => each.until(() => each.node !== undefined && each.present.length === 2)));
    const broker = pids.get("nats-server")!; // As `examples/cluster/main.ts` names it.
    process.kill(broker, "SIGSTOP");
    await until(() => isStopped(broker));
    const said = { room: "harbour", text: "while it hangs", draft: crypto.randomUUID() };
    const refused = await mika.client.request("say", said).then(() => "", ({ code }) => code)
      .finally(() => process.kill(broker, "SIGCONT"));
    assert.equal(refused, "ENGINE_UNAVAILABLE");
    // Whoever sends it again, as the page offers it, is answered once the nodes have the broker back.
    const last = { ...said, text: "and then", draft: crypto.randomUUID() };
    for (const each of [said, last]) await until(() => mika.client.request("say", each).then(() => true, () => false));
    await Promise.all(listeners.map((each) => each.until(() => each.heard.includes(last.text))));
    for (const { heard } of listeners) {
      assert.deepEqual(heard.filter((text) => text === said.text || text === last.text), [said.text, last.text]);
    }
  });

  describe("its page", { skip: noBrowser }, () => {
    let browser: Browser;
    before(async () => {
      browser = await launchBrowser();
    });
    after(() => browser?.close());

    async function openAs(user: string, password: string): Promise<Page> {
      const page = await (await browser.newContext({ viewport: { width: 1180, height: 820 } })).newPage();
      await page.goto(`${cluster.url}/#harbour`);
      await page.locator("#accounts button").first().waitFor();
      await page.getByLabel("Name").fill(user);
      await page.getByLabel("Password").fill(password);
      await page.getByRole("button", { name: "Sign in" }).click();
      await live(page);
      return page;
    }

    /** The node that serves the page, once one does, and not the one that it was. */
    async function live(page: Page, was = "none"): Promise<string> {
      const status = page.locator("#status-text").filter({ hasText: "Live on", hasNotText: was });
      return (await status.textContent())!.replace("Live on ", "");
    }

    const person = (page: Page, user: string) => page.locator(`#people [data-user="${user}"]`);
    const heard = (page: Page, text: string) => page.locator("#said li").filter({ hasText: text });

    async function say(page: Page, text: string): Promise<void> {
      await page.getByLabel("Message").fill(text);
      await page.getByRole("button", { name: "Send" }).click();
      await page.locator("#note").filter({ hasText: "Sent" }).waitFor();
    }

    test("it names the nodes, and goes on with what was said when its own was killed", { timeout: 300_000 }, async () => {
      const [mika, tomas] = [await openAs("mika", "beacon"), await openAs("tomas", "cinder")];
      const [mine, other] = [await live(mika), await live(tomas)];
      await Promise.all([
        person(mika, "tomas").filter({ hasText: `on ${other}` }).waitFor(),
        person(tomas, "mika").filter({ hasText: `on ${mine}` }).waitFor(),
        ...["Bun", "Deno", "Node"].map((name) => mika.locator(`#node-list [data-node="${name}"][data-state="up"]`).waitFor()),
      ]);

      await mika.getByRole("button", { name: `Kill ${mine}` }).click();
      await say(tomas, "While you were away");
      await heard(mika, "While you were away").waitFor();
      await heard(mika, "Connection lost at").waitFor();
      const next = await live(mika, mine);
      await person(tomas, "mika").filter({ hasText: `on ${next}` }).waitFor();
      await say(mika, "I am back");
      await heard(tomas, "I am back").waitFor();
      assert.equal(await heard(mika, "While you were away").count(), 1);
      await mika.locator(`#node-list [data-node="${mine}"][data-state="up"]`).waitFor();
    });
  });

  test("it leaves nothing behind when it is ended", { timeout: 300_000 }, async () => {
    const pids = [...cluster.pids.values()];
    assert.equal(pids.length, 4);
    assert.equal(await cluster.stop(), 0);
    for (const pid of pids) assert.throws(() => process.kill(pid, 0), { code: "ESRCH" });
  });
});
