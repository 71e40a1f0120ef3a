import type * as v from "valibot";

/**
 * The part of a synchronous valibot schema that types are inferred from. Not valibot's own type: `import` and `require` resolve
 * that to two files, and TypeScript infers nothing from one to the other.
 */
export interface PayloadSchema<Input, Output> {
  /** A schema, not an action. */
  readonly kind: "schema";
  /** A synchronous schema. */
  readonly async: false;
  /** The types of its input and output (https://standardschema.dev). */
  readonly "~standard": {
    readonly vendor: "valibot";
    readonly types?: { readonly input: Input; readonly output: Output } | undefined;
  };
}

/** The payload and the reply of a request. */
export interface RequestDeclaration<Payload extends object = object, Reply = unknown> {
  /** Validates the message without `type` and `uid`. Absent: the payload is ignored, and the handler receives none. */
  readonly payload?: PayloadSchema<unknown, Payload>;
  /** The type of the handler's result, for the compiler only: replies are not validated. */
  readonly reply?: PayloadSchema<Reply, unknown>;
}

/** The types of a channel. */
export interface ChannelDeclaration {
  /** Data of its publications, by event: pass it to the channel as `schema`. */
  readonly events?: { readonly [event: string]: v.GenericSchema };
  /** The result of its `snapshot`. */
  readonly snapshot?: v.GenericSchema;
  /** The `query` of a subscription, which its `snapshot` receives. */
  readonly query?: v.GenericSchema;
  /** The data of a presence member. */
  readonly member?: v.GenericSchema;
}

/** The messages between a server and its clients, by name. */
export interface ContractDeclaration {
  /** Requests of clients: pass each to {@link WebSocketController.handle}. */
  readonly requests?: { readonly [type: string]: { readonly payload?: v.GenericSchema; readonly reply?: v.GenericSchema } };
  /** Messages that the server sends unasked. */
  readonly messages?: { readonly [type: string]: v.GenericSchema };
  /** The channels; a name that ends in `*` stands for every channel with that prefix. */
  readonly channels?: { readonly [name: string]: ChannelDeclaration };
}

/**
 * Declares the messages between a server and its clients in one place, so that a wrong payload compiles on neither side. It
 * returns its argument unchanged; a client needs only the type.
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
