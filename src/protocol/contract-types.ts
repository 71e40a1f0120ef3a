/** The types that a server and its clients read from a contract. */
import type { WebSocketMessage } from "./protocol.ts";

/** A schema of any Standard Schema library (https://standardschema.dev), reduced to its types. */
export interface TypedSchema {
  /** Input and output types. */
  readonly "~standard": { readonly types?: { readonly input: unknown; readonly output: unknown } | undefined };
}

/**
 * What a server accepts and sends, by name; each entry is a schema or a plain type. Anything undeclared stays untyped. Usually
 * `typeof contract` of the server's `defineContract`.
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

/** @internal */
type TypesOf<Entry extends TypedSchema> = NonNullable<Entry["~standard"]["types"]>;

/** Input type of a schema. Neither side runs the schema of what the server sends, so it is sent and arrives in this form. */
export type In<Entry> = Entry extends TypedSchema ? TypesOf<Entry>["input"] : Entry;

/** Output type of a schema. */
export type Out<Entry> = Entry extends TypedSchema ? TypesOf<Entry>["output"] : Entry;

/** A field of a declaration; `undefined` if it is not declared. */
export type Part<C, Name extends string> = C extends { readonly [N in Name]: infer Value } ? Value : undefined;

/** Input type of a field of a declaration; `unknown` if it is not declared. */
export type InOf<H, Name extends string> = Part<H, Name> extends infer Entry ? Entry extends undefined ? unknown : In<Entry>
  : never;

/** Names of the request types. */
export type RequestType<C> = C extends { readonly requests: infer R } ? keyof R & string : string;

/** Payload that the handler of a request type receives. */
export type HandledOf<C, Type extends string> = C extends { readonly requests: infer R }
  ? Part<Part<R, Type>, "payload"> extends infer Payload ? Payload extends undefined ? object : AsObject<Out<Payload>> : never
  : object;

/** @internal */
type AsObject<Payload> = Payload extends object ? Payload : object;

/** Reply to a request type. */
export type ReplyOf<C, Type extends string> = C extends { readonly requests: infer R } ? InOf<Part<R, Type>, "reply"> : unknown;

/** A message that the server sends on its own. */
export type MessageFrom<C> = C extends { readonly messages: infer M }
  ? { [Type in keyof M & string]: { type: Type } & In<M[Type]> }[keyof M & string]
  : WebSocketMessage;

/** Full names of the channels that a declared name stands for: `room:*` stands for `room:${string}`. */
export type NameOf<Declared extends string> = Declared extends `${infer Prefix}*` ? `${Prefix}${string}` : Declared;

/** Channel names. */
export type ChannelName<C> = C extends { readonly channels: infer H } ? NameOf<keyof H & string> : string;

/** Declaration of a channel, found by its name or by a prefix. */
export type ChannelOf<C, Name extends string> = C extends { readonly channels: infer H } ? Name extends keyof H ? H[Name]
  : {
    [Key in keyof H & string]: Key extends `${infer Prefix}*` ? Name extends `${Prefix}${string}` ? H[Key] : never : never;
  }[keyof H & string]
  : ChannelContract;

/** Event names of a channel. */
export type EventOf<H> = H extends { readonly events: infer Events } ? keyof Events & string : string;

/** Data of an event that the server publishes: the output of its schema, because data that the server publishes is not parsed. */
export type DataOf<H, Event extends string> = H extends { readonly events: infer Events }
  ? Event extends keyof Events ? Out<Events[Event]> : never
  : unknown;
