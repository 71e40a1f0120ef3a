import type * as v from "valibot";
import { isMs, MS } from "./clock.ts";
import type { HistoryOptions, Position } from "./engine.ts";
import { isPositive } from "./options.ts";
import { CHANNEL_NAME, RESERVED_EVENTS } from "./protocol.ts";
import { type CheckedSchema, checkSchema, SYNCHRONOUS } from "./schema.ts";
import type { JsonValue, WebSocketClient } from "./websocket-client.ts";

/** What a channel's `authorize` is asked. */
export interface AuthorizeContext {
  /** Who wants to. */
  readonly client: WebSocketClient;
  /** The channel's name, whatever pattern it is declared by. */
  readonly channel: string;
  /** To be sent what is published, or to publish. */
  readonly action: "subscribe" | "publish";
  /** The filter of the subscription, or the event to be published. */
  readonly event?: string;
  /** Of the subscription, as the client sent it. */
  readonly query?: Record<string, unknown>;
  /** The position the client wants to go on from: history of before it was allowed to is for you to refuse. */
  readonly recover?: Position;
  /** What is to be published. */
  readonly data?: unknown;
}

/** `true` lets it; anything else does not. With `ttl`, in ms, a subscription is asked about again after so long; `Infinity` is never. */
export type Authorization = boolean | { readonly ttl: number };

/** What a channel's `snapshot` is asked. */
export interface SnapshotContext {
  /** Whose subscription it is for. */
  readonly client: WebSocketClient;
  /** The channel's name. */
  readonly channel: string;
  /** Of the subscription, as the client sent it; `{}` without one. The Directus SDK sends strings as its values since 19.1. */
  readonly query: Record<string, unknown>;
}

/** What a channel's `presence.data` is asked. */
export interface PresenceContext {
  /** Whose member it is. */
  readonly client: WebSocketClient;
  /** The channel's name. */
  readonly channel: string;
  /** What the client sent with its `subscribe`; `undefined` where it sent nothing. */
  readonly data: JsonValue | undefined;
}

/** How a channel keeps its members. */
export interface PresenceOptions {
  /** What a member has beside its user: what the client sent (`"client"`), or what this makes of it at once. @default nothing */
  readonly data?: "client" | ((context: PresenceContext) => JsonValue | undefined);
  /** For how long a member stays that has lost its last connection, in ms, so that coming back does not show. `0`: not at all. @default {5_000} */
  readonly grace?: number;
}

/** How much of a channel is kept, and may be asked for. */
export interface ChannelHistoryOptions extends HistoryOptions {
  /** Publications that one recovery may have missed; more are told as `recovered: false`. @default {size} */
  readonly maxRecover?: number;
}

/** How the channels of a name behave. */
export interface ChannelOptions {
  /**
   * Whether a client may, asked at each `subscribe` and `publish`, and again when who it is or what it may has changed. A `WebSocketError`
   * it throws is what the client is told, anything else is `INTERNAL_ERROR`. `() => true` lets everybody.
   */
  readonly authorize: (context: AuthorizeContext) => Authorization | Promise<Authorization>;
  /** What a subscription begins with: JSON. Not asked for one with an `event`, nor where what was missed can be sent. */
  readonly snapshot?: (context: SnapshotContext) => unknown;
  /**
   * The events that clients may publish, and what their data must be: synchronous schemas, whose output JSON can hold. Absent: any, as far as
   * `authorize` lets them.
   */
  readonly schema?: { readonly [event: string]: v.GenericSchema };
  /** How much is kept, for those who come back. Absent: nothing, and publications have no offset. */
  readonly history?: ChannelHistoryOptions;
  /** Whether subscribers are members that are told of. @default {false} */
  readonly presence?: boolean | PresenceOptions;
}

/** The options of a channel, complete. */
export interface ResolvedChannel extends Pick<ChannelOptions, "authorize" | "snapshot"> {
  /** By event. */
  readonly schema?: ReadonlyMap<string, CheckedSchema>;
  readonly history: Required<ChannelHistoryOptions> | null;
  readonly presence: { readonly data: PresenceOptions["data"]; readonly grace: number } | null;
}

/** The declared channels. */
export class ChannelTable {
  readonly #names = new Map<string, ResolvedChannel>();
  /** The longest first. */
  readonly #prefixes: [prefix: string, channel: ResolvedChannel][] = [];

  /** @throws {TypeError} for a name or an option that is not what it should be. */
  constructor(declarations: { readonly [name: string]: ChannelOptions }) {
    for (const [name, options] of Object.entries(declarations)) {
      const prefix = name.endsWith("*") ? name.slice(0, -1) : null;
      if (prefix === null ? !CHANNEL_NAME.test(name) : prefix !== "" && !CHANNEL_NAME.test(prefix)) {
        throw new TypeError(
          `Cannot declare the channel "${name}": a name is 1 to 255 of A–Z a–z 0–9 _ - . : / @ = + ~, and may end in * for all that begin so`,
        );
      }
      const channel = resolveChannel(name, options);
      if (prefix === null) this.#names.set(name, channel);
      else this.#prefixes.push([prefix, channel]);
    }
    this.#prefixes.sort(([a], [b]) => b.length - a.length);
  }

  /** Those of all that have one. */
  get histories(): HistoryOptions[] {
    const all = [...this.#names.values(), ...this.#prefixes.map(([, channel]) => channel)];
    return all.flatMap(({ history }) => history ?? []);
  }

  /** The options of the channel: those of its own name, else of the longest beginning, which may be all of it. */
  find(name: string): ResolvedChannel | undefined {
    return this.#names.get(name) ??
      this.#prefixes.find(([prefix]) => name !== "" && name.startsWith(prefix))?.[1];
  }
}

function resolveChannel(name: string, options: ChannelOptions): ResolvedChannel {
  const fail = (remedy: string) => new TypeError(`Cannot declare the channel "${name}": ${remedy}`);
  const { authorize, snapshot, schema, history, presence = false, ...rest } = options ?? {};
  const [unknown] = Object.keys(rest);
  if (unknown !== undefined) throw fail(`unknown option "${unknown}", use authorize, snapshot, schema, history or presence`);
  if (typeof authorize !== "function") throw fail("pass authorize, such as ({ client }) => client.accountability.user !== null");
  if (snapshot !== undefined && typeof snapshot !== "function") throw fail("snapshot must be a function ({ query }) => rows");
  const schemas = new Map<string, CheckedSchema>();
  for (const [event, each] of Object.entries(schema ?? {})) {
    if (RESERVED_EVENTS.has(event) || event.length > 64) throw fail(`"${event}" is no name for an event, take another`);
    const checked = checkSchema(each);
    if (!checked) throw fail(`schema.${event} must be ${SYNCHRONOUS}`);
    schemas.set(event, checked);
  }
  if (
    history &&
    !(isPositive(history.size) && isMs(history.ttl) && (history.maxRecover === undefined || isPositive(history.maxRecover)))
  ) {
    throw fail(`history must be { size, ttl, maxRecover? }: ttl ${MS}, the others whole numbers from 1`);
  }
  const { data, grace = 5_000 } = typeof presence === "object" ? presence : {};
  if (!(grace === 0 || isMs(grace))) throw fail(`presence.grace must be 0 or ${MS}, such as 5_000`);
  if (data !== undefined && data !== "client" && typeof data !== "function") {
    throw fail('presence.data must be "client" or a function ({ client, data }) => data');
  }
  return {
    authorize,
    ...(snapshot && { snapshot }),
    ...(schema && { schema: schemas }),
    history: history ? { ...history, maxRecover: history.maxRecover ?? history.size } : null,
    presence: presence ? { data, grace } : null,
  };
}
