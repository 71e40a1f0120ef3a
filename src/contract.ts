import type * as v from "valibot";

/**
 * A synchronous valibot schema, as far as types are inferred from it. `import` and `require` find valibot's types in two files, and
 * the compiler infers nothing from an interface of one to the same of the other.
 */
export interface PayloadSchema<Input, Output> {
  /** It is a schema, not an action. */
  readonly kind: "schema";
  /** It is synchronous. */
  readonly async: false;
  /** What it reads and puts out (https://standardschema.dev). */
  readonly "~standard": {
    readonly vendor: "valibot";
    readonly types?: { readonly input: Input; readonly output: Output } | undefined;
  };
}

/** What is asked with a type, and what is answered. */
export interface RequestDeclaration<Payload extends object = object, Reply = unknown> {
  /** Reads the message without `type` and `uid`. @default nothing is read of it */
  readonly payload?: PayloadSchema<unknown, Payload>;
  /** What the handler returns. It is looked at by the compiler only: a server's own answers are not read by a schema. */
  readonly reply?: PayloadSchema<Reply, unknown>;
}

/** What a channel has, for those who subscribe to it. */
export interface ChannelDeclaration {
  /** What is published, by event: pass it to the channel as its `schema`. */
  readonly events?: { readonly [event: string]: v.GenericSchema };
  /** What its `snapshot` returns. */
  readonly snapshot?: v.GenericSchema;
  /** What the snapshot is asked with. */
  readonly query?: v.GenericSchema;
  /** What is told of a member. */
  readonly member?: v.GenericSchema;
}

/** What a server takes and sends, by name. */
export interface ContractDeclaration {
  /** What clients may ask: pass each to {@link WebSocketController.handle}. */
  readonly requests?: { readonly [type: string]: { readonly payload?: v.GenericSchema; readonly reply?: v.GenericSchema } };
  /** What the server sends by itself. */
  readonly messages?: { readonly [type: string]: v.GenericSchema };
  /** The channels; a name that ends in `*` is of all that begin so. */
  readonly channels?: { readonly [name: string]: ChannelDeclaration };
}

/**
 * Says in one place what a server and its clients tell each other, so that a wrong payload compiles on neither side. It is what it is
 * given: a client needs its type only.
 *
 * @example
 * ```ts
 * // contract.ts
 * export const contract = defineContract({
 *   requests: { say: { payload: v.object({ text: v.string() }), reply: v.object({ id: v.number() }) } },
 *   channels: { "room:*": { events: { said: v.object({ text: v.string() }) } } },
 * });
 * // server.ts
 * controller.handle("say", contract.requests.say, ({ message }) => ({ id: save(message.text) }));
 * // client.ts
 * import type { contract } from "./contract.ts";
 * const client = createClient<typeof contract>(url);
 * const { id } = await client.request("say", { text: "hello" });
 * ```
 */
export function defineContract<const Declaration extends ContractDeclaration>(contract: Declaration): Declaration {
  return contract;
}
