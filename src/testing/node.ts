import { Hono } from "hono";
import type { Connection } from "../connection/connection.ts";
import { Connections } from "../connection/connections.ts";
import { WebSocketController } from "../controller/controller.ts";
import { WriteQueue } from "../delivery/write-queue.ts";
import { BrokerEngine } from "../engines/broker/broker-engine.ts";
import { SqliteEngine } from "../engines/sqlite-engine.ts";
import { type Acceptance, HOST, type Host, type Route, routesOf, startRoutes } from "../runtimes/runtime.ts";
import { HibernatingTransport, savedOf } from "../serve/hibernating-transport.ts";
import { reportOf } from "../serve/report-of.ts";
import type { Schedules } from "../serve/schedules.ts";
import type { MemoryBroker } from "./memory-broker.ts";
import type { MemorySqlite } from "./memory-sqlite.ts";
import { listenerOf, MemoryTransport, ServerSocket } from "./memory-transport.ts";
import type { UpgradeResponse } from "./memory-socket.ts";
import { VirtualClock, type VirtualTime } from "./virtual-time.ts";
import type { Wire } from "./wire.ts";

/** An app with the `fetch` of Hono. */
export interface TestedApp {
  /** Answers a request. */
  fetch(request: Request, env?: never, context?: never): Response | Promise<Response>;
}

/** An app, a controller, or both if the app has no route whose handler is `controller.upgrade` itself. */
export type Tested = TestedApp | WebSocketController | TestedNode;

/** An app and its controllers, like the argument of `createWebSocketObject`. */
export interface TestedNode {
  /** One controller, or several. */
  readonly controller: WebSocketController | WebSocketController[];
  /** The app with the WebSocket routes. */
  readonly app: TestedApp;
  /** Schedules, which run if the option `hibernates` is set. */
  readonly schedules?: Schedules<never>;
}

/** What {@link TestNode} needs from its kit. */
export interface NodeHost {
  readonly time: VirtualTime;
  readonly env: object;
  /** Absent if there is one node. */
  readonly broker: MemoryBroker | undefined;
  /** The storage of Durable Objects; absent unless nodes hibernate. */
  readonly sqlite: MemorySqlite | undefined;
  build(number: number): Tested;
}

/** Secret of the nodes, because they accept only signed orders. */
const SECRET = "the secret of the test kit";

/** Header and status that mark the response of an accepted upgrade. Both, because Hono may copy the header to another response. */
const [ACCEPTED, ACCEPTED_STATUS] = ["noroshi-accepted", 299];

/** One node: an app with its controllers, a clock and the sockets of its clients. */
export class TestNode {
  readonly number: number;
  /** Paths of the routes whose handler is `controller.upgrade` itself. */
  paths: readonly string[] = [];
  readonly #host: NodeHost;
  readonly #sockets = new Map<ServerSocket, Connection | undefined>();
  /** Absent while the node is stopped or hibernates. */
  #running: { readonly app: TestedApp; readonly controllers: WebSocketController[] } | undefined;
  #clock: VirtualClock;
  #queue = new WriteQueue();
  #connections = new Connections();
  #isHibernating = false;

  constructor(number: number, host: NodeHost) {
    this.number = number;
    this.#host = host;
    this.#clock = new VirtualClock(host.time, `node ${number}`);
  }

  get isUp(): boolean {
    return this.#running !== undefined || this.#isHibernating;
  }

  /** Builds the app and starts its controllers, like a server that begins to listen. */
  start(): void {
    const { broker, sqlite, time, build } = this.#host;
    this.#clock = new VirtualClock(time, `node ${this.number}`);
    this.#connections = new Connections();
    const { app, controllers, schedules } = resolve(build(this.number));
    const routes = routesOf(app) as Route<WebSocketController>[]; // Only a controller marks its route with itself.
    const all = [...new Set([...controllers, ...routes.map(({ controller }) => controller)])];
    for (const [index, controller] of all.entries()) {
      controller.useClock(this.#clock);
      if (sqlite) controller.useEngine(new SqliteEngine(sqlite.open(this.number), { prefix: `noroshi_${controller.name}` }));
      if (!broker) continue;
      const engine = new BrokerEngine(broker.of(this.number), { secret: SECRET, namespace: `kit-${index}` });
      controller.useEngine(engine);
      if (controller.engine === engine) continue;
      throw new TypeError("Cannot join the nodes: a controller has the option engine, leave it out in tests of several nodes");
    }
    const [first] = all;
    if (sqlite && first) schedules?.start({ sql: sqlite.open(this.number), clock: this.#clock, report: reportOf(first) });
    this.#running = { app, controllers: all };
    this.paths = routes.map(({ path }) => path);
    startRoutes(app);
    for (const controller of all) controller.start();
  }

  /** Upgrades the request. @param accept begins the connection. Returns `null` if the client has gone. */
  async upgrade(
    request: Request,
    ip: string | null,
    accept: (response: UpgradeResponse, protocol: string | null) => Wire | null,
  ): Promise<UpgradeResponse> {
    this.wake();
    const running = this.#running;
    if (!running) throw new Error("connect ECONNREFUSED");
    let acceptance: Acceptance | undefined;
    let isOver = false;
    const host: Host = {
      connections: this.#connections,
      runtime: {
        ip: () => ip,
        accept(_request, accepted) {
          if (isOver || acceptance || request.signal.aborted) return null;
          acceptance = accepted;
          return new Response(null, { status: ACCEPTED_STATUS, headers: { [ACCEPTED]: "1" } }); // `new Response` throws for 101.
        },
      },
    };
    const response = await answer(running.app, request, { ...this.#host.env, [HOST]: host });
    isOver = true;
    const accepted = acceptance as Acceptance | undefined; // The callback above sets it.
    const { status, headers } = response;
    if (!accepted || status !== ACCEPTED_STATUS || !headers.has(ACCEPTED) || this.#running !== running) {
      accepted?.abandoned();
      headers.delete(ACCEPTED);
      return { status, headers, body: await response.text() };
    }
    const upgraded = { status: 101, headers: merge(accepted.headers ?? new Headers(), headers), body: "" };
    const wire = accept(upgraded, accepted.protocol);
    if (wire) this.#open(wire, accepted);
    else accepted.abandoned();
    return upgraded;
  }

  /** Closes the controllers, like a server that stops. */
  async stop(): Promise<void> {
    this.wake();
    await Promise.all(this.#running?.controllers.map((controller) => controller.close()) ?? []);
    this.#clock.stop();
    this.#running = undefined;
  }

  /** Ends the process at once, without saving or sending anything. */
  kill(): void {
    this.#clock.stop();
    this.#running = undefined;
    this.#isHibernating = false;
    this.#host.broker?.kill(this.number);
    for (const { wire } of this.#sockets.keys()) wire.abandon();
    this.#sockets.clear();
  }

  /** Drops everything in memory but the sockets. The next message, or a deadline, wakes the node. */
  hibernate(): void {
    if (!this.#running) return;
    const { time } = this.#host;
    const alarm = this.#clock.stop();
    this.#running = undefined;
    this.#isHibernating = true;
    for (const socket of [...this.#sockets.keys()]) {
      this.#sockets.set(socket, undefined);
      const connection = (): Connection | undefined => {
        this.wake();
        return this.#sockets.get(socket);
      };
      socket.wire.server = {
        message: (data) => connection()?.message(data),
        closed: (code, reason, wasClean) => {
          connection()?.closed(code, reason, wasClean);
          this.#sockets.delete(socket);
        },
        heard: () => {}, // workerd answers protocol pings by itself.
      };
    }
    if (alarm === undefined) return;
    const clock = this.#clock = new VirtualClock(time, `the alarm of node ${this.number}`);
    clock.setTimeout(() => this.wake(), Math.max(0, alarm - time.elapsed));
  }

  /** Restores the controllers and connections of a node that hibernates. */
  wake(): void {
    if (!this.#isHibernating) return;
    this.#isHibernating = false;
    this.#clock.stop();
    this.#queue = new WriteQueue();
    this.start();
    for (const socket of [...this.#sockets.keys()]) {
      const saved = savedOf(socket);
      const owner = this.#running!.controllers.find(({ name }) => name === saved?.controller); // `start` sets it.
      if (!saved || !owner) {
        socket.close(1012, "No such service");
        continue;
      }
      const { protocol } = saved.handshake as { protocol: string | null }; // Written by Connection.save.
      const connection = owner.restore(new HibernatingTransport(socket, protocol, this.#queue), saved);
      this.#hold(socket, connection);
      if (saved.closing) connection.close(saved.closing.code, saved.closing.reason);
    }
  }

  #open(wire: Wire, { open, protocol }: Acceptance): void {
    const hibernates = this.#host.sqlite !== undefined;
    const socket = new ServerSocket(wire, hibernates);
    if (hibernates) return this.#hold(socket, open(new HibernatingTransport(socket, protocol, this.#queue)));
    const transport = new MemoryTransport(socket);
    this.#hold(socket, open(transport), transport);
  }

  #hold(socket: ServerSocket, connection: Connection, transport?: MemoryTransport): void {
    this.#sockets.set(socket, connection);
    const listener = listenerOf(connection, transport);
    socket.wire.server = {
      ...listener,
      closed: (code, reason, wasClean) => {
        this.#sockets.delete(socket);
        listener.closed(code, reason, wasClean);
      },
    };
  }
}

function resolve(
  tested: Tested,
): { app: TestedApp; controllers: WebSocketController[]; schedules?: Schedules<never> | undefined } {
  if (tested instanceof WebSocketController) return { app: new Hono().get("/", tested.upgrade), controllers: [tested] };
  if ("app" in tested) return { app: tested.app, controllers: [tested.controller].flat(), schedules: tested.schedules };
  if (typeof tested?.fetch !== "function") {
    throw new TypeError(
      "Cannot test the app: pass a Hono app, a controller, { app, controller }, or a function that returns one of them",
    );
  }
  return { app: tested, controllers: [] };
}

async function answer(app: TestedApp, request: Request, env: object): Promise<Response> {
  try {
    return await app.fetch(request, env as never);
  } catch {
    return new Response("Internal Server Error", { status: 500 }); // Hono's error handler has already run.
  }
}

/** Merges the headers of the 101 that middleware has set before and after the route. */
function merge(before: Headers, after: Headers): Headers {
  const headers = new Headers(before);
  for (const [name, value] of after) {
    const isOwn = /^(?:noroshi-accepted|connection|content-.*|keep-alive|set-cookie|transfer-encoding|upgrade|sec-websocket-.*)$/;
    if (!isOwn.test(name)) headers.set(name, value);
  }
  for (const cookie of after.getSetCookie()) headers.append("set-cookie", cookie);
  return headers;
}
