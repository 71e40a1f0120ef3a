import type { EventOf, In, InOf, MessageFrom, Out, Part, QuestionOf, RequestType } from "../protocol/contract-types.ts";
import type { JsonItemOf, JsonOf } from "../protocol/json-of.ts";
import type { WebSocketMessage } from "../protocol/protocol.ts";
import type { StreamOptions } from "./stream.ts";
import type { Publication, SubscribeOptions, Subscription, SubscriptionInit } from "./subscription.ts";

/** Payload of a request type. */
export type PayloadOf<C, Type extends string> = C extends { readonly requests: infer R }
  ? Part<Part<R, Type>, "payload"> extends infer Payload ? Payload extends undefined ? Record<string, never> : In<Payload> : never
  : Record<string, unknown>;

/** A payload, without the fields `type` and `uid` that the client sets. */
export type WithoutEnvelope<Payload> = Payload & { readonly type?: never; readonly uid?: never };

/** Item of the input of a request type; `never` if the request type declares none. */
export type InputOf<C, Type extends string> = C extends { readonly requests: infer R }
  ? Part<Part<Part<R, Type>, "stream">, "input"> extends infer Item ? Item extends undefined ? never : In<Item> : never
  : unknown;

/** Arguments after the type of a stream: the payload, which is optional if no field is required, and the options, with a declared input. */
export type StreamArguments<C, Type extends string> = [InputOf<C, Type>] extends [never]
  ? Record<string, never> extends PayloadOf<C, Type>
    ? [payload?: WithoutEnvelope<PayloadOf<C, Type>>, options?: StreamOptions<never>]
  : [payload: WithoutEnvelope<PayloadOf<C, Type>>, options?: StreamOptions<never>]
  : C extends { readonly requests: unknown } ? [
      payload: WithoutEnvelope<PayloadOf<C, Type>>,
      options: StreamOptions<InputOf<C, Type>> & { input: AsyncIterable<InputOf<C, Type>> },
    ]
  : [payload?: WithoutEnvelope<PayloadOf<C, Type>>, options?: StreamOptions];

/** A message that the client may send. */
export type MessageTo<C> = C extends { readonly requests: unknown }
  ? { [Type in RequestType<C>]: { type: Type } & PayloadOf<C, Type> }[RequestType<C>]
  : WebSocketMessage;

/** A message from the server, as JSON. */
export type MessageOf<C> = JsonOf<MessageFrom<C>>;

/** A question as its handler receives it, without `type` and `uid`. It is not validated; the contract is trusted. */
export type AskedOf<C, Type extends string> = C extends { readonly questions: unknown } ? JsonOf<QuestionOf<C, Type>>
  : Record<string, unknown>;

/** Answer to a question. */
export type AnswerTo<C, Type extends string> = C extends { readonly questions: infer Q } ? InOf<Part<Q, Type>, "reply"> : unknown;

/** Data that may be published as an event of a channel. */
export type DataTo<H, Event extends string> = H extends { readonly events: infer Events }
  ? Event extends keyof Events ? In<Events[Event]> : never
  : unknown;

/** A publication of a channel, as JSON of the schema's output type, because the server has parsed it. */
export type PublicationOf<H, Event extends string = EventOf<H>> = H extends { readonly events: infer Events }
  ? { [E in Event]: Publication<E, E extends keyof Events ? JsonItemOf<Out<Events[E]>> : never> }[Event]
  : Publication<Event>;

/** Data of a channel's members, as JSON. */
export type MemberOf<H> = JsonOf<InOf<H, "member">>;

/** First item of a subscription to a channel. */
export type InitOf<H> = SubscriptionInit<JsonOf<InOf<H, "snapshot">>>;

/** Options of a subscription to a channel, or to one of its events. */
export type SubscribeOptionsOf<H, Event extends string> = SubscribeOptions<
  InitOf<H>,
  PublicationOf<H, Event>,
  MemberOf<H>,
  H extends { readonly query: infer Query } ? In<Query> : Record<string, unknown>,
  InOf<H, "member">
>;

/** A subscription to a channel. */
export type SubscriptionOf<H, Event extends string> = Subscription<
  InitOf<H> | PublicationOf<H, Event>,
  MemberOf<H>
>;
