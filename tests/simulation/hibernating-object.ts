/** A Durable Object, and what workerd does with it: it hibernates, is evicted, and wakes. The class is that of `noroshi/cloudflare`. */
import { CLOSED, OPEN } from "../../src/delivery/transport.ts";
import type { Sql } from "../../src/engines/sqlite-histories.ts";
import { createWebSocketObject, type HibernatingSocket, type WebSocketObjectState } from "../../src/serve/cloudflare.ts";
import type { WebSocketObject, WebSocketObjectApp } from "../../src/serve/cloudflare.ts";
import type { UpgradeResponse } from "../../src/testing/memory-socket.ts";
import type { VirtualTime } from "../../src/testing/virtual-time.ts";
import type { Data, Wire } from "../../src/testing/wire.ts";
import type { Dice } from "./dice.ts";
import type { ClientNode } from "./simulated-client.ts";

/** Maximum size of an attachment, in bytes. */
const MAX_ATTACHMENT = 16_384;

/**
 * Time without events after which an object may hibernate, in ms. workerd takes 10 s. What waits for a client to read looks every half a
 * second, which keeps the object awake.
 */
const IDLE = 1_000;

/** How often an alarm is late, and by how much at most, in ms. */
const DELAYED = 0.1;
const LATE = 2_000;

/** How often an alarm is called again, as after a failure that the object has not noticed. */
const REPEATED = 0.02;

/** One life of the object in memory. When it is over, nothing that is still under way in it has any effect. */
export class Life {
  isOver = false;
  /** When the last event was passed to the object, in ms of the virtual time. */
  eventAt = 0;
  readonly sockets = new Map<PlatformSocket, ObjectSocket>();
  /** What waits for something outside of the object, with what rejects it. */
  readonly #pending = new Set<(error: Error) => void>();

  /** Whether something waits for an event: workerd lets no such object hibernate. */
  get isBusy(): boolean {
    return this.#pending.size > 0;
  }

  /** Waits for something outside of the object. Rejects when the object ends first. */
  await<Value>(promise: Promise<Value>): Promise<Value> {
    return new Promise<Value>((resolve, reject) => {
      this.#pending.add(reject);
      const over = (settle: () => void) => {
        this.#pending.delete(reject);
        settle();
      };
      promise.then((value) => over(() => resolve(value)), (error) => over(() => reject(error)));
    });
  }

  end(): void {
    this.isOver = true;
    for (const reject of this.#pending) reject(new Error("The object has ended"));
  }
}

/** A socket as workerd holds it. It outlives the object. */
class PlatformSocket {
  attachment: unknown = null;
  #wire: Wire | undefined;
  /** What was sent before the client had its answer. */
  #early: ((wire: Wire) => void)[] = [];

  get state(): number {
    return this.#wire?.serverState ?? OPEN;
  }

  get wire(): Wire | undefined {
    return this.#wire;
  }

  connect(wire: Wire): void {
    this.#wire = wire;
    for (const act of this.#early.splice(0)) act(wire);
  }

  do(act: (wire: Wire) => void): void {
    if (this.#wire) act(this.#wire);
    else this.#early.push(act);
  }
}

/** The socket that one life of the object has. */
class ObjectSocket implements HibernatingSocket {
  readonly platform: PlatformSocket;
  #life: Life | undefined;

  constructor(platform: PlatformSocket) {
    this.platform = platform;
  }

  accept(life: Life): this {
    this.#life = life;
    life.sockets.set(this.platform, this);
    return this;
  }

  get readyState(): number {
    return this.#isOver ? CLOSED : this.platform.state;
  }

  send(text: string): void {
    if (this.#isOver) return;
    if (this.platform.state !== OPEN) throw new TypeError("Cannot send after close");
    this.platform.do((wire) => wire.sendToClient(text));
  }

  close(code: number, reason: string): void {
    if (!this.#isOver) this.platform.do((wire) => wire.closeFromServer(code, reason));
  }

  serializeAttachment(value: unknown): void {
    if (this.#isOver) return;
    const text = JSON.stringify(value);
    if (text.length > MAX_ATTACHMENT) throw new Error("The attachment is too large");
    this.platform.attachment = JSON.parse(text);
  }

  deserializeAttachment(): unknown {
    return this.platform.attachment;
  }

  get #isOver(): boolean {
    return this.#life?.isOver ?? false;
  }
}

/** What {@link HibernatingObject} needs. */
export interface ObjectHost {
  readonly time: VirtualTime;
  readonly dice: Dice;
  readonly sql: Sql;
  failed(error: unknown): void;
  build(life: Life): WebSocketObjectApp;
}

interface Running {
  readonly object: WebSocketObject;
  readonly life: Life;
}

/** The object. A call wakes it. */
export class HibernatingObject implements ClientNode {
  readonly number = 0;
  isUp = true;
  /** How often it has begun. */
  starts = 0;
  /** How often its alarm has rung. */
  alarms = 0;
  readonly #host: ObjectHost;
  readonly #sockets = new Set<PlatformSocket>();
  #running: Running | undefined;
  /** Timer of the alarm. */
  #alarm: number | undefined;
  #autoResponse: AutoResponsePair | undefined;

  constructor(host: ObjectHost) {
    this.#host = host;
  }

  get isRunning(): boolean {
    return this.#running !== undefined;
  }

  /** The connections whose client has gone without a sign. */
  get lost(): Wire[] {
    return [...this.#sockets].map(({ wire }) => wire).filter((wire) => wire !== undefined).filter(({ isLost }) => isLost);
  }

  async upgrade(
    request: Request,
    _ip: string | null,
    accept: (response: UpgradeResponse, protocol: string | null) => Wire | null,
  ): Promise<UpgradeResponse> {
    if (!this.isUp) throw new Error("connect ECONNREFUSED");
    const { object, life } = this.#wake();
    const response: Response & { webSocket?: ObjectSocket } = await life.await(object.fetch(request));
    const { status, headers, webSocket } = response;
    // The pair of a connection that the object has accepted. Of a life that has ended nothing is left.
    if (!webSocket || !life.sockets.has(webSocket.platform)) return { status, headers, body: await response.text() };
    const { platform } = webSocket;
    const upgraded = { status, headers, body: "" };
    const wire = accept(upgraded, headers.get("sec-websocket-protocol"));
    if (wire) this.#connect(platform, wire);
    else this.#event((running) => this.#closed(running, platform, 1006, "", false));
    return upgraded;
  }

  /** Calls the object by RPC. */
  async call<Answer>(call: (object: WebSocketObject) => Promise<Answer>): Promise<Answer> {
    if (!this.isUp) throw new Error("The object cannot be reached");
    const { object, life } = this.#wake();
    return await life.await(call(object));
  }

  /** Drops the object from memory, if nothing has happened in it for some time and nothing is under way. Its sockets stay. */
  hibernate(): boolean {
    const life = this.#running?.life;
    if (!life || life.isBusy || this.#host.time.elapsed - life.eventAt < IDLE) return false;
    this.#end();
    return true;
  }

  /** Ends the object at once, as a deployment or a failure does. Its sockets are closed. */
  evict(): void {
    this.#end();
    const sockets = [...this.#sockets];
    this.#sockets.clear();
    this.#autoResponse = undefined;
    for (const { wire } of sockets) wire?.abandon();
  }

  #end(): void {
    this.#running?.life.end();
    this.#running = undefined;
  }

  #wake(): Running {
    if (!this.#running) {
      this.starts++;
      const life = new Life();
      const running = this.#running = { life } as { life: Life; object: WebSocketObject }; // Set in the next line.
      running.object = new (createWebSocketObject(() => this.#host.build(life)))(this.#stateOf(life), {});
    }
    this.#running.life.eventAt = this.#host.time.elapsed;
    return this.#running;
  }

  #stateOf(life: Life): WebSocketObjectState {
    const { sql } = this.#host;
    const isOver = () => life.isOver;
    return {
      acceptWebSocket: (socket) => {
        if (!isOver()) this.#sockets.add((socket as ObjectSocket).accept(life).platform); // Made by `WebSocketPair`.
      },
      getWebSockets: () => Array.from(this.#sockets, (platform) => socketOf(life, platform)),
      setWebSocketAutoResponse: (pair) => {
        if (!isOver()) this.#autoResponse = pair as AutoResponsePair | undefined; // As the global that `replaceWorkerd` sets.
      },
      storage: {
        setAlarm: (time) => {
          if (!isOver()) this.#setAlarm(time);
          return Promise.resolve();
        },
        sql: {
          exec(query, ...bindings) {
            if (isOver()) throw new Error("The object has ended");
            return sql.exec(query, ...bindings);
          },
        },
      },
    };
  }

  #connect(platform: PlatformSocket, wire: Wire): void {
    wire.server = {
      message: (data) => {
        const pair = this.#autoResponse;
        if (pair && data === pair.request) wire.sendToClient(pair.response);
        else this.#event(({ object, life }) => object.webSocketMessage(socketOf(life, platform), data as Data as string)); // Text.
      },
      closed: (code, reason, wasClean) => this.#event((running) => this.#closed(running, platform, code, reason, wasClean)),
      heard: () => {}, // workerd answers protocol pings by itself.
    };
    platform.connect(wire);
  }

  #closed({ object, life }: Running, platform: PlatformSocket, code: number, reason: string, wasClean: boolean): void {
    const socket = socketOf(life, platform);
    if (wasClean || this.#host.dice.chance(0.5)) object.webSocketClose(socket, code, reason, wasClean);
    else object.webSocketError(socket, new Error("The network connection was lost"));
    this.#sockets.delete(platform);
  }

  #setAlarm(time: number): void {
    const { dice, time: virtual } = this.#host;
    if (this.#alarm !== undefined) virtual.clear(this.#alarm);
    const late = dice.chance(DELAYED) ? dice.below(LATE) : 0;
    const ring = () => {
      this.#alarm = undefined;
      this.alarms++;
      this.#event(({ object }) => object.alarm());
      if (this.#alarm === undefined && dice.chance(REPEATED)) this.#setAlarm(virtual.now + LATE);
    };
    this.#alarm = virtual.set(ring, Math.max(0, time - virtual.now) + late, "the alarm");
  }

  #event(pass: (running: Running) => unknown): void {
    try {
      pass(this.#wake());
    } catch (error) {
      this.#host.failed(error);
    }
  }
}

function socketOf(life: Life, platform: PlatformSocket): ObjectSocket {
  return life.sockets.get(platform) ?? new ObjectSocket(platform).accept(life);
}

/** What workerd answers without waking the object. */
class AutoResponsePair {
  readonly request: string;
  readonly response: string;

  constructor(request: string, response: string) {
    this.request = request;
    this.response = response;
  }
}

/** The globals of workerd that the object uses, until the returned function is called. */
export function replaceWorkerd(): () => void {
  const Original = globalThis.Response;
  /** A response may carry a socket. */
  class WorkerdResponse extends Original {
    constructor(body?: BodyInit | null, init: ResponseInit & { webSocket?: unknown } = {}) {
      const { webSocket, ...rest } = init;
      super(body, rest.status === 101 ? { ...rest, status: 200 } : rest); // Other runtimes construct no 101.
      if (webSocket) Object.defineProperties(this, { status: { value: 101 }, webSocket: { value: webSocket } });
    }
  }
  const replaced = {
    Response: WorkerdResponse,
    WebSocketRequestResponsePair: AutoResponsePair,
    WebSocketPair: class {
      readonly 0: ObjectSocket;
      readonly 1: ObjectSocket;

      constructor() {
        this[0] = this[1] = new ObjectSocket(new PlatformSocket()); // The end of the client only says which pair it is.
      }
    },
  };
  const owner = globalThis as Record<string, unknown>; // By name.
  const before = Object.keys(replaced).map((name) => [name, owner[name]] as const);
  Object.assign(owner, replaced);
  return () => {
    for (const [name, value] of before) {
      if (value === undefined) delete owner[name];
      else owner[name] = value;
    }
  };
}
