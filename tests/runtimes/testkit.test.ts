/**
 * The conformance suite against the test kit: real bytes on a real socket as far as a bridge, which speaks RFC 6455 by `ws`, and from there
 * the kit's own upgrade, links and sockets. What its clock does is tested in `tests/testing/`: the suite's controllers have clocks of
 * their own.
 */
import assert from "node:assert/strict";
import { once } from "node:events";
import { type IncomingMessage, type Server, ServerResponse } from "node:http";
import type { AddressInfo, Socket } from "node:net";
import { createAdaptorServer } from "@hono/node-server";
import { WebSocket, WebSocketServer } from "ws";
import { CLOSING } from "../../src/delivery/transport.ts";
import { NO_STATUS } from "../../src/protocol/close.ts";
import { toRequest } from "../../src/runtimes/node-request.ts";
import type { UpgradeResponse } from "../../src/testing/memory-socket.ts";
import { TestNode } from "../../src/testing/node.ts";
import { Turns } from "../../src/testing/turns.ts";
import { VirtualTime } from "../../src/testing/virtual-time.ts";
import { Wire as Link } from "../../src/testing/wire.ts";
import { heldBack } from "./behaviours/authentication.ts";
import { holdsNoMoreThanTheLimit } from "./behaviours/delivery.ts";
import { conformance } from "./conformance.ts";
import { createFixture } from "./fixture/app.ts";
import { control, type TestServer } from "./server.ts";
import { Wire } from "./wire.ts";

/** Bytes that the bridge buffers for a client before the kit treats it as stalled. */
const MAX_HELD = 65_536;

/** Passes a close frame on in its order. ws would answer it at once, by calling `close`, and reports it when the TCP connection has ended. */
class BridgedSocket extends WebSocket {
  link: Link | undefined;

  override close(code: number = NO_STATUS, reason: string | Buffer = ""): void {
    if (this.link?.serverState === CLOSING) this.link.answerClose(code, String(reason));
    else this.link?.closeFromClient(code, String(reason));
  }

  end(code: number, reason: string | Buffer): void {
    if (code === NO_STATUS) super.close();
    else super.close(code, reason);
  }
}

class Bridge implements TestServer {
  port = 0;
  readonly #turns = new Turns((error) => {
    throw error;
  });
  readonly #node: TestNode;
  readonly #server: Server;
  readonly #sockets = new WebSocketServer({
    ...{ noServer: true, clientTracking: false, perMessageDeflate: false },
    ...{ WebSocket: BridgedSocket, handleProtocols: () => false },
  });
  readonly #app = createFixture().app;

  constructor() {
    const time = new VirtualTime(0, () => this.#turns.settle());
    const build = () => this.#app;
    this.#node = new TestNode(0, { time, env: {}, broker: undefined, sqlite: undefined, build });
    this.#server = createAdaptorServer({ fetch: this.#app.fetch }) as Server; // HTTP/1 by default.
    this.#server.on("upgrade", (incoming, socket: Socket, head) => void this.#upgrade(incoming, socket, head));
  }

  async start(): Promise<this> {
    this.#node.start();
    this.#server.listen(0, "127.0.0.1");
    await once(this.#server, "listening");
    this.port = (this.#server.address() as AddressInfo).port; // A TCP server, not a pipe.
    return this;
  }

  // Over the network, so that earlier actions of a client are handled first.
  async control(subject: string, command: string, body: unknown = {}): Promise<never> {
    return await control(this.port, subject, command, body) as never; // A test reads what it expects.
  }

  async pause(): Promise<void> {}

  async stop(): Promise<number> {
    this.#server.close();
    this.#server.closeAllConnections();
    await this.#node.stop();
    return 0;
  }

  async #upgrade(incoming: IncomingMessage, socket: Socket, head: Buffer): Promise<void> {
    socket.on("error", () => {}); // `close` follows.
    const request = toRequest(incoming);
    if (!request) return refuse(incoming, socket, { status: 400, headers: new Headers(), body: "Bad Request" });
    const leaving = new AbortController();
    socket.once("close", () => leaving.abort());
    const watched = new Request(request, { signal: leaving.signal });
    const accept = (response: UpgradeResponse, protocol: string | null) => {
      if (socket.destroyed) return null;
      return this.#open(incoming, socket, head, response, protocol);
    };
    const answer = await this.#node.upgrade(watched, socket.remoteAddress ?? null, accept);
    if (answer.status !== 101) refuse(incoming, socket, answer);
  }

  #open(
    incoming: IncomingMessage,
    socket: Socket,
    head: Buffer,
    { headers }: UpgradeResponse,
    protocol: string | null,
  ): Link | null {
    let link: Link | null = null;
    this.#sockets.once("headers", (lines: string[]) => {
      for (const [name, value] of headers) lines.push(`${name}: ${value}`);
      if (protocol !== null) lines.push(`sec-websocket-protocol: ${protocol}`);
    });
    // ws calls back before it returns, with the given class.
    this.#sockets.handleUpgrade(incoming, socket, head, (ws) => link = this.#join(ws as BridgedSocket, socket));
    return link;
  }

  #join(ws: BridgedSocket, socket: Socket): Link {
    const link: Link = new Link(
      this.#turns,
      {
        message(text) {
          ws.send(text);
          if (ws.bufferedAmount <= MAX_HELD) return;
          link.stall();
          socket.once("drain", () => link.unstall());
        },
        closing: (code, reason) => ws.end(code, reason),
        closed: (code, reason, wasClean) => wasClean ? ws.end(code, reason) : ws.terminate(),
        ping: (number) => ws.ping(number === undefined ? "" : Buffer.from([number])),
        pong: () => {},
      },
      () => {},
      () => {},
    );
    ws.on("message", (data: Buffer, isBinary) => link.sendToServer(isBinary ? data : data.toString()));
    ws.on("ping", () => link.ping());
    ws.on("pong", (data: Buffer) => link.pong(data[0]));
    ws.on("error", () => {}); // `close` follows.
    ws.on("close", (code: number) => {
      if (code === 1006) link.terminate("client");
    });
    ws.link = link;
    return link;
  }
}

function refuse(incoming: IncomingMessage, socket: Socket, { status, headers, body }: UpgradeResponse): void {
  const response = new ServerResponse(incoming);
  response.assignSocket(socket);
  response.writeHead(status, {
    ...Object.fromEntries(headers),
    connection: headers.get("connection") ?? "close",
    "content-length": Buffer.byteLength(body),
  });
  response.end(body, () => socket.end());
  socket.resume(); // Otherwise the end of the connection is not noticed.
}

conformance("The test kit", () => new Bridge().start(), {
  differences: {
    ...heldBack,
    "passes a POST that offers HTTP/2 to its route, with its body": {
      because: "the kit handles upgrades to WebSocket only",
      async instead({ port }) {
        const headers = { Connection: "close", Upgrade: undefined, "Content-Length": "6" };
        const { answer } = await Wire.request(port, "/posted", { method: "POST", headers, follow: Buffer.from("a body") });
        assert.deepEqual([answer.status, answer.body], [200, "a body"]);
      },
    },
    "at most the limit and one message are buffered for a client that does not read, however much one turn sends": {
      because:
        "the bridge stalls a client after the turn that fills its buffers, and the kit counts buffered bytes of stalled clients only",
      instead: (server) => holdsNoMoreThanTheLimit(server, 4),
    },
    "answers 4xx to an upgrade with a thousand headers": {
      because: "there is no limit in memory",
      async instead({ port }) {
        const headers = Object.fromEntries(Array.from({ length: 1_000 }, (_, i) => [`X${i}`, "1"]));
        assert.equal((await Wire.request(port, "/public", { headers })).answer.status, 101);
      },
    },
  },
});
