/**
 * How soon a node ends the connections that another one is told to end, or asks about them anew: three nodes, on Bun, Deno and Node.
 * `node --import tsx bench/revocation.ts [--count=500] [--crowd=300] [--brokers=redis,nats]`
 *
 * The order is sent to the first node by a client of its own, and the time until the one that it is about is told or closed on another node is
 * taken. A client in mid-handshake is one whose token takes 100 ms to verify, of which 30 ms have passed: it is refused when that is over.
 */
import { once } from "node:events";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";
import WebSocket from "ws";
import { BROKERS, type RunningNode, sumUp, withNodes } from "./nodes.ts";

const { values } = parseArgs({
  options: {
    count: { type: "string", default: "500" },
    crowd: { type: "string", default: "300" },
    brokers: { type: "string", default: "redis,nats" },
  },
});

/** Revocations under way. */
const AT_ONCE = 4;

/** How long a handshake has been under way when the order is given, in ms. */
const UNDER_WAY = 30;

type Order = (type: "disconnect" | "refresh", user: string) => void;

const urlOf = ({ port }: RunningNode): string => `ws://127.0.0.1:${port}/websocket`;

/** Each revokes the rights of one client at the node, and resolves when the client knows: with the ms that it took. */
const KINDS: Record<string, (node: RunningNode, user: string, order: Order) => Promise<number>> = {
  "disconnect, connected": async (node, user, order) => {
    const socket = await open(`${urlOf(node)}?access_token=${user}`);
    const start = performance.now();
    order("disconnect", user);
    await closed(socket);
    return performance.now() - start;
  },
  "disconnect, in its first auth": async (node, user, order) => {
    const socket = await open(urlOf(node));
    socket.send(JSON.stringify({ type: "auth", access_token: `slow${user}` }));
    await sleep(UNDER_WAY);
    const start = performance.now();
    order("disconnect", `slow${user}`);
    await closed(socket);
    return performance.now() - start;
  },
  "disconnect, in its upgrade": async (node, user, order) => {
    const socket = new WebSocket(`${urlOf(node)}?access_token=slow${user}`);
    // Where the order comes late it is let in, and closed then.
    const over = Promise.race([
      once(socket, "unexpected-response").then(([, { statusCode }]) => expect(statusCode, 403)),
      closed(socket),
    ]);
    await sleep(UNDER_WAY);
    const start = performance.now();
    order("disconnect", `slow${user}`);
    await over;
    socket.on("error", () => {}).terminate(); // That it is ended before it is open is what is wanted.
    return performance.now() - start;
  },
  "refresh": async (node, user, order) => {
    const socket = await open(`${urlOf(node)}?access_token=${user}`);
    const start = performance.now();
    order("refresh", user);
    const [data] = await once(socket, "message");
    expect(JSON.parse(String(data)).error.code, "TOKEN_EXPIRED");
    socket.terminate();
    return performance.now() - start;
  },
};

async function closed(socket: WebSocket): Promise<void> {
  const [code] = await once(socket, "close");
  expect(code, 4403);
}

function expect(actual: unknown, expected: unknown): void {
  if (actual !== expected) throw new Error(`A client was told ${actual}, not ${expected}`);
}

async function open(url: string): Promise<WebSocket> {
  const socket = new WebSocket(url);
  await once(socket, "open");
  return socket;
}

async function revoke(nodes: RunningNode[], broker: string): Promise<void> {
  const [first, ...others] = nodes as [RunningNode, ...RunningNode[]]; // Three were started.
  // Whom nothing is to happen to.
  const crowd = await Promise.all(
    nodes.flatMap((node, place) =>
      Array.from({ length: Number(values.crowd) }, (_, index) => open(`${urlOf(node)}?access_token=other${place}.${index}`))
    ),
  );
  const commander = await open(urlOf(first));
  const order: Order = (type, user) => commander.send(JSON.stringify({ type, user }));
  for (const [kind, run] of Object.entries(KINDS)) {
    const times: number[] = [];
    for (let number = 0; number < Number(values.count);) {
      const some = Array.from({ length: AT_ONCE }, () => number++);
      times.push(...await Promise.all(some.map((each) => run(others[each % others.length]!, `${kind.length}.${each}`, order)))); // Below its length.
    }
    console.log(`${broker}, ${kind}: ${times.length}, ${sumUp(times)}`);
  }
  const lost = crowd.filter(({ readyState }) => readyState !== WebSocket.OPEN).length;
  if (lost > 0) throw new Error(`${lost} were disconnected whom nobody meant`);
  for (const socket of [commander, ...crowd]) socket.terminate();
}

const brokers = values.brokers.split(",");
if (!brokers.every((name) => name in BROKERS)) throw new Error("Cannot measure: see the first lines of this file");
await withNodes(brokers, ["node", "bun", "deno"], revoke);
