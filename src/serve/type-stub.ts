import type { HistoryQuery, PublishOptions } from "../channels/channels.ts";
import type { HistoryRecord } from "../channels/history-record.ts";
import type { Position } from "../engines/engine.ts";
import type { ChannelName, ChannelOf, DataOf, EventOf, MatchingName } from "../protocol/contract-types.ts";
import type { ObjectMember, PublishArguments } from "./object-calls.ts";

/** The calls of an object that name a channel, with the types of that channel. */
export interface ChannelCalls<C> {
  /** Publishes to a channel, as `Channels.publish`. */
  publish<const Name extends ChannelName<C>, const Event extends EventOf<ChannelOf<C, Name>>>(
    channel: MatchingName<C, Name>,
    event: Event,
    data: DataOf<ChannelOf<C, Name>, Event>,
    options?: Pick<PublishOptions, "id">,
  ): Promise<Position | null>;
  /** Lists the members of a channel, as `Channels.presence`. */
  presence<const Name extends ChannelName<C>>(
    channel: MatchingName<C, Name>,
  ): Promise<ObjectMember<{ readonly channels: { readonly it: ChannelOf<C, Name> } }>[]>;
  /** Reads the history of a channel, as `Channels.history`. */
  history<const Name extends ChannelName<C>>(
    channel: MatchingName<C, Name>,
    query?: HistoryQuery,
  ): Promise<HistoryRecord<ChannelOf<C, Name>>>;
}

/** A stub whose calls have the types of a contract. Its other methods stay as they are. */
export type TypedStub<C, Stub> = Omit<Stub, keyof ChannelCalls<C>> & ChannelCalls<C>;

/**
 * Returns the stub of an object, with the types that its contract gives each channel. workerd's stubs have no type parameters: by itself a
 * stub takes `room:1:2` for `room:{id}`, which the object refuses, and its `history` returns publications of any channel.
 *
 * @param _contract is not read: where only its type is known, pass `{} as typeof contract`.
 *
 * @example
 * ```ts
 * const newsroom = typeStub(contract, env.NEWSROOM.getByName("main"));
 * await newsroom.publish("room:1", "said", { text: "Hello" });
 * ```
 */
export function typeStub<C, Stub extends { readonly publish: (...publication: PublishArguments<C>) => unknown }>(
  _contract: C,
  stub: Stub,
): TypedStub<C, Stub> {
  return stub as unknown as TypedStub<C, Stub>; // The contract exists in types only.
}
