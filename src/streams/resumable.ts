import * as v from "valibot";
import { type Call, type HandlerContext, isStreamable, reasonOf } from "../application/call.ts";
import type { ClientKey } from "../application/client-key.ts";
import type { RequestLimit } from "../application/extension.ts";
import type { Handlers } from "../application/handlers.ts";
import type { Accountability, WebSocketClient } from "../application/websocket-client.ts";
import { within } from "../base/clock.ts";
import { guard } from "../base/guard.ts";
import type { Awaitable, Engine, EngineHost, HistoryOptions } from "../engines/engine.ts";
import { WebSocketError } from "../protocol/errors.ts";
import { LogReader, lost } from "./log-reader.ts";
import { resolveKind, type ResumableOptions, type StreamKind } from "./resumable-options.ts";
import { StreamLog, type StreamLogHost } from "./stream-log.ts";
import { StreamRun, type StreamRunHost } from "./stream-run.ts";

/** What resumable streams need from their node. */
export interface ResumableHost extends Pick<StreamLogHost, "engine">, Omit<StreamRunHost, "ended"> {
  readonly maxStreams: number;
  readonly keyOf: ClientKey;
  /** Number of streams that the client reads. */
  streamsOf(client: WebSocketClient): number;
  readonly rateGate: RequestLimit | undefined;
  /** The largest history that the engine keeps; `undefined`: it has no limit. */
  readonly maxHistory: HistoryOptions | undefined;
  /** @throws {TypeError} if the engine cannot keep such a history. */
  checkHistory(history: HistoryOptions): void;
  /** Adds a handler. */
  readonly handle: Handlers["handle"];
}

/** A handler of any payload. */
export type AnyHandler = (context: HandlerContext<object>) => unknown;

/** Channels that begin with it are streams. No application can declare one: names have no `*`. */
const PREFIX = "stream*";

/** Maximum length of the id of a stream, in characters. */
const MAX_ID = 1_024;

/** Maximum length of the application's key of a stream, in characters. */
const MAX_KEY = 128;

const ResumeSchema = v.object({
  id: v.pipe(v.string(), v.minLength(1), v.maxLength(MAX_ID)),
  after: v.optional(v.pipe(v.number(), v.safeInteger(), v.minValue(0)), 0),
});

/** A running stream, as its user sees it. */
interface StreamEntry {
  id: string;
  type: string;
  key?: string;
}

/** A running stream of a user, and the role that it was started with. */
interface Listed {
  readonly entry: StreamEntry;
  readonly role: string | null;
}

/** A stream that starts, and the client that it counts against. */
interface Starting {
  readonly owner: string;
  run: StreamRun | undefined;
}

/** The streams of one node that outlive their connections. */
export class ResumableStreams implements Pick<EngineHost, "published" | "gap" | "present"> {
  readonly #host: ResumableHost;
  readonly #kinds = new Map<string, StreamKind>();
  /** By channel. */
  readonly #logs = new Map<string, StreamLog>();
  readonly #runs = new Map<StreamRun, Listed & { readonly user: string | null }>();
  readonly #logHost: StreamLogHost;
  /** Streams that no client reads yet. */
  readonly #starting = new Set<Starting>();

  constructor(host: ResumableHost) {
    this.#host = host;
    this.#logHost = {
      get engine() {
        return host.engine;
      },
      deadlines: host.deadlines,
      report: (error) => host.report(error),
      closed: ({ channel }) => void this.#logs.delete(channel),
    };
  }

  /** Whether the channel of the engine is a stream. */
  static has(channel: string): boolean {
    return channel.startsWith(PREFIX);
  }

  /** Whether a generator runs here that clients of other nodes can read. */
  get isShared(): boolean {
    return this.#runs.size > 0 && !this.#host.engine.isAlone;
  }

  /** Number of generators without a client. */
  get unattended(): number {
    let count = 0;
    for (const { log } of this.#runs.keys()) if (!log.isAttached) count++;
    return count;
  }

  /** Makes the handler's streams resumable. @throws {TypeError} for invalid options. */
  add(type: string, handler: AnyHandler, options: ResumableOptions | true): AnyHandler {
    const kind = resolveKind(type, options, this.#host.maxHistory);
    this.#host.checkHistory(kind.history);
    if (this.#kinds.size === 0) this.#addHandlers();
    this.#kinds.set(type, kind);
    return (context) => this.#start(context as Call, handler, kind); // Every context is a call.
  }

  /** Stops the stream with this id, if the client may attach to it. */
  cancel(client: WebSocketClient, id: string): void {
    guard(async () => {
      const reason = new WebSocketError("stream.cancel", "CANCELLED", "The client has cancelled it");
      const reader = await this.#attach(client, id);
      await reader.stop(reason);
    }, (error) => {
      // A `WebSocketError` is the end of the stream, or there is no such stream.
      if (!(error instanceof WebSocketError)) this.#host.report(error, client);
    });
  }

  /** Ends the generators, because the node ends. */
  async close(): Promise<void> {
    const lost = ({ log: { type } }: StreamRun) => new WebSocketError(type, "STREAM_LOST", "The stream is lost: its node ends");
    await Promise.all(Array.from(this.#runs.keys(), (run) => run.abandon(lost(run))));
  }

  // Called by the engine

  published: EngineHost["published"] = (channel, publication) => this.#logs.get(channel)?.published(publication);

  gap: EngineHost["gap"] = (channel) => this.#logs.get(channel)?.gap();

  present: EngineHost["present"] = (channel, joined, left) => this.#logs.get(channel)?.present(joined, left);

  #addHandlers(): void {
    this.#host.handle("stream.resume", ResumeSchema, async (context) => {
      const { client, message: { id, after } } = context;
      const wait = this.#host.rateGate?.ask(client, 1) ?? 0;
      if (wait > 0) {
        throw new WebSocketError("stream.resume", "REQUESTS_EXCEEDED", "Too many requests", { details: { retry_after: wait } });
      }
      return await this.#attach(client, id, after, context as HandlerContext<object> as Call); // As above.
    });
    this.#host.handle("stream.list", v.object({}), ({ client }) => this.#list(client));
  }

  async #start(call: Call, handler: AnyHandler, kind: StreamKind): Promise<unknown> {
    const { client } = call;
    const { type } = kind;
    const { keyOf, maxStreams, streamsOf } = this.#host;
    const owner = keyOf(client);
    const starting = [...this.#starting].filter((each) => each.owner === owner);
    const unattended = [...this.#runs.keys()].filter((run) =>
      run.owner === owner && !run.log.isAttached && !starting.some((each) => each.run === run)
    );
    if (unattended.length + starting.length + streamsOf(client) >= maxStreams) {
      throw new WebSocketError(type, "LIMIT_EXCEEDED", "Too many streams at once");
    }
    const own: Starting = { owner, run: undefined };
    this.#starting.add(own);
    try {
      return await this.#begin(call, handler, kind, own);
    } finally {
      this.#starting.delete(own);
    }
  }

  async #begin(call: Call, handler: AnyHandler, kind: StreamKind, own: Starting): Promise<unknown> {
    const { type } = kind;
    const { accountability } = call.client;
    const { user, role } = accountability;
    const { deadlines, observed, outbound, report, timeout, turn } = this.#host;
    const key = kind.key?.(call);
    if (key !== undefined && (typeof key !== "string" || key.length > MAX_KEY)) {
      throw new TypeError(`Cannot stream "${type}": the key must be a string of up to ${MAX_KEY} characters`);
    }
    const id = idOf(type, kind.authorize ? [user ?? "", key ?? "", role ?? ""] : []);
    const [channel, list] = [await channelOf(kind, accountability, id), await listOf(user)];
    const log = new StreamLog(id, channel, kind, this.#logHost);
    const ended = () => {
      if (this.#runs.delete(run) && list) void this.#updateList((engine) => engine.leave(list, id));
    };
    const run = new StreamRun(own.owner, log, call, handler, { deadlines, observed, timeout, turn, outbound, report, ended });
    own.run = run;
    const result = await this.#call(call, run);
    if (!isStreamable(result)) return result;
    const entry: StreamEntry = { id, type, ...(key !== undefined && { key }) };
    this.#logs.set(channel, log);
    const listed: Listed = { entry, role };
    this.#runs.set(run, { ...listed, user });
    try {
      await run.start(result);
    } catch (error) {
      this.#runs.delete(run);
      throw error;
    }
    // Recorded before the generator can end, which leaves the list.
    const joined = list && this.#updateList((engine) => engine.join(list, { user: id, data: JSON.stringify(listed) }));
    // Attached before the `await`, because an event of a member may start the generator meanwhile. The reader must not miss its first item.
    const reader = new LogReader(log, 0, call, true);
    await joined;
    run.changed();
    return reader;
  }

  /** Calls the handler, and aborts its signal if the client cancels before the handler has returned. */
  async #call(call: Call, run: StreamRun): Promise<unknown> {
    const stop = () => {
      const reason = reasonOf(call);
      if (reason instanceof WebSocketError && run.log.isStoppedFor(reason.code)) run.stop(reason);
    };
    const { signal } = call;
    signal.addEventListener("abort", stop);
    try {
      return await run.run();
    } finally {
      signal.removeEventListener("abort", stop);
    }
  }

  /** Lists the stream for its user, on all nodes. An engine that is unavailable remembers it, and announces it later. */
  async #updateList(change: (engine: Engine) => Awaitable<void>): Promise<void> {
    const { engine, report } = this.#host;
    try {
      if (!engine.isAlone) await change(engine);
    } catch (error) {
      if (WebSocketError.from(error)?.code !== "ENGINE_UNAVAILABLE") report(error);
    }
  }

  /** The running streams of the client's user that its role does not rule out. */
  async #list({ accountability: { user, role } }: WebSocketClient): Promise<StreamEntry[]> {
    const list = await listOf(user);
    if (!list) return [];
    const { engine } = this.#host;
    const running: Listed[] = engine.isAlone
      ? [...this.#runs.values()].filter((run) => run.user === user)
      : (await engine.members(list)).flatMap(({ data }) => data === undefined ? [] : JSON.parse(data)); // Written by `#begin`.
    return running.filter((each) => each.role === role || this.#kinds.get(each.entry.type)?.authorize).map(({ entry }) => entry);
  }

  /** @throws {WebSocketError} STREAM_LOST if the client may not attach, as if there were no such stream. */
  async #attach(client: WebSocketClient, id: string, after = 0, call?: Call): Promise<LogReader> {
    const { deadlines, timeout } = this.#host;
    const { type, user, key, role } = partsOf(id);
    const kind = this.#kinds.get(type);
    if (!kind) throw lost();
    const { authorize } = kind;
    if (authorize) {
      const late = () => new WebSocketError("stream.resume", "SERVICE_UNAVAILABLE", "Cannot resume: it took too long, try again");
      const context = { client, id, type, user: user || null, role: role || null, ...(key && { key }) };
      if (await within(deadlines, timeout, () => authorize(context), late) !== true) throw lost();
    }
    const channel = await channelOf(kind, client.accountability, id);
    let log = this.#logs.get(channel);
    if (!log) this.#logs.set(channel, log = new StreamLog(id, channel, kind, this.#logHost));
    return new LogReader(log, after, call);
  }
}

const idOf = (type: string, more: readonly string[]): string =>
  [crypto.randomUUID(), type, ...more].map((part) => encodeURIComponent(part.toWellFormed())).join("/");

/** @throws {WebSocketError} STREAM_LOST for what is no id. */
function partsOf(id: string): { readonly type: string; readonly user?: string; readonly key?: string; readonly role?: string } {
  try {
    const [, type = "", user = "", key = "", role = ""] = id.split("/").map(decodeURIComponent);
    return { type, user, key, role };
  } catch {
    throw lost();
  }
}

/** The channel of a stream. For a foreign user, or another role, it is another channel, which does not exist. */
async function channelOf({ authorize }: StreamKind, { user, role }: Accountability, id: string): Promise<string> {
  const owner = authorize ? "" : await shortOf(JSON.stringify([user, role]));
  return `${PREFIX}${owner}*${await shortOf(id)}`;
}

/** The channel whose members are the running streams of the user. */
const listOf = async (user: string | null): Promise<string | undefined> =>
  user === null ? undefined : `streams*${await shortOf(user)}`;

/** The id, or the hash of a long one: the length of a channel name is limited. */
async function shortOf(name: string): Promise<string> {
  if (name.length <= 128) return `=${name}`;
  const hash = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(name));
  return Array.from(new Uint8Array(hash), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
