import { ABNORMAL } from "../protocol/close.ts";
import type { Data, Recorder } from "./wire.ts";
import { Wire } from "./wire.ts";
import type { Turns } from "./turns.ts";

/** The answer to an upgrade: 101, or a refusal. */
export interface UpgradeResponse {
  readonly status: number;
  readonly headers: Headers;
  readonly body: string;
}

/** How a socket reaches the server. */
export interface Dial {
  readonly turns: Turns;
  /** Headers of the upgrade request. */
  readonly headers: Headers;
  readonly record: Recorder;
  /**
   * Asks the server for the upgrade.
   *
   * @param accept called when a connection begins: it returns the wire.
   */
  request(
    request: Request,
    accept: (response: UpgradeResponse, protocol: string | null) => Wire | null,
  ): Promise<UpgradeResponse>;
  /** Called when both ends of the connection are closed. */
  over(wire: Wire): void;
}

/** The syntax of a subprotocol (RFC 6455 §4.1). */
const TOKEN = /^[!#$%&'*+\-.^_`|~\w]+$/;

/** The key of the handshake (RFC 6455 §4.1). Constant, because nothing checks the answer to it. */
const KEY = "dGhlIHNhbXBsZSBub25jZQ==";

/** The client's end of a connection: a `WebSocket` like in browsers, with the `terminate` of `ws`. */
export class MemorySocket extends EventTarget {
  static readonly CONNECTING = 0;
  static readonly OPEN = 1;
  static readonly CLOSING = 2;
  static readonly CLOSED = 3;

  readonly url: string;
  /** The agreed subprotocol. */
  protocol = "";
  binaryType = "blob";
  readonly extensions = "";
  onopen: ((event: never) => void) | null = null;
  onmessage: ((event: never) => void) | null = null;
  onclose: ((event: never) => void) | null = null;
  onerror: ((event: never) => void) | null = null;
  /** If set, called for a protocol ping, which is then not answered. */
  onping: ((number: number | undefined) => void) | null = null;
  /** Called for a protocol pong. */
  onpong: (() => void) | null = null;
  /** If set, called for the server's close frame, which is then not answered. */
  onclosing: ((code: number, reason: string) => void) | null = null;
  /** The answer to the upgrade; absent while it is under way. */
  response: UpgradeResponse | undefined;
  wire: Wire | undefined;
  readonly #turns: Turns;
  readonly #leaving = new AbortController();
  #state = 0;

  /** @throws {DOMException} SyntaxError for an invalid URL or subprotocol. */
  constructor(dial: Dial, url: string | URL, protocols: string | readonly string[] = []) {
    super();
    this.#turns = dial.turns;
    const target = new URL(url);
    if (!/^(ws|http)s?:$/.test(target.protocol)) {
      throw new DOMException(`"${target.protocol}" is not a scheme of WebSockets`, "SyntaxError");
    }
    const names = [protocols].flat();
    if (names.some((name) => !TOKEN.test(name)) || new Set(names).size < names.length) {
      throw new DOMException("The subprotocols must be different tokens", "SyntaxError");
    }
    this.url = target.href.replace(/^http/, "ws");
    void this.#open(dial, names);
  }

  get readyState(): number {
    return this.wire && this.#state > 0 ? this.wire.clientState : this.#state;
  }

  /** Always 0, because messages reach the server in the next turn. */
  get bufferedAmount(): number {
    return 0;
  }

  /** @throws {DOMException} InvalidStateError while the socket is connecting. */
  send(data: Data): void {
    if (this.readyState === 0) throw new DOMException("The socket is still connecting", "InvalidStateError");
    this.wire?.sendToServer(data);
  }

  /** @throws {DOMException} for a code other than 1000 and 3000 to 4999, or a reason of more than 123 bytes. */
  close(code?: number, reason = ""): void {
    if (code !== undefined && code !== 1000 && !(code >= 3000 && code <= 4999)) {
      throw new DOMException(`Cannot close with the code ${code}`, "InvalidAccessError");
    }
    if (new TextEncoder().encode(reason).byteLength > 123) throw new DOMException("The reason is too long", "SyntaxError");
    if (this.readyState === 1) this.wire?.closeFromClient(code, reason);
    else if (this.readyState === 0) this.#abortUpgrade();
  }

  /** Drops the connection without a closing handshake. */
  terminate(): void {
    if (this.readyState === 0) this.#abortUpgrade();
    else if (this.readyState < 3) this.wire?.terminate("client");
  }

  async #open(dial: Dial, protocols: readonly string[]): Promise<void> {
    const headers = new Headers(dial.headers);
    headers.set("upgrade", "websocket");
    headers.set("connection", "Upgrade");
    if (!headers.has("sec-websocket-version")) headers.set("sec-websocket-version", "13");
    if (!headers.has("sec-websocket-key")) headers.set("sec-websocket-key", KEY);
    if (protocols.length > 0) headers.set("sec-websocket-protocol", protocols.join(", "));
    const url = this.url.replace(/^ws/, "http");
    const request = new Request(url, { headers, signal: this.#leaving.signal });
    // In a later turn, so that the constructor returns first.
    await new Promise<void>((resolve) => dial.turns.post(resolve));
    try {
      const response = await dial.request(request, (accepted, protocol) => {
        if (this.#leaving.signal.aborted) return null;
        this.response = accepted;
        return this.wire = this.#connect(dial, protocol);
      });
      if (this.wire) return;
      this.response = response;
      this.#fail(`Unexpected server response: ${response.status}`);
    } catch (error) {
      this.#fail(error instanceof Error ? error.message : String(error));
    }
  }

  #connect(dial: Dial, protocol: string | null): Wire {
    const wire: Wire = new Wire(
      dial.turns,
      {
        message: (data) => this.#emit("message", { data }),
        closing: (code, reason) => this.onclosing ? this.onclosing(code, reason) : wire.answerClose(code, reason),
        closed: (code, reason, wasClean) => {
          this.#state = 3;
          this.#emit("close", { code, reason, wasClean });
        },
        ping: (number) => this.onping ? this.onping(number) : wire.pong(number),
        pong: () => this.onpong?.(),
      },
      dial.record,
      dial.over,
    );
    wire.opened(() => {
      this.#state = 1;
      this.protocol = protocol ?? "";
      this.#emit("open", {});
    });
    return wire;
  }

  /** Aborts an upgrade under way. */
  #abortUpgrade(): void {
    this.#leaving.abort();
    this.wire?.terminate("client");
    if (!this.wire) this.#turns.post(() => this.#fail("The connection was closed before it was established"));
    this.#state = 2;
  }

  #fail(message: string): void {
    if (this.#state === 3) return;
    this.#state = 3;
    this.#emit("error", { message });
    this.#emit("close", { code: ABNORMAL, reason: "", wasClean: false });
  }

  #emit(type: "open" | "message" | "close" | "error", fields: object): void {
    const event = Object.assign(new Event(type), fields);
    this[`on${type}`]?.(event as never);
    this.dispatchEvent(event);
  }
}
