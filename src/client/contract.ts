import type { WebSocketMessage } from "../protocol.ts";
import type { Publication, SubscribeOptions, Subscription, SubscriptionInit } from "./subscription.ts";

/** A schema of any library that speaks Standard Schema (https://standardschema.dev), as far as types are concerned. */
export interface TypedSchema {
  /** The types of what goes in and what comes out. */
  readonly "~standard": { readonly types?: { readonly input: unknown; readonly output: unknown } | undefined };
}

/**
 * What a server takes and sends, by name: each entry a schema, or a plain type. What it does not declare is not restricted. Usually
 * `typeof contract` of what the server's `defineContract` made; only its type is needed.
 */
export interface Contract {
  /** The types that the server handles. */
  readonly requests?: { readonly [type: string]: RequestContract };
  /** The messages that the server sends by itself; each is an object. */
  readonly messages?: { readonly [type: string]: unknown };
  /** The channels; a name that ends in `*` is of all that begin so. */
  readonly channels?: { readonly [name: string]: ChannelContract };
}

/** What is asked and what is answered. */
export interface RequestContract {
  /** The message without `type` and `uid`. */
  readonly payload?: unknown;
  /** `data` of the answer. */
  readonly reply?: unknown;
}

/** What a channel has. */
export interface ChannelContract {
  /** What is published, by event. */
  readonly events?: { readonly [event: string]: unknown };
  /** What a subscription begins with. */
  readonly snapshot?: unknown;
  /** What the snapshot is asked with. */
  readonly query?: unknown;
  /** What is told of a member. */
  readonly member?: unknown;
}

type TypesOf<Entry extends TypedSchema> = NonNullable<Entry["~standard"]["types"]>;

/** As it is before its schema has read it. What the server sends is read by none, so this is what travels. */
export type In<Entry> = Entry extends TypedSchema ? TypesOf<Entry>["input"] : Entry;

/** As its schema puts it out. */
export type Out<Entry> = Entry extends TypedSchema ? TypesOf<Entry>["output"] : Entry;

type Part<C, Name extends string> = C extends { readonly [N in Name]: infer Value } ? Value : undefined;

/** The types that may be asked and sent. */
export type RequestType<C> = C extends { readonly requests: infer R } ? keyof R & string : string;

/** What is sent with a type. */
export type PayloadOf<C, Type extends string> = C extends { readonly requests: infer R }
  ? Part<Part<R, Type>, "payload"> extends infer Payload ? Payload extends undefined ? Record<string, never> : In<Payload> : never
  : Record<string, unknown>;

/** A payload without what is the request's own. */
export type WithoutEnvelope<Payload> = Payload & { readonly type?: never; readonly uid?: never };

/** What is answered to a type. */
export type ReplyOf<C, Type extends string> = C extends { readonly requests: infer R } ? Declared<Part<R, Type>, "reply">
  : unknown;

/** A message that may be sent. */
export type MessageTo<C> = C extends { readonly requests: unknown }
  ? { [Type in RequestType<C>]: { type: Type } & PayloadOf<C, Type> }[RequestType<C>]
  : WebSocketMessage;

/** A message that the server sends by itself. */
export type MessageFrom<C> = C extends { readonly messages: infer M }
  ? { [Type in keyof M & string]: { type: Type } & In<M[Type]> }[keyof M & string]
  : WebSocketMessage;

/** The names of the channels. */
export type ChannelName<C> = C extends { readonly channels: infer H }
  ? { [Name in keyof H & string]: Name extends `${infer Prefix}*` ? `${Prefix}${string}` : Name }[keyof H & string]
  : string;

/** What is declared of a channel, by its name or a prefix of it. */
export type ChannelOf<C, Name extends string> = C extends { readonly channels: infer H } ? Name extends keyof H ? H[Name]
  : {
    [Key in keyof H & string]: Key extends `${infer Prefix}*` ? Name extends `${Prefix}${string}` ? H[Key] : never : never;
  }[keyof H & string]
  : ChannelContract;

/** The events of a channel. */
export type EventOf<H> = H extends { readonly events: infer Events } ? keyof Events & string : string;

/** What may be published as an event of a channel. */
export type DataTo<H, Event extends string> = H extends { readonly events: infer Events }
  ? Event extends keyof Events ? In<Events[Event]> : never
  : unknown;

/** What is published in a channel: the server's schema has read it. */
export type PublicationOf<H, Event extends string = EventOf<H>> = H extends { readonly events: infer Events }
  ? { [E in Event]: Publication<E, E extends keyof Events ? Out<Events[E]> : never> }[Event]
  : Publication<Event>;

type Declared<H, Name extends string> = Part<H, Name> extends infer Entry ? Entry extends undefined ? unknown : In<Entry> : never;

/** What is told of a member of a channel. */
export type MemberOf<H> = Declared<H, "member">;

/** What a subscription to a channel begins with. */
export type InitOf<H> = SubscriptionInit<Declared<H, "snapshot">>;

/** Options of a subscription to a channel, perhaps to one of its events only. */
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
