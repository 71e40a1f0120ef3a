/** `Deno.upgradeWebSocket` and a loop of `send`. */
import { large, roleOf, said } from "./message.ts";

// Only Deno runs this; the cast is for checking it where Deno's types are not installed.
const { Deno } = globalThis as unknown as {
  Deno: {
    serve(options: object, handler: (request: Request) => Response): void;
    upgradeWebSocket(request: Request): { socket: WebSocket; response: Response };
  };
};
const everybody = new Set<WebSocket>();
const roles = new Map<string, Set<WebSocket>>();

Deno.serve(
  { port: 0, hostname: "127.0.0.1", onListen: ({ port }: { port: number }) => console.log(`PORT ${port}`) },
  (request) => {
    const { socket, response } = Deno.upgradeWebSocket(request);
    const role = roleOf(request.url);
    const members = roles.get(role) ?? new Set();
    roles.set(role, members);
    socket.onopen = () => {
      everybody.add(socket);
      members.add(socket);
    };
    socket.onmessage = ({ data }) => {
      const message = JSON.parse(data);
      if (message.type === "echo") {
        const { type, uid, text } = message;
        socket.send(JSON.stringify({ type, status: "ok", uid, data: text }));
        return;
      }
      if (message.type === "say-slow") send(roles.get("slow"), JSON.stringify(large));
      send(message.type === "say-few" ? roles.get("few") : everybody, JSON.stringify(said(message.seq)));
    };
    socket.onclose = () => {
      everybody.delete(socket);
      members.delete(socket);
    };
    return response;
  },
);

function send(audience: Iterable<WebSocket> = [], text: string): void {
  for (const socket of audience) {
    if (socket.readyState === WebSocket.OPEN && socket.bufferedAmount <= 1024 * 1024) socket.send(text);
  }
}
