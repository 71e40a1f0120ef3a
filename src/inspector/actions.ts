import type { Context, Hono } from "hono";
import { bodyLimit } from "hono/body-limit";
import * as v from "valibot";
import { isAllowedOrigin } from "../application/origin.ts";
import type { WebSocketController } from "../controller/controller.ts";
import { WebSocketError } from "../protocol/errors.ts";
import { FIRST_ISSUE } from "../protocol/protocol.ts";
import type { InspectedChannels } from "./query-handler.ts";
import { ChannelQuerySchema } from "./query.ts";
import { readChannel } from "./read-channel.ts";
import { ACTIONS, type InspectorAction } from "./shown.ts";

/** Asks the application whether it allows the action. Resolves with the refusal, or with `undefined`. */
export type Authorize = (context: Context, action: InspectorAction) => Promise<Response | undefined>;

/** What the routes of the actions need. */
export interface ActionsHost {
  readonly controller: WebSocketController<unknown>;
  readonly channels: InspectedChannels | undefined;
  readonly ask: Authorize;
  readonly origins: readonly string[];
}

/** Maximum size of a request, in bytes. */
const MAX_SIZE = 65_536;

const id = v.pipe(v.string(), v.minLength(1), v.maxLength(256));
const filter = v.strictObject({ user: v.exactOptional(id), role: v.exactOptional(id) });

const SCHEMAS = {
  read: ChannelQuerySchema,
  disconnect: v.object({
    filter: v.strictObject({ user: v.exactOptional(id), role: v.exactOptional(id), uid: v.exactOptional(id) }),
    code: v.optional(v.number()),
    reason: v.optional(v.string()),
  }),
  refresh: v.object({ filter }),
  broadcast: v.object({ filter, message: v.looseObject({ type: v.string() }) }),
  publish: v.object({ channel: v.string(), event: v.string(), data: v.unknown() }),
};

/** Adds `GET /actions`, which lists the allowed actions, and a `POST` route for each action. */
export function addActions(app: Hono, { controller, channels, ask, origins }: ActionsHost): void {
  const run = {
    read: (query: v.InferOutput<typeof SCHEMAS.read>) => readChannel(channels, query),
    disconnect: ({ filter, code, reason }: v.InferOutput<typeof SCHEMAS.disconnect>) =>
      controller.disconnect(filter, code, reason),
    refresh: ({ filter }: v.InferOutput<typeof SCHEMAS.refresh>) => controller.refresh(filter),
    broadcast: ({ message, filter }: v.InferOutput<typeof SCHEMAS.broadcast>) => controller.broadcast(message as never, filter), // The contract checks it.
    publish: ({ channel, event, data }: v.InferOutput<typeof SCHEMAS.publish>) => {
      if (!channels) throw new TypeError('Cannot publish: pass the option "channels" to the inspector');
      return channels.publish(channel, event, data as never); // As above.
    },
  };

  app.get("/actions", async (c) => {
    const actions = [...ACTIONS, "tap"] as const;
    const refusals = await Promise.all(actions.map((action) => ask(c, action)));
    return c.json({ actions: actions.filter((_, index) => !refusals[index]) });
  });

  const fail = (c: Context, status: 400 | 403 | 413 | 415 | 503, code: string, message: string) =>
    c.json({ error: { code, message } }, status);
  const limit = bodyLimit({ maxSize: MAX_SIZE, onError: (c) => fail(c, 413, "INVALID_PAYLOAD", "The request is too large") });

  for (const action of ACTIONS) {
    app.post(
      `/actions/${action}`,
      async (c, next) => {
        // A form of another site can send cookies, but no JSON, and its browser sends the origin.
        const origin = c.req.header("origin");
        if (origin !== undefined && !isAllowedOrigin(origin, c.req.header("host")?.toLowerCase() ?? "", origins)) {
          return fail(c, 403, "FORBIDDEN", "The page is of another site");
        }
        if (!/^application\/json\b/.test(c.req.header("content-type") ?? "")) {
          return fail(c, 415, "INVALID_PAYLOAD", "Send application/json");
        }
        return await ask(c, action) ?? next();
      },
      limit,
      async (c) => {
        // A body that is not JSON fails the schema.
        const parsed = v.safeParse(SCHEMAS[action], await c.req.json().catch(() => undefined), FIRST_ISSUE);
        if (!parsed.success) return fail(c, 400, "INVALID_PAYLOAD", `The payload of ${action} is not valid`);
        try {
          return c.json({ result: await run[action](parsed.output as never) ?? null }); // By the schema of the same action.
        } catch (error) {
          const { code, message } = WebSocketError.from(error) ?? {};
          if (code !== undefined) return fail(c, 503, code, message ?? "");
          if (error instanceof TypeError) return fail(c, 400, "INVALID_PAYLOAD", error.message);
          throw error;
        }
      },
    );
  }
}
