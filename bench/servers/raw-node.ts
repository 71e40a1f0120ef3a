/**
 * ws over `node:http`, on Node and on Deno. `raw-node.ts frames|loop`: a loop of `send`, or the frame built once, and all frames of one
 * turn of the event loop in one write for each client. With the URL of a Redis it is one of several nodes.
 */
import { createServer } from "node:http";
import type { AddressInfo, Socket } from "node:net";
import process from "node:process";
import { type WebSocket, WebSocketServer } from "ws";
import { large, roleOf, said } from "./message.ts";
import { relay } from "./relay.ts";

const [mode, url] = process.argv.slice(2);
const builds = mode !== "loop";
const server = createServer();
const wss = new WebSocketServer({ server, perMessageDeflate: false, clientTracking: false });
interface Client {
  ws: WebSocket;
  socket: Socket;
}
const everybody = new Set<Client>();
const roles = new Map<string, Set<Client>>();
/** By audience, the frames of this turn. */
const turn = new Map<string, Buffer[]>();

wss.on("connection", (ws, request) => {
  const role = roleOf(request.url ?? "");
  const client = { ws, socket: request.socket };
  everybody.add(client);
  const members = roles.get(role) ?? new Set();
  roles.set(role, members.add(client));
  ws.on("message", (data) => {
    const message = JSON.parse(String(data));
    if (message.type === "echo") {
      const { type, uid, text } = message;
      ws.send(JSON.stringify({ type, status: "ok", uid, data: text }));
      return;
    }
    if (message.type === "say-slow") send("slow", JSON.stringify(large));
    if (message.type === "say-few") send("few", JSON.stringify(said(message.seq)));
    else sendAll(JSON.stringify(said(message.seq)));
  });
  ws.on("close", () => {
    everybody.delete(client);
    members.delete(client);
  });
  ws.on("error", () => {}); // The close tells.
});

const audience = (name: string): Iterable<Client> => name === "all" ? everybody : roles.get(name) ?? [];

function send(name: string, text: string): void {
  if (!builds) {
    for (const { ws } of audience(name)) {
      if (ws.bufferedAmount > 1024 * 1024) ws.terminate();
      else ws.send(text);
    }
    return;
  }
  if (turn.size === 0) setImmediate(flush);
  const frames = turn.get(name) ?? [];
  frames.push(frameOf(text));
  turn.set(name, frames);
}

function flush(): void {
  for (const [name, frames] of turn) {
    const bytes = frames.length === 1 ? frames[0]! : Buffer.concat(frames);
    for (const { ws, socket } of audience(name)) {
      if (ws.bufferedAmount > 1024 * 1024) ws.terminate();
      else socket.write(bytes);
    }
  }
  turn.clear();
}

/** RFC 6455 §5.2. */
function frameOf(text: string): Buffer {
  const length = Buffer.byteLength(text);
  const header = length < 126 ? 2 : length < 65536 ? 4 : 10;
  const frame = Buffer.allocUnsafe(header + length);
  frame[0] = 0x81;
  frame[1] = header === 2 ? length : header === 4 ? 126 : 127;
  if (header === 4) frame.writeUInt16BE(length, 2);
  if (header === 10) frame.writeBigUInt64BE(BigInt(length), 2);
  frame.write(text, header);
  return frame;
}

const deliver = (text: string) => send("all", text);
const sendAll = url ? await relay(url, deliver) : deliver;
server.listen(0, "127.0.0.1", () => console.log(`PORT ${(server.address() as AddressInfo).port}`));
