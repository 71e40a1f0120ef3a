/** What the public types promise. The compiler checks these lines, in `npm run check`; nothing runs them. */
import { Hono } from "hono";
import { hc } from "hono/client";
import * as v from "valibot";
import {
  type Accountability,
  type Authenticate,
  type JsonValue,
  jwtAuthenticator,
  type PublicJwk,
  TokenRefusal,
  type TokenRefusalReason,
  WebSocketController,
  type WebSocketControllerOptions,
  WebSocketError,
  WebSocketService,
} from "../../mod.ts";

/** Compiles only when the two types are the same. */
function same<A, B>(..._equal: (<T>() => T extends A ? 1 : 2) extends (<T>() => T extends B ? 1 : 2) ? [] : [never]): void {}

const controller = new WebSocketController({ logger: false });
const app = new Hono().get("/websocket", controller.upgrade).get("/plain", (c) => c.json({ plain: true }));

/** `controller.upgrade`, in a Hono app. */
export const UPGRADE: Record<string, () => void> = {
  "is known to hono/client as $ws": () => {
    const client = hc<typeof app>("http://localhost:3000");
    const socket = client.websocket.$ws();
    same<typeof socket, WebSocket>();
  },

  "leaves plain routes without $ws": () => {
    const client = hc<typeof app>("http://localhost:3000");
    // @ts-expect-error -- only a WebSocket route has it
    client.plain.$ws();
  },

  "fits an app with bindings and variables, a path with parameters and a chain of middleware": () => {
    type Env = { Bindings: { SECRET: string }; Variables: { user: string } };
    const chained = new Hono<Env>().get("/rooms/:room", async (_c, next) => await next(), controller.upgrade);
    const socketOf = (client: ReturnType<typeof hc<typeof chained>>) => client.rooms[":room"].$ws({ param: { room: "1" } });
    same<ReturnType<typeof socketOf>, WebSocket>();
  },
};

/** The rest of the public types. */
export const PUBLIC: Record<string, () => void> = {
  "tell each event's payload": () => {
    const service = new WebSocketService(controller);
    service.on("connect", ({ client }) => same<typeof client.accountability, Accountability>());
    service.on("message", ({ message }) => {
      same<typeof message.type, string>();
      same<typeof message["anything"], unknown>();
    });
    service.on("close", ({ code, reason, wasClean }) => {
      same<[typeof code, typeof reason, typeof wasClean], [number, string, boolean]>();
    });
    service.on("error", ({ error }) => same<typeof error, unknown>());
    service.on("auth.failure", ({ error, cause }) => {
      same<typeof error, WebSocketError>();
      same<typeof cause, unknown>();
      if (cause instanceof TokenRefusal) same<typeof cause.reason, TokenRefusalReason>();
    });
    // @ts-expect-error -- an auth may fail before there is a client
    service.on("auth.failure", ({ client }) => client.uid);
    // @ts-expect-error -- there is no such event
    service.on("connection", () => {});
    // @ts-expect-error -- off removes one callback, so it must be told which
    service.off("connect");
  },

  "refuse a filter that could mean everybody by mistake": () => {
    const service = new WebSocketService(controller);
    service.broadcast({ type: "x" }, { user: "ann", role: "editor" });
    const user = undefined as string | undefined;
    // @ts-expect-error -- it may be undefined
    service.broadcast("x", { user });
    // @ts-expect-error -- there is no such key
    service.broadcast("x", { users: "ann" });
    // @ts-expect-error -- a function could not travel to another node
    service.broadcast("x", () => true);
    // @ts-expect-error -- a message has a type
    service.broadcast({ text: "x" });
  },

  "hand a handler the output of its schema": () => {
    controller.handle("typed", v.object({ count: v.pipe(v.string(), v.transform(Number)) }), ({ message }) => {
      same<typeof message.count, number>();
      same<typeof message.type, string>();
      // @ts-expect-error -- the schema has no such field
      return message.other;
    });
  },

  "let state be JSON only, to be replaced and not changed": () => {
    controller.on("connect", ({ client }) => {
      same<typeof client.state, JsonValue>();
      client.state = { list: [1, "a", null] };
      // @ts-expect-error -- no JSON
      client.state = () => {};
      // @ts-expect-error -- no JSON
      client.state = 1n;
      // @ts-expect-error -- it is frozen
      (client.state as { readonly a?: JsonValue }).a = 1;
      // @ts-expect-error -- who a client is follows from its credentials
      client.accountability = { user: "root", role: null };
    });
  },

  "let authenticate answer now or later, with a whole accountability or null": () => {
    const states: Authenticate[] = [
      () => null,
      () => Promise.resolve({ accountability: { user: "a", role: null, team: 7 }, expires_at: 1 }),
      (_credentials, _handshake, refuse) => refuse(new Error("Locked")),
      jwtAuthenticator({ jwksUri: "https://issuer.example/jwks.json" }),
      // One after another, as where some clients show an API key.
      async (...args) => await jwtAuthenticator({ secret: "s".repeat(32) })(...args) ?? null,
      // @ts-expect-error -- an id is a string, for 1 and "1" must not be two users
      () => ({ accountability: { user: 1, role: null } }),
      // @ts-expect-error -- no role is said so
      () => ({ accountability: { user: "a" } }),
    ];
    void states;
    // What WebCrypto exports, and a typo in it.
    const keys = (jwk: JsonWebKey): PublicJwk[] => [jwk, { kty: "EC", crv: "P-256", x: "", y: "", kid: "a", use: "sig" }];
    void keys;
    // @ts-expect-error -- a private key has a member d
    jwtAuthenticator({ keys: [{ kty: "EC", d: "" }] });
    // @ts-expect-error -- there is no such option
    const options: WebSocketControllerOptions = { maxPayloads: 1 };
    new WebSocketController(options);
  },
};
