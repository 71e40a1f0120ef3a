import type { Deadlines, Timed } from "../../base/clock.ts";
import type { EngineHost, EngineStatus } from "../engine.ts";
import { WebSocketError } from "../../protocol/errors.ts";
import { describeCause } from "../../base/describe-cause.ts";
import type { Broker, BrokerListener, BrokerSession, SessionOptions } from "./broker.ts";

/** Callbacks of the engine for the steps of a session's life. */
export interface ReconnectionHooks {
  /** A session was opened. Runs before its first heartbeat. */
  prepare(): Promise<void>;
  /** The first heartbeat was written, so that other nodes see this one. Runs before the status is `ready`. */
  greet?(): Promise<void>;
  /** A session that was ready has ended. */
  ended?(): void;
  /** The status has become `ready`. Anything sent over an earlier session may be lost. */
  resume(): Promise<void>;
  /** Runs every `checkInterval`, and after `checkSoon`. @param count number of regular checks in this session; 0 for an extra one. */
  check(count: number): Promise<void>;
  /** Called with the live nodes after each heartbeat, once the other nodes have had the time of a lease to send theirs. */
  nodes(nodes: ReadonlySet<string>): void;
  /** The broker has considered this node dead or lost its members: announce them again. */
  announce(): Promise<void>;
  /** The engine is closing with a ready session: announce that this node leaves. */
  retire(): Promise<void>;
}

/** Shortest and longest pause between two attempts to connect, in ms. The pause doubles each time. */
const PAUSES = [100, 5_000] as const;

/** Watchdog ticks per timeout. */
const TICKS_PER_TIMEOUT = 2;

/** Delay of an extra check, in ms, so that several requests share one check. */
const EXTRA_CHECK_DELAY = 1_000;

/** Number of timeouts that one call may take while others are answered, because reconnecting to a busy broker would add to its load. */
const MAX_TIMEOUTS = 3;

interface Pending {
  /** The watchdog tick at which the call started. */
  readonly tick: number;
  reject(error: unknown): void;
}

/** A deadline that calls a function. */
class Alarm implements Timed {
  readonly deadline: number = 0;
  readonly heapIndex: number = -1;
  readonly due: () => void;

  constructor(due: () => void) {
    this.due = due;
  }
}

/** Keeps a session with a broker open. Reconnects without end, and rejects calls if the broker is silent for a timeout. */
export class Reconnection {
  readonly #broker: Broker;
  readonly #options: SessionOptions;
  readonly #listener: Omit<BrokerListener, "ended">;
  readonly #host: EngineHost;
  readonly #hooks: ReconnectionHooks;
  readonly #checkInterval: number;
  /** Calls that await an answer, oldest first. */
  readonly #pending = new Set<Pending>();
  readonly #watchdogAlarm = new Alarm(() => this.#tick());
  readonly #heartbeatAlarm = new Alarm(() => void this.#heartbeat());
  readonly #checkAlarm = new Alarm(() => void this.#check());
  readonly #extraCheckAlarm = new Alarm(() => void this.#hooks.check(0).catch((error) => this.#failed(error)));
  readonly #reconnectAlarm = new Alarm(() => void this.#connect());
  readonly #startAlarm = new Alarm(() => this.#endStart());
  readonly #firstConnect: Promise<void>;
  #resolveFirstConnect!: () => void; // Set by the constructor.
  #isStarting = true;
  #status: EngineStatus = "connecting";
  #session: BrokerSession | undefined;
  #lastSession: BrokerSession | undefined;
  #nodes: readonly string[] = [];
  #closing: Promise<void> | undefined;
  #attempts = 0;
  #reason: unknown;
  #ticks = 0;
  /** The watchdog tick at which the broker last answered. */
  #lastAnswerTick = 0;
  #heartbeats = 0;
  #checks = 0;

  constructor(
    broker: Broker,
    options: SessionOptions,
    listener: Omit<BrokerListener, "ended">,
    host: EngineHost,
    checkInterval: number,
    hooks: ReconnectionHooks,
  ) {
    this.#broker = broker;
    this.#options = options;
    this.#listener = listener;
    this.#host = host;
    this.#checkInterval = checkInterval;
    this.#hooks = hooks;
    this.#firstConnect = new Promise((resolve) => this.#resolveFirstConnect = resolve);
  }

  get status(): EngineStatus {
    return this.#status;
  }

  /** Whether calls wait for the first connect: no session has been ready yet, and less than three timeouts have passed. */
  get isStarting(): boolean {
    return this.#isStarting;
  }

  /** Resolves when {@link isStarting} turns `false`. */
  get firstConnect(): Promise<void> {
    return this.#firstConnect;
  }

  /** {@link BrokerSession.fullNamespace} of the current session, else of the last one. */
  get fullNamespace(): string {
    return this.#lastSession?.fullNamespace ?? "";
  }

  /** The nodes that were alive at the last query. */
  get nodes(): readonly string[] {
    return this.#nodes;
  }

  /** The broker's clock in ms, by the current session, else by the last one. */
  now(): number {
    return this.#lastSession?.now() ?? 0;
  }

  /** Why the broker is unavailable; `undefined` if it is available. */
  get reason(): unknown {
    return this.#reason;
  }

  open(): void {
    this.#deadlines.set(this.#startAlarm, MAX_TIMEOUTS * this.#options.timeout);
    void this.#connect();
  }

  /**
   * Sends a request to the broker.
   *
   * @throws {WebSocketError} ENGINE_UNAVAILABLE, as a rejection, if the broker refuses or does not answer in time, or the session ends.
   */
  call<Result>(action: string, request: (session: BrokerSession) => Promise<Result>): Promise<Result> {
    const session = this.#session;
    if (!session) return Promise.reject(this.#unavailable(action, "away", this.#reason));
    return this.#awaitAnswer(action, request(session));
  }

  /** Queries the live nodes. */
  async listNodes(): Promise<readonly string[]> {
    return this.#nodes = await this.call("list the nodes", (session) => session.nodes());
  }

  /** Schedules an extra check, which is not among the regular checks after which a missing member is removed. */
  checkSoon(): void {
    if (this.#status !== "ready" || this.#extraCheckAlarm.heapIndex >= 0) return;
    this.#deadlines.set(this.#extraCheckAlarm, EXTRA_CHECK_DELAY);
  }

  close(): Promise<void> {
    return this.#closing ??= this.#close();
  }

  async #close(): Promise<void> {
    try {
      if (this.#status === "ready") await this.#hooks.retire();
    } catch (error) {
      // Other nodes notice when the lease expires.
      this.#failed(error);
    }
    this.#set("closed");
    const session = this.#session;
    this.#session = undefined;
    session?.close();
    this.#stopAlarms();
    this.#deadlines.delete(this.#reconnectAlarm);
    this.#rejectAll(this.#unavailable("reach other nodes", "closed"));
  }

  get #deadlines(): Deadlines {
    return this.#host.deadlines;
  }

  async #connect(): Promise<void> {
    let session: BrokerSession | undefined;
    let error: unknown;
    let isOver = false;
    const abandoned = new AbortController();
    const ended = (reason: unknown) => {
      error ??= reason;
      if (isOver) return;
      isOver = true;
      session?.close();
      if (this.#session === session) this.#ended(error);
    };
    const only = <Arguments extends unknown[]>(forward: (...args: Arguments) => void) => (...args: Arguments) => {
      // Envelopes cannot be checked before the session is set, whose namespace is signed.
      if (session && !isOver && this.#status !== "closed") forward(...args);
    };
    const { live, mark, member, message, malformed } = this.#listener;
    const listener = {
      live: only(live),
      mark: only(mark),
      member: only(member),
      message: only(message),
      malformed: only(malformed),
      ended,
    };
    try {
      const connecting = this.#broker.connect(listener, this.#options, abandoned.signal);
      // A session that opens after the timeout, or after the engine was closed, is closed at once.
      connecting.then((late) => (isOver || this.#closed) && late.close(), () => {});
      const connected = await this.#awaitAnswer("connect", connecting);
      if (isOver || this.#closed) {
        connected.close();
        throw error ?? this.#unavailable("connect", "closed");
      }
      session = this.#session = this.#lastSession = connected;
      await this.#hooks.prepare();
      await this.call("send a heartbeat", (session) => session.heartbeat());
      await this.#hooks.greet?.();
      if (this.#session !== session) return;
      this.#attempts = this.#heartbeats = this.#checks = 0;
      this.#reason = undefined;
      this.#set("ready");
      this.#deadlines.set(this.#heartbeatAlarm, this.#options.lease / 3);
      this.#deadlines.set(this.#checkAlarm, this.#checkInterval);
      await this.#hooks.resume();
    } catch (reason) {
      abandoned.abort(reason);
      if (this.#closed || (isOver && session)) return;
      ended(reason);
    }
  }

  // A getter, because TypeScript would narrow `#status`, which changes during an `await`.
  get #closed(): boolean {
    return this.#status === "closed";
  }

  /** Called when the session has ended or could not be opened. */
  #ended(reason: unknown): void {
    this.#session = undefined;
    this.#rejectAll(reason);
    if (this.#status === "closed") return;
    if (this.#status === "ready") this.#hooks.ended?.();
    const cause = this.#reason = firstCause(reason);
    const text = describeCause(cause ?? String(cause), new Error("Its connection has failed")); // The `connect` of an application may reject with anything.
    const error = this.#unavailable("reach other nodes", `away (${text})`, cause);
    this.#stopAlarms();
    // Reported once per outage.
    if (this.#status !== "unavailable") this.#host.report(error);
    this.#set("unavailable");
    const [first, longest] = PAUSES;
    const pause = Math.min(longest, first * 2 ** this.#attempts++);
    // With jitter, as all nodes lose the broker at the same time and must not reconnect at the same time.
    this.#deadlines.set(this.#reconnectAlarm, pause * (0.5 + Math.random() / 2));
  }

  #stopAlarms(): void {
    for (const alarm of [this.#heartbeatAlarm, this.#checkAlarm, this.#extraCheckAlarm]) this.#deadlines.delete(alarm);
  }

  #endStart(): void {
    this.#isStarting = false;
    this.#deadlines.delete(this.#startAlarm);
    this.#resolveFirstConnect();
  }

  #set(status: EngineStatus): void {
    if (this.#status === status) return;
    this.#status = status;
    if (status === "ready" || status === "closed") this.#endStart();
    this.#host.status(status);
  }

  #awaitAnswer<Result>(action: string, answer: Promise<Result>): Promise<Result> {
    return new Promise((resolve, reject) => {
      const pending: Pending = {
        tick: this.#ticks,
        reject: (reason) => reject(WebSocketError.from(reason) ?? this.#unavailable(action, "away", reason)),
      };
      this.#pending.add(pending);
      if (this.#watchdogAlarm.heapIndex < 0) this.#deadlines.set(this.#watchdogAlarm, this.#options.timeout / TICKS_PER_TIMEOUT);
      const settled = () => {
        this.#lastAnswerTick = this.#ticks;
        this.#pending.delete(pending);
      };
      answer.then((value) => {
        settled();
        resolve(value);
      }, (reason) => {
        settled();
        reject(WebSocketError.from(reason) ?? this.#unavailable(action, "refusing", reason));
      });
    });
  }

  /** Checks for calls without an answer. One timer for all calls, because one for each would cost more than the call. */
  #tick(): void {
    this.#ticks++;
    const [oldest] = this.#pending;
    if (!oldest) return;
    const waited = this.#ticks - oldest.tick;
    const silence = Math.min(waited, this.#ticks - this.#lastAnswerTick);
    if (silence > TICKS_PER_TIMEOUT || waited > MAX_TIMEOUTS * TICKS_PER_TIMEOUT) {
      const error = this.#unavailable("reach other nodes", "silent");
      const session = this.#session;
      // While connecting, the rejection reaches `#connect`.
      if (!session) this.#rejectAll(error);
      else {
        session.close();
        this.#ended(error);
      }
    }
    if (this.#pending.size > 0) this.#deadlines.set(this.#watchdogAlarm, this.#options.timeout / TICKS_PER_TIMEOUT);
  }

  #rejectAll(reason: unknown): void {
    const pending = [...this.#pending];
    this.#pending.clear();
    for (const each of pending) each.reject(reason);
    this.#deadlines.delete(this.#watchdogAlarm);
  }

  async #heartbeat(): Promise<void> {
    try {
      const wasKnown = await this.call("send a heartbeat", (session) => session.heartbeat());
      const nodes = await this.listNodes();
      if (!wasKnown) await this.#hooks.announce();
      // The broker was just restarted or has lost its list. Other nodes get the time of a lease to send a heartbeat before their members are removed.
      if (!wasKnown || !nodes.includes(this.#options.node)) this.#heartbeats = 0;
      if (++this.#heartbeats > 3) this.#hooks.nodes(new Set([...nodes, this.#options.node]));
    } catch (error) {
      this.#failed(error);
    } finally {
      if (this.#status === "ready") this.#deadlines.set(this.#heartbeatAlarm, this.#options.lease / 3);
    }
  }

  async #check(): Promise<void> {
    try {
      await this.#hooks.check(++this.#checks);
    } catch (error) {
      this.#failed(error);
    } finally {
      if (this.#status === "ready") this.#deadlines.set(this.#checkAlarm, this.#checkInterval);
    }
  }

  #failed(error: unknown): void {
    // Errors during an outage are not reported, because the outage was.
    if (this.#status === "ready") this.#host.report(error);
  }

  #unavailable(action: string, state: string, cause?: unknown): WebSocketError {
    const text = `Cannot ${action}: ${this.#broker.name} is ${state}, try again later`;
    return new WebSocketError("engine", "ENGINE_UNAVAILABLE", text, cause === undefined ? {} : { cause });
  }
}

/** The first cause behind nested ENGINE_UNAVAILABLE errors. */
function firstCause(error: unknown): unknown {
  const own = WebSocketError.from(error);
  return own?.code === "ENGINE_UNAVAILABLE" && own.cause !== undefined ? firstCause(own.cause) : error;
}
