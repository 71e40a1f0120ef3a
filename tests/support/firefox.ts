/** Firefox by WebDriver BiDi, which it speaks itself: the browsers of Playwright are other builds. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { WebSocket } from "ws";
import { findProgram, lacks } from "./brokers.ts";
import { inTime } from "./waiting.ts";

/** Why the tests in Firefox are skipped, or `false`. */
export const noFirefox: string | false = lacks("firefox-esr");

/** Polls of {@link Firefox.until} before it fails, and the pause after each, in ms: two minutes, less than a test waits for Firefox. */
const POLLS = 2_400;
const PAUSE = 50;

/** A command of WebDriver BiDi, answered. */
interface Answer {
  id: number;
  type: "success" | "error";
  result: {
    context?: string;
    /** Of a screenshot, in base64. */
    data?: string;
    contexts?: { context: string }[];
    type?: string;
    result?: { value?: unknown };
    exceptionDetails?: { text: string };
  };
  message?: string;
}

/** One page of a Firefox that has no window. */
export class Firefox {
  readonly #child: ChildProcess;
  readonly #folder: string;
  readonly #socket: WebSocket;
  readonly #waiting = new Map<number, { resolve(answer: Answer): void; reject(error: Error): void }>();
  #context = "";
  #sent = 0;

  private constructor(child: ChildProcess, folder: string, socket: WebSocket) {
    this.#child = child;
    this.#folder = folder;
    this.#socket = socket;
    socket.on("message", (data) => {
      const answer: Answer = JSON.parse(String(data));
      this.#waiting.get(answer.id)?.resolve(answer); // Events have no id.
      this.#waiting.delete(answer.id);
    });
    socket.on("close", () => {
      for (const { reject } of this.#waiting.values()) reject(new Error("Firefox has ended"));
    });
  }

  static async launch(): Promise<Firefox> {
    const folder = mkdtempSync(join(tmpdir(), "noroshi-firefox-"));
    const args = ["--headless", "--no-remote", "--profile", folder, "--remote-debugging-port", "0"];
    const child = spawn(findProgram("firefox-esr")!, args, {
      stdio: ["ignore", "ignore", "pipe"],
      env: { ...process.env, HOME: folder },
    }); // Checked by the caller.
    const url = await new Promise<string>((resolve, reject) => {
      let output = "";
      child.stderr!.on("data", (text) => { // Piped above.
        output += String(text);
        const found = /BiDi listening on (ws:\S+)/.exec(output)?.[1];
        if (found) resolve(found);
      });
      child.on("exit", () => reject(new Error(`Cannot start Firefox: ${output}`)));
    });
    const socket = new WebSocket(`${url}/session`);
    await once(socket, "open");
    const firefox = new Firefox(child, folder, socket);
    await firefox.#send("session.new", { capabilities: {} });
    firefox.#context = (await firefox.#send("browsingContext.create", { type: "tab" })).context!;
    return firefox;
  }

  async goto(url: string): Promise<void> {
    await this.#send("browsingContext.navigate", { context: this.#context, url, wait: "complete" });
  }

  /** Runs a function in the page, and resolves with its result: a text, a number, a boolean or nothing. */
  async evaluate(call: string): Promise<unknown> {
    const { type, result, exceptionDetails } = await this.#send("script.callFunction", {
      functionDeclaration: call,
      awaitPromise: true,
      target: { context: this.#context },
    });
    if (type === "exception") throw new Error(exceptionDetails?.text);
    return result?.value;
  }

  /**
   * Resolves when the expression is true in the page.
   *
   * @param seen an expression whose value is in the error, when that takes too long.
   */
  async until(expression: string, seen = "document.body?.innerText"): Promise<void> {
    await this.evaluate(`async () => {
      for (let polls = 0; !(${expression}); polls++) {
        if (polls === ${POLLS}) throw new Error("Still waiting, and saw " + JSON.stringify(${seen}));
        await new Promise((resolve) => setTimeout(resolve, ${PAUSE}));
      }
    }`);
  }

  /** Presses keys, as WebDriver names them. */
  async press(...keys: string[]): Promise<void> {
    const actions = keys.flatMap((value) => [{ type: "keyDown", value }, { type: "keyUp", value }]);
    await this.#send("input.performActions", { context: this.#context, actions: [{ type: "key", id: "keyboard", actions }] });
  }

  /** Takes a picture of the page, as a PNG. */
  async screenshot(path: string): Promise<void> {
    const { data = "" } = await this.#send("browsingContext.captureScreenshot", { context: this.#context });
    writeFileSync(path, data, "base64");
  }

  async close(): Promise<void> {
    const { exitCode, signalCode } = this.#child;
    if (exitCode === null && signalCode === null) {
      const gone = once(this.#child, "exit");
      await this.#send("browser.close", {}).catch(() => {}); // It ends before it answers.
      await gone;
    }
    this.#socket.terminate();
    rmSync(this.#folder, { recursive: true, force: true, maxRetries: 5 });
  }

  async #send(method: string, params: object): Promise<Answer["result"]> {
    const id = ++this.#sent;
    const answer = new Promise<Answer>((resolve, reject) => void this.#waiting.set(id, { resolve, reject }));
    this.#socket.send(JSON.stringify({ id, method, params }));
    const { type, result, message } = await inTime(`Firefox's answer to ${method}`, () => params, answer);
    if (type === "success") return result;
    throw new Error(`${method}: ${message}`);
  }
}
