import type { AsyncApiDocument, AsyncApiReference } from "./document.ts";
import { pointerTo, resolvePointer } from "./json-schema.ts";
import { diffSchemas, type Effect } from "./schema-diff.ts";

/** A difference of two contracts. */
export interface ContractChange {
  /** Whether a client of the old contract may fail at a server of the new one. */
  readonly isBreaking: boolean;
  /** What is different, such as `Request “say”, text: maxLength 500 → 100`. */
  readonly text: string;
}

/** Seen from the server: what clients send, or what they receive. */
type Direction = "input" | "output";

/**
 * Lists what is different between two documents of `asyncapi`, for a server that is replaced while its clients stay. A removed type, an
 * input that accepts less and an output that may hold more are breaking; a new type, request, event or optional field is not.
 */
export function diffContracts(before: AsyncApiDocument, newer: AsyncApiDocument): ContractChange[] {
  const after = withParametersOf(before, newer);
  const changes: ContractChange[] = [];
  const add = (isBreaking: boolean, text: string) => changes.push({ isBreaking, text });

  for (const channel of without(before.channels, after.channels)) add(true, `Channel ${channel}: removed`);
  for (const channel of without(after.channels, before.channels)) add(false, `Channel ${channel}: added`);
  for (const [key, was] of Object.entries(before.operations)) {
    if (!Object.hasOwn(after.channels, channelOf(was.channel))) continue; // Its channel is reported as removed.
    if (!Object.hasOwn(after.operations, key)) {
      add(true, `${sentence(key)}: removed`);
      continue;
    }
    const is = after.operations[key]!; // It has one.
    const [asks, answers]: [Direction, Direction] = was.action === "receive" ? ["input", "output"] : ["output", "input"];
    // A client ignores an event that it does not know, but not another answer than it waits for.
    diffMessages(was.messages, is.messages, asks, false);
    diffMessages(was.reply?.messages, is.reply?.messages, answers, was.reply !== undefined && answers === "output");
  }
  for (const key of without(after.operations, before.operations)) {
    if (Object.hasOwn(before.channels, channelOf(after.operations[key]!.channel))) add(false, `${sentence(key)}: added`);
  }
  return changes.sort((a, b) => Number(b.isBreaking) - Number(a.isBreaking));

  function diffMessages(
    was: readonly AsyncApiReference[] = [],
    is: readonly AsyncApiReference[] = [],
    direction: Direction,
    breaksWithMore: boolean,
  ): void {
    for (const { $ref } of was) {
      if (is.some((reference) => reference.$ref === $ref)) diffMessage($ref, direction);
      else add(true, `${labelOf(before, $ref)}: removed`);
    }
    for (const { $ref } of is) {
      if (!was.some((reference) => reference.$ref === $ref)) add(breaksWithMore, `${labelOf(after, $ref)}: added`);
    }
  }

  function diffMessage(reference: string, direction: Direction): void {
    const [was, is] = [before, after].map((document) => resolvePointer(document, `${reference}/payload`));
    for (const { path, effect, text } of diffSchemas(was, is, [before, after])) {
      const change = `${labelOf(before, reference)}${path && `, ${path}`}: ${text}`;
      const isBreaking = breaks(effect, direction);
      // Several operations share a message.
      if (!changes.some((each) => each.text === change && each.isBreaking === isBreaking)) add(isBreaking, change);
    }
  }
}

const breaks = (effect: Effect, direction: Direction): boolean =>
  effect === "changed" || effect === (direction === "input" ? "narrowed" : "widened");

const without = (all: object, others: object): string[] => Object.keys(all).filter((key) => !Object.hasOwn(others, key));

const sentence = (key: string) => key.charAt(0).toUpperCase() + key.slice(1);

/** The newer document with the older names of parameters: no client sees them, `room:{id}` is the channel `room:{room}`. */
function withParametersOf(before: AsyncApiDocument, after: AsyncApiDocument): AsyncApiDocument {
  const unnamed = (name: string) => name.replace(/\{[^{}]*\}/g, "{}");
  const gone = new Map(without(before.channels, after.channels).map((name) => [unnamed(name), name]));
  const older = new Map(
    without(after.channels, before.channels).flatMap((name) => {
      const known = gone.get(unnamed(name));
      return known === undefined ? [] : [[name, known] as const];
    }),
  );
  const renamed = ({ $ref }: AsyncApiReference): AsyncApiReference => {
    const name = channelOf({ $ref });
    const known = older.get(name);
    return { $ref: known === undefined ? $ref : $ref.replace(pointerTo("channels", name), pointerTo("channels", known)) };
  };
  const operations = Object.entries(after.operations).map(([key, operation]) => {
    const { channel, messages, reply } = operation;
    const [name, known = name] = [channelOf(channel), older.get(channelOf(channel))];
    return [name === known ? key : `${key.slice(0, -name.length)}${known}`, {
      ...operation,
      channel: renamed(channel),
      messages: messages?.map(renamed),
      ...(reply && { reply: { channel: renamed(reply.channel), messages: reply.messages?.map(renamed) } }),
    }];
  });
  const channels = Object.entries(after.channels).map(([name, channel]) => [older.get(name) ?? name, channel]);
  return { ...after, channels: Object.fromEntries(channels), operations: Object.fromEntries(operations) };
}

/** The channel of a reference to it, or to one of its messages. */
const channelOf = ({ $ref }: AsyncApiReference): string =>
  decodeURIComponent($ref.split("/")[2] ?? "").replaceAll("~1", "/").replaceAll("~0", "~");

/** The title of a message, after its channel. The connection has all messages that are of no channel. */
function labelOf(document: AsyncApiDocument, reference: string): string {
  const title = String(resolvePointer(document, `${reference}/title`));
  const channel = channelOf({ $ref: reference });
  return document.channels[channel]?.address === null ? title : `${channel}, ${title.charAt(0).toLowerCase()}${title.slice(1)}`;
}
