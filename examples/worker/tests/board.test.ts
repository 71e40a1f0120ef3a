import {
  createExecutionContext,
  createMessageBatch,
  createScheduledController,
  evictDurableObject,
  getQueueResult,
} from "cloudflare:test";
import { env, exports } from "cloudflare:workers";
import { expect, it } from "vitest";
import type { Order } from "../src/contract.ts";
import { hall } from "../src/hall.ts";
import worker from "../src/worker.ts";

/** A client, by the handshake of RFC 6455 §1.2. */
async function connect(path = "/websocket", key = "dGhlIHNhbXBsZSBub25jZQ==") {
  const headers = {
    upgrade: "websocket",
    connection: "upgrade",
    "sec-websocket-version": "13",
    "sec-websocket-key": key,
  };
  const response = await exports.default.fetch(`https://board.example${path}`, { headers });
  expect(response.status).toBe(101);
  const socket = response.webSocket!;
  socket.accept();
  const messages: Record<string, unknown>[] = [];
  let wake = () => {};
  socket.addEventListener("message", ({ data }) => {
    messages.push(JSON.parse(data as string));
    wake();
  });
  return {
    send: (message: object) => socket.send(JSON.stringify(message)),
    async next(): Promise<Record<string, unknown>> {
      while (messages.length === 0) await new Promise<void>((resolve) => wake = resolve);
      return messages.shift()!;
    },
  };
}

it("shows an order of the queue once, and keeps it while the object is away", async () => {
  const client = await connect();
  client.send({ type: "subscribe", channel: "orders" });
  expect(await client.next()).toMatchObject({ type: "subscription", event: "init" });

  const order: Order = { id: "1", text: "Two teas" };
  const message = { id: "m", timestamp: new Date(), attempts: 1, body: order };
  const batch = createMessageBatch<Order>("orders", [message, { ...message, id: "n" }]);
  const context = createExecutionContext();
  await worker.queue(batch, env);
  expect((await getQueueResult(batch, context)).outcome).toBe("ok");
  expect(await client.next()).toMatchObject({ event: "placed", data: order });

  const board = env.BOARD.getByName("main");
  await evictDurableObject(board);
  expect((await board.history("orders")).publications).toHaveLength(1);
  expect(await board.schedules()).toMatchObject([{ id: "1", name: "forget", payload: order }]);
  expect(await board.serve("1")).toBe(true);
  expect(await board.serve("1")).toBe(false);
});

it("strikes when the cron trigger comes", async () => {
  const client = await connect();
  client.send({ type: "subscribe", channel: "clock" });
  await client.next();
  await worker.scheduled(createScheduledController({ cron: "0 * * * *" }), env);
  expect(await client.next()).toMatchObject({ event: "struck", data: { cron: "0 * * * *" } });
});

it("reaches the guests of the hall, whichever relay they have", async () => {
  const guests = await Promise.all(Array.from({ length: 8 }, (_, n) => connect("/hall/websocket", btoa(`guest ${n}`.padEnd(16)))));
  for (const guest of guests) {
    guest.send({ type: "subscribe", channel: "hall" });
    expect(await guest.next()).toMatchObject({ event: "init" });
  }
  const { clients } = await hall(env).home.clients();
  expect(clients).toHaveLength(8);
  expect(new Set(clients.map(({ node }) => node)).size).toBeGreaterThan(1);
  await worker.scheduled(createScheduledController({ cron: "0 * * * *" }), env);
  for (const guest of guests) expect(await guest.next()).toMatchObject({ event: "said", data: { text: "The bell rings" } });
});
