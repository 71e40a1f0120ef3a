import { Hono } from "hono";
import { WebSocketController } from "noroshi";
import { Channels } from "noroshi/channels";
import { createWebSocketObject } from "noroshi/cloudflare";
import { type ScheduledCall, Schedules } from "noroshi/schedules";
import { contract, type Order } from "./contract.ts";

/** How long an order may wait, in ms. */
const PATIENCE = 10 * 60_000;

const Base = createWebSocketObject((_env: Env, _state: DurableObjectState) => {
  const controller = new WebSocketController({ contract });
  const channels = new Channels(controller, {
    orders: { authorize: ({ action }) => action === "subscribe", history: { size: 100, ttl: 60 * 60_000 } },
    clock: { authorize: ({ action }) => action === "subscribe" },
  });
  const schedules = new Schedules({
    // A call may run twice; the id publishes it once. "placed" has used the bare id on this channel.
    forget: async ({ id, payload }: ScheduledCall<Order>) => {
      await channels.publish("orders", "forgotten", payload, { id: `forgotten ${id}` });
    },
  });
  return { app: new Hono().get("/websocket", controller.upgrade), controller, channels, schedules };
});

/** A board that shows orders, and that nobody forgets one. */
export class Board extends Base {
  /** Shows an order, once, however often the queue delivers it. */
  async place(order: Order): Promise<void> {
    await this.publish("orders", "placed", order, { id: order.id });
    await this.schedule(PATIENCE, "forget", order, { id: order.id });
  }

  /** Takes an order off. Returns whether it was there. */
  async serve(id: string): Promise<boolean> {
    return await this.cancel(id);
  }
}
