import { defineContract } from "noroshi";
import * as v from "valibot";

export const ROOMS = ["lobby", "kitchen", "garden"] as const;
export type Room = typeof ROOMS[number];

const SaidSchema = v.object({
  id: v.string(),
  from: v.string(),
  text: v.string(),
  /** ms since 1970. */
  at: v.number(),
});
/** One message of a room. */
export type Said = v.InferOutput<typeof SaidSchema>;

/** Everything that the server and the page send each other. */
export const contract = defineContract({
  requests: {
    say: {
      payload: v.object({
        /** The same when a message is sent again, which is said once. */
        id: v.optional(v.pipe(v.string(), v.uuid())),
        room: v.picklist(ROOMS),
        text: v.pipe(v.string(), v.trim(), v.minLength(1), v.maxLength(500)),
      }),
    },
  },
  channels: {
    "room:*": { events: { said: SaidSchema }, snapshot: v.array(SaidSchema) },
  },
});
