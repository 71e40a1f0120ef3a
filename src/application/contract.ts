import type { ConsistsOf, Digit, IsName, Letter } from "../protocol/channel-name-types.ts";
import type { Contract, In, Out, TypedSchema } from "../protocol/contract-types.ts";
import type { JsonFault } from "../protocol/json-of.ts";
import { Outbound, outboundChecks } from "./outbound.ts";
import type { PayloadSchema } from "./schema.ts";

/** The payload, the reply and the items of a request. */
export interface RequestDeclaration<Payload extends object = object, Reply = unknown, Item = unknown, Input = unknown> {
  /** Validates the message without `type` and `uid`. Absent: the payload is ignored, and the handler receives none. */
  readonly payload?: PayloadSchema<unknown, Payload>;
  /** The type of the handler's result. It is checked in development only: see the option `validate`. */
  readonly reply?: PayloadSchema<Reply, unknown>;
  /** The items of the input and of the answer. Absent: the request has neither. */
  readonly stream?: {
    /** Validates each item that the client sends after the message. Absent: the handler receives no input. */
    readonly input?: PayloadSchema<unknown, Input>;
    /** The type of each item of the answer, checked as `reply`. Absent: the answer has no items. */
    readonly output?: PayloadSchema<Item, unknown>;
  };
}

/** A schema that the server runs. */
type RunSchema = PayloadSchema<unknown, unknown>;

/** @internal Whether the channel name may be declared, as `ChannelPattern` decides. @param Params its parameters so far */
type IsChannel<Name extends string, Params extends string = never> = Name extends `${infer Head}{${infer Param}}${infer Rest}`
  ? [Param] extends [Params] ? false
  : [Head extends "" ? true : IsName<Head>, IsParam<Param>] extends [true, true]
    ? Rest extends "" ? true : Rest extends `{${string}` ? false : IsChannel<Rest, Params | Param>
  : false
  : Name extends "*" ? true
  : Name extends `${infer Prefix}*` ? IsName<Prefix>
  : IsName<Name>;

/** @internal A letter, then letters, digits and `_`. */
type IsParam<Param extends string> = Param extends `${infer First}${infer Rest}`
  ? Uppercase<First> extends Letter ? ConsistsOf<Rest, Letter | Digit | "_"> : false
  : false;

/** @internal The declared name, without the names of its parameters. */
type ShapeOf<Name extends string> = Name extends `${infer Head}{${string}}${infer Rest}` ? `${Head}{}${ShapeOf<Rest>}` : Name;

/** @internal Other declared names that match the same channels. */
type SameShape<Name extends string, Others extends string> = Name extends `${string}{${string}`
  ? { [Other in Exclude<Others, Name>]: ShapeOf<Other> extends ShapeOf<Name> ? Other : never }[Exclude<Others, Name>]
  : never;

/** @internal Whether the name has 1 to 64 characters. */
type IsShort<Name extends string> = Name extends "" ? false : Rest16<Rest16<Rest16<Rest16<Name>>>> extends "" ? true : false;

/** @internal What follows the first 16 characters. */
type Rest16<Name extends string> = Rest4<Rest4<Rest4<Rest4<Name>>>>;

/** @internal */
type Rest4<Name extends string> = Name extends `${infer _A}${infer _B}${infer _C}${infer _D}${infer Rest}` ? Rest : "";

/** @internal Message types of the protocol. Without channels, an application may handle their types itself. */
type ReservedRequest<D> =
  | ("auth" | "ping" | "pong" | "stream.credit" | "stream.cancel" | "stream.input" | "stream.end")
  | (D extends { readonly channels: unknown } ? "subscribe" | "unsubscribe" | "publish" : never);

/** @internal Message types that the client handles itself. */
type ReservedMessage = "auth" | "ping" | "pong" | "subscription" | "presence";

/** @internal Whether `stream` declares the items of the answer, those of the input, or both. */
type IsStream<S> = [keyof S] extends [never] ? false
  : S extends { readonly [Key in keyof S]: Key extends "input" | "output" ? RunSchema : never } ? true
  : false;

/** @internal `Checked`; an error message as a type if a request, a question or a message cannot have the type. */
type CheckedType<What extends string, Type extends string, Reserved, Checked> = Type extends Reserved
  ? `Cannot declare the ${What} "${Type}": the protocol uses this name, choose another`
  : IsShort<Type> extends false ? `Cannot declare the ${What} "${Type}": a name has 1 to 64 characters`
  : Checked;

/** @internal The entry; an error message as a type if its values cannot be sent as JSON. */
type Sent<What extends string, Path extends string, T, Entry> = [JsonFault<T, Path>] extends [never] ? Entry
  : `Cannot declare ${What}: ${JsonFault<T, Path>}`;

/** @internal Fields of a payload that the protocol overwrites. */
type EnvelopeField<Payload> = Payload extends unknown
  ? keyof { [Field in keyof Payload as Field extends "type" | "uid" ? Field : never]: true }
  : never;

/** @internal */
type CheckedPayload<Type extends string, P, Path extends string = "payload"> = [EnvelopeField<In<P>>] extends [never]
  ? Sent<`"${Type}"`, Path, In<P>, P>
  : `Cannot declare "${Type}": the protocol sets the field "${EnvelopeField<In<P>>}", choose another name`;

/** @internal */
type CheckedReply<Type extends string, R> = R extends RunSchema ? Sent<`"${Type}"`, "reply", In<R>, R>
  : `Cannot declare "${Type}": reply must be a schema`;

/** @internal */
type CheckedStream<Type extends string, S> = IsStream<S> extends true
  ? { readonly [Key in keyof S]: Sent<`"${Type}"`, `stream.${Key & string}`, In<S[Key]>, S[Key]> }
  : `Cannot declare "${Type}": stream must be { input: schema, output: schema }, or one of the two`;

/** @internal */
type CheckedRequest<Type extends string, R> = {
  readonly [Key in keyof R]: Key extends "payload" ? R[Key] extends PayloadSchema<unknown, object> ? CheckedPayload<Type, R[Key]>
    : `Cannot declare "${Type}": payload must be a schema of an object, such as v.object({ … })`
    : Key extends "reply" ? CheckedReply<Type, R[Key]>
    : Key extends "stream" ? CheckedStream<Type, R[Key]>
    : `Cannot declare "${Type}": a request has payload, reply and stream, not "${Key & string}"`;
};

/** @internal */
type CheckedMessage<Type extends string, M, Path extends string = "message"> = M extends TypedSchema
  ? In<M> extends object ? CheckedPayload<Type, M, Path>
  : `Cannot declare "${Type}": a message must be an object, such as v.object({ … })`
  : `Cannot declare "${Type}": a message must be a schema`;

/** @internal */
type CheckedQuestion<Type extends string, Q> = {
  readonly [Key in keyof Q]: Key extends "payload" ? CheckedMessage<Type, Q[Key], Key>
    : Key extends "reply" ? CheckedReply<Type, Q[Key]>
    : `Cannot declare "${Type}": a question has payload and reply, not "${Key & string}"`;
};

/** @internal A client sends the input of its schema, and the server publishes the output. */
type CheckedEvent<Event extends string, E> = Event extends "init" | "unsubscribe" | "join" | "leave"
  ? `Cannot declare the event "${Event}": the protocol uses this name, choose another`
  : IsShort<Event> extends false ? `Cannot declare the event "${Event}": a name has 1 to 64 characters`
  : E extends RunSchema ? Sent<`the event "${Event}"`, "data", In<E> | Out<E>, E>
  : `Cannot declare the event "${Event}": it must be a schema`;

/** @internal */
type CheckedChannel<Name extends string, H> = {
  readonly [Key in keyof H]: Key extends "events"
    ? { readonly [Event in keyof H[Key]]: CheckedEvent<Event & string, H[Key][Event]> }
    : Key extends "snapshot" | "query" | "member"
      ? H[Key] extends TypedSchema ? Sent<`the channel "${Name}"`, Key, In<H[Key]>, H[Key]>
      : `Cannot declare the channel "${Name}": ${Key} must be a schema`
    : `Cannot declare the channel "${Name}": a channel has events, snapshot, query and member, not "${Key & string}"`;
};

/** @internal */
type CheckedName<Name extends string, Channels> = IsChannel<Name> extends false
  ? `Cannot declare the channel "${Name}": use A–Z a–z 0–9 _ - . : / @ = + ~, {name} for a parameter, and * at the end for a prefix`
  : [SameShape<Name, keyof Channels & string>] extends [never] ? CheckedChannel<Name, Channels[Name & keyof Channels]>
  : `Cannot declare the channel "${Name}": "${SameShape<Name, keyof Channels & string>}" has the same names, remove one`;

/** The declaration itself. An invalid entry has an error message as its type. */
export type CheckedContract<D> = {
  readonly [Key in keyof D]: Key extends "requests" ? {
      readonly [Type in keyof D[Key] & string]: CheckedType<
        "request",
        Type,
        ReservedRequest<D>,
        CheckedRequest<Type, D[Key][Type]>
      >;
    }
    : Key extends "questions" ? {
        readonly [Type in keyof D[Key] & string]: CheckedType<
          "question",
          Type,
          ReservedMessage,
          CheckedQuestion<Type, D[Key][Type]>
        >;
      }
    : Key extends "messages" ? {
        readonly [Type in keyof D[Key] & string]: CheckedType<
          "message",
          Type,
          ReservedMessage,
          CheckedMessage<Type, D[Key][Type]>
        >;
      }
    : Key extends "channels" ? { readonly [Name in keyof D[Key]]: CheckedName<Name & string, D[Key]> }
    : `Cannot declare "${Key & string}": a contract has requests, questions, messages and channels`;
};

/**
 * Declares the messages between a server and its clients in one place, so that a wrong payload compiles on neither side. It
 * returns its argument unchanged; a client needs only the type.
 *
 * @example
 * ```ts
 * // contract.ts
 * export const contract = defineContract({
 *   requests: { say: { payload: v.object({ text: v.string() }), reply: v.object({ id: v.number() }) } },
 *   channels: { "room:{id}": { events: { said: v.object({ text: v.string() }) } } },
 * });
 * // server.ts
 * const controller = new WebSocketController({ contract });
 * controller.handle("say", contract.requests.say, ({ message }) => ({ id: save(message.text) }));
 * // client.ts
 * import type { contract } from "./contract.ts";
 * const client = createClient<typeof contract>(url);
 * const { id } = await client.request("say", { text: "hello" });
 * ```
 */
export function defineContract<const D extends Contract>(contract: D extends CheckedContract<D> ? D : CheckedContract<D>): D {
  const defined = contract as D; // Anything else does not compile.
  outboundChecks.set(defined, (report) => new Outbound(defined, report));
  return defined;
}
