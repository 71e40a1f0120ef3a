import type { WebSocketLike } from "./platform.ts";

/** What {@link EventSocket} calls, such as `globalThis.fetch`. */
export type Fetch = (url: string, init: RequestInit) => Promise<Response>;

/** Maximum characters of all frames in one POST; a single frame may be longer (PROTOCOL.md §8). */
const MAX_BATCH = 65_536;

/** Maximum number of characters of an event. */
const MAX_EVENT = 2 ** 25;

/** Delay before a failed POST is repeated, in ms; it doubles each time. */
const REPEAT_AFTER = 250;
const MAX_REPEATS = 6;

/** Time for the `close` event after the server has answered that it does not know the connection, in ms. */
const CLOSE_EVENT_TIMEOUT = 2_000;

const EVENT = /^(?:event: (\w+)\n)?data: ([^]*)$/;

/** Content of one POST. */
interface Post {
  frames?: string[];
  pong?: unknown;
  close?: { code: number; reason: string };
}

/**
 * A socket like `WebSocket` over HTTP (PROTOCOL.md §8): it receives server-sent events and sends by POST, one at a time. Frames
 * that are sent during a POST go together in the next.
 */
export class EventSocket implements WebSocketLike {
  /** As in `WebSocket`: 0 to 3. */
  readyState = 0;
  /** The subprotocol that the server has chosen. */
  protocol = "";
  /** Called when the stream is open. */
  onopen: ((event: never) => void) | null = null;
  /** Called with each frame. */
  onmessage: ((event: never) => void) | null = null;
  /** Called when the connection has ended. */
  onclose: ((event: never) => void) | null = null;
  /** Called when it cannot connect, or loses the connection. */
  onerror: ((event: never) => void) | null = null;
  readonly #fetch: Fetch;
  readonly #url: string;
  readonly #abort = new AbortController();
  #opening = { connection: "", secret: "" };
  #posts: Post[] = [];
  #sequence = 0;
  #isPosting = false;
  /** Until a POST is repeated, or the last event counts as lost. */
  #timer: ReturnType<typeof setTimeout> | undefined;

  /** Connects. @throws {TypeError} for an invalid URL. */
  constructor(url: string, protocols: string[] = [], fetch: Fetch = (...request) => globalThis.fetch(...request)) {
    const target = new URL(url);
    target.protocol = target.protocol.replace("ws", "http");
    this.#url = target.href;
    this.#fetch = fetch;
    // Subprotocols go into the query, because a page cannot set their header. A token goes into a header, because logs omit it.
    const token = protocols.find((name) => name.startsWith("bearer."))?.slice(7);
    const names = protocols.filter((name) => !name.startsWith("bearer."));
    if (names.length > 0) target.searchParams.set("protocols", names.join(","));
    void this.#readEvents(target.href, { accept: "text/event-stream", ...(token && { authorization: `Bearer ${token}` }) });
  }

  /** Sends a frame, which is dropped unless the connection is open. */
  send(data: string): void {
    if (this.readyState === 1) this.#post({ frames: [data] });
  }

  /** Closes the connection with a code and a reason. */
  close(code = 1005, reason = ""): void {
    if (this.readyState === 0) return this.terminate();
    if (this.readyState !== 1) return;
    this.#post({ close: { code, reason } });
    this.readyState = 2;
  }

  /** Ends the connection without notifying the server. */
  terminate(): void {
    this.#end(1006, "", false);
  }

  async #readEvents(url: string, headers: Record<string, string>): Promise<void> {
    try {
      const response = await this.#request(url, { headers });
      if (!response.headers.get("content-type")?.startsWith("text/event-stream") || !response.body) {
        this.#fail(`Unexpected server response: ${response.status}`);
        // Frees the body if a `fetch` of the application ignores the signal. Otherwise `#fail` has aborted it, and this rejects.
        return void response.body?.cancel().catch(() => {});
      }
      const reader = response.body.getReader();
      const decoder = new TextDecoder();
      let text = "";
      for (;;) {
        const { done, value } = await reader.read();
        if (done) return this.#end(1006, "", false);
        text += decoder.decode(value, { stream: true });
        const events = text.split("\n\n");
        text = events.pop()!; // `split` returns at least one.
        for (const event of events) this.#receive(event);
        if (text.length > MAX_EVENT) return this.#end(1009, "Message too big", false);
      }
    } catch (error) {
      this.#fail(error instanceof Error ? error.message : String(error));
    }
  }

  // Async, so that an error that `fetch` throws synchronously is a rejection, too, which is reported after listeners were added.
  async #request(url: string, init: RequestInit): Promise<Response> {
    // With cookies, like a WebSocket.
    return await this.#fetch(url, { credentials: "include", cache: "no-store", signal: this.#abort.signal, ...init });
  }

  #receive(event: string): void {
    const [, name, data = "null"] = EVENT.exec(event) ?? [];
    if (this.readyState === 3 || name === undefined && data === "null") return;
    if (name === undefined) return this.#emit("message", { data });
    const value = JSON.parse(data);
    if (name === "text") this.#emit("message", { data: value });
    else if (name === "ping") this.#post({ pong: value });
    else if (name === "close") this.#end(value.code, value.reason, true);
    else if (name === "open" && this.readyState === 0) {
      this.#opening = value;
      this.protocol = value.protocol ?? "";
      this.readyState = 1;
      this.#emit("open", {});
    }
  }

  #post(post: Post): void {
    if (this.readyState !== 1) return;
    const last = this.#posts.at(-1);
    const size = (frames: string[] = []) => frames.reduce((sum, { length }) => sum + length, 0);
    // Joins frames that wait for the end of this turn or of the POST under way.
    if (last && post.frames && size(last.frames) + size(post.frames) <= MAX_BATCH) (last.frames ??= []).push(...post.frames);
    else this.#posts.push(post);
    if (this.#isPosting) return;
    this.#isPosting = true;
    queueMicrotask(() => void this.#postAll());
  }

  async #postAll(): Promise<void> {
    const { connection, secret } = this.#opening;
    const url = new URL(this.#url);
    url.searchParams.set("connection", connection);
    for (let post = this.#posts.shift(); post; post = this.#posts.shift()) {
      const body = JSON.stringify({ secret, sequence: ++this.#sequence, ...post });
      if (!await this.#deliver(url.href, body)) return;
      if (post.close) this.#end(post.close.code, post.close.reason, true);
    }
    this.#isPosting = false;
  }

  /** Repeats a POST until it is answered. The server handles each number once. */
  async #deliver(url: string, body: string): Promise<boolean> {
    for (let repeats = 0;; repeats++) {
      // Without an answer, it is repeated below.
      const answer = await this.#request(url, { method: "POST", body }).catch(() => undefined);
      if (this.readyState === 3) return false;
      if (answer?.ok) return true;
      const status = answer?.status ?? 0;
      if (status === 404 || status === 429) {
        // The server has closed the connection, whose `close` event may still arrive, or is busy with other bodies (429).
        this.#timer = setTimeout(() => this.#end(1006, `POST: HTTP ${status}`, false), CLOSE_EVENT_TIMEOUT);
        return false;
      }
      if (status >= 400 && status < 500 && status !== 408 || repeats === MAX_REPEATS) {
        this.#end(status === 413 ? 1009 : 1006, status === 413 ? "Message too big" : `POST: HTTP ${status}`, false);
        return false;
      }
      await new Promise((resolve) => this.#timer = setTimeout(resolve, REPEAT_AFTER * 2 ** repeats)); // Not resolved once it has ended.
    }
  }

  #fail(message: string): void {
    if (this.readyState === 3) return;
    if (this.readyState === 0) this.#emit("error", { message });
    this.#end(1006, "", false);
  }

  #end(code: number, reason: string, wasClean: boolean): void {
    if (this.readyState === 3) return;
    this.readyState = 3;
    clearTimeout(this.#timer);
    this.#abort.abort();
    this.#emit("close", { code, reason, wasClean });
  }

  #emit(type: "open" | "message" | "close" | "error", event: object): void {
    this[`on${type}`]?.(event as never); // The events have the fields that handlers read.
  }
}
