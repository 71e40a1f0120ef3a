import { defineContract } from "noroshi";
import * as v from "valibot";

/** One message of the chat. */
const SaidSchema = v.object({
  from: v.string(),
  text: v.string(),
  /** ms since 1970. */
  at: v.number(),
});

export type Said = v.InferOutput<typeof SaidSchema>;

/** The messages between the server and its clients. */
export const contract = defineContract({
  requests: {
    say: { payload: v.object({ text: v.pipe(v.string(), v.trim(), v.minLength(1), v.maxLength(500)) }) },
  },
  channels: {
    chat: { events: { said: SaidSchema }, snapshot: v.array(SaidSchema) },
  },
});
