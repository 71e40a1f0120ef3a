import { CHANNEL_NAME } from "../protocol/protocol.ts";
import type { AsyncApiChannel } from "./document.ts";
import type { JsonSchema } from "./json-schema.ts";

/** A character of a channel name. */
const CHARACTER = CHANNEL_NAME.source.match(/\[.*\]/)![0];

/** The parts of a name in a contract that stand for others: `{id}`, and `*` at the end. */
const PARAMETER = /\{([^{}]*)\}|\*$/g;

/** The name as an AsyncAPI address, in which `*` at the end is the parameter `{rest}`. */
export function channelAddress(name: string): Pick<AsyncApiChannel, "address" | "parameters"> {
  const parameters = [...name.matchAll(PARAMETER)].map(([, parameter = "rest"]) => parameter);
  return {
    address: name.replace(PARAMETER, (part) => part === "*" ? "{rest}" : part),
    ...(parameters.length > 0 && {
      parameters: Object.fromEntries(parameters.map((parameter) => [parameter, { description: "A part of the name" }])),
    }),
  };
}

/** The field `channel` of a message. */
export function channelField(name: string): JsonSchema {
  if (name.search(PARAMETER) < 0) return { const: name };
  const partPattern = (part: string) =>
    part.startsWith("{") ? `(?:(?![:/])${CHARACTER})+` : part === "*" ? `${CHARACTER}*` : part.replace(/[.+]/g, "\\$&");
  const pattern = name.split(/(\{[^{}]*\}|\*$)/).map(partPattern).join("");
  return {
    type: "string",
    maxLength: 255,
    pattern: `^${pattern}$`,
    examples: [name.replace(PARAMETER, "1")],
  };
}
