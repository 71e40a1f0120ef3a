/** One node over many objects: a home object that stores everything, and relay objects that hold the connections. */
import type { EngineHost, HistoryOptions, HistoryPage, Member, Position, PublicationContent, PublishOnce } from "../engine.ts";
import { WebSocketError } from "../../protocol/errors.ts";
import type { Sql } from "../sqlite-histories.ts";

/** Options of the engine of the home object. */
export interface HomeEngineOptions {
  readonly sql: Sql;
  /** Prefix of the table names. */
  readonly prefix: string;
  readonly callRelay: CallRelay;
  /** Whether the object has connections of its own, or may have in a moment. */
  hasConnections(): boolean;
}

/** Options of the engine of a relay. */
export interface RelayEngineOptions extends HomeEngineOptions {
  /** The name of its object. */
  readonly relay: string;
  readonly callHome: CallHome;
}

/** An operation that a relay requests of the home object. */
export type Operation =
  | { readonly type: "hello" }
  | { readonly type: "subscribe"; readonly channel: string; readonly history: HistoryOptions | null }
  | { readonly type: "unsubscribe"; readonly channel: string }
  | {
    readonly type: "publish";
    readonly channel: string;
    readonly content: PublicationContent;
    readonly history: HistoryOptions | null;
    readonly once?: PublishOnce | undefined;
  }
  | {
    readonly type: "read";
    readonly channel: string;
    readonly history: HistoryOptions;
    readonly after: Position | null;
    readonly limit: number;
    readonly maxBytes: number;
  }
  /** @param place the rank that the home object gave the data before: it does not become newer. */
  | { readonly type: "join"; readonly channel: string; readonly member: Member; readonly place?: number | undefined }
  | { readonly type: "leave"; readonly channel: string; readonly user: string }
  /** @param after the last user of the page before. */
  | { readonly type: "members"; readonly channel: string; readonly after?: string | undefined }
  /** All that the relay has: what the home object knows of it beyond that is gone. */
  | { readonly type: "resync"; readonly channels: readonly RelayInterest[]; readonly members: readonly RelayMember[] }
  | { readonly type: "send"; readonly text: string; readonly to?: string | undefined }
  | { readonly type: "order"; readonly text: string }
  | { readonly type: "nodes" }
  | { readonly type: "claim" | "settle"; readonly key: string; readonly text: string; readonly ttl: number }
  | { readonly type: "close" };

/** A channel that a relay is subscribed to. */
export interface RelayInterest {
  readonly channel: string;
  readonly history: HistoryOptions | null;
}

/** A member on a relay. */
export interface RelayMember extends Member {
  readonly channel: string;
}

/** Some members of a channel, by user. */
export interface MembersPage {
  readonly members: readonly Member[];
  /** Whether there are more after the last one. */
  readonly hasMore: boolean;
}

/** One call of a relay, with its operations in order. */
export interface HomeCall {
  /** The name of its object. */
  readonly relay: string;
  /** Its {@link EngineHost.node}. */
  readonly node: string;
  /** Grows each time that the home object has to list the relay anew. */
  readonly generation: number;
  /** The highest {@link HomeAnswer.revision} of this generation that it has had. */
  readonly revision: number;
  readonly operations: readonly Operation[];
}

/** The result of an operation, or why it has failed. */
export type Outcome = { readonly value: unknown } | { readonly code: string; readonly message: string };

export interface HomeAnswer {
  /** Identifies the storage of the home object. Another one knows nothing of its relays. */
  readonly home: string;
  /** Grows with each call that changes what the home object stores of the relay. A lower one: the storage is an older copy. */
  readonly revision: number;
  /** One for each of the first operations, as many as fit into one answer. The others were not carried out. */
  readonly outcomes: readonly Outcome[];
}

/** What the home object hands to relays. */
export type Item =
  | {
    readonly type: "publication";
    readonly channel: string;
    readonly content: PublicationContent;
    readonly position: Position | null;
    /** Offset of the publication before it. */
    readonly previous: number;
  }
  | {
    readonly type: "presence";
    readonly channel: string;
    readonly joined: readonly Member[];
    readonly left: readonly string[];
    /** Whether the home object has started again, and relays may have had it before. */
    readonly isRepeated?: boolean | undefined;
  }
  | MessageItem;

/** A message, or `lost`: orders were dropped before the relay had them. An earlier version ignores that. */
export type MessageItem = Message | { readonly type: "lost" };

interface Message {
  readonly type: "message";
  readonly text: string;
  /** Whether it is an order: if it is dropped, the relay is sent `lost`. */
  readonly isOrder?: boolean;
  /** Of an order that was given earlier, in ms. */
  readonly age?: number | undefined;
}

/** One call to a relay. It handles the items, and passes the call on to the other relays. */
export interface RelayCall {
  /** One start of the home object. */
  readonly run: string;
  /**
   * Grows with each call of the run: a relay ignores the items of the call that it has had last, and refuses an earlier one. 0: a query
   * without items.
   */
  readonly number: number;
  readonly items: readonly Item[];
  /** Whether earlier items are missing: the relay reads what it lacks. */
  readonly isLate: boolean;
  /** How long each relay may take to answer, in ms. @default {@link RELAY_TIMEOUT} */
  readonly timeout?: number | undefined;
  /** How long the calls to the other relays may take together, in ms. */
  readonly budget?: number | undefined;
  /** The other relays of the call, by name. */
  readonly others: readonly string[];
}

/** The answer of a relay, and of those that it passed the call on to. */
export interface RelayAnswer {
  /** Relays that could not be reached: they may lack the items. */
  readonly failed: readonly string[];
  /** Relays that have the items, and could not read what they lacked before. */
  readonly behind: readonly string[];
  /** The nodes of those that answered. */
  readonly nodes: readonly RelayNode[];
}

export interface RelayNode {
  readonly relay: string;
  readonly node: string;
  readonly generation: number;
  /** Whether the relay has no connection, subscription or member. It says hello before it has again. */
  readonly isIdle: boolean;
}

/** Calls the home object. Rejects if it cannot be reached. */
export type CallHome = (call: HomeCall) => Promise<HomeAnswer>;

/** Calls a relay by its name. Rejects if it cannot be reached. */
export type CallRelay = (relay: string, call: RelayCall) => Promise<RelayAnswer>;

/** Width of the tree: calls of one object at once. workerd opens six connections of an object at once; one is for other calls. */
export const FAN_OUT = 5;

/** How long a relay may take to answer, in ms: it may have to start, and to read what it lacks. */
export const RELAY_TIMEOUT = 10_000;

/** Time limit of a tree, as a multiple of the time that it takes if its first relay hangs. */
const PATIENCE = 2;

/** Approximate size of the items or operations of one call, in characters. workerd takes 32 MiB. */
export const CALL_LENGTH = 1_000_000;

/** Makes the answer of several. */
export function mergeAnswers(answers: readonly RelayAnswer[]): RelayAnswer {
  return {
    failed: answers.flatMap(({ failed }) => failed),
    behind: answers.flatMap(({ behind }) => behind),
    nodes: answers.flatMap(({ nodes }) => nodes),
  };
}

/**
 * Calls relays as a tree: the first one handles the call and passes it on to the others. If it fails, the next one takes its place. Those
 * for which no time is left count as failed.
 *
 * Resolves when all have answered or failed, within twice the time that a tree takes whose first relay hangs.
 */
export async function callTree(
  relays: readonly string[],
  call: Omit<RelayCall, "others">,
  callRelay: CallRelay,
): Promise<RelayAnswer> {
  const failed: string[] = [];
  const { timeout = RELAY_TIMEOUT, budget = PATIENCE * timeout * levelsOf(relays.length - 1) } = call;
  const end = performance.now() + budget;
  for (const [number, relay] of relays.entries()) {
    const left = end - performance.now();
    if (left <= 0) return { failed: [...failed, ...relays.slice(number)], behind: [], nodes: [] };
    const others = relays.slice(number + 1);
    // Each level of the tree waits for those below it, which leave time for the answer.
    const time = Math.min(left, timeout * levelsOf(others.length));
    try {
      const answer = await inTime(callRelay(relay, { ...call, others, budget: time - timeout / 4 }), time);
      return { ...answer, failed: [...failed, ...answer.failed] };
    } catch {
      failed.push(relay); // The home object reports it if it goes on.
    }
  }
  return { failed, behind: [], nodes: [] };
}

/** Hands the node a message, or reports that it has missed orders. */
export function receiveMessage(host: EngineHost, item: MessageItem): void {
  if (item.type === "lost") host.report(ordersLost());
  else if (item.age === undefined) host.received(item.text);
  else host.received(item.text, item.age);
}

/** Makes the error of a node that may have missed orders. */
export const ordersLost = (): WebSocketError =>
  new WebSocketError(
    "engine",
    "ORDERS_LOST",
    "Cannot receive all orders: the home object dropped some while an object could not be reached, or lost its storage; give " +
      "them again unless the option revalidate is set",
  );

/** Passes a call on to other relays: {@link FAN_OUT} trees at once. */
export async function passOn(
  relays: readonly string[],
  call: Omit<RelayCall, "others">,
  callRelay: CallRelay,
): Promise<RelayAnswer> {
  const trees = Array.from(
    { length: Math.min(FAN_OUT, relays.length) },
    (_, tree) => relays.filter((_, number) => number % FAN_OUT === tree),
  );
  return mergeAnswers(await Promise.all(trees.map((tree) => callTree(tree, call, callRelay))));
}

/** Levels of the tree from a relay on that passes a call on to so many. */
function levelsOf(others: number): number {
  let levels = 1;
  for (let left = others; left > 0; left = Math.ceil(left / FAN_OUT) - 1) levels++;
  return levels;
}

/** A timer of the platform, not the object's alarm: a call in progress keeps the object awake anyway. */
export function inTime<Value>(value: Promise<Value>, timeout: number): Promise<Value> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error("Too late")), timeout);
    value.then(resolve, reject).finally(() => clearTimeout(timer));
  });
}

/** Resolves after so many ms. Only while a call is outstanding. */
export const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** An error of an operation as data: RPC keeps no class and no code. */
export function failureOf(error: unknown): Outcome & { code: string } {
  const own = WebSocketError.from(error);
  if (own) return { code: own.code, message: own.message };
  return { code: "ENGINE_UNAVAILABLE", message: "Cannot go on: the home object has failed, its log says why" };
}

/** Whether the operation changes what the home object stores of the relay. */
export const isChange = ({ type }: Operation): boolean =>
  type === "subscribe" || type === "unsubscribe" || type === "join" || type === "leave" || type === "resync";

/** Approximate size, in characters. */
export function lengthOf(part: Item | Operation): number {
  switch (part.type) {
    case "publication":
    case "publish":
      return 200 + part.content.data.length;
    case "presence":
      return 200 + lengthOfMembers(part.joined);
    case "join":
      return 200 + lengthOfMember(part.member);
    case "resync":
      return 200 + part.channels.length * 200 + lengthOfMembers(part.members);
    case "message":
    case "send":
    case "order":
      return 200 + part.text.length;
    default:
      return 200;
  }
}

/** Approximate size of the value of an operation, in characters. */
export function lengthOfValue({ type }: Operation, value: unknown): number {
  if (type === "members") return 200 + lengthOfMembers((value as MembersPage).members); // As the home object makes it.
  if (type !== "read") return 200;
  const { publications } = value as HistoryPage; // As above.
  return publications.reduce((sum, { data }) => sum + 200 + data.length, 200);
}

/** Approximate size, in characters. */
export const lengthOfMember = ({ user, data = "" }: Member): number => 50 + user.length + data.length;

const lengthOfMembers = (members: readonly Member[]): number => members.reduce((sum, each) => sum + lengthOfMember(each), 0);

/** Takes the first entries that fit into one call out of the queue; one at least. */
export function takeCall<Entry>(queue: Entry[], sizeOf: (entry: Entry) => number): Entry[] {
  let length = 0;
  const end = queue.findIndex((entry, number) => (length += sizeOf(entry)) > CALL_LENGTH && number > 0);
  return queue.splice(0, end < 0 ? queue.length : end);
}
