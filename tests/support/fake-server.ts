import { type ClientOptions, createClient, type WebSocketConstructor, type WebSocketLike } from "../../src/client/client.ts";
import { streams } from "../../src/client/streams.ts";
import { Random } from "./random.ts";
import { TestClock } from "./test-clock.ts";
import { turn } from "./waiting.ts";

/** A socket of the client's whose other side is the test. Closes are reported when the test says so, as on a real network. */
export class FakeSocket implements WebSocketLike {
  readonly url: string;
  readonly protocols: string[];
  readyState = 0;
  onopen: ((event: never) => void) | null = null;
  onmessage: ((event: never) => void) | null = null;
  onclose: ((event: never) => void) | null = null;
  onerror: ((event: never) => void) | null = null;
  readonly sent: string[] = [];
  /** How the client closed it. */
  closedWith: { code: number | undefined; reason: string | undefined } | undefined;
  isTerminated = false;

  constructor(url: string, protocols: string[] = []) {
    this.url = url;
    this.protocols = protocols;
  }

  /** The messages sent since it was last asked. */
  // deno-lint-ignore no-explicit-any -- a test reads whatever was sent
  take(): any[] {
    return this.sent.splice(0).map((text) => JSON.parse(text));
  }

  send(text: string): void {
    if (this.readyState !== 1) throw new Error("The socket is not open");
    this.sent.push(text);
  }

  close(code?: number, reason?: string): void {
    // As browsers do.
    if (code !== undefined && code !== 1000 && !(code >= 3000 && code < 5000)) throw new Error(`Cannot close with ${code}`);
    if (reason !== undefined && new TextEncoder().encode(reason).byteLength > 123) throw new Error("The reason is too long");
    this.closedWith ??= { code, reason };
    this.readyState = 2;
  }

  terminate(): void {
    this.isTerminated = true;
    this.readyState = 3;
  }

  // The other side

  open(): void {
    this.readyState = 1;
    this.onopen?.({} as never);
  }

  /** Answers what the client asks once the socket is open, which is all that it has sent. */
  letIn(): void {
    const [{ type, uid }, ...others] = this.take();
    if (others.length > 0) throw new Error("The client has sent more before it was let in");
    this.receive(type === "auth" ? { type, status: "ok", uid } : { type: "pong", uid });
  }

  /** A message or an array of them; a string is the frame itself. */
  receive(message: unknown): void {
    this.onmessage?.({ data: typeof message === "string" ? message : JSON.stringify(message) } as never);
  }

  /** @param failure the message of an `error` event before, as `ws`, Bun and Deno have it. */
  end(code = 1006, reason = "", failure?: string): void {
    this.readyState = 3;
    if (failure !== undefined) this.onerror?.({ message: failure } as never);
    this.onclose?.({ code, reason, wasClean: code !== 1006 } as never);
  }
}

/** A client whose network and time are the test's. */
export function connectFake<C>(options: ClientOptions = {}) {
  const clock = new TestClock();
  const sockets: FakeSocket[] = [];
  class Socket extends FakeSocket {
    constructor(url: string, protocols?: string[]) {
      super(url, protocols);
      sockets.push(this);
    }
  }
  const events: [event: string, payload: unknown][] = [];
  const random = new Random();
  const client = createClient<C>("wss://example.com/websocket", {
    streams,
    WebSocket: Socket as WebSocketConstructor,
    clock,
    random: () => random.below(2 ** 30) / 2 ** 30,
    ...options,
  });
  for (const event of ["open", "close", "reconnecting", "message", "error", "status"] as const) {
    client.on(event, (payload) => void events.push([event, payload]));
  }
  /** The newest socket. The client may have asked for a token before. */
  const socket = async (): Promise<FakeSocket> => {
    await turn();
    const newest = sockets.at(-1);
    if (!newest) throw new Error("The client has opened no socket");
    return newest;
  };
  return {
    client,
    clock,
    sockets,
    seed: random.seed,
    /** The events since it was last asked; with a name, the payloads of those. */
    // deno-lint-ignore no-explicit-any -- a test reads whatever was told
    take(name?: string): any[] {
      if (name === undefined) return events.splice(0);
      const taken = events.filter(([event]) => event === name);
      for (const each of taken) events.splice(events.indexOf(each), 1);
      return taken.map(([, payload]) => payload);
    },
    socket,
    /** Lets the time until the next try pass, and no more. */
    retry(): void {
      const [, next] = events.findLast(([event]) => event === "reconnecting") ?? [];
      if (!next) throw new Error("The client does not come back");
      clock.advance((next as { delay: number }).delay);
    },
    /** The newest socket, open, and let in: by its `auth`, or by the ping of a client that shows none. */
    async admit(): Promise<FakeSocket> {
      const newest = await socket();
      newest.open();
      newest.letIn();
      return newest;
    },
  };
}
