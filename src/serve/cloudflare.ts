/**
 * WebSocket routes in a Durable Object of Cloudflare, with hibernation.
 *
 * @module
 */
import type { AnySchemas, Channels, HistoryQuery, MemberRecord } from "../channels/channels.ts";
import type { Connection } from "../connection/connection.ts";
import { ABNORMAL, answerCloseCode, CloseCode, cutCloseReason, NO_STATUS } from "../protocol/close.ts";
import { Connections } from "../connection/connections.ts";
import type { Contract, MessageFrom } from "../protocol/contract-types.ts";
import type { BroadcastFilter, BroadcastResult } from "../delivery/broadcast.ts";
import type { DisconnectFilter } from "../connection/revocations.ts";
import type { OrderResult } from "../controller/cluster.ts";
import type { Position } from "../engines/engine.ts";
import type { WebSocketController } from "../controller/controller.ts";
import { WriteQueue } from "../delivery/write-queue.ts";
import type { Report } from "../base/guard.ts";
import { SqliteEngine } from "../engines/sqlite-engine.ts";
import type { Sql } from "../engines/sqlite-histories.ts";
import type { SavedConnection } from "../delivery/transport.ts";
import type { Handshake } from "../application/websocket-client.ts";
import { AlarmClock } from "./alarm-clock.ts";
import { type AlarmInfo, ApplicationAlarm } from "./application-alarm.ts";
import { DurableObject, type DurableObjectBase, type WebSocketObjectState } from "./durable-object.ts";
import { type HibernatingSocket, HibernatingTransport, savedOf } from "./hibernating-transport.ts";
import {
  channelsOf,
  checkFilterObject,
  type ObjectCalls,
  publishTo,
  readFrom,
  schedulesOf,
  type WebSocketObjectStats,
} from "./object-calls.ts";
import type { AnyPayloads, ScheduleRecord, Schedules } from "./schedules.ts";
import { engineOf, prefixOf } from "./object-engine.ts";
import { reportOf } from "./report-of.ts";
import { type Upgrade, Upgrades } from "./object-upgrades.ts";
import { HOST, type Host } from "../runtimes/runtime.ts";

export type { AlarmInfo } from "./application-alarm.ts";
export type { DurableObjectBase, WebSocketObjectState } from "./durable-object.ts";
export type {
  HistoryOfObject,
  ObjectCalls,
  ObjectHistory,
  ObjectJson,
  ObjectMember,
  PublishArguments,
  WebSocketObjectStats,
} from "./object-calls.ts";
export { type ChannelCalls, type TypedStub, typeStub } from "./type-stub.ts";
export type { HibernatingSocket, Sql };

/** The app of one Durable Object, with its controllers. */
export interface WebSocketObjectApp<C = Contract, Schemas = AnySchemas, Payloads = AnyPayloads> {
  /** One controller, or several with different `name`s: a connection finds its controller by name after hibernation. */
  controller: WebSocketController<C> | WebSocketController<C>[];
  /** The Hono app with the WebSocket routes. */
  app: { fetch(request: Request, env?: unknown, context?: never): Response | Promise<Response> };
  /** The channels that `publish`, `presence` and `history` of the object use. Absent: these reject. */
  channels?: Channels<C, Schemas>;
  /** The schedules that `schedule`, `cancel`, `schedules` and `deadLetters` of the object use. Absent: these reject. */
  schedules?: Schedules<Payloads>;
}

/** A Durable Object that serves an app and its WebSocket routes, and that Workers and other objects call by RPC. */
export interface WebSocketObject<
  Env = unknown,
  C = Contract,
  Schemas = AnySchemas,
  Payloads = AnyPayloads,
  State = WebSocketObjectState,
> extends DurableObjectBase<State, Env>, ObjectCalls<C, Schemas, Payloads> {
  /** Answers a request, or upgrades it. */
  fetch(request: Request): Promise<Response>;
  /** A subclass may define its own, and set its time with `ctx.storage.setAlarm()`. */
  alarm(info?: AlarmInfo): void | Promise<void>;
  /** Handles a message. A subclass may define its own, which is called afterwards. */
  webSocketMessage(socket: HibernatingSocket, message: string | ArrayBuffer): void | Promise<void>;
  /** Handles the close of a socket. A subclass may define its own, which is called afterwards. */
  webSocketClose(socket: HibernatingSocket, code: number, reason: string, wasClean: boolean): void | Promise<void>;
  /** Handles the error of a socket. A subclass may define its own, which is called afterwards. */
  webSocketError(socket: HibernatingSocket, error: unknown): void | Promise<void>;
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
 * The class extends `DurableObject` of `cloudflare:workers`: Workers and other objects call `publish`, `broadcast`, `disconnect`,
 * `presence`, `history` and `stats` on its stub. These use the first controller, and the channels that `build` returns. If
 * `build` returns `Schedules` of `noroshi/schedules`, the stub also has `schedule`, `cancel`, `schedules` and `deadLetters`.
 *
 * @param build creates the controller and the app with its route, once per object and again after each eviction.
 * @throws {TypeError} when the object starts: without a controller, with two of the same name, or, without SQLite storage, with
 * `schedules` or an `alarm()` of its own.
 *
 * @example
 * ```ts
 * export class Newsroom extends createWebSocketObject((env: Env) => createNewsroom(env)) {}
 * export default forward((env: Env) => env.NEWSROOM.getByName("main"));
 * ```
 */
export function createWebSocketObject<
  Env,
  C = Contract,
  Schemas = AnySchemas,
  Payloads = AnyPayloads,
  State extends WebSocketObjectState = WebSocketObjectState,
>(
  build: (env: Env, state: State) => WebSocketObjectApp<C, Schemas, Payloads>,
): new (state: State, env: Env) => WebSocketObject<Env, C, Schemas, Payloads, State> {
  class Served extends (DurableObject as typeof DurableObjectBase<State, Env>) {
    readonly #app: WebSocketObjectApp["app"];
    readonly #autoResponse: AutoResponse;
    readonly #channels: unknown;
    readonly #clock: AlarmClock;
    readonly #connections = new Map<HibernatingSocket, Connection>();
    readonly #controller: WebSocketController<C>;
    readonly #open = new Connections();
    // One per object: objects share module variables, and must not write to each other's sockets.
    readonly #queue = new WriteQueue();
    readonly #report: Report;
    readonly #schedules: Schedules<Payloads> | undefined;
    readonly #sql: DatabaseSql | undefined;

    constructor(state: State, env: Env) {
      super(state, env);
      const built = build(env, state);
      const { app, controller, channels, schedules } = built;
      this.#app = app;
      this.#channels = channels;
      this.#schedules = schedules;
      const controllers = byName([controller].flat());
      this.#controller = [controller].flat()[0]!; // byName throws without one.
      const report = this.#report = reportOf(this.#controller);
      this.#clock = new AlarmClock(state, report);
      this.#autoResponse = new AutoResponse(state);
      const sql = this.#sql = sqlOf(state);
      for (const each of controllers.values()) {
        each.useClock(this.#clock);
        each.useEngine(engineOf(built)?.(sql, each.name) ?? (sql && new SqliteEngine(sql, { prefix: prefixOf(each.name) })));
      }
      schedules?.start({ sql, clock: this.#clock, report });
      this.#handleEvents();
      for (const socket of state.getWebSockets()) {
        const saved = savedOf(socket);
        if (!saved) continue; // A socket of another library.
        const owner = controllers.get(saved.controller);
        if (!owner) {
          socket.close(CloseCode.SERVICE_RESTART, "No such service"); // A deployment has removed the controller.
          continue;
        }
        const connection = owner.restore(new HibernatingTransport(socket, protocolOf(saved), this.#queue), saved);
        this.#connections.set(socket, connection);
        // Resumes the close: otherwise a peer that never answers the close handshake stays connected.
        if (saved.closing) connection.close(saved.closing.code, saved.closing.reason);
        this.#autoResponse.add(connection);
      }
      this.#autoResponse.update();
    }

    async fetch(request: Request): Promise<Response> {
      const upgrades = new Upgrades();
      const host: Host = { connections: this.#open, runtime: upgrades };
      try {
        // Copied: all objects of the isolate share `env`.
        const response = await this.#app.fetch(request, { ...this.env, [HOST]: host });
        const upgrade = upgrades.carriedBy(response);
        if (!upgrade) return response;
        if (request.signal.aborted) return new Response("The connection is gone", { status: 400 });
        this.#connect(upgrade);
        return response;
      } finally {
        upgrades.end();
      }
    }

    async publish(...publication: never): Promise<Position | null> {
      return await publishTo(this.#channels, publication);
    }

    async presence(channel: string): Promise<MemberRecord[]> {
      return await channelsOf("list the members", this.#channels).presence(channel);
    }

    async history(channel: string, query?: HistoryQuery): Promise<never> {
      return await readFrom(this.#channels, channel, query) as never; // Typed by the contract.
    }

    // deno-lint-ignore require-await -- an invalid message rejects, as over RPC
    async broadcast(message: string | MessageFrom<C>, filter?: BroadcastFilter): Promise<BroadcastResult> {
      return this.#controller.broadcast(message, filter);
    }

    async disconnect(filter: DisconnectFilter, code?: number, reason?: string): Promise<OrderResult> {
      checkFilterObject("disconnect", filter);
      const result = await this.#controller.disconnect(filter, code, reason);
      this.#autoResponse.update();
      return { ...result }; // A copy: the result may be frozen, and shared with other callers.
    }

    stats(): Promise<WebSocketObjectStats> {
      const channels = this.#channels ? channelsOf("count", this.#channels).stats() : undefined;
      const databaseBytes = this.#sql?.databaseSize;
      return Promise.resolve({
        ...this.#controller.stats(),
        ...(channels && { channels }),
        ...(databaseBytes !== undefined && { databaseBytes }),
      });
    }

    async schedule(...call: never): Promise<string> {
      return await schedulesOf("schedule", this.#schedules).schedule(...call);
    }

    async cancel(id: string): Promise<boolean> {
      return await schedulesOf("cancel", this.#schedules).cancel(id);
    }

    async schedules(): Promise<ScheduleRecord[]> {
      return await schedulesOf("list the schedules", this.#schedules).list();
    }

    async deadLetters(): Promise<ScheduleRecord[]> {
      return await schedulesOf("list the dead letters", this.#schedules).deadLetters();
    }

    // `#handleEvents` replaces these four, so that a subclass that does not call `super` breaks nothing.
    alarm(): void {}
    webSocketMessage(): void {}
    webSocketClose(): void {}
    webSocketError(): void {}

    /** Defines the methods that workerd calls. Each runs our handling first, then the method of the subclass. */
    #handleEvents(): void {
      const handle = <Name extends "webSocketMessage" | "webSocketClose" | "webSocketError">(
        name: Name,
        ours: (...event: Parameters<WebSocketObject[Name]>) => void,
      ) => {
        const theirs = this[name] as (...event: Parameters<WebSocketObject[Name]>) => unknown; // A subclass takes the arguments.
        define(this, name, (...event: Parameters<WebSocketObject[Name]>) => {
          ours(...event);
          this.#autoResponse.update();
          return theirs.apply(this, event);
        });
      };
      handle("webSocketMessage", (socket, message) => this.#connections.get(socket)?.message(message));
      handle("webSocketClose", (...event) => this.#closed(...event));
      // An error of the network or the peer. No close event follows a protocol error.
      handle("webSocketError", (socket) => this.#forget(socket)?.closed(ABNORMAL, "", false));
      const theirs = this.alarm as (info: AlarmInfo) => unknown; // As above.
      define(this, "alarm", () => {
        this.#clock.ring();
        this.#autoResponse.update();
      });
      const hasOwnAlarm = theirs !== Served.prototype.alarm;
      if (this.#sql) {
        new ApplicationAlarm({
          sql: this.#sql,
          clock: this.#clock,
          report: this.#report,
          ...(hasOwnAlarm && { run: (info) => theirs.call(this, info) }),
        }).attach(this.ctx.storage);
      } else if (hasOwnAlarm) {
        throw new TypeError(
          "Cannot build the object: an alarm() of its own needs SQLite storage, write new_sqlite_classes instead of new_classes",
        );
      }
    }

    #closed(socket: HibernatingSocket, code: number, reason: string, wasClean: boolean): void {
      // workerd passes on codes that must not be sent (RFC 6455 §7.4.1). Such a close is not clean.
      const clean = wasClean && (code === NO_STATUS || answerCloseCode(code) === code);
      this.#forget(socket)?.closed(clean ? code : ABNORMAL, clean ? reason : "", clean);
      // Answers the close, which the peer waits for. The reason is cut, because decoding invalid UTF-8 may have made it longer
      // than close() accepts.
      socket.close(answerCloseCode(code), cutCloseReason(reason));
    }

    #forget(socket: HibernatingSocket): Connection | undefined {
      const connection = this.#connections.get(socket);
      this.#connections.delete(socket);
      return connection;
    }

    #connect({ server, acceptance: { protocol, open } }: Upgrade): void {
      this.ctx.acceptWebSocket(server);
      const connection = open(new HibernatingTransport(server, protocol, this.#queue));
      this.#connections.set(server, connection);
      this.#autoResponse.add(connection);
    }
  }
  return Served as unknown as new (state: State, env: Env) => WebSocketObject<Env, C, Schemas, Payloads, State>; // The methods check their arguments.
}

/** Defines a method on one object. workerd calls it instead of the method of the class. */
function define(object: object, name: string, value: unknown): void {
  Object.defineProperty(object, name, { value, configurable: true, writable: true });
}

/** SQLite storage of a Durable Object. */
interface DatabaseSql extends Sql {
  /** Size of the database, in bytes. */
  readonly databaseSize?: number;
}

function protocolOf({ handshake }: SavedConnection): string | null {
  return (handshake as Handshake).protocol; // Written by Connection.save.
}

/** The object's SQLite storage, if it has one. */
function sqlOf({ storage: { sql } }: WebSocketObjectState): DatabaseSql | undefined {
  try {
    // `sql` always exists, and throws on use if there is no SQLite storage.
    return sql && [...sql.exec("SELECT 1")].length > 0 ? sql : undefined;
  } catch {
    return undefined; // The statement cannot fail otherwise.
  }
}

function byName<C>(controllers: WebSocketController<C>[]): Map<string, WebSocketController<C>> {
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
  WebSocketRequestResponsePair: new (request: string, response: string) => unknown;
}

/** Creates a Worker that forwards every request to the object that `find` returns. */
export function forward<Env>(
  find: (env: Env, request: Request) => { fetch(request: Request): Promise<Response> },
): { fetch(request: Request, env: Env): Promise<Response> } {
  return { fetch: (request, env) => find(env, request).fetch(request) };
}
