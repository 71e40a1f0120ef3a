import type { Connection } from "../connection.ts";
import { ABNORMAL, answerCloseCode, CloseCode, cutCloseReason, NO_STATUS } from "../close.ts";
import { Connections } from "../connections.ts";
import type { WebSocketController } from "../controller.ts";
import { Outbox } from "../outbox.ts";
import { SqliteEngine } from "../sqlite-engine.ts";
import type { Sql } from "../sqlite-histories.ts";
import type { SavedConnection } from "../transport.ts";
import type { Handshake } from "../websocket-client.ts";
import { AlarmClock } from "./alarm-clock.ts";
import { type HibernatingSocket, HibernatingTransport, savedOf } from "./hibernating-transport.ts";
import { type Acceptance, HOST, type Host, type Runtime } from "./runtime.ts";

/** The part of a Durable Object's state that is used. */
export interface WebSocketObjectState {
  acceptWebSocket(socket: HibernatingSocket): void;
  getWebSockets(): HibernatingSocket[];
  setWebSocketAutoResponse(pair?: unknown): void;
  readonly storage: {
    setAlarm(time: number): Promise<void>;
    /** Fails where the class has no SQLite storage. */
    readonly sql?: Sql;
  };
}

/** What one object serves: an app, and the controllers whose routes it has. */
export interface WebSocketObjectApp {
  /** One, or several with a `name` each: it is how a connection finds its controller again after hibernation. */
  controller: WebSocketController | WebSocketController[];
  app: { fetch(request: Request, env?: unknown, context?: never): Response | Promise<Response> };
}

/** A Durable Object that serves an app and its WebSocket routes. */
export interface WebSocketObject {
  fetch(request: Request): Promise<Response>;
  alarm(): void;
  webSocketMessage(socket: HibernatingSocket, message: string | ArrayBuffer): void;
  webSocketClose(socket: HibernatingSocket, code: number, reason: string, wasClean: boolean): void;
  webSocketError(socket: HibernatingSocket, error: unknown): void;
}

/**
 * A Durable Object class for an app: a controller of its own for each object — objects share an isolate and its module
 * variables — and connections that survive hibernation. The object's alarm keeps the controller's time, for a pending
 * timer would keep it from hibernating.
 *
 * Channels are kept in the object's SQLite storage, in tables that begin with `noroshi_` and the name of the controller: what clients are
 * subscribed to, members and histories survive hibernation, and histories a restart. For a class without it (`new_classes` in place of
 * `new_sqlite_classes`) they are in memory: hibernation loses them, and each client is closed with 1012 when the object wakes.
 *
 * @param build makes the controller and the app that has its route, once for each object and again after each eviction.
 *
 * @example
 * ```ts
 * export class Newsroom extends createWebSocketObject((env: Env) => createNewsroom(env)) {}
 * export default forward((env: Env) => env.NEWSROOM.getByName("main"));
 * ```
 */
export function createWebSocketObject<Env>(
  build: (env: Env, state: WebSocketObjectState) => WebSocketObjectApp,
): new (state: WebSocketObjectState, env: Env) => WebSocketObject {
  return class implements WebSocketObject {
    readonly #app: WebSocketObjectApp["app"];
    readonly #autoResponse: AutoResponse;
    readonly #clock: AlarmClock;
    readonly #connections = new Map<HibernatingSocket, Connection>();
    readonly #open = new Connections();
    // Objects share an isolate and its module variables, and one may not write to a socket of another.
    readonly #outbox = new Outbox();
    readonly #state: WebSocketObjectState;
    readonly #env: Env;

    constructor(state: WebSocketObjectState, env: Env) {
      const { app, controller } = build(env, state);
      this.#app = app;
      this.#state = state;
      this.#env = env;
      this.#clock = new AlarmClock(state);
      const controllers = byName([controller].flat());
      this.#autoResponse = new AutoResponse(state);
      const sql = sqlOf(state);
      for (const each of controllers.values()) {
        each.useClock(this.#clock);
        if (sql) each.useEngine(new SqliteEngine(sql, { prefix: `noroshi_${each.name}` }));
      }
      for (const socket of state.getWebSockets()) {
        const saved = savedOf(socket);
        if (!saved) continue; // Another library's.
        const owner = controllers.get(saved.controller);
        if (owner) {
          const connection = owner.restore(new HibernatingTransport(socket, protocolOf(saved), this.#outbox), saved);
          this.#connections.set(socket, connection);
          // Else a peer that never answers the close handshake would be waited for without end.
          if (saved.closing) connection.close(saved.closing.code, saved.closing.reason);
          this.#autoResponse.add(connection);
        } // Accepted before a deployment that took its controller away.
        else socket.close(CloseCode.SERVICE_RESTART, "No such service");
      }
      this.#autoResponse.update();
    }

    async fetch(request: Request): Promise<Response> {
      const upgrades = new Upgrades();
      const host: Host = { connections: this.#open, runtime: upgrades };
      try {
        // A copy: `env` is shared by all objects of the isolate.
        const response = await this.#app.fetch(request, { ...this.#env, [HOST]: host });
        const upgrade = upgrades.carriedBy(response);
        if (!upgrade) return response;
        if (request.signal.aborted) return new Response("The connection is gone", { status: 400 });
        this.#connect(upgrade);
        return response;
      } finally {
        upgrades.end();
      }
    }

    alarm(): void {
      this.#clock.ring();
      this.#autoResponse.update();
    }

    webSocketMessage(socket: HibernatingSocket, message: string | ArrayBuffer): void {
      this.#connections.get(socket)?.message(message);
      this.#autoResponse.update();
    }

    webSocketClose(socket: HibernatingSocket, code: number, reason: string, wasClean: boolean): void {
      const connection = this.#connections.get(socket);
      this.#connections.delete(socket);
      // workerd hands on codes that may not be sent (RFC 6455 §7.4.1): such a close is as good as none.
      const clean = wasClean && (code === NO_STATUS || answerCloseCode(code) === code);
      connection?.closed(clean ? code : ABNORMAL, clean ? reason : "", clean);
      // Unless it is closed here too, the peer waits for the answer for ever. What was not UTF-8 has become longer: close() would throw.
      socket.close(answerCloseCode(code), cutCloseReason(reason));
      this.#autoResponse.update();
    }

    webSocketError(socket: HibernatingSocket): void {
      const connection = this.#connections.get(socket);
      this.#connections.delete(socket);
      // The network's or the peer's doing; after a protocol error there is no close event.
      connection?.closed(ABNORMAL, "", false);
      this.#autoResponse.update();
    }

    #connect({ server, acceptance: { protocol, open } }: Upgrade): void {
      this.#state.acceptWebSocket(server);
      const connection = open(new HibernatingTransport(server, protocol, this.#outbox));
      this.#connections.set(server, connection);
      this.#autoResponse.add(connection);
    }
  };
}

/** An upgrade that the app has accepted, its socket not open yet. */
interface Upgrade {
  readonly client: WebSocket;
  readonly server: HibernatingSocket;
  readonly acceptance: Acceptance;
}

/**
 * What the app accepts in one request. One becomes a connection when the app's response carries its socket, all others are abandoned: a
 * timeout, an error handler or a middleware may answer in place of the route, and no runtime event would ever end that connection.
 */
class Upgrades implements Runtime {
  readonly #accepted: Upgrade[] = [];
  #ended = false;

  ip(request: Request): string | null {
    return request.headers.get("cf-connecting-ip");
  }

  accept(request: Request, acceptance: Acceptance): Response | null {
    // workerd takes the socket of a client that has gone for open, and never reports it closed. The signal aborts with the compatibility
    // flag `enable_request_signal` only.
    if (this.#ended || request.signal.aborted) return null;
    const { protocol, headers } = acceptance;
    const { WebSocketPair } = globalThis as unknown as WorkerdGlobal; // Only workerd runs this.
    const [client, server] = Object.values(new WebSocketPair()) as [WebSocket, HibernatingSocket];
    this.#accepted.push({ client, server, acceptance });
    if (protocol !== null) headers.set("sec-websocket-protocol", protocol);
    return new Response(null, { status: 101, headers, webSocket: client } as ResponseInit); // workerd's own member.
  }

  /** The upgrade whose socket the response hands to the client. A copy of a response, as Hono makes it, carries the same. */
  carriedBy(response: Response): Upgrade | undefined {
    const { webSocket } = response as { webSocket?: WebSocket | null }; // workerd's own member.
    return this.#accepted.find(({ client }) => client === webSocket);
  }

  /** The app has answered: nothing is accepted any more, and what is not a connection by now never will be. */
  end(): void {
    this.#ended = true;
    for (const { acceptance } of this.#accepted) acceptance.abandoned();
  }
}

function protocolOf({ handshake }: SavedConnection): string | null {
  return (handshake as Handshake).protocol; // Written by Connection.save.
}

/** The object's SQLite storage, if it has one. */
function sqlOf({ storage: { sql } }: WebSocketObjectState): Sql | undefined {
  try {
    // It is there in any case, and says at its use that it is not.
    return sql && [...sql.exec("SELECT 1")].length > 0 ? sql : undefined;
  } catch {
    return undefined; // Nothing else can be wrong with that statement.
  }
}

function byName(controllers: WebSocketController[]): Map<string, WebSocketController> {
  const named = new Map(controllers.map((controller) => [controller.name, controller]));
  // The names are in those of tables, and SQLite takes `A` and `a` for the same (of ASCII only).
  const tables = new Set([...named.keys()].map((name) => name.replace(/[A-Z]/g, (letter) => letter.toLowerCase())));
  if (tables.size === controllers.length && tables.size > 0) return named;
  throw new TypeError(
    "Cannot build the object: pass a controller, or several that differ in their option `name` by more than its case",
  );
}

/**
 * Lets workerd answer a client's bare `ping` without waking the object. Not while a connection is pending: nothing is sent to
 * one before `auth ok`, and its first message must be `auth`.
 */
class AutoResponse {
  readonly #state: WebSocketObjectState;
  readonly #pending = new Set<Connection>();
  #on = false;

  constructor(state: WebSocketObjectState) {
    this.#state = state;
  }

  /** Takes a new connection into account, before it can send. */
  add(connection: Connection): void {
    if (connection.isPending) this.#pending.add(connection);
    this.update();
  }

  /** Switches it as the connections are by now. Done late, switching on costs no more than a waking. */
  update(): void {
    for (const connection of this.#pending) if (!connection.isPending) this.#pending.delete(connection);
    const on = this.#pending.size === 0;
    if (on === this.#on) return;
    this.#on = on;
    const { WebSocketRequestResponsePair: Pair } = globalThis as unknown as WorkerdGlobal; // Only workerd runs this.
    if (on) this.#state.setWebSocketAutoResponse(new Pair('{"type":"ping"}', '{"type":"pong"}'));
    else this.#state.setWebSocketAutoResponse();
  }
}

/** The part of workerd's globals that is used. */
interface WorkerdGlobal {
  WebSocketPair: new () => [WebSocket, HibernatingSocket];
  WebSocketRequestResponsePair: new (request: string, response: string) => unknown;
}

/** A Worker that hands every request to the object that `find` names. */
export function forward<Env>(
  find: (env: Env, request: Request) => { fetch(request: Request): Promise<Response> },
): { fetch(request: Request, env: Env): Promise<Response> } {
  return { fetch: (request, env) => find(env, request).fetch(request) };
}
