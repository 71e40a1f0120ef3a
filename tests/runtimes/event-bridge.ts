/**
 * A server that speaks RFC 6455 to a test and the fallback transport to the server under test, so that the conformance suite runs over both.
 * It adds nothing: each frame of the test is a POST, and each event of the stream is a frame.
 */
import { once } from "node:events";
import { Agent, type ClientRequest, createServer, type IncomingMessage, request, type Server, ServerResponse } from "node:http";
import { type AddressInfo, connect, type Socket } from "node:net";
import { WebSocket, WebSocketServer } from "ws";
import { checkRequest } from "../../src/controller/upgrade-request.ts";
import { NO_STATUS } from "../../src/protocol/close.ts";
import { turn } from "../support/waiting.ts";
import type { TestServer } from "./server.ts";

/** Bytes that wait on one side before nothing more is read of the other. */
const MAX_HELD = 65_536;

/** Frames of one POST, and their characters (PROTOCOL.md §8). */
const MAX_FRAMES = 64;
const MAX_BATCH = 65_536;

const sizeOf = (frames: string[] = []) => frames.reduce((sum, { length }) => sum + length, 0);

/** What the end of a request or the stream tells. */
const ignore = () => {};

/** Headers of the handshake, which the fallback does not have. */
const HANDSHAKE = /^(?:upgrade|connection|accept|sec-websocket-.*)$/i;

/** Passes a close frame on in its order. ws would answer it at once, by calling `close`. */
class BridgedSocket extends WebSocket {
  link: Link | undefined;

  override close(code: number = NO_STATUS, reason: string | Buffer = ""): void {
    // The answer to our own close frame: ws ends the TCP connection, which it would else do 30 s later.
    if (this.readyState === WebSocket.CLOSING) super.close(code, reason);
    else this.link?.post({ close: { code, reason: String(reason) } });
  }

  end(code: number, reason: string): void {
    super.close(code, reason);
  }
}

/** What the client of the fallback sends in one POST. */
interface Post {
  frames?: string[];
  pong?: number | null;
  close?: { code: number; reason: string };
  answered?: () => void;
}

/** One connection: a socket of the test and a stream of the server. */
class Link {
  readonly #ws: BridgedSocket;
  readonly #socket: Socket;
  readonly #port: number;
  readonly #stream: IncomingMessage;
  readonly #path: string;
  /** Resolves when the last pong is answered. */
  ponged: Promise<void> | undefined;
  readonly #agent = new Agent({ keepAlive: true, maxSockets: 1 });
  #opening: { connection: string; secret: string } | undefined;
  #posts: Post[] = [];
  #sequence = 0;
  #isPosting = false;
  #isOver = false;

  constructor(ws: BridgedSocket, socket: Socket, port: number, stream: IncomingMessage, path: string) {
    this.#ws = ws;
    this.#socket = socket;
    this.#port = port;
    this.#stream = stream;
    this.#path = path;
    ws.link = this;
    ws.on("message", (data: Buffer) => this.post({ frames: [data.toString()] }));
    ws.on("ping", () => this.post({}));
    ws.on("pong", (data: Buffer) => {
      this.ponged = new Promise((resolve) => this.post({ pong: data[0] ?? null, answered: resolve }));
    });
    ws.on("error", () => {}); // `close` follows.
    ws.on("close", () => {
      this.#isOver = true;
      for (const { answered } of this.#posts.splice(0)) answered?.(); // Nobody waits for a pong that is not sent any more.
      stream.destroy();
      this.#agent.destroy();
    });
    void this.#read();
  }

  async end(): Promise<void> {
    if (this.#ws.readyState === WebSocket.CLOSED) return;
    const closed = once(this.#ws, "close");
    this.#ws.terminate();
    await closed;
  }

  post(post: Post): void {
    const last = this.#posts.at(-1);
    const hasRoom = (last?.frames?.length ?? 0) < MAX_FRAMES && sizeOf(last?.frames) + sizeOf(post.frames) <= MAX_BATCH;
    if (last && post.frames && hasRoom) (last.frames ??= []).push(...post.frames);
    else this.#posts.push(post);
    if (this.#posts.length > 1) this.#ws.pause();
    if (!this.#isPosting && this.#opening) void this.#send();
  }

  async #send(): Promise<void> {
    this.#isPosting = true;
    while (this.#posts.length > 0 && !this.#isOver) {
      const { connection, secret } = this.#opening!; // It was opened before.
      const post = this.#posts.shift();
      const path = `${this.#path}${this.#path.includes("?") ? "&" : "?"}connection=${connection}`;
      const asked = request({ host: "127.0.0.1", port: this.#port, path, method: "POST", agent: this.#agent });
      asked.on("error", ignore); // Also after the answer.
      asked.on("socket", (socket) => socket.off("error", ignore).on("error", ignore)); // A body that is refused is still being written.
      asked.end(JSON.stringify({ secret, sequence: ++this.#sequence, ...post }));
      try {
        const [answer] = await once(asked, "response") as [IncomingMessage]; // As node:http emits it.
        answer.resume();
      } catch {
        break; // The server has gone: the stream ends too.
      } finally {
        post?.answered?.();
      }
      if (this.#posts.length === 0 && this.#ws.isPaused) this.#ws.resume();
    }
    this.#isPosting = false;
  }

  async #read(): Promise<void> {
    let text = "";
    let last = "";
    let close: { code: number; reason: string } | undefined;
    try {
      this.#stream.setEncoding("utf8");
      for await (const chunk of this.#stream) {
        // An event of a megabyte comes in many chunks, which are looked through and joined once.
        const hasEnd = `${last}${chunk}`.includes("\n\n");
        last = chunk.at(-1);
        text += chunk;
        for (let end = hasEnd ? text.indexOf("\n\n") : -1; end >= 0; end = text.indexOf("\n\n")) {
          const [, name = "", data = ""] = /^(?:event: (\w+)\n)?data: ([^]*)$/.exec(text.slice(0, end)) ?? [];
          text = text.slice(end + 2);
          if (name === "close") close = JSON.parse(data);
          else this.#take(name, data);
        }
        if (this.#ws.bufferedAmount > MAX_HELD) await once(this.#socket, "drain");
      }
    } catch {
      // The response broke off.
    }
    if (close) this.#ws.end(close.code, close.reason);
    else this.#ws.terminate();
  }

  #take(name: string, data: string): void {
    if (name === "") this.#ws.send(data);
    else if (name === "text") this.#ws.send(JSON.parse(data));
    else if (name === "ping") this.#ws.ping(data === "null" ? "" : Buffer.from([Number(data)]));
    else if (name === "open") {
      this.#opening = JSON.parse(data);
      if (this.#posts.length > 0) void this.#send();
    }
  }
}

/** A server under test, reached over the fallback. */
export class EventBridge implements TestServer {
  port = 0;
  readonly #inner: TestServer;
  readonly #pokes: number;
  #poking: Promise<void> = Promise.resolve();
  /** Whether a round of pokes is still to begin: it is for all clients that have gone until then. */
  #isPokeDue = false;
  readonly #links = new Set<Link>();
  readonly #server: Server = createServer({ maxHeaderSize: 1_000_000, insecureHTTPParser: true });
  readonly #sockets = new WebSocketServer({
    ...{ noServer: true, clientTracking: false, perMessageDeflate: false },
    ...{ WebSocket: BridgedSocket, handleProtocols: () => false },
  });

  /** @param pokes how often the server is to write to all streams, as of `poked-worker.ts`, once a client has gone. */
  constructor(inner: TestServer, pokes = 0) {
    this.#inner = inner;
    this.#pokes = pokes;
    this.#server.maxHeadersCount = 0;
    this.#server.on("request", (incoming, outgoing) => this.#pass(incoming, outgoing));
    this.#server.on("upgrade", (incoming, socket: Socket, head) => this.#upgrade(incoming, socket, head));
    this.#server.on("clientError", (_error, socket) => socket.destroy());
  }

  async start(): Promise<this> {
    this.#server.listen(0, "127.0.0.1");
    await once(this.#server, "listening");
    this.port = (this.#server.address() as AddressInfo).port; // A TCP server, not a pipe.
    return this;
  }

  async control(subject: string, command: string, body: unknown = {}): Promise<never> {
    if (command === "fresh") await this.#forget();
    // A pong takes another way than the command: before the clock goes on, those that the test has sent are answered.
    if (command === "advance") {
      for (let turns = 0; turns < 2; turns++) await turn();
      await Promise.all([...this.#links].map((link) => link.ponged));
    }
    return await this.#inner.control(subject, command, body) as never; // A test reads what it expects.
  }

  async pause(): Promise<void> {}

  async stop(): Promise<number | null> {
    this.#server.close();
    this.#server.closeAllConnections();
    return await this.#inner.stop();
  }

  /** A test begins: what is left of the one before must not reach it. */
  async #forget(): Promise<void> {
    await Promise.all([...this.#links].map((link) => link.end()));
    await this.#poking;
  }

  /** The kernel takes what is written first to a socket that was closed. */
  async #poke(): Promise<void> {
    this.#isPokeDue = false;
    for (let poke = 0; poke < this.#pokes; poke++) {
      const asked = request({ host: "127.0.0.1", port: this.#inner.port, path: "/poke", method: "POST", agent: false });
      asked.on("error", ignore); // Also after the answer.
      asked.end();
      try {
        const [answer] = await once(asked, "response") as [IncomingMessage]; // As node:http emits it.
        answer.resume();
      } catch {
        return; // The server has gone.
      }
    }
  }

  /** Passes on a request that asks for no upgrade. */
  #pass(incoming: IncomingMessage, outgoing: ServerResponse): void {
    const { method, url: path, rawHeaders } = incoming;
    const options = { host: "127.0.0.1", port: this.#inner.port, method, path, agent: false, setHost: false };
    const asked = request({ ...options, headers: rawHeaders as never }); // Node takes a flat list.
    asked.on("error", () => outgoing.destroy());
    asked.on("response", (answer) => {
      outgoing.writeHead(answer.statusCode ?? 500, answer.rawHeaders);
      answer.pipe(outgoing);
    });
    incoming.pipe(asked);
  }

  /** Passes the bytes of a request and of all that follows it on the connection. */
  #tunnel({ method, url, rawHeaders }: IncomingMessage, socket: Socket, head: Buffer): void {
    const lines = [`${method} ${url} HTTP/1.1`];
    for (let i = 0; i < rawHeaders.length; i += 2) lines.push(`${rawHeaders[i]}: ${rawHeaders[i + 1]}`);
    const inner = connect(this.#inner.port, "127.0.0.1");
    inner.write(Buffer.concat([Buffer.from([...lines, "", ""].join("\r\n"), "latin1"), head]));
    socket.on("error", () => inner.destroy());
    inner.on("error", () => socket.destroy());
    socket.on("close", () => inner.destroy());
    socket.pipe(inner);
    inner.pipe(socket);
  }

  #upgrade(incoming: IncomingMessage, socket: Socket, head: Buffer): void {
    socket.on("error", () => {}); // `close` follows.
    const { url = "/", headers, rawHeaders } = incoming;
    const checked = { method: incoming.method ?? "GET", headers: new Headers(headers as Record<string, string>) };
    // A handshake that is none is refused as ever.
    if (checkRequest(checked as unknown as Request)) return this.#tunnel(incoming, socket, head); // It reads these two.
    const offered = headers["sec-websocket-protocol"]?.split(",").map((name) => name.trim()) ?? [];
    // A token does not belong into the URL: the client sends it as Authorization, which comes after a subprotocol.
    const tokens = offered.filter((name) => name.startsWith("bearer.")).map((name) => name.slice("bearer.".length));
    const names = offered.filter((name) => !name.startsWith("bearer."));
    const left = tokens.length > 0 ? /^(?:authorization|upgrade|connection|accept|sec-websocket-.*)$/i : HANDSHAKE;
    const kept = rawHeaders.flatMap((name, i) => i % 2 === 0 && !left.test(name) ? [name, rawHeaders[i + 1]!] : []);
    if (tokens.length > 0) kept.push("Authorization", tokens.map((token) => `Bearer ${token}`).join(", "));
    const path = names.length === 0
      ? url
      : `${url}${url.includes("?") ? "&" : "?"}protocols=${encodeURIComponent(names.join(","))}`;
    const options = { host: "127.0.0.1", port: this.#inner.port, path, agent: false, setHost: false };
    const asked = request({ ...options, headers: [...kept, "Accept", "text/event-stream"] as never }); // Node takes a flat list.
    asked.on("error", () => socket.destroy());
    asked.on("response", (stream) => this.#answered(incoming, socket, head, asked, stream));
    socket.once("close", () => asked.destroy());
    asked.end();
  }

  #answered(incoming: IncomingMessage, socket: Socket, head: Buffer, asked: ClientRequest, stream: IncomingMessage): void {
    const { statusCode = 500, rawHeaders } = stream;
    if (!stream.headers["content-type"]?.startsWith("text/event-stream")) {
      const response = new ServerResponse(incoming);
      response.assignSocket(socket);
      response.writeHead(statusCode, rawHeaders);
      stream.pipe(response);
      response.once("finish", () => socket.end());
      socket.resume(); // Else its end is not seen.
      return;
    }
    if (socket.destroyed) return void asked.destroy();
    // The subprotocol that was agreed comes in the first event.
    let begin = Buffer.alloc(0);
    const read = (chunk: Buffer) => {
      begin = Buffer.concat([begin, chunk]);
      if (!begin.includes("\n\n")) return;
      stream.off("data", read).pause();
      stream.unshift(begin);
      const [, opening = "{}"] = /^event: open\ndata: (.*)\n/.exec(begin.toString()) ?? [];
      const { protocol } = JSON.parse(opening) as { protocol?: string | null };
      this.#sockets.once("headers", (lines: string[]) => {
        for (let i = 0; i < rawHeaders.length; i += 2) {
          if (/^(?:x-before|x-after|set-cookie)$/i.test(rawHeaders[i]!)) lines.push(`${rawHeaders[i]}: ${rawHeaders[i + 1]}`);
        }
        if (protocol) lines.push(`sec-websocket-protocol: ${protocol}`);
      });
      this.#sockets.handleUpgrade(incoming, socket, head, (ws) => {
        const link = new Link(ws as BridgedSocket, socket, this.#inner.port, stream, incoming.url ?? "/"); // It calls back with the class given.
        this.#links.add(link);
        ws.once("close", () => {
          this.#links.delete(link);
          if (this.#isPokeDue) return;
          this.#isPokeDue = true;
          this.#poking = this.#poking.then(() => this.#poke());
        });
      });
    };
    stream.on("data", read);
  }
}
