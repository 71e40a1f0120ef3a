import type { Board } from "./board.ts";
import type { Order } from "./contract.ts";
import { type Hall, hall } from "./hall.ts";

export { Board } from "./board.ts";
export { Hall } from "./hall.ts";

declare global {
  /** The bindings of wrangler.jsonc. */
  interface Env {
    BOARD: DurableObjectNamespace<Board>;
    HALL: DurableObjectNamespace<Hall>;
    ORDERS: Queue<Order>;
  }
}

export default {
  async fetch(request, env): Promise<Response> {
    const board = env.BOARD.getByName("main");
    const { pathname } = new URL(request.url);
    if (pathname === "/orders" && request.method === "POST") {
      const order = { id: crypto.randomUUID(), text: (await request.text()).slice(0, 1_000) };
      await env.ORDERS.send(order);
      return Response.json(order, { status: 202 });
    }
    if (pathname.startsWith("/hall/")) return await hall(env).fetch(request);
    if (pathname === "/stats") return Response.json(await board.stats());
    return await board.fetch(request);
  },
  async queue({ messages }, env): Promise<void> {
    for (const { body } of messages) await env.BOARD.getByName("main").place(body);
  },
  async scheduled({ cron }, env): Promise<void> {
    await env.BOARD.getByName("main").publish("clock", "struck", { cron });
    await hall(env).home.publish("hall", "said", { text: "The bell rings" });
  },
} satisfies ExportedHandler<Env, Order>;
