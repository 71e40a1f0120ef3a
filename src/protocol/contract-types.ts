/** Types that a server and its clients derive from a contract. */
import type { MessageUid } from "./errors.ts";
import type { JsonOf } from "./json-of.ts";
import type { Candidate, Longest, NameFault } from "./channel-name-types.ts";
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
  /** Questions that the server asks a client; the reply is the answer of the client. */
  readonly questions?: { readonly [type: string]: RequestContract };
  /** Messages that the server sends on its own; each is an object. */
  readonly messages?: { readonly [type: string]: unknown };
  /** Channels; `{id}` in a name is a parameter, and a name that ends in `*` is a prefix. */
  readonly channels?: { readonly [name: string]: ChannelContract };
}

/** A request and its reply. */
export interface RequestContract {
  /** The message without `type` and `uid`. */
  readonly payload?: unknown;
  /** `data` of the reply; for a stream, the result at its end. */
  readonly reply?: unknown;
  /** Items that the client sends after the message, and items of the answer. Absent: the answer is a single reply. */
  readonly stream?: { readonly input?: unknown; readonly output?: unknown };
}

/** The contract of a channel. */
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

/**
 * Input type of a schema. What the server sends has this type, because neither side runs its schema, and arrives as the JSON of
 * it.
 */
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

/** Reply to a request type, as its handler returns it. */
export type ReplyTo<C, Type extends string> = C extends { readonly requests: infer R } ? InOf<Part<R, Type>, "reply"> : unknown;

/** Reply to a request type, as it arrives at the client. */
export type ReplyOf<C, Type extends string> = JsonOf<ReplyTo<C, Type>>;

/** Request types whose answer is a stream. */
export type StreamType<C> = C extends { readonly requests: infer R }
  ? { [Type in keyof R & string]: R[Type] extends { readonly stream: unknown } ? Type : never }[keyof R & string]
  : string;

/** Item of a stream, as its handler returns it; `never` if the request type declares none. */
export type ItemTo<C, Type extends string> = C extends { readonly requests: infer R }
  ? Part<Part<Part<R, Type>, "stream">, "output"> extends infer Item ? Item extends undefined ? never : In<Item> : never
  : unknown;

/** Item of a stream, as it arrives at the client; `never` if the request type declares none. */
export type ItemOf<C, Type extends string> = JsonOf<ItemTo<C, Type>>;

/** Item of the input as the handler of a request type receives it; `never` if the request type declares none. */
export type HandledInputOf<C, Type extends string> = C extends { readonly requests: infer R }
  ? Part<Part<Part<R, Type>, "stream">, "input"> extends infer Item ? Item extends undefined ? never : Out<Item> : never
  : unknown;

/** Types of the questions. */
export type AskedType<C> = C extends { readonly questions: infer Q } ? keyof Q & string : string;

/** Payload of a question. Neither side runs its schema. */
export type QuestionOf<C, Type extends string> = C extends { readonly questions: infer Q }
  ? Part<Part<Q, Type>, "payload"> extends infer Payload ? Payload extends undefined ? Record<string, never> : In<Payload> : never
  : object;

/** Answer to a question, as it arrives: the output of its schema, or JSON if a plain type is declared. */
export type AnswerOf<C, Type extends string> = C extends { readonly questions: infer Q }
  ? Part<Part<Q, Type>, "reply"> extends infer Reply
    ? Reply extends undefined ? unknown : Reply extends TypedSchema ? Out<Reply> : JsonOf<Reply>
  : never
  : unknown;

/** Arguments after the type of a question: the payload, which is optional if no field is required, and `Rest`. */
export type QuestionArguments<C, Type extends string, Rest extends unknown[]> = Record<string, never> extends QuestionOf<C, Type>
  ? [payload?: QuestionOf<C, Type>, ...rest: Rest]
  : [payload: QuestionOf<C, Type>, ...rest: Rest];

/** A message that the server sends on its own. */
export type MessageFrom<C> = C extends { readonly messages: infer M }
  ? { [Type in keyof M & string]: { type: Type } & In<M[Type]> }[keyof M & string]
  : WebSocketMessage;

/** A message as a listener receives it from a client: its type is declared, its fields are not validated. */
export type MessageReceived<C> = C extends { readonly requests: infer R } ?
    | { [Type in keyof R & string]: { type: Type; uid?: MessageUid } & Unvalidated<InOf<R[Type], "payload">> }[keyof R & string]
    | (C extends { readonly channels: unknown } ? WebSocketMessage & { type: "subscribe" | "unsubscribe" | "publish" } : never)
  : WebSocketMessage;

/** @internal */
type Unvalidated<Payload> = Payload extends object ? { [Field in keyof Payload]?: unknown } : unknown;

/** Names of channels that a declared name matches: `room:${string}` for `room:{id}` and `room:*`. */
export type NameOf<Declared extends string> = Declared extends `${infer Head}{${string}}${infer Rest}`
  ? `${Head}${string}${NameOf<Rest>}`
  : Declared extends `${infer Prefix}*` ? `${Prefix}${string}`
  : Declared;

/** Parameters of a declared name: `{ id: string }` for `room:{id}`. */
export type ParamsOf<Declared extends string> = {
  readonly [Param in string extends Declared ? string : ParamOf<Declared>]: string;
};

/** @internal */
type ParamOf<Declared extends string> = Declared extends `${string}{${infer Param}}${infer Rest}` ? Param | ParamOf<Rest> : never;

/** Channel names. */
export type ChannelName<C> = C extends { readonly channels: infer H } ? NameOf<keyof H & string> : string;

/**
 * The declaration that the server uses for a channel: the one of its exact name, else the matching one with parameters that has
 * the most other characters, else that of the longest prefix. `never` if none matches, or two are equally specific.
 */
export type ChannelOf<C, Name extends string> = C extends { readonly channels: infer H }
  ? Name extends keyof H ? H[Name] : H[Longest<Candidate<keyof H & string, Name>>]
  : ChannelContract;

/** The name of a channel. An error message as a type if no declaration matches it, or two are equally specific. */
export type MatchingName<C, Name extends string> = keyof Verdict<C, Name> extends "unknown"
  ? `Cannot use "${Name}": no channel is declared by this name, and a parameter takes 1 or more of A–Z a–z 0–9 _ - . @ = + ~`
  : keyof Verdict<C, Name> extends "ambiguous" ? `Cannot use "${Name}": two declarations with as many characters match it`
  : Name;

/**
 * @internal An object whose keys are the faults of the name. Keys, so that a `Name` which is itself a type parameter is accepted.
 */
type Verdict<C, Name extends string> = [C] extends [{ readonly channels: infer H }]
  ? [NameFault<keyof H & string, Name>] extends [never] ? { known: true } : { [Fault in NameFault<keyof H & string, Name>]: true }
  : { known: true };

/** Event names of a channel. */
export type EventOf<H> = H extends { readonly events: infer Events } ? keyof Events & string : string;

/** Data of an event that the server publishes: the output of its schema, because data that the server publishes is not parsed. */
export type DataOf<H, Event extends string> = H extends { readonly events: infer Events }
  ? Event extends keyof Events ? Out<Events[Event]> : never
  : unknown;
