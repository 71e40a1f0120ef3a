import type { JsonSchema, ToJsonSchema } from "./json-schema.ts";

/** Title and version of the API. */
export interface AsyncApiInfo {
  /** Name of the API. */
  readonly title: string;
  /** Version of the API, not of the document. */
  readonly version: string;
  /** Text for people. */
  readonly description?: string;
  /** Other fields of AsyncAPI, such as `contact` and `license`. */
  readonly [field: string]: unknown;
}

/** A server of the API. */
export interface AsyncApiServer {
  /** Host, with the port if it is not the usual one: `example.com`. */
  readonly host: string;
  /** `wss`, or `ws` without TLS. */
  readonly protocol: string;
  /** Path of the upgrade route: `/websocket`. */
  readonly pathname?: string;
  /** Text for people. */
  readonly description?: string;
  /** Other fields of AsyncAPI. */
  readonly [field: string]: unknown;
}

/** Options of `asyncapi`. */
export interface AsyncApiOptions {
  /** Title and version of the API. */
  readonly info: AsyncApiInfo;
  /** Servers, by name. Absent: the document names none. */
  readonly servers?: { readonly [name: string]: AsyncApiServer };
  /**
   * Security schemes of AsyncAPI, by name, such as `{ token: { type: "http", scheme: "bearer" } }`. A server without `security` of
   * its own accepts any of them.
   */
  readonly securitySchemes?: { readonly [name: string]: { readonly type: string; readonly [field: string]: unknown } };
  /**
   * Converts schemas whose library has no Standard JSON Schema: for valibot `toJsonSchema` of `@valibot/to-json-schema`. It is called
   * with the schema and that package's options.
   */
  readonly toJsonSchema?: ToJsonSchema;
}

/** A reference within the document. */
export interface AsyncApiReference {
  /** A JSON pointer. */
  readonly $ref: string;
}

/** A message. */
export interface AsyncApiMessage {
  /** The message type. */
  readonly name: string;
  /** Name for people. */
  readonly title: string;
  /** One sentence. */
  readonly summary: string;
  /** Schema of the whole message. */
  readonly payload: JsonSchema;
  /** Where the `uid` is, which a request and its answers share. */
  readonly correlationId?: { readonly location: string };
  /** Messages that fit the schema. */
  readonly examples?: readonly { readonly name?: string; readonly payload: Record<string, unknown> }[];
}

/** The connection, or a channel of the contract. */
export interface AsyncApiChannel {
  /** Name of the channel, or path of the connection; `null`: the path of the server. */
  readonly address: string | null;
  /** Name for people. */
  readonly title: string;
  /** Text for people. */
  readonly description: string;
  /** Parameters of the address. */
  readonly parameters?: { readonly [name: string]: { readonly description: string } };
  /** Messages, by a name that is unique in the channel. */
  readonly messages: { readonly [name: string]: AsyncApiMessage };
  /** The WebSocket binding. */
  readonly bindings?: { readonly ws: Record<string, unknown> };
}

/** An operation of the server: it receives or sends messages. */
export interface AsyncApiOperation {
  /** Seen from the server: it receives what a client sends. */
  readonly action: "receive" | "send";
  /** Its channel. */
  readonly channel: AsyncApiReference;
  /** Name for people. */
  readonly title: string;
  /** One sentence. */
  readonly summary: string;
  /** The part of the contract, or `protocol`. */
  readonly tags: readonly { readonly name: string }[];
  /** One of these is received or sent. */
  readonly messages: readonly AsyncApiReference[];
  /** One of these answers. */
  readonly reply?: { readonly channel: AsyncApiReference; readonly messages: readonly AsyncApiReference[] };
}

/** An error code. */
export interface AsyncApiError {
  /** The code. */
  readonly code: string;
  /** What it means. */
  readonly meaning: string;
}

/** A close code. */
export interface AsyncApiCloseCode {
  /** The code. */
  readonly code: number;
  /** Its name in `CloseCode`. */
  readonly name: string;
  /** What it means. */
  readonly meaning: string;
  /** Whether the client may come back unchanged, with backoff. */
  readonly reconnect: boolean;
}

/** An AsyncAPI 3.0 document: plain JSON. */
export interface AsyncApiDocument {
  /** Version of AsyncAPI. */
  readonly asyncapi: "3.0.0";
  /** Title and version of the API. */
  readonly info: AsyncApiInfo;
  /** Messages are JSON. */
  readonly defaultContentType: "application/json";
  /** Servers, by name. */
  readonly servers?: { readonly [name: string]: AsyncApiServer };
  /** The connection, and the channels of the contract by their names. */
  readonly channels: { readonly [name: string]: AsyncApiChannel };
  /** Requests, messages, and the operations of channels and of the protocol. */
  readonly operations: { readonly [name: string]: AsyncApiOperation };
  /** Recursive schemas, and security schemes. */
  readonly components: {
    readonly schemas?: { readonly [name: string]: JsonSchema };
    readonly securitySchemes?: AsyncApiOptions["securitySchemes"];
  };
  /** Error codes of the protocol; an application may have others. */
  readonly "x-errors": readonly AsyncApiError[];
  /** Close codes that the server sends. */
  readonly "x-close-codes": readonly AsyncApiCloseCode[];
}

/** An operation without its channel. */
export interface OperationOptions {
  readonly action: AsyncApiOperation["action"];
  readonly title: string;
  readonly summary: string;
  readonly tag: string;
  readonly messages: readonly string[];
  readonly reply?: readonly string[];
}
