import * as latest from "@directus/sdk";
import * as sdk18 from "directus-sdk-18";
import assert from "node:assert/strict";
import { Agent, type ClientRequestArgs } from "node:http";
import { connect, type NetConnectOpts } from "node:net";
import type { Duplex } from "node:stream";
import { type ClientOptions, WebSocket } from "ws";
import { inTime } from "../support/waiting.ts";

/** A row of the tests' collections. */
export interface Article {
  id: number;
  title: string;
}

interface Schema {
  articles: Article[];
  secrets: Article[];
}

/** What the SDK was sent, or sent. */
export type Message = Record<string, unknown>;

/** The types of the two versions differ where the tests do not look. */
const VERSIONS = { 26: latest, 18: sdk18 as unknown as typeof latest };

/** By its major version. */
export type SdkVersion = keyof typeof VERSIONS;

/** Opens connections, and holds those back that are asked for while it is shut. */
export class Gate extends Agent {
  #opened = Promise.resolve();
  #open = (): void => {};

  shut(): void {
    this.#opened = new Promise((resolve) => this.#open = resolve);
  }

  open(): void {
    this.#open();
  }

  override createConnection(options: ClientRequestArgs, callback?: (error: Error | null, stream: Duplex) => void): undefined {
    // As of Agent, the target is a port.
    void this.#opened.then(() => callback!(null, connect(options as NetConnectOpts)));
  }
}

/** A Directus SDK, unmodified, on the only WebSocket it is given, and all that its sockets were sent and sent. */
export class ConnectedSdk {
  readonly received: Message[] = [];
  readonly sent: Message[] = [];
  readonly sockets: WebSocket[] = [];
  readonly sdk;
  #wake = (): void => {};

  /** Connects to `url` when told to, with the token in its first message. */
  constructor(version: SdkVersion, url: string, token: string, options?: ClientOptions) {
    const { createDirectus, realtime, staticToken } = VERSIONS[version];
    // deno-lint-ignore no-this-alias -- the class below has a `this` of its own
    const connected = this;
    class Watched extends WebSocket {
      constructor(url: string) {
        // Inflating is asynchronous: the close could come between a ping and the SDK's answer, which expects an open socket.
        super(url, { perMessageDeflate: false, ...options });
        connected.sockets.push(this);
        this.on("message", (data) => {
          connected.received.push(JSON.parse(String(data)));
          connected.#wake();
        });
      }
      override send(data: string): void {
        connected.sent.push(JSON.parse(data));
        super.send(data);
      }
    }
    this.sdk = createDirectus<Schema>(url.replace("ws", "http"), {
      globals: { WebSocket: Watched, URL, fetch, logger: console } as never,
    })
      .with(staticToken(token))
      .with(realtime({ authMode: "handshake", url, reconnect: { delay: 100, retries: 10 } }));
  }

  /** The frames of a subscription, in order, without the answers to other messages. */
  get frames(): Message[] {
    return this.received.filter(({ type }) => type === "subscription" || type === "subscribe");
  }

  /** Resolves with all frames when there are so many. */
  async until(count: number): Promise<Message[]> {
    const all = async () => {
      while (this.frames.length < count) await new Promise<void>((resolve) => this.#wake = resolve);
      return this.frames;
    };
    return await inTime(`${count} frames`, () => this.#seen(), all());
  }

  /** Sends it as the SDK does and resolves with the answer. All that was sent before has been read by then. */
  async ask(message: Message): Promise<Message> {
    const uid = `asked-${this.sent.length}`;
    this.sdk.sendMessage({ ...message, uid });
    const answered = async () => {
      for (;;) {
        const answer = this.received.find((each) => each["uid"] === uid);
        if (answer) return answer;
        await new Promise<void>((resolve) => this.#wake = resolve);
      }
    };
    return await inTime(`the answer to ${uid}`, () => this.#seen(), answered());
  }

  #seen(): object {
    const { sockets, sent, received } = this;
    return { states: sockets.map(({ readyState }) => readyState), sent: sent.slice(-8), received: received.slice(-8) };
  }

  /** Ends the connection as a lost network does. */
  cut(): void {
    this.sockets.at(-1)!.terminate();
  }
}

/** What the generator yields, or throws; it must not be done. */
export async function next(subscription: AsyncGenerator<unknown, void>): Promise<Message> {
  const { value, done } = await subscription.next();
  assert.equal(done, false);
  return value as Message; // The SDK hands on what it has parsed.
}
