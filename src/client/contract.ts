import type { WebSocketMessage } from "../protocol/protocol.ts";
import type { Publication, SubscribeOptions, Subscription, SubscriptionInit } from "./subscription.ts";

/** A schema of any Standard Schema library (https://standardschema.dev), reduced to its types. */
export interface TypedSchema {
  /** Input and output types. */
  readonly "~standard": { readonly types?: { readonly input: unknown; readonly output: unknown } | undefined };
}

/**
 * What a server accepts and sends, by name; each entry is a schema or a plain type. Anything undeclared stays untyped. Usually
 * `typeof contract` of the server's `defineContract`; only its type is needed.
 */
export interface Contract {
  /** Request types that the server handles. */
  readonly requests?: { readonly [type: string]: RequestContract };
  /** Messages that the server sends on its own; each is an object. */
  readonly messages?: { readonly [type: string]: unknown };
  /** Channels; a name that ends in `*` is a prefix. */
  readonly channels?: { readonly [name: string]: ChannelContract };
}

/** A request and its reply. */
export interface RequestContract {
  /** The message without `type` and `uid`. */
  readonly payload?: unknown;
  /** `data` of the reply. */
  readonly reply?: unknown;
}

/** What a channel carries. */
export interface ChannelContract {
  /** Publications, by event. */
  readonly events?: { readonly [event: string]: unknown };
  /** Snapshot at the start of a subscription. */
  readonly snapshot?: unknown;
  /** Query for the snapshot. */
  readonly query?: unknown;
  /** Data of a member in presence. */
  readonly member?: unknown;
}

type TypesOf<Entry extends TypedSchema> = NonNullable<Entry["~standard"]["types"]>;

/** Input type of a schema. The client does not run schemas, so what the server sends arrives in this form. */
export type In<Entry> = Entry extends TypedSchema ? TypesOf<Entry>["input"] : Entry;

/** Output type of a schema. */
export type Out<Entry> = Entry extends TypedSchema ? TypesOf<Entry>["output"] : Entry;

type Part<C, Name extends string> = C extends { readonly [N in Name]: infer Value } ? Value : undefined;

/** Names of the request types. */
export type RequestType<C> = C extends { readonly requests: infer R } ? keyof R & string : string;

/** Payload of a request type. */
export type PayloadOf<C, Type extends string> = C extends { readonly requests: infer R }
  ? Part<Part<R, Type>, "payload"> extends infer Payload ? Payload extends undefined ? Record<string, never> : In<Payload> : never
  : Record<string, unknown>;

/** A payload, without the fields `type` and `uid` that the client sets. */
export type WithoutEnvelope<Payload> = Payload & { readonly type?: never; readonly uid?: never };

/** Reply to a request type. */
export type ReplyOf<C, Type extends string> = C extends { readonly requests: infer R } ? Declared<Part<R, Type>, "reply">
  : unknown;

/** A message that the client may send. */
export type MessageTo<C> = C extends { readonly requests: unknown }
  ? { [Type in RequestType<C>]: { type: Type } & PayloadOf<C, Type> }[RequestType<C>]
  : WebSocketMessage;

/** A message that the server sends on its own. */
export type MessageFrom<C> = C extends { readonly messages: infer M }
  ? { [Type in keyof M & string]: { type: Type } & In<M[Type]> }[keyof M & string]
  : WebSocketMessage;

/** Channel names. */
export type ChannelName<C> = C extends { readonly channels: infer H }
  ? { [Name in keyof H & string]: Name extends `${infer Prefix}*` ? `${Prefix}${string}` : Name }[keyof H & string]
  : string;

/** Declaration of a channel, found by its name or by a prefix. */
export type ChannelOf<C, Name extends string> = C extends { readonly channels: infer H } ? Name extends keyof H ? H[Name]
  : {
    [Key in keyof H & string]: Key extends `${infer Prefix}*` ? Name extends `${Prefix}${string}` ? H[Key] : never : never;
  }[keyof H & string]
  : ChannelContract;

/** Event names of a channel. */
export type EventOf<H> = H extends { readonly events: infer Events } ? keyof Events & string : string;

/** Data that may be published as an event of a channel. */
export type DataTo<H, Event extends string> = H extends { readonly events: infer Events }
  ? Event extends keyof Events ? In<Events[Event]> : never
  : unknown;

/** A publication of a channel. It has the output type, since the server's schema has parsed it. */
export type PublicationOf<H, Event extends string = EventOf<H>> = H extends { readonly events: infer Events }
  ? { [E in Event]: Publication<E, E extends keyof Events ? Out<Events[E]> : never> }[Event]
  : Publication<Event>;

type Declared<H, Name extends string> = Part<H, Name> extends infer Entry ? Entry extends undefined ? unknown : In<Entry> : never;

/** Data of a channel's members. */
export type MemberOf<H> = Declared<H, "member">;

/** First item of a subscription to a channel. */
export type InitOf<H> = SubscriptionInit<Declared<H, "snapshot">>;

/** Options of a subscription to a channel, or to one of its events. */
export type SubscribeOptionsOf<H, Event extends string> = SubscribeOptions<
  InitOf<H>,
  PublicationOf<H, Event>,
  MemberOf<H>,
  H extends { readonly query: infer Query } ? In<Query> : Record<string, unknown>
>;

/** A subscription to a channel. */
export type SubscriptionOf<H, Event extends string> = Subscription<
  InitOf<H> | PublicationOf<H, Event>,
  MemberOf<H>
>;
