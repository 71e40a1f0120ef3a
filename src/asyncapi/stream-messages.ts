import type { AsyncApiMessage } from "./document.ts";
import type { JsonSchema } from "./json-schema.ts";
import { type Fields, message, OK } from "./protocol-messages.ts";

const CREDIT: JsonSchema = { type: "integer", minimum: 1, description: "Sent back once the item is processed", examples: [32] };

/** Fields of a resumable stream. */
const NUMBERED: Fields = {
  "id?": { type: "string", description: "With the status `open`: the id of a resumable stream", examples: [] },
  "offset?": { type: "integer", minimum: 1, description: "In a resumable stream: the number of the item", examples: [] },
  "items?": { type: "array", description: "In a resumable stream, in place of `data`: several items", examples: [] },
};

const ENTRY: JsonSchema = {
  type: "object",
  properties: { id: { type: "string" }, type: { type: "string" }, key: { type: "string" } },
  required: ["id", "type"],
};

const ITEM: JsonSchema = { type: "integer", minimum: 1, description: "The number of the item, from 1", examples: [1] };

/** Messages about the input of any request. */
const inputMessages: Readonly<Record<string, AsyncApiMessage>> = {
  input: message("stream.input", "Input", "A part of the request with the `uid`, as its contract declares it.", {
    item: ITEM,
    "data?": {},
  }, { uid: 9, item: 1, data: "UklGRiQ" }),
  end: message(
    "stream.end",
    "End of the input",
    "Ends the input of the request with the `uid`. With an error it has failed.",
    { item: ITEM, "error?": { type: "object", properties: { code: { type: "string" } }, required: ["code"], examples: [] } },
    { uid: 9, item: 2 },
  ),
  granted: message(
    "stream.credit",
    "Credit for input",
    "The client may send items up to this number, while those before have fewer bytes.",
    { item: ITEM, bytes: { type: "integer", minimum: 1 } },
    { uid: 9, item: 32, bytes: 262_144 },
  ),
  enough: message("stream.cancel", "No more input", "The server reads no more input of the request.", {}, { uid: 9 }),
};

/** Messages about streams. */
export const streamMessages: Readonly<Record<string, AsyncApiMessage>> = {
  ...inputMessages,
  credit: message("stream.credit", "Credit", "Returns the credit of an item, so that more follow.", { credit: CREDIT }, {
    uid: 8,
    credit: 32,
  }),
  cancel: message("stream.cancel", "Cancel", "Ends the stream with the `uid`. Its end is the answer.", {
    "id?": { type: "string", description: "Instead of the `uid`: the id of a resumable stream", examples: [] },
  }, { uid: 8 }),
  resume: message("stream.resume", "Resume", "Reads a resumable stream, after an offset.", {
    id: { type: "string", description: "The id in its first answer" },
    "after?": { type: "integer", minimum: 0, description: "Offset of the last item that was processed" },
  }, { uid: 9, id: "0b9c/ask", after: 1 }),
  resumed: message("stream.resume", "Resumed", "The id, an item or the end of a stream that is resumed.", {
    status: { enum: ["open", "next", "ok"] },
    "data?": {},
    "credit?": CREDIT,
    ...NUMBERED,
  }, { uid: 9, status: "next", data: "lo", offset: 2 }),
  list: message("stream.list", "List streams", "Asks for the running resumable streams of the user.", {}, { uid: 10 }),
  listed: message("stream.list", "Streams", "The running resumable streams of the user.", {
    status: OK,
    data: { type: "array", items: ENTRY },
  }, { uid: 10, status: "ok", data: [{ id: "0b9c/ask", type: "ask", key: "chat/5" }] }),
};

/** The messages that a client sends for a stream: each with its title and its answers. */
export const STREAM_OPERATIONS: readonly (readonly [key: string, title: string, ...replies: string[]])[] = [
  ["credit", "Return a credit"],
  ["cancel", "Cancel a stream"],
  ["input", "Send input", "granted", "enough"],
  ["end", "End the input"],
  ["resume", "Resume a stream", "resumed"],
  ["list", "List streams", "listed"],
];

/** An item of the input of a request. @param input the schema of its data */
export const streamInput = (type: string, input: JsonSchema): AsyncApiMessage =>
  message("stream.input", `Input of “${type}”`, "A part of the request.", { item: ITEM, "data?": input });

/** An item of the stream that answers a request. @param output the schema of its data */
export const streamItem = (type: string, output: JsonSchema): AsyncApiMessage =>
  message(type, `Item of “${type}”`, "A part of the answer.", {
    status: { enum: ["next", "open"] },
    "data?": output,
    "credit?": CREDIT,
    ...NUMBERED,
  });
