import type { AsyncApiInfo } from "../asyncapi/document.ts";
import { channelAddress } from "../asyncapi/channel-name.ts";
import { convert, type JsonSchema, mapReferences, pointerTo, type Side, type ToJsonSchema } from "../asyncapi/json-schema.ts";
import type { ChannelContract, Contract } from "../protocol/contract-types.ts";

/** Options of {@link channelsOpenApi}. */
export interface ChannelsOpenApiOptions {
  /** Title and version of the API. */
  readonly info: AsyncApiInfo;
  /** Where `channelsHttp` is mounted. @default {"/channels"} */
  readonly path?: string;
  /** Servers of OpenAPI, such as `[{ url: "https://example.com" }]`. @default none */
  readonly servers?: readonly { readonly url: string; readonly [field: string]: unknown }[];
  /** Security schemes of OpenAPI, by name. A request needs one of them. @default none */
  readonly securitySchemes?: { readonly [name: string]: { readonly type: string; readonly [field: string]: unknown } };
  /** As the option of `asyncapi`: for valibot, `toJsonSchema` of `@valibot/to-json-schema`. */
  readonly toJsonSchema?: ToJsonSchema;
}

/** An OpenAPI 3.1 document: plain JSON. */
export interface OpenApiDocument {
  /** Version of OpenAPI. */
  readonly openapi: "3.1.0";
  /** Title and version of the API. */
  readonly info: AsyncApiInfo;
  /** Servers. */
  readonly servers?: ChannelsOpenApiOptions["servers"];
  /** A request needs one of these. */
  readonly security?: readonly { readonly [name: string]: readonly string[] }[];
  /** The channels, by their paths. */
  readonly paths: { readonly [path: string]: JsonSchema };
  /** Schemas, responses and security schemes. */
  readonly components: JsonSchema;
}

const POSITION: JsonSchema = {
  type: "object",
  properties: { epoch: { type: "string" }, offset: { type: "integer", minimum: 0 } },
};

const ERROR: JsonSchema = {
  type: "object",
  required: ["error"],
  properties: {
    error: {
      type: "object",
      required: ["code", "message"],
      properties: { code: { type: "string" }, message: { type: "string" } },
    },
  },
};

const json = (schema: JsonSchema): JsonSchema => ({ "application/json": { schema } });
const FAILED: JsonSchema = { default: { $ref: "#/components/responses/error" } };

/**
 * Creates an OpenAPI 3.1 document of the routes that `channelsHttp` has for a contract.
 *
 * @throws {TypeError} for an entry that is no schema, and a schema that cannot be converted.
 *
 * @example
 * ```ts
 * const document = channelsOpenApi(contract, { info: { title: "Newsroom", version: "1.0.0" }, toJsonSchema });
 * app.get("/openapi.json", (c) => c.json(document));
 * ```
 */
export function channelsOpenApi(contract: Contract, options: ChannelsOpenApiOptions): OpenApiDocument {
  const { info, path = "/channels", servers, securitySchemes, toJsonSchema } = options;
  const schemas: Record<string, JsonSchema> = {};
  /** A schema with references becomes a component, because references begin at the root of the document. */
  const add = (schema: unknown, side: Side, name: string): JsonSchema => {
    if (schema === undefined) return {};
    const key = name.replaceAll(/[^A-Za-z0-9.-]/g, "_");
    let hasReference = false;
    const converted = mapReferences(convert(schema, side, name, toJsonSchema), (reference) => {
      hasReference = true;
      return pointerTo("components", "schemas", key) + reference.slice(1);
    });
    if (!hasReference) return converted;
    schemas[key] = converted;
    return { $ref: pointerTo("components", "schemas", key) };
  };
  const paths: Record<string, JsonSchema> = {};
  for (const [name, channel] of Object.entries(contract.channels ?? {})) {
    const { address, parameters = {} } = channelAddress(name);
    const channelPath = `${path}/${address!.replaceAll("/", "%2F")}`; // A channel has an address.
    const shared = Object.entries(parameters).map(([parameter, { description }]) => ({
      ...{ name: parameter, in: "path", required: true, description },
      schema: { type: "string" },
    }));
    paths[channelPath] = { parameters: shared, ...operationsOf(name, channel, add) };
    paths[`${channelPath}/presence`] = {
      parameters: shared,
      get: presenceOf(name, add(channel.member, "input", `${name} member`)),
    };
  }
  return {
    openapi: "3.1.0",
    info,
    ...(servers && { servers }),
    ...(securitySchemes && { security: Object.keys(securitySchemes).map((name) => ({ [name]: [] })) }),
    paths,
    components: {
      responses: { error: { description: "An error of the protocol", content: json(ERROR) } },
      ...(Object.keys(schemas).length > 0 && { schemas }),
      ...(securitySchemes && { securitySchemes }),
    },
  };
}

function operationsOf(
  name: string,
  { events }: ChannelContract,
  add: (schema: unknown, side: Side, name: string) => JsonSchema,
): JsonSchema {
  const schemas = Object.entries(events ?? {});
  const either = (of: JsonSchema[], any: JsonSchema): JsonSchema => of.length > 0 ? { oneOf: of } : any;
  const event = (event: string, data: JsonSchema, rest: JsonSchema = {}): JsonSchema => ({
    type: "object",
    required: ["event", ...Object.keys(data).length > 0 ? ["data"] : [], ...Object.keys(rest)],
    properties: { event: { const: event }, data, ...rest },
  });
  const offset = { offset: { type: "integer" } };
  const anyEvent: JsonSchema = { type: "object", required: ["event"], properties: { event: { type: "string" }, data: {} } };
  const sent = schemas.map(([key, schema]) => event(key, add(schema, "input", `${name} ${key} input`)));
  const kept = schemas.map(([key, schema]) => event(key, add(schema, "output", `${name} ${key} output`), offset));
  const parameter = (name: string, location: string, schema: JsonSchema, description: string) => ({
    ...{ name, in: location, description },
    schema,
  });
  const record: JsonSchema = {
    type: "object",
    required: ["epoch", "offset", "publications", "isComplete"],
    properties: {
      ...POSITION["properties"] as JsonSchema, // As above.
      publications: { type: "array", items: either(kept, { ...anyEvent }) },
      isComplete: { type: "boolean" },
      reason: { enum: ["limit", "gone", "epoch", "ahead", "unreadable"] },
    },
  };
  const stream = { type: "string", description: "Server-sent events: `init`, then one for each publication, and `close`" };
  return {
    get: {
      summary: `Reads ${name}, or subscribes to it`,
      parameters: [
        parameter("after", "query", { type: "string", pattern: "^.+:\\d+$" }, "Position `<epoch>:<offset>`"),
        parameter("limit", "query", { type: "integer", minimum: 0, default: 1_000 }, "Maximum number of publications"),
        parameter("Last-Event-ID", "header", { type: "string" }, "Position that an event stream recovers from"),
        parameter("If-None-Match", "header", { type: "string" }, "`ETag` of an earlier answer"),
      ],
      responses: {
        200: {
          description: "The history; for `text/event-stream`, the subscription",
          content: { ...json(record), "text/event-stream": { schema: stream } },
        },
        304: { description: "Nothing has been published since" },
        ...FAILED,
      },
    },
    post: {
      summary: `Publishes to ${name}`,
      parameters: [
        parameter("Idempotency-Key", "header", { type: "string", minLength: 1, maxLength: 64 }, "Publishes at most once"),
      ],
      requestBody: { required: true, content: json(either(sent, anyEvent)) },
      responses: {
        200: { description: "Published; the position, where there is a history", content: json(POSITION) },
        ...FAILED,
      },
    },
  };
}

const presenceOf = (name: string, data: JsonSchema): JsonSchema => ({
  summary: `Lists the members of ${name}`,
  responses: {
    200: {
      description: "The members, of a channel with presence",
      content: json({
        type: "object",
        required: ["members"],
        properties: {
          members: {
            type: "array",
            items: { type: "object", required: ["user"], properties: { user: { type: "string" }, data } },
          },
        },
      }),
    },
    ...FAILED,
  },
});
