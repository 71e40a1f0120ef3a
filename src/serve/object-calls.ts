import type { AnySchemas, ChannelsOf, ChannelsStats, HistoryQuery, MemberRecord, PublishOptions } from "../channels/channels.ts";
import type { AnyPayloads, ScheduleArguments, ScheduleRecord, Schedules } from "./schedules.ts";
import type { HistoryRecord, PublicationRecord } from "../channels/history-record.ts";
import type { DisconnectFilter } from "../connection/revocations.ts";
import type { OrderResult } from "../controller/cluster.ts";
import type { ControllerStats } from "../controller/stats.ts";
import type { BroadcastFilter, BroadcastResult } from "../delivery/broadcast.ts";
import type { Position } from "../engines/engine.ts";
import type {
  ChannelContract,
  ChannelName,
  Contract,
  DataOf,
  EventOf,
  InOf,
  MessageFrom,
  NameOf,
} from "../protocol/contract-types.ts";
import type { JsonItemOf, JsonOf } from "../protocol/json-of.ts";

/** Arguments of `publish`: one tuple for each event of each channel, because workerd's stubs keep no type parameters. */
export type PublishArguments<D> = D extends { readonly channels: infer H } ? {
    [Name in keyof H & string]: {
      [Event in EventOf<H[Name]>]: [
        channel: NameOf<Name>,
        event: Event,
        data: DataOf<H[Name], Event>,
        options?: Pick<PublishOptions, "id">,
      ];
    }[EventOf<H[Name]>];
  }[keyof H & string]
  : [channel: string, event: string, data: unknown, options?: Pick<PublishOptions, "id">];

/** The history of one of the channels. */
export type HistoryOfObject<D> = D extends { readonly channels: infer H }
  ? { [Name in keyof H & string]: ObjectHistory<H[Name]> }[keyof H & string]
  : ObjectHistory<ChannelContract>;

/** A history as a stub returns it. */
export type ObjectHistory<H> = Omit<HistoryRecord<H>, "publications"> & {
  publications: { [Event in EventOf<H>]: PublicationRecord<Event, ObjectJson<JsonItemOf<DataOf<H, Event>>>> }[EventOf<H>][];
};

/**
 * Replaces `unknown` by a flat type for JSON: workerd's stubs turn `unknown` into `never`, and cannot resolve recursive types.
 */
export type ObjectJson<Data> = unknown extends Data ? string | number | boolean | object | null : Data;

/** @internal */
type AnyMember<D> = D extends { readonly channels: infer H } ? { [Name in keyof H]: InOf<H[Name], "member"> }[keyof H] : unknown;

/** A member of one of the channels. */
export interface ObjectMember<D> {
  /** User id, or `uid:<id>` for a connection without a user. */
  user: string;
  /** The member's data. Absent if the channel keeps none. */
  data?: ObjectJson<JsonOf<AnyMember<D>>>;
}

/** Counters of an object. */
export interface WebSocketObjectStats extends ControllerStats {
  /** Counters of its channels. Absent without channels. */
  channels?: ChannelsStats;
  /** Size of the object's SQLite database, in bytes. Absent without SQLite storage. */
  databaseBytes?: number;
}

/**
 * The methods that Workers and other objects call on an object's stub. Arguments are checked, because a stub accepts anything.
 */
export interface ObjectCalls<C = Contract, Schemas = AnySchemas, Payloads = AnyPayloads> {
  /** Publishes to a channel, as `Channels.publish`. */
  publish(...publication: PublishArguments<ChannelsOf<C, Schemas>>): Promise<Position | null>;
  /** Sends a message to the clients that the filter matches, as `WebSocketController.broadcast`. */
  broadcast(message: string | MessageFrom<C>, filter?: BroadcastFilter): Promise<BroadcastResult>;
  /** Closes the clients that the filter matches, as `WebSocketController.disconnect`. */
  disconnect(filter: DisconnectFilter, code?: number, reason?: string): Promise<OrderResult>;
  /** Lists the members of a channel, as `Channels.presence`. */
  presence(channel: ChannelName<ChannelsOf<C, Schemas>>): Promise<ObjectMember<ChannelsOf<C, Schemas>>[]>;
  /** Reads the history of a channel, as `Channels.history`. */
  history(
    channel: ChannelName<ChannelsOf<C, Schemas>>,
    query?: HistoryQuery,
  ): Promise<HistoryOfObject<ChannelsOf<C, Schemas>>>;
  /** Counts connections, clients and subscriptions. */
  stats(): Promise<WebSocketObjectStats>;
  /** Schedules a call, as `Schedules.schedule`, and returns its id. */
  schedule(...call: ScheduleArguments<Payloads>): Promise<string>;
  /** Deletes a schedule or a dead letter. Returns whether there was one. */
  cancel(id: string): Promise<boolean>;
  /** Lists the schedules, the next one first. Not to be confused with `scheduled`, which cron triggers call on a Worker. */
  schedules(): Promise<ScheduleRecord[]>;
  /** Lists the calls whose attempts have all failed, the latest first. */
  deadLetters(): Promise<ScheduleRecord[]>;
}

/** The part of `Channels` that the calls use. `Channels` checks the arguments. */
interface UntypedChannels {
  publish(channel: unknown, event: unknown, data: unknown, options?: PublishOptions): Promise<Position | null>;
  presence(channel: unknown): Promise<MemberRecord[]>;
  history(channel: unknown, query?: HistoryQuery): Promise<HistoryRecord>;
  stats(): ChannelsStats;
}

/** Publishes, checking the options. */
export async function publishTo(
  channels: unknown,
  [channel, event, data, options]: readonly [channel: unknown, event: unknown, data: unknown, options?: unknown],
): Promise<Position | null> {
  checkOptions("publish", options, ["id"]);
  return await channelsOf("publish", channels).publish(channel, event, data, options);
}

/** Reads a history, checking the query. */
export async function readFrom(channels: unknown, channel: unknown, query: unknown): Promise<HistoryRecord> {
  checkOptions("read the history", query, ["limit", "after"]);
  return await channelsOf("read the history", channels).history(channel, query);
}

/** The channels that `build` returned. @throws {TypeError} if it returned none. */
export function channelsOf(action: string, channels: unknown): UntypedChannels {
  if (channels) return channels as UntypedChannels; // `Channels` checks its arguments.
  throw new TypeError(`Cannot ${action}: the object has no channels, return them too: ({ app, controller, channels })`);
}

/** Accepts `undefined`, or an object with these fields only. @throws {TypeError} for anything else. */
export function checkOptions(action: string, options: unknown, names: readonly string[]): asserts options is object | undefined {
  if (options === undefined) return;
  const isObject = typeof options === "object" && options !== null;
  const unknown = isObject ? Object.keys(options).find((name) => !names.includes(name)) : "";
  if (unknown === undefined) return;
  throw new TypeError(`Cannot ${action}: the options must be an object with ${names.join(" and ")}, or absent`);
}

/** @throws {TypeError} if the filter is not an object. */
export function checkFilterObject(action: string, filter: unknown): void {
  if (typeof filter !== "object" || filter === null) {
    throw new TypeError(`Cannot ${action}: the filter must be an object such as { role: "editor" }`);
  }
}

/** The schedules that `build` returned. @throws {TypeError} if it returned none. */
export function schedulesOf<Payloads>(action: string, schedules: Schedules<Payloads> | undefined): Schedules<Payloads> {
  if (schedules) return schedules;
  throw new TypeError(`Cannot ${action}: the object has no schedules, return them too: ({ app, controller, schedules })`);
}
