/** workerd's hibernation API in a Durable Object, and a loop of `send`. */
import { forward } from "../../src/serve/cloudflare.ts";
import { large, roleOf, said } from "./message.ts";

/** The part of workerd that is used. */
interface Socket {
  readonly bufferedAmount?: number;
  send(text: string): void;
  close(code: number, reason: string): void;
  serializeAttachment(value: unknown): void;
  deserializeAttachment(): unknown;
}
interface State {
  acceptWebSocket(socket: Socket): void;
  getWebSockets(): Socket[];
}

export class Bench {
  readonly #state: State;
  // Kept: getWebSockets() makes a new array of all of them.
  readonly #everybody = new Set<Socket>();
  readonly #roles = new Map<string, Set<Socket>>();

  constructor(state: State) {
    this.#state = state;
    for (const socket of state.getWebSockets()) {
      this.#add(socket, socket.deserializeAttachment() as string); // Written below.
    }
  }

  fetch(request: Request): Response {
    const { WebSocketPair } = globalThis as unknown as {
      WebSocketPair: new () => [WebSocket, Socket];
    }; // Only workerd runs this.
    const [client, server] = Object.values(new WebSocketPair()) as [WebSocket, Socket];
    const role = roleOf(request.url);
    this.#state.acceptWebSocket(server);
    server.serializeAttachment(role);
    this.#add(server, role);
    return new Response(null, { status: 101, webSocket: client } as ResponseInit); // workerd's own member.
  }

  webSocketMessage(socket: Socket, text: string): void {
    const message = JSON.parse(text);
    if (message.type === "echo") {
      const { type, uid, text } = message;
      socket.send(JSON.stringify({ type, status: "ok", uid, data: text }));
      return;
    }
    if (message.type === "say-slow") {
      this.#send(this.#roles.get("slow"), JSON.stringify(large));
    }
    this.#send(message.type === "say-few" ? this.#roles.get("few") : this.#everybody, JSON.stringify(said(message.seq)));
  }

  webSocketClose(socket: Socket): void {
    this.#everybody.delete(socket);
    for (const members of this.#roles.values()) members.delete(socket);
  }

  webSocketError(socket: Socket): void {
    this.webSocketClose(socket);
  }

  #add(socket: Socket, role: string): void {
    this.#everybody.add(socket);
    const members = this.#roles.get(role) ?? new Set();
    this.#roles.set(role, members.add(socket));
  }

  #send(audience: Iterable<Socket> = [], text: string): void {
    for (const socket of audience) {
      if ((socket.bufferedAmount ?? 0) <= 1024 * 1024) socket.send(text);
    }
  }
}

export default forward((
  env: {
    BENCH: {
      getByName(name: string): { fetch(request: Request): Promise<Response> };
    };
  },
) => env.BENCH.getByName("main"));
