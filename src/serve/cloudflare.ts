/**
 * WebSocket routes in a Durable Object of Cloudflare, with hibernation.
 *
 * @module
 */
import type { Connection } from "../connection/connection.ts";
import { ABNORMAL, answerCloseCode, CloseCode, cutCloseReason, NO_STATUS } from "../protocol/close.ts";
import { Connections } from "../connection/connections.ts";
import type { WebSocketController } from "../controller/controller.ts";
import { WriteQueue } from "../delivery/write-queue.ts";
import { SqliteEngine } from "../engines/sqlite-engine.ts";
import type { Sql } from "../engines/sqlite-histories.ts";
import type { SavedConnection } from "../delivery/transport.ts";
import type { Handshake } from "../application/websocket-client.ts";
import { AlarmClock } from "./alarm-clock.ts";
import { type HibernatingSocket, HibernatingTransport, savedOf } from "./hibernating-transport.ts";
import { type Acceptance, HOST, type Host, type Runtime } from "../runtimes/runtime.ts";

export type { HibernatingSocket, Sql };

/** The part of a Durable Object's state that {@link createWebSocketObject} uses. */
export interface WebSocketObjectState {
  /** Accepts a socket that may hibernate. */
  acceptWebSocket(socket: HibernatingSocket): void;
  /** The object's open sockets. */
  getWebSockets(): HibernatingSocket[];
  /** Sets what workerd answers without waking the object. */
  setWebSocketAutoResponse(pair?: unknown): void;
  /** The object's storage and alarm. */
  readonly storage: {
    /** Sets the object's one alarm, in ms since 1970. */
    setAlarm(time: number): Promise<void>;
    /** Throws on use if the class has no SQLite storage. */
    readonly sql?: Sql;
  };
}

/** The app of one Durable Object, with its controllers. */
export interface WebSocketObjectApp {
  /** One controller, or several with different `name`s: a connection finds its controller by name after hibernation. */
  controller: WebSocketController | WebSocketController[];
  /** The Hono app with the WebSocket routes. */
  app: { fetch(request: Request, env?: unknown, context?: never): Response | Promise<Response> };
}

/** A Durable Object that serves an app and its WebSocket routes. */
export interface WebSocketObject {
  /** Answers a request, or upgrades it. */
  fetch(request: Request): Promise<Response>;
  /** Runs the deadlines that have passed. */
  alarm(): void;
  /** A message arrived. */
  webSocketMessage(socket: HibernatingSocket, message: string | ArrayBuffer): void;
  /** A socket closed. */
  webSocketClose(socket: HibernatingSocket, code: number, reason: string, wasClean: boolean): void;
  /** A socket failed. */
  webSocketError(socket: HibernatingSocket, error: unknown): void;
}

/**
 * Creates a Durable Object class that serves an app, with connections that survive hibernation.
 *
 * Each object has its own controller, because objects share an isolate and its module variables. The object's alarm is the
 * controller's timer: a pending timer would prevent hibernation.
 *
 * Channels are stored in the object's SQLite storage, in tables that begin with `noroshi_` and the controller's name.
 * Subscriptions, members and histories survive hibernation; histories also survive a restart. A class without SQLite
 * (`new_classes` instead of `new_sqlite_classes`) keeps channels in memory: hibernation loses them, and each client is closed
 * with 1012 when the object wakes.
 *
 * @param build creates the controller and the app with its route, once per object and again after each eviction.
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
    // One per object: objects share module variables, and must not write to each other's sockets.
    readonly #queue = new WriteQueue();
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
        each.useEngine(sql && new SqliteEngine(sql, { prefix: `noroshi_${each.name}` }));
      }
      for (const socket of state.getWebSockets()) {
        const saved = savedOf(socket);
        if (!saved) continue; // A socket of another library.
        const owner = controllers.get(saved.controller);
        if (owner) {
          const connection = owner.restore(new HibernatingTransport(socket, protocolOf(saved), this.#queue), saved);
          this.#connections.set(socket, connection);
          // Resumes the close: otherwise a peer that never answers the close handshake stays forever.
          if (saved.closing) connection.close(saved.closing.code, saved.closing.reason);
          this.#autoResponse.add(connection);
        } // A deployment has removed the controller.
        else socket.close(CloseCode.SERVICE_RESTART, "No such service");
      }
      this.#autoResponse.update();
    }

    async fetch(request: Request): Promise<Response> {
      const upgrades = new Upgrades();
      const host: Host = { connections: this.#open, runtime: upgrades };
      try {
        // Copied: all objects of the isolate share `env`.
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
      // workerd passes on codes that must not be sent (RFC 6455 §7.4.1). Such a close is not clean.
      const clean = wasClean && (code === NO_STATUS || answerCloseCode(code) === code);
      connection?.closed(clean ? code : ABNORMAL, clean ? reason : "", clean);
      // Without this the peer waits for its answer forever. The reason is cut: invalid UTF-8 grew when decoded, and close() would
      // throw.
      socket.close(answerCloseCode(code), cutCloseReason(reason));
      this.#autoResponse.update();
    }

    webSocketError(socket: HibernatingSocket): void {
      const connection = this.#connections.get(socket);
      this.#connections.delete(socket);
      // A network or peer fault. No close event follows a protocol error.
      connection?.closed(ABNORMAL, "", false);
      this.#autoResponse.update();
    }

    #connect({ server, acceptance: { protocol, open } }: Upgrade): void {
      this.#state.acceptWebSocket(server);
      const connection = open(new HibernatingTransport(server, protocol, this.#queue));
      this.#connections.set(server, connection);
      this.#autoResponse.add(connection);
    }
  };
}

/** An accepted upgrade whose socket is not open yet. */
interface Upgrade {
  readonly client: WebSocket;
  readonly server: HibernatingSocket;
  readonly acceptance: Acceptance;
}

/**
 * The upgrades accepted during one request. The one whose socket the app's response carries becomes a connection; the others are
 * abandoned, because no runtime event ends them. A timeout, an error handler or middleware may answer instead of the route.
 */
class Upgrades implements Runtime {
  readonly #accepted: Upgrade[] = [];
  #ended = false;

  ip(request: Request): string | null {
    return request.headers.get("cf-connecting-ip");
  }

  accept(request: Request, acceptance: Acceptance): Response | null {
    // workerd treats the socket of a client that has gone as open, and never reports it closed. The signal aborts only with the
    // compatibility flag `enable_request_signal`.
    if (this.#ended || request.signal.aborted) return null;
    const { protocol, headers } = acceptance;
    const { WebSocketPair } = globalThis as unknown as WorkerdGlobal; // Only workerd runs this.
    const [client, server] = Object.values(new WebSocketPair()) as [WebSocket, HibernatingSocket];
    this.#accepted.push({ client, server, acceptance });
    if (protocol !== null) headers.set("sec-websocket-protocol", protocol);
    return new Response(null, { status: 101, headers, webSocket: client } as ResponseInit); // An extension of workerd.
  }

  /** The upgrade whose socket the response carries. A copy of the response, which Hono may make, carries the same one. */
  carriedBy(response: Response): Upgrade | undefined {
    const { webSocket } = response as { webSocket?: WebSocket | null }; // An extension of workerd.
    return this.#accepted.find(({ client }) => client === webSocket);
  }

  /** Ends the request: later upgrades are refused, and those without a connection are abandoned. */
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
    // `sql` always exists, and throws on use if there is no SQLite storage.
    return sql && [...sql.exec("SELECT 1")].length > 0 ? sql : undefined;
  } catch {
    return undefined; // The statement cannot fail otherwise.
  }
}

function byName(controllers: WebSocketController[]): Map<string, WebSocketController> {
  const named = new Map(controllers.map((controller) => [controller.name, controller]));
  // Names are part of table names, and SQLite ignores the case of ASCII letters.
  const tables = new Set([...named.keys()].map((name) => name.replace(/[A-Z]/g, (letter) => letter.toLowerCase())));
  if (tables.size === controllers.length && tables.size > 0) return named;
  throw new TypeError(
    "Cannot build the object: pass a controller, or several that differ in their option `name` by more than its case",
  );
}

/**
 * Lets workerd answer a client's bare `ping` without waking the object. Off while a connection is pending: before `auth ok`
 * nothing is sent to a client, and its first message must be `auth`.
 */
class AutoResponse {
  readonly #state: WebSocketObjectState;
  readonly #pending = new Set<Connection>();
  #on = false;

  constructor(state: WebSocketObjectState) {
    this.#state = state;
  }

  /** Adds a connection before it can send. */
  add(connection: Connection): void {
    if (connection.isPending) this.#pending.add(connection);
    this.update();
  }

  /** Switches the automatic answer on or off. Switching it on late costs no more than one wake-up. */
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

/** The part of workerd's globals that this file uses. */
interface WorkerdGlobal {
  WebSocketPair: new () => [WebSocket, HibernatingSocket];
  WebSocketRequestResponsePair: new (request: string, response: string) => unknown;
}

/** Creates a Worker that forwards every request to the object that `find` returns. */
export function forward<Env>(
  find: (env: Env, request: Request) => { fetch(request: Request): Promise<Response> },
): { fetch(request: Request, env: Env): Promise<Response> } {
  return { fetch: (request, env) => find(env, request).fetch(request) };
}
