/** Bun's own WebSocket server: topics, or a loop of `send`. `raw-bun.ts publish|loop [URL]`: with that of a Redis, as one of several nodes. */
import process from "node:process";
import { large, roleOf, said } from "./message.ts";
import { relay } from "./relay.ts";

const [mode, url] = process.argv.slice(2);
const publishes = mode !== "loop";

// The part of Bun that is used: its own types change the globals of every file that is checked with this one.
interface Socket {
  readonly data: { role: string };
  subscribe(topic: string): void;
  send(text: string): number;
  sendText(text: string): number;
}
interface Server {
  readonly port: number;
  upgrade(request: Request, options: { data: { role: string } }): boolean;
  publish(topic: string, text: string): number;
}
const { Bun } = globalThis as unknown as { Bun: { serve(options: object): Server } };

const everybody = new Set<Socket>();
const roles = new Map<string, Set<Socket>>();

const server = Bun.serve({
  port: 0,
  hostname: "127.0.0.1",
  fetch: (request: Request, server: Server) =>
    server.upgrade(request, { data: { role: roleOf(request.url) } }) ? undefined : new Response(null, { status: 426 }),
  websocket: {
    backpressureLimit: 1024 * 1024,
    closeOnBackpressureLimit: true,
    open(socket: Socket) {
      const { role } = socket.data;
      everybody.add(socket);
      const members = roles.get(role) ?? new Set();
      roles.set(role, members.add(socket));
      if (!publishes) return;
      socket.subscribe("all");
      socket.subscribe(role);
    },
    message(socket: Socket, text: string) {
      const message = JSON.parse(text);
      if (message.type === "echo") {
        const { type, uid, text } = message;
        socket.send(JSON.stringify({ type, status: "ok", uid, data: text }));
        return;
      }
      if (message.type === "say-slow") send("slow", JSON.stringify(large));
      if (message.type === "say-few") send("few", JSON.stringify(said(message.seq)));
      else sendAll(JSON.stringify(said(message.seq)));
    },
    close(socket: Socket) {
      everybody.delete(socket);
      roles.get(socket.data.role)?.delete(socket);
    },
  },
});

function send(topic: string, text: string): void {
  if (publishes) server.publish(topic, text);
  else for (const socket of topic === "all" ? everybody : roles.get(topic) ?? []) socket.sendText(text);
}

const deliver = (text: string) => send("all", text);
const sendAll = url ? await relay(url, deliver) : deliver;
console.log(`PORT ${server.port}`);
