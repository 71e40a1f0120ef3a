import { defineContract } from "noroshi";
import * as v from "valibot";

const OrderSchema = v.object({ id: v.string(), text: v.string() });

export type Order = v.InferOutput<typeof OrderSchema>;

/** What the board publishes: the server and its clients share this. */
export const contract = defineContract({
  channels: {
    orders: { events: { placed: OrderSchema, forgotten: OrderSchema } },
    clock: { events: { struck: v.object({ cron: v.string() }) } },
  },
});

/** What is said in the hall. */
export const hallContract = defineContract({
  channels: { hall: { events: { said: v.object({ text: v.string() }) } } },
});
