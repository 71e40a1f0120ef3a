import type { Deadlines, Timed } from "../../base/clock.ts";
import type { EngineHost, EngineStatus } from "../engine.ts";
import { WebSocketError } from "../../protocol/errors.ts";
import { describeCause } from "../../base/describe-cause.ts";
import type { Broker, BrokerListener, BrokerSession, SessionOptions } from "./broker.ts";

/** What the engine does at each step of a session's life. */
export interface ReconnectionHooks {
  /** A session was opened. Runs before its first beat. */
  prepare(): Promise<void>;
  /** The first beat was written, so that other nodes see this one. Runs before the status is `ready`. */
  greet?(): Promise<void>;
  /** A session that was ready has ended. */
  ended?(): void;
  /** The status is `ready`, at first or again: anything sent over an earlier session may be lost. */
  resume(): Promise<void>;
  /** Runs every `checkInterval`, and extra after `lookSoon`. @param rounds number of regular checks in this session; 0: extra. */
  look(rounds: number): Promise<void>;
  /** The nodes that are alive: after each beat, once the other nodes have had a lease to beat. */
  nodes(nodes: ReadonlySet<string>): void;
  /** The broker considered this node dead, or lost its members: announce them again. */
  announce(): Promise<void>;
  /** The engine closes and the session is ready: sign off. */
  retire(): Promise<void>;
}

/** The first and the longest pause between two attempts to connect, in ms. Each pause is twice the one before. */
const PAUSES = [100, 5_000] as const;

/** Watchdog rounds per timeout. */
const ROUNDS = 2;

/** Time until a check in between, in ms: what makes it necessary may come many times. */
const SOON = 1_000;

/** Timeouts that one call may take while others are answered: a broker under load is slow, and reconnecting would add to the load. */
const MOST_TIMEOUTS = 3;

interface Pending {
  /** The watchdog round in which the call started. */
  readonly since: number;
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

/** Keeps a session with a broker open: reconnects without end, and rejects the calls to a broker that is silent for a timeout. */
export class Reconnection {
  readonly #broker: Broker;
  readonly #options: SessionOptions;
  readonly #listener: Omit<BrokerListener, "ended">;
  readonly #host: EngineHost;
  readonly #hooks: ReconnectionHooks;
  readonly #checkInterval: number;
  /** Calls without an answer, the oldest first. */
  readonly #pending = new Set<Pending>();
  readonly #watchdog = new Alarm(() => this.#watch());
  readonly #beating = new Alarm(() => void this.#beat());
  readonly #looking = new Alarm(() => void this.#look());
  readonly #soon = new Alarm(() => void this.#hooks.look(0).catch((error) => this.#failed(error)));
  readonly #pause = new Alarm(() => void this.#connect());
  readonly #starting = new Alarm(() => this.#started());
  readonly #tried: Promise<void>;
  #resolveTried!: () => void; // Set by the constructor.
  #isStarting = true;
  #status: EngineStatus = "connecting";
  #session: BrokerSession | undefined;
  #last: BrokerSession | undefined;
  #nodes: readonly string[] = [];
  #closing: Promise<void> | undefined;
  #attempts = 0;
  #reason: unknown;
  #watches = 0;
  /** The watchdog round in which the broker last answered. */
  #answered = 0;
  #beats = 0;
  #looks = 0;

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
    this.#tried = new Promise((resolve) => this.#resolveTried = resolve);
  }

  get status(): EngineStatus {
    return this.#status;
  }

  /** Whether the first connect is still awaited: there was no session yet, and three timeouts have not passed. */
  get isStarting(): boolean {
    return this.#isStarting;
  }

  /** Resolves when {@link isStarting} turns `false`. */
  get tried(): Promise<void> {
    return this.#tried;
  }

  /** {@link BrokerSession.place} of the current session, or else of the last one. */
  get place(): string {
    return this.#last?.place ?? "";
  }

  /** The nodes that were alive at the last query. */
  get nodes(): readonly string[] {
    return this.#nodes;
  }

  /** The broker's clock, in ms, by the current session or else the last one. */
  now(): number {
    return this.#last?.now() ?? 0;
  }

  /** Why the broker is unavailable; `undefined` while it is ready. */
  get reason(): unknown {
    return this.#reason;
  }

  open(): void {
    this.#deadlines.set(this.#starting, MOST_TIMEOUTS * this.#options.timeout);
    void this.#connect();
  }

  /**
   * Sends a request to the broker.
   *
   * @throws {WebSocketError} ENGINE_UNAVAILABLE when it does not answer in time or refuses, or when the session ends.
   */
  call<Answer>(action: string, ask: (session: BrokerSession) => Promise<Answer>): Promise<Answer> {
    const session = this.#session;
    if (!session) return Promise.reject(this.#unavailable(action, "away", this.#reason));
    return this.#wait(action, ask(session));
  }

  /** Queries the nodes that are alive. */
  async name(): Promise<readonly string[]> {
    return this.#nodes = await this.call("name the nodes", (session) => session.nodes());
  }

  /** Schedules an extra check. It is not counted, because a missing member has a number of regular checks to come back. */
  lookSoon(): void {
    if (this.#status === "ready" && this.#soon.heapIndex < 0) this.#deadlines.set(this.#soon, SOON);
  }

  close(): Promise<void> {
    return this.#closing ??= this.#close();
  }

  async #close(): Promise<void> {
    try {
      if (this.#status === "ready") await this.#hooks.retire();
    } catch (error) {
      // The other nodes notice when the lease ends.
      this.#failed(error);
    }
    this.#set("closed");
    const session = this.#session;
    this.#session = undefined;
    session?.close();
    for (const alarm of [this.#beating, this.#looking, this.#soon, this.#pause]) this.#deadlines.delete(alarm);
    this.#rejectAll(this.#unavailable("go on", "closed"));
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
      // Before the session is set its place is unknown, and envelopes could not be checked.
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
      const connected = await this.#wait("connect", connecting);
      if (isOver || this.#closed) {
        connected.close();
        throw error ?? this.#unavailable("connect", "closed");
      }
      session = this.#session = this.#last = connected;
      await this.#hooks.prepare();
      await this.call("beat", (session) => session.beat());
      await this.#hooks.greet?.();
      if (this.#session !== session) return;
      this.#attempts = this.#beats = this.#looks = 0;
      this.#reason = undefined;
      this.#set("ready");
      this.#deadlines.set(this.#beating, this.#options.lease / 3);
      this.#deadlines.set(this.#looking, this.#checkInterval);
      await this.#hooks.resume();
    } catch (reason) {
      abandoned.abort(reason);
      if (this.#closed || (isOver && session)) return;
      ended(reason);
    }
  }

  // A getter: TypeScript would narrow `#status`, which changes during an `await`.
  get #closed(): boolean {
    return this.#status === "closed";
  }

  /** The session has ended or could not be opened. */
  #ended(reason: unknown): void {
    this.#session = undefined;
    this.#rejectAll(reason);
    if (this.#status === "closed") return;
    if (this.#status === "ready") this.#hooks.ended?.();
    const cause = this.#reason = firstCause(reason);
    const text = describeCause(cause ?? String(cause), new Error("Its connection has failed")); // `connect` of an application may reject with anything.
    const error = this.#unavailable("go on", `away (${text})`, cause);
    for (const alarm of [this.#beating, this.#looking, this.#soon]) this.#deadlines.delete(alarm);
    // Reported once per outage.
    if (this.#status !== "unavailable") this.#host.report(error);
    this.#set("unavailable");
    const [first, longest] = PAUSES;
    const pause = Math.min(longest, first * 2 ** this.#attempts++);
    // Jitter: all nodes lose the broker at once, and must not reconnect at once.
    this.#deadlines.set(this.#pause, pause * (0.5 + Math.random() / 2));
  }

  #started(): void {
    this.#isStarting = false;
    this.#deadlines.delete(this.#starting);
    this.#resolveTried();
  }

  #set(status: EngineStatus): void {
    if (this.#status === status) return;
    this.#status = status;
    if (status === "ready" || status === "closed") this.#started();
    this.#host.status(status);
  }

  #wait<Answer>(action: string, answer: Promise<Answer>): Promise<Answer> {
    return new Promise((resolve, reject) => {
      const pending: Pending = {
        since: this.#watches,
        reject: (reason) => reject(WebSocketError.from(reason) ?? this.#unavailable(action, "away", reason)),
      };
      this.#pending.add(pending);
      if (this.#watchdog.heapIndex < 0) this.#deadlines.set(this.#watchdog, this.#options.timeout / ROUNDS);
      const settled = () => {
        this.#answered = this.#watches;
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

  /** One watchdog for all calls: a timer per call would cost more than the call. */
  #watch(): void {
    this.#watches++;
    const [oldest] = this.#pending;
    if (!oldest) return;
    const waited = this.#watches - oldest.since;
    const silence = Math.min(waited, this.#watches - this.#answered);
    if (silence > ROUNDS || waited > MOST_TIMEOUTS * ROUNDS) {
      const error = this.#unavailable("go on", "silent");
      const session = this.#session;
      // While connecting, the rejection reaches `#connect`.
      if (!session) this.#rejectAll(error);
      else {
        session.close();
        this.#ended(error);
      }
    }
    if (this.#pending.size > 0) this.#deadlines.set(this.#watchdog, this.#options.timeout / ROUNDS);
  }

  #rejectAll(reason: unknown): void {
    const pending = [...this.#pending];
    this.#pending.clear();
    for (const each of pending) each.reject(reason);
    this.#deadlines.delete(this.#watchdog);
  }

  async #beat(): Promise<void> {
    try {
      const wasKnown = await this.call("beat", (session) => session.beat());
      const nodes = await this.name();
      if (!wasKnown) await this.#hooks.announce();
      // The broker has just come back or lost its list: give the other nodes a lease to beat before theirs are removed.
      if (!wasKnown || !nodes.includes(this.#options.node)) this.#beats = 0;
      if (++this.#beats > 3) this.#hooks.nodes(new Set([...nodes, this.#options.node]));
    } catch (error) {
      this.#failed(error);
    } finally {
      if (this.#status === "ready") this.#deadlines.set(this.#beating, this.#options.lease / 3);
    }
  }

  async #look(): Promise<void> {
    try {
      await this.#hooks.look(++this.#looks);
    } catch (error) {
      this.#failed(error);
    } finally {
      if (this.#status === "ready") this.#deadlines.set(this.#looking, this.#checkInterval);
    }
  }

  #failed(error: unknown): void {
    // The outage itself has been reported.
    if (this.#status === "ready") this.#host.report(error);
  }

  #unavailable(action: string, state: string, cause?: unknown): WebSocketError {
    const text = `Cannot ${action}: ${this.#broker.name} is ${state}, try again later`;
    return new WebSocketError("engine", "ENGINE_UNAVAILABLE", text, cause === undefined ? {} : { cause });
  }
}

/** The cause behind nested ENGINE_UNAVAILABLE errors, which only repeat that the broker is unavailable. */
function firstCause(error: unknown): unknown {
  const own = WebSocketError.from(error);
  return own?.code === "ENGINE_UNAVAILABLE" && own.cause !== undefined ? firstCause(own.cause) : error;
}
