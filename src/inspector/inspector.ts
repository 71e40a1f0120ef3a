/**
 * `noroshi/inspector`: a page with the live state of all nodes: connections, clients and why they were closed, channels, streams
 * and errors.
 *
 * @example
 * ```ts
 * import { inspector } from "noroshi/inspector";
 *
 * app.route("/inspector", inspector(controller, { channels, authorize: (c, action) => isAdmin(c, action) }));
 * ```
 *
 * @module
 */
import { type Context, Hono, type Next } from "hono";
import { isOriginPattern } from "../application/origin.ts";
import { Channels } from "../channels/channels.ts";
import { WebSocketController } from "../controller/controller.ts";
import { describeCopies } from "../base/copies.ts";
import type { WebSocketMessage } from "../protocol/protocol.ts";
import { addActions, type Authorize } from "./actions.ts";
import type { InspectedChannels } from "./query-handler.ts";
import { script, style } from "./assets.ts";
import { Inspection } from "./inspection.ts";
import { page, POLICY } from "./page.ts";
import type { InspectorAction } from "./shown.ts";

export type { InspectorAction } from "./shown.ts";

/**
 * Documented by Hono: `deno doc --lint` treats it as a type of this package.
 *
 * @internal
 */
type App = Hono;

/**
 * As {@link App}.
 *
 * @internal
 */
type HonoContext = Context;

/**
 * As {@link App}.
 *
 * @internal
 */
type AnyChannels = InspectedChannels;

/** Options of {@link inspector}. */
export interface InspectorOptions {
  /**
   * Decides who may view the page and who may perform which action: called with `"view"` for each request, and with the action
   * itself before each action. A connection of the page lasts a minute at most, and is then authorized again. Only `true` allows.
   * A `Response` refuses with that response, such as a redirect to the login.
   */
  authorize: (context: HonoContext, action: InspectorAction) => boolean | Response | Promise<boolean | Response>;
  /** The channels of the controller. @default the page shows no channels */
  channels?: AnyChannels;
  /**
   * Returns what the tap shows of a message, or `undefined` to hide it. Fields with names such as `password` and `token` are
   * always hidden. @default the message
   */
  redact?: (message: WebSocketMessage) => unknown;
  /**
   * Origins of the page besides the request's own host, such as `["https://ops.example.com"]` behind a proxy that changes `Host`.
   * The controller's `origins` do not apply. @default {[]}
   */
  origins?: readonly string[];
}

const OPTIONS: readonly string[] = ["authorize", "channels", "redact", "origins"] satisfies (keyof InspectorOptions)[];

/**
 * Creates the app of the inspector, with its page, its WebSocket route and its actions: `app.route("/inspector", inspector(…))`.
 *
 * @throws {TypeError} without `authorize`, for an unknown option, a controller that has an inspector, or one of another copy of
 * the package.
 */
export function inspector(controller: WebSocketController<unknown>, options: InspectorOptions): App {
  const { authorize, channels, redact = (message) => message, origins = [] } = checkOptions(controller, options);
  const inspection = new Inspection(controller, { channels, redact, origins });
  const ask = authorizer(authorize, inspection);
  const app = new Hono();

  const guarded = (c: Context, next: Next) => {
    for (const [name, value] of Object.entries(HEADERS)) c.header(name, value);
    return next();
  };

  app.use(async (c, next) => await ask(c, "view") ?? next());
  // Before the middleware for headers, because after an upgrade nothing may change the response.
  app.get(
    "/live",
    (c, next) => c.req.header("upgrade") === undefined ? guarded(c, next) : next(),
    // The URL of the connection shows later that it was authorized to tap.
    async (c, next) => c.req.query("tap") === undefined ? next() : await ask(c, "tap") ?? next(),
    (c, next) => inspection.upgrade(c, next), // Wrapped, so that `serve` does not find it as a route of the application.
  );
  app.use(guarded);
  const show = (c: Context) => c.html(page(c.req.url, controller.name));
  app.get("/", show);
  // In a mounted app "/" matches only the path without a slash at its end. A proxy may add one.
  app.get("/*", (c, next) => isFolder(c) ? show(c) : next());
  app.get("/main.js", (c) => c.body(script, 200, { "Content-Type": "text/javascript; charset=utf-8" }));
  app.get("/style.css", (c) => c.body(style, 200, { "Content-Type": "text/css; charset=utf-8" }));
  addActions(app, { controller, channels, ask, origins });
  return app;
}

/** Whether the request is for the path of the inspector with a slash at its end. */
function isFolder(c: Context): boolean {
  const { path, routePath } = c.req; // `routePath` of `hono/route` knows only the requests of its own copy of Hono.
  return path.endsWith("/") && path.split("/").length === routePath.split("/").length;
}

const HEADERS = {
  "Content-Security-Policy": POLICY,
  "X-Content-Type-Options": "nosniff",
  "Referrer-Policy": "no-referrer",
  "Cache-Control": "no-store",
};

/** Returns a function that calls `authorize` and resolves with the refusal, if any. */
function authorizer(authorize: InspectorOptions["authorize"], inspection: Inspection): Authorize {
  return async (c, action) => {
    let answer: unknown = false;
    try {
      answer = await authorize(c, action);
    } catch (error) {
      inspection.report(error);
    }
    if (answer === true) return undefined;
    if (answer instanceof Response) return answer;
    return c.json({ error: { code: "FORBIDDEN", message: `Not allowed to ${action}` } }, 403);
  };
}

function checkOptions(controller: WebSocketController<unknown>, options: InspectorOptions): InspectorOptions {
  const fail = (remedy: string) => new TypeError(`Cannot create the inspector: ${remedy}`);
  if (!(controller instanceof WebSocketController)) {
    throw fail(`pass a WebSocketController first, such as createWebSocketController()${describeCopies()}`);
  }
  const { authorize, channels, redact, origins }: Partial<InspectorOptions> = options ?? {};
  const unknown = Object.keys(options ?? {}).find((name) => !OPTIONS.includes(name));
  if (unknown !== undefined) throw fail(`unknown option "${unknown}", use one of ${OPTIONS.join(", ")}`);
  if (typeof authorize !== "function") {
    throw fail('pass the option "authorize", a function that decides who may view and act: (context, action) => boolean');
  }
  if (channels !== undefined && !(channels instanceof Channels)) throw fail('option "channels" must be what new Channels() made');
  if (redact !== undefined && typeof redact !== "function") throw fail('option "redact" must be a function');
  if (origins !== undefined && !(Array.isArray(origins) && origins.every(isOriginPattern))) {
    throw fail('option "origins" must be a list of origins without a path, such as ["https://ops.example.com"]');
  }
  return options;
}
