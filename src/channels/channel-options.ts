import { isMs, MS } from "../base/clock.ts";
import type { PayloadSchema } from "../application/schema.ts";
import type { ChannelContract, Contract, EventOf, InOf, NameOf, ParamsOf, TypedSchema } from "../protocol/contract-types.ts";
import type { HistoryOptions, Position } from "../engines/engine.ts";
import type { HistoryQuery, HistoryRecord } from "./history-record.ts";
import { historyFault } from "./history-fault.ts";
import { ChannelPattern, type Params } from "./channel-pattern.ts";
import { RESERVED_EVENTS } from "../protocol/protocol.ts";
import { type CheckedSchema, checkSchema, SCHEMA } from "../application/schema.ts";
import type { JsonValue, WebSocketClient } from "../application/websocket-client.ts";

/** Passed to a channel's `authorize`. */
export interface AuthorizeContext<Name extends string = string, H = ChannelContract> {
  /** The client that subscribes or publishes. */
  readonly client: WebSocketClient;
  /** Full channel name, also if it is declared by a prefix or with parameters. */
  readonly channel: NameOf<Name>;
  /** Parameters of the name: `{ id: "1" }` for `room:1`, declared as `room:{id}`. */
  readonly params: ParamsOf<Name>;
  /** Whether the client wants to receive publications or to publish one. */
  readonly action: "subscribe" | "publish";
  /** Event filter of the subscription, or event of the publication, as the client sent it. */
  readonly event?: EventOf<H>;
  /** Query of the subscription, as the client sent it. */
  readonly query?: Record<string, unknown>;
  /** Position to recover from. It may lie before the client was allowed to read: refuse it if that matters. */
  readonly recover?: Position;
  /** Data of the publication, as the client sent it. */
  readonly data?: unknown;
}

/** `true` allows. `{ ttl }` allows, and a subscription is authorized again after `ttl` ms (from 1; `Infinity`: never). All else refuses. */
export type Authorization = boolean | { readonly ttl: number };

/** Passed to a channel's `snapshot`. */
export interface SnapshotContext<Name extends string = string, H = ChannelContract> {
  /** The client that subscribes. */
  readonly client: WebSocketClient;
  /** Full channel name. */
  readonly channel: NameOf<Name>;
  /** Parameters of the name, as in `authorize`. */
  readonly params: ParamsOf<Name>;
  /** Query of the subscription; `{}` without one. The Directus SDK since 19.1 sends all values as strings. */
  readonly query: Record<string, unknown>;
  /** Reads the history of the channel: see {@link Channels.history}. Needs no `this`. */
  readonly history: (query?: HistoryQuery) => Promise<HistoryRecord<H>>;
}

/** Passed to a channel's `presence.data`. */
export interface PresenceContext<Name extends string = string> {
  /** The client that becomes a member. */
  readonly client: WebSocketClient;
  /** Full channel name. */
  readonly channel: NameOf<Name>;
  /** Parameters of the name, as in `authorize`. */
  readonly params: ParamsOf<Name>;
  /** `data` of the client's `subscribe`; `undefined` if it sent none. */
  readonly data: JsonValue | undefined;
}

/** Presence options of a channel. */
export interface PresenceOptions<Name extends string = string, Member = unknown> {
  /** Data of a member: what the client sent (`"client"`), or what this synchronous function returns. @default none */
  readonly data?: "client" | ((context: PresenceContext<Name>) => MemberData<Member> | undefined);
  /** Time in ms that a member stays after losing its last connection, to hide a reconnect; `0`: none. @default {5_000} */
  readonly grace?: number;
}

/** History options of a channel. */
export interface ChannelHistoryOptions extends HistoryOptions {
  /** Maximum number of publications in one recovery; a client that missed more gets `recovered: false`. @default {size} */
  readonly maxRecover?: number;
}

/** Type of a member's data: as the contract declares it, else any JSON. */
export type MemberData<Member> = unknown extends Member ? JsonValue : Member;

/** Schemas of publications, by event. */
export type EventSchemas = { readonly [event: string]: PayloadSchema<unknown, unknown> };

/** Schemas for events of a contract. */
export type SchemasOf<H> = H extends { readonly events: infer Events }
  ? [keyof Events] extends [never] ? { readonly [event: string]: never } : {
    readonly [Event in keyof Events]?: Events[Event] extends TypedSchema ? Events[Event]
      : PayloadSchema<unknown, Events[Event]>;
  }
  : EventSchemas;

/** Options of a channel, or of all channels with a prefix or parameters. `H` is its declaration in a contract. */
export interface ChannelOptions<Name extends string = string, H = ChannelContract, Schemas = SchemasOf<H>> {
  /**
   * Decides whether a client may subscribe or publish. Called for each `subscribe` and `publish`, and again for each subscription
   * when the client's rights change or a `ttl` ends. A thrown `WebSocketError` is sent to the client, any other error as
   * `INTERNAL_ERROR`. `() => true` allows everybody.
   */
  readonly authorize: (context: AuthorizeContext<Name, H>) => Authorization | Promise<Authorization>;
  /** Returns the initial data of a subscription, as JSON. Not called for one with an `event`, nor when recovery succeeds. */
  readonly snapshot?: (context: SnapshotContext<Name, H>) => InOf<H, "snapshot"> | Promise<InOf<H, "snapshot">>;
  /**
   * Events that clients may publish, each with a schema for its data. The output of the schema is published and must be JSON.
   * Absent: those of the option `contract`; without one, any event and data that `authorize` allows.
   */
  readonly schema?: H extends { readonly events: unknown } ? Schemas : Schemas & EventSchemas;
  /** How many publications are kept for recovery, and how long. Absent: none, and publications have no offset. */
  readonly history?: ChannelHistoryOptions;
  /** Whether subscribers become members, which other clients can list and watch. @default {false} */
  readonly presence?: boolean | PresenceOptions<Name, InOf<H, "member">>;
}

/** Channel options with defaults applied. */
export interface ResolvedChannel extends Pick<ChannelOptions, "authorize" | "snapshot"> {
  /** The declared name. */
  readonly name: string;
  /** Parameters of a channel name. */
  readonly params: (channel: string) => Params;
  /** Schemas by event. */
  readonly schema?: ReadonlyMap<string, CheckedSchema>;
  /** Schema of the `query` that a client sends. */
  readonly query?: CheckedSchema;
  /** Schema of the `data` of a member that a client sends. */
  readonly member?: CheckedSchema;
  readonly history: Required<ChannelHistoryOptions> | null;
  readonly presence: { readonly data: PresenceOptions["data"]; readonly grace: number } | null;
}

/** Finds the options of a channel among the declarations. */
export class ChannelTable {
  readonly #names = new Map<string, ResolvedChannel>();
  /** The most specific first. */
  #patterns: [pattern: ChannelPattern, channel: ResolvedChannel][] = [];

  /** @throws {TypeError} for an invalid name or option. */
  constructor(declarations: { readonly [name: string]: ChannelOptions }) {
    if (!isRecord(declarations)) {
      throw new TypeError("Cannot declare channels: pass them by name, such as { news: { authorize } }");
    }
    const names = new Map<string, string>();
    for (const [name, options] of Object.entries(declarations)) {
      const pattern = new ChannelPattern(name);
      const same = names.get(pattern.shape);
      if (same !== undefined) {
        throw new TypeError(`Cannot declare the channel "${name}": "${same}" has the same names, remove one`);
      }
      names.set(pattern.shape, name);
      const channel = resolveChannel(name, options, pattern);
      if (pattern.isExact) this.#names.set(name, channel);
      else this.#patterns.push([pattern, channel]);
    }
    this.#patterns.sort(([one], [other]) => ChannelPattern.compare(one, other));
  }

  /** Adds the schemas of a contract. @throws {TypeError} for an invalid schema, or a declared event that the contract does not have. */
  declare({ channels = {} }: Contract): void {
    const declared = (channel: ResolvedChannel): ResolvedChannel => {
      if (!Object.hasOwn(channels, channel.name)) return channel;
      const inbound = inboundOf(channel.name, channels[channel.name]!);
      for (const event of inbound.schema && channel.schema ? channel.schema.keys() : []) {
        if (inbound.schema?.has(event)) continue;
        throw new TypeError(
          `Cannot declare the channel "${channel.name}": the contract has no event "${event}", add it, or remove schema.${event}`,
        );
      }
      return { ...inbound, ...channel };
    };
    for (const [name, channel] of this.#names) this.#names.set(name, declared(channel));
    this.#patterns = this.#patterns.map(([pattern, channel]) => [pattern, declared(channel)]);
  }

  /** History options of all declarations that have them. */
  get histories(): HistoryOptions[] {
    return this.#all().flatMap(({ history }) => history ?? []);
  }

  /** The longest grace period of all declarations, in ms. */
  get grace(): number {
    return Math.max(0, ...this.#all().map(({ presence }) => presence?.grace ?? 0));
  }

  /** Options for the exact name, else for the most specific name with parameters, else for the longest prefix. */
  find(name: string): ResolvedChannel | undefined {
    return this.#names.get(name) ?? this.#patterns.find(([pattern]) => pattern.matches(name))?.[1];
  }

  #all(): ResolvedChannel[] {
    return [...this.#names.values(), ...this.#patterns.map(([, channel]) => channel)];
  }
}

/** The schemas of a contract for what clients send. */
function inboundOf(
  name: string,
  { events, query, member }: ChannelContract,
): Pick<ResolvedChannel, "schema" | "query" | "member"> {
  const check = (what: string, schema: unknown): CheckedSchema => {
    const checked = checkSchema(schema);
    if (checked) return checked;
    throw new TypeError(
      `Cannot declare the channel "${name}": ${what} of the contract must be ${SCHEMA}, whose functions are not async unless it is`,
    );
  };
  return {
    ...(events && { schema: new Map(Object.entries(events).map(([event, each]) => [event, check(`events.${event}`, each)])) }),
    ...(query !== undefined && { query: check("query", query) }),
    ...(member !== undefined && { member: check("member", member) }),
  };
}

function resolveChannel(name: string, options: ChannelOptions, pattern: ChannelPattern): ResolvedChannel {
  const fail = (remedy: string) => new TypeError(`Cannot declare the channel "${name}": ${remedy}`);
  const { authorize, snapshot, schema, history, presence = false, ...rest } = options ?? {};
  const [unknown] = Object.keys(rest);
  if (unknown !== undefined) throw fail(`unknown option "${unknown}", use authorize, snapshot, schema, history or presence`);
  if (typeof authorize !== "function") throw fail("pass authorize, such as ({ client }) => client.accountability.user !== null");
  if (snapshot !== undefined && typeof snapshot !== "function") throw fail("snapshot must be a function ({ query }) => rows");
  if (schema !== undefined && !isRecord(schema)) throw fail("schema must be schemas by event, such as { say: v.object({ … }) }");
  const schemas = new Map<string, CheckedSchema>();
  for (const [event, each] of Object.entries(schema ?? {})) {
    if (RESERVED_EVENTS.has(event) || event.length > 64) throw fail(`"${event}" is not a valid event name, use another`);
    const checked = checkSchema(each);
    if (!checked) throw fail(`schema.${event} must be ${SCHEMA}, whose functions are not async unless it is`);
    schemas.set(event, checked);
  }
  const fault = historyFault(history);
  if (fault) throw fail(fault);
  if (typeof presence !== "boolean" && !isRecord(presence)) throw fail("presence must be true, false or { data?, grace? }");
  const { data, grace = 5_000, ...more } = typeof presence === "object" ? presence : {};
  const [unknownField] = Object.keys(more);
  if (unknownField !== undefined) throw fail(`unknown option "presence.${unknownField}", use data or grace`);
  if (!(grace === 0 || isMs(grace))) throw fail(`presence.grace must be 0 or ${MS}, such as 5_000`);
  if (data !== undefined && data !== "client" && typeof data !== "function") {
    throw fail('presence.data must be "client" or a function ({ client, data }) => data');
  }
  return {
    name,
    authorize,
    params: (channel) => pattern.params(channel),
    ...(snapshot && { snapshot }),
    ...(schema && { schema: schemas }),
    history: history ? { ...history, maxRecover: history.maxRecover ?? history.size } : null,
    presence: presence ? { data, grace } : null,
  };
}

/** Whether the value is an object other than an array. */
const isRecord = (value: unknown): boolean => typeof value === "object" && value !== null && !Array.isArray(value);
