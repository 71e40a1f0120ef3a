import * as v from "valibot";
import { defineContract } from "../mod.ts";

export const ROLES = ["editor", "reporter", "reader"] as const;
export type Role = typeof ROLES[number];

const text = v.pipe(v.string(), v.trim(), v.minLength(1), v.maxLength(500));

const Recipient = v.union([v.strictObject({ role: v.picklist(ROLES) }), v.strictObject({ user: v.string() })]);

const PersonSchema = v.object({ user: v.string(), name: v.string(), role: v.nullable(v.string()) });
/** A user, as others see it. */
export type Person = v.InferOutput<typeof PersonSchema>;

const NewsSchema = v.object({
  id: v.string(),
  /** ms since 1970. */
  at: v.number(),
  from: PersonSchema,
  /** Who it is for; `null`: everybody. */
  to: v.nullable(Recipient),
  text: v.string(),
});
/** One message of the newsroom. */
export type News = v.InferOutput<typeof NewsSchema>;

const SaidSchema = v.object({
  id: v.string(),
  /** ms since 1970. */
  at: v.number(),
  from: PersonSchema,
  text: v.string(),
});
/** A message in a room. */
export type Said = v.InferOutput<typeof SaidSchema>;

const DeskSchema = v.object({
  name: v.string(),
  /** It does not answer. */
  isAway: v.boolean(),
  /** One for each client. */
  users: v.array(v.string()),
});
/** A node, as the page shows it. */
export type Desk = v.InferOutput<typeof DeskSchema>;

/** Everything that the newsroom and its page send each other. */
export const contract = defineContract({
  requests: {
    say: {
      /** `draft` is the same for each attempt to say this. */
      payload: v.object({ room: v.string(), text, draft: v.optional(v.pipe(v.string(), v.uuid())) }),
      reply: v.object({ id: v.string(), heard: v.number() }),
    },
    post: {
      /** Without `to`: for everybody. */
      payload: v.object({ text, to: v.optional(Recipient) }),
      reply: v.object({ id: v.string(), reached: v.number() }),
    },
    /** Ends the node, where it is one of several. */
    kill: {},
  },
  messages: {
    welcome: v.object({ node: v.optional(v.string()), news: v.array(NewsSchema) }),
    news: v.object({ news: NewsSchema }),
    clients: v.object({
      clients: v.array(v.object({ ...PersonSchema.entries, tabs: v.number() })),
      nodes: v.optional(v.array(DeskSchema)),
    }),
  },
  channels: {
    wire: { events: { news: NewsSchema } },
    "room:*": {
      events: { say: SaidSchema },
      snapshot: v.array(v.object({ event: v.literal("say"), data: SaidSchema, offset: v.number() })),
      member: PersonSchema,
    },
  },
});
