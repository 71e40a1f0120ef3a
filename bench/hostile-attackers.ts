/**
 * The attackers, in a process of their own. Each kind is bounded in connections and rate, which is what the bench measures the
 * server under; only the loopback interface is used, and the process ends with its parent.
 */
import { connect, type Socket } from "node:net";
import { performance } from "node:perf_hooks";
import process from "node:process";
import { frame } from "../tests/runtimes/wire.ts";

const [port, seconds, flooders] = process.argv.slice(2, 5).map(Number) as [number, number, number];
/** The kinds that attack. Empty: all. */
const chosen = process.argv.slice(5);

/** All attackers write once in so many ms. */
const TICK = 20;
const TICKS_PER_SECOND = 1000 / TICK;

/** What was done, by kind. */
const done: Record<string, number> = {};
const count = (name: string, by = 1) => done[name] = (done[name] ?? 0) + by;

const open = new Set<Socket>();
let stopped = false;

/**
 * A socket with an upgrade request on its way. Each kind has an address of its own, none that of the honest clients: the limit of
 * failed authentications is an address's, and would end all kinds for what one of them does.
 */
function dial(path: string | null, address: number): Socket {
  const socket = connect({ port, host: "127.0.0.1", localAddress: `127.0.0.${address}`, noDelay: true });
  open.add(socket);
  socket.on("close", () => open.delete(socket));
  socket.on("error", () => {});
  if (path !== null) socket.write(request(path));
  return socket;
}

const request = (path: string) =>
  `GET ${path} HTTP/1.1\r\nHost: 127.0.0.1:${port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n` +
  "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n";

/** Never resetAndDestroy() after the other side has ended: Node 20 spins for ever. */
function reset(socket: Socket): void {
  if (socket.readableEnded || socket.destroyed) socket.destroy();
  else socket.resetAndDestroy();
}

/** Keeps so many connections, and has each write at every tick. One that was ended comes back, at most two a tick of a kind. */
function keep(
  name: string,
  address: number,
  number: number,
  path: (i: number) => string | null,
  write: (socket: Socket, tick: number) => void,
) {
  const sockets: Socket[] = [];
  return (tick: number) => {
    let dialled = 0;
    for (let i = 0; i < number; i++) {
      const socket = sockets[i];
      if (
        socket && !socket.destroyed && !socket.readableEnded && socket.writable
      ) write(socket, tick + i);
      else if (dialled++ < 2) {
        if (socket) reset(socket);
        const next = sockets[i] = dial(path(i), address);
        count(`${name}: connections`);
        if (name !== "stalled readers") next.on("data", () => {});
      }
    }
  };
}

const PINGS = 50;
const pings = Buffer.concat(Array.from({ length: PINGS }, (_, uid) => frame(1, JSON.stringify({ type: "ping", uid }))));
const junk = [
  frame(1, "{"),
  frame(1, "[1,2,3]"),
  frame(1, "[".repeat(5_000)),
  frame(1, ""),
  frame(2, Buffer.from([0xff, 0xfe, 0])),
  frame(1, JSON.stringify({ type: "x".repeat(5_000), uid: {} })),
  frame(1, '{"__proto__":{"admin":true},"type":"nothing"}'),
  frame(9, "ping"),
  frame(1, Buffer.from([0x80])), // Not UTF-8.
  frame(3, "reserved opcode"),
  frame(1, "x".repeat(70_000)), // Over maxPayload.
  frame(1, "unmasked", { mask: false }),
  frame(0, "continues nothing"),
];

const HEADER = "GET /public HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Slow: ";

const attacks: Record<string, (tick: number) => void> = {
  // By default 20 × 50 × 50 = 50,000 a second, 25 times what the server allows.
  "flood": keep(
    "flood",
    2,
    flooders,
    (i) => `/public?access_token=flood${i}:flood`,
    (socket) => {
      if (socket.writableLength > 65_536) return;
      socket.write(pings);
      count("flood: messages", PINGS);
    },
  ),
  "junk": keep(
    "junk",
    3,
    10,
    (i) => `/public?access_token=junk${i}:junk`,
    (socket, tick) => {
      if (socket.writableLength > 262_144) return;
      socket.write(junk[tick % junk.length]!);
      count("junk: frames");
    },
  ),
  "never auth": keep("never auth", 4, 200, () => "/handshake", () => {}),
  "slow headers": keep("slow headers", 5, 100, () => null, (socket, tick) => {
    if (tick % TICKS_PER_SECOND !== 0) return;
    socket.write(socket.bytesWritten === 0 ? HEADER : "x");
    count("slow headers: bytes");
  }),
  // Nothing is ever read; that it was closed it does not see, so it comes again after ten seconds.
  "stalled readers": keep("stalled readers", 6, 10, (i) => `/public?access_token=stalled${i}:stalled`, (socket, tick) => {
    if (tick % (10 * TICKS_PER_SECOND) === 0) reset(socket);
  }),
  // 100 a second: half in the middle of the upgrade, half once it is answered.
  "storm": (tick) => {
    count("storm: connections", 2);
    const early = dial("/public", 7);
    early.once("connect", () => setImmediate(() => reset(early)));
    const late = dial(`/public?access_token=storm${tick % 100}:storm`, 7);
    late.once("data", () => reset(late));
  },
  // 10 a second with a bad token.
  "bad tokens": (tick) => {
    if (tick % 5 !== 0) return;
    count("bad tokens: connections");
    const socket = dial("/public?access_token=bad", 8);
    socket.once("data", () => reset(socket));
  },
};
const unknown = chosen.find((name) => !attacks[name]);
if (unknown) throw new Error(`There is no attack "${unknown}": use ${Object.keys(attacks).join(", ")}`);
const running = Object.entries(attacks).filter(([name]) => chosen.length === 0 || chosen.includes(name));

let tick = 0;
const since = performance.eventLoopUtilization();
const timer = setInterval(() => {
  tick++;
  for (const [, attack] of running) attack(tick);
}, TICK);

function stop(): void {
  if (stopped) return;
  stopped = true;
  clearInterval(timer);
  const idle = 1 - performance.eventLoopUtilization(since).utilization;
  for (const socket of open) reset(socket);
  process.send?.({ done, idle, ticks: tick }, () => process.exit(0));
}
setTimeout(stop, seconds * 1000);
process.on("disconnect", () => process.exit(0));
