/**
 * `noroshi/asyncapi`: describes a contract as an AsyncAPI document, and shows the document as a page.
 *
 * @example
 * ```ts
 * import { toJsonSchema } from "@valibot/to-json-schema";
 * import { asyncapi, asyncapiPage } from "noroshi/asyncapi";
 *
 * const document = asyncapi(contract, { info: { title: "Newsroom", version: "1.0.0" }, toJsonSchema });
 * app.get("/asyncapi", asyncapiPage(document));
 * ```
 *
 * @module
 */
import type { Contract } from "../protocol/contract-types.ts";
import { closeCodes, errors } from "./codes.ts";
import { DocumentBuilder, mapValues } from "./document-builder.ts";
import type { AsyncApiDocument, AsyncApiOptions } from "./document.ts";
import { pointerTo } from "./json-schema.ts";

export type {
  AsyncApiChannel,
  AsyncApiCloseCode,
  AsyncApiDocument,
  AsyncApiError,
  AsyncApiInfo,
  AsyncApiMessage,
  AsyncApiOperation,
  AsyncApiOptions,
  AsyncApiReference,
  AsyncApiServer,
} from "./document.ts";
export type { ChannelContract, Contract, RequestContract } from "../protocol/contract-types.ts";
export type { JsonSchema, ToJsonSchema } from "./json-schema.ts";
export { asyncapiPage } from "./page.ts";

/**
 * Describes a contract as an AsyncAPI 3.0 document, with the messages of the protocol, its errors and close codes. Schemas are
 * converted to JSON Schema by Standard JSON Schema (Zod 4, ArkType), or by `toJsonSchema` (valibot).
 *
 * @throws {TypeError} for an entry that is no schema, and a schema that cannot be converted.
 *
 * @example
 * ```ts
 * import { toJsonSchema } from "@valibot/to-json-schema";
 *
 * const document = asyncapi(contract, {
 *   info: { title: "Newsroom", version: "1.0.0" },
 *   servers: { production: { host: "example.com", pathname: "/websocket", protocol: "wss" } },
 *   toJsonSchema,
 * });
 * app.get("/asyncapi", asyncapiPage(document));
 * ```
 */
export function asyncapi(contract: Contract, options: AsyncApiOptions): AsyncApiDocument {
  const { info, servers, securitySchemes } = options;
  const builder = new DocumentBuilder(options.toJsonSchema);
  builder.addConnection(Boolean(contract.channels));
  if (Object.values(contract.requests ?? {}).some(({ stream }) => stream)) builder.addStreams();
  for (const [type, request] of Object.entries(contract.requests ?? {})) builder.addRequest(type, request);
  for (const [type, question] of Object.entries(contract.questions ?? {})) builder.addQuestion(type, question);
  for (const [type, schema] of Object.entries(contract.messages ?? {})) builder.addMessage(type, schema);
  for (const [name, channel] of Object.entries(contract.channels ?? {})) builder.addChannel(name, channel);

  const security = Object.keys(securitySchemes ?? {}).map((name) => ({ $ref: pointerTo("components", "securitySchemes", name) }));
  return {
    asyncapi: "3.0.0",
    info,
    defaultContentType: "application/json",
    ...(servers && {
      servers: mapValues(servers, (server) => ({ ...(security.length > 0 && { security }), ...server })),
    }),
    channels: builder.listChannels(),
    operations: builder.operations,
    components: {
      ...(Object.keys(builder.schemas).length > 0 && { schemas: builder.schemas }),
      ...(securitySchemes && { securitySchemes }),
    },
    "x-errors": errors,
    "x-close-codes": closeCodes,
  };
}
