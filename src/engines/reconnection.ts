import type { Deadlines, Timed } from "../clock.ts";
import type { EngineHost, EngineStatus } from "../engine.ts";
import { WebSocketError } from "../errors.ts";
import { describeCause } from "../log.ts";
import type { Broker, BrokerListener, BrokerSession, SessionOptions } from "./broker.ts";

/** What has to be done with a session. */
export interface ReconnectionHooks {
  /** There is a new session, which nothing is asked of yet. */
  prepare(): Promise<void>;
  /** Every other node knows by now that this one is there. */
  greet?(): Promise<void>;
  /** The session has ended. */
  ended?(): void;
  /** It is ready, perhaps another one: nothing that was told to the one before is certain. */
  resume(): Promise<void>;
  /** Time to compare. @param rounds how often it has been time in this session. */
  look(rounds: number): Promise<void>;
  /** These nodes are alive. */
  nodes(nodes: ReadonlySet<string>): void;
  /** The broker took this node for dead. */
  announce(): Promise<void>;
  /** The last thing that is done. */
  retire(): Promise<void>;
}

/** The first of the pauses between attempts to connect, each of which is twice as long as the one before, and the longest, in ms. */
const PAUSES = [100, 5_000] as const;

/** Rounds of the watchdog in a timeout. */
const ROUNDS = 2;

/** So many timeouts an answer is waited for while others come: a broker that is asked much at once is slow, and would be slower for a new session. */
const MOST_TIMEOUTS = 3;

interface Pending {
  /** The rounds of the watchdog that there had been. */
  readonly since: number;
  reject(error: unknown): void;
}

/** Wakes at a time. */
class Alarm implements Timed {
  deadline = 0;
  place = -1;
  readonly due: () => void;

  constructor(due: () => void) {
    this.due = due;
  }
}

/** Keeps a session to a broker: connects again for ever, and lets nobody wait for one that says nothing longer than the timeout. */
export class Reconnection {
  readonly #broker: Broker;
  readonly #options: SessionOptions;
  readonly #listener: Omit<BrokerListener, "ended">;
  readonly #host: EngineHost;
  readonly #hooks: ReconnectionHooks;
  readonly #checkInterval: number;
  /** The oldest first. */
  readonly #pending = new Set<Pending>();
  readonly #watchdog = new Alarm(() => this.#watch());
  readonly #beating = new Alarm(() => void this.#beat());
  readonly #looking = new Alarm(() => void this.#look());
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
  /** The round in which the broker last answered. */
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

  /** Whether there has been no session yet, and may be one soon. */
  get isStarting(): boolean {
    return this.#isStarting;
  }

  /** Resolves with the first session, or after three timeouts. */
  get tried(): Promise<void> {
    return this.#tried;
  }

  /** The place and the clock of the session of now, or of the last one. */
  get place(): string {
    return this.#last?.place ?? "";
  }

  /** The nodes that were alive when they were last asked for. */
  get nodes(): readonly string[] {
    return this.#nodes;
  }

  now(): number {
    return this.#last?.now() ?? 0;
  }

  /** Why it is away. Absent while it is ready. */
  get reason(): unknown {
    return this.#reason;
  }

  open(): void {
    this.#deadlines.set(this.#starting, MOST_TIMEOUTS * this.#options.timeout);
    void this.#connect();
  }

  /**
   * Asks the broker.
   *
   * @throws {WebSocketError} ENGINE_UNAVAILABLE when it does not answer in time, refuses, or the session ends.
   */
  call<Answer>(action: string, ask: (session: BrokerSession) => Promise<Answer>): Promise<Answer> {
    const session = this.#session;
    if (!session) return Promise.reject(this.#unavailable(action, "away", this.#reason));
    return this.#wait(action, ask(session));
  }

  /** Asks for the nodes that are alive. */
  async name(): Promise<readonly string[]> {
    return this.#nodes = await this.call("name the nodes", (session) => session.nodes());
  }

  close(): Promise<void> {
    return this.#closing ??= this.#close();
  }

  async #close(): Promise<void> {
    try {
      if (this.#status === "ready") await this.#hooks.retire();
    } catch (error) {
      // The others notice when the lease is over.
      this.#failed(error);
    }
    this.#set("closed");
    const session = this.#session;
    this.#session = undefined;
    session?.close();
    for (const alarm of [this.#beating, this.#looking, this.#pause]) this.#deadlines.delete(alarm);
    this.#rejectAll(this.#unavailable("go on", "closed"));
  }

  get #deadlines(): Deadlines {
    return this.#host.deadlines;
  }

  async #connect(): Promise<void> {
    // Of a session that has ended nothing is heard any more.
    let session: BrokerSession | undefined;
    let error: unknown;
    let isOver = false;
    const ended = (reason: unknown) => {
      error ??= reason;
      if (isOver) return;
      isOver = true;
      session?.close();
      if (this.#session === session) this.#ended(error);
    };
    const only = <Arguments extends unknown[]>(tell: (...args: Arguments) => void) => (...args: Arguments) => {
      // Before it is there nothing is known of where what arrives is from.
      if (session && !isOver && this.#status !== "closed") tell(...args);
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
      const connecting = this.#broker.connect(listener, this.#options);
      // One that comes too late is not left open.
      connecting.then((late) => isOver && late.close(), () => {});
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
      if (this.#closed || (isOver && session)) return;
      ended(reason);
    }
  }

  // A getter: the status changes while something is waited for, which a comparison alone would hide.
  get #closed(): boolean {
    return this.#status === "closed";
  }

  /** The session has ended, or there was none. */
  #ended(reason: unknown): void {
    this.#session = undefined;
    this.#rejectAll(reason);
    if (this.#status === "closed") return;
    if (this.#status === "ready") this.#hooks.ended?.();
    const cause = this.#reason = firstCause(reason);
    const text = describeCause(cause ?? String(cause), new Error("Its connection has failed")); // Of the application's own `connect`, it may be anything.
    const error = this.#unavailable("go on", `away (${text})`, cause);
    for (const alarm of [this.#beating, this.#looking]) this.#deadlines.delete(alarm);
    // Told once: it is away until the status says otherwise.
    if (this.#status !== "unavailable") this.#host.report(error);
    this.#set("unavailable");
    const [first, longest] = PAUSES;
    const pause = Math.min(longest, first * 2 ** this.#attempts++);
    // All nodes lose a broker at once, and are not to come back at once.
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
      if (this.#watchdog.place < 0) this.#deadlines.set(this.#watchdog, this.#options.timeout / ROUNDS);
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

  /** One watchdog for all that wait: a timer each would cost more than the question. */
  #watch(): void {
    this.#watches++;
    const [oldest] = this.#pending;
    if (!oldest) return;
    const waited = this.#watches - oldest.since;
    const silence = Math.min(waited, this.#watches - this.#answered);
    if (silence > ROUNDS || waited > MOST_TIMEOUTS * ROUNDS) {
      const error = this.#unavailable("go on", "silent");
      const session = this.#session;
      // What was being connected rejects by itself.
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
      // After the broker came back, or gave up its list, the others have as long as a lease to say that they live.
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
    // That it is away has been told.
    if (this.#status === "ready") this.#host.report(error);
  }

  #unavailable(action: string, state: string, cause?: unknown): WebSocketError {
    const text = `Cannot ${action}: ${this.#broker.name} is ${state}, try again later`;
    return new WebSocketError("engine", "ENGINE_UNAVAILABLE", text, cause === undefined ? {} : { cause });
  }
}

/** What is behind errors of this engine's own, which only say that there is something. */
function firstCause(error: unknown): unknown {
  const own = WebSocketError.from(error);
  return own?.code === "ENGINE_UNAVAILABLE" && own.cause !== undefined ? firstCause(own.cause) : error;
}
