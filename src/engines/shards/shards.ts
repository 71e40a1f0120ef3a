/** One service over many Durable Objects: a home object stores everything, and relay objects have the connections. */
import type { EngineHost, HistoryOptions, HistoryPage, Member, Position, PublicationContent, PublishOnce } from "../engine.ts";
import { WebSocketError } from "../../protocol/errors.ts";
import type { Sql } from "../sqlite-histories.ts";

/** Options of the engine of the home object. */
export interface HomeEngineOptions {
  readonly sql: Sql;
  /** Prefix of the table names. */
  readonly prefix: string;
  readonly callRelay: CallRelay;
  /** Whether the object has connections of its own, or an upgrade under way. */
  hasConnections(): boolean;
}

/** Options of the engine of a relay. */
export interface RelayEngineOptions extends HomeEngineOptions {
  /** The name of the relay's object. */
  readonly relay: string;
  readonly callHome: CallHome;
}

/** An operation that a relay requests from the home object. */
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
  /** @param place the rank that the home object has given this data before, and which it keeps. */
  | { readonly type: "join"; readonly channel: string; readonly member: Member; readonly place?: number | undefined }
  | { readonly type: "leave"; readonly channel: string; readonly user: string }
  /** @param after the last user of the previous page. */
  | { readonly type: "members"; readonly channel: string; readonly after?: string | undefined }
  /** All subscriptions and members of the relay: the home object removes others. */
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

/** A member of a channel, on one relay. */
export interface RelayMember extends Member {
  readonly channel: string;
}

/** Some members of a channel, in the order of their users. */
export interface MembersPage {
  readonly members: readonly Member[];
  /** Whether there are more members after the last one. */
  readonly hasMore: boolean;
}

/** A call of a relay to the home object, which carries the operations out in order. */
export interface HomeCall {
  /** The name of the relay's object. */
  readonly relay: string;
  /** The relay's {@link EngineHost.node}. */
  readonly node: string;
  /** Grows each time that the home object has to list the relay again. */
  readonly generation: number;
  /** The highest {@link HomeAnswer.revision} that the relay has received in this generation. */
  readonly revision: number;
  readonly operations: readonly Operation[];
}

/** The result of an operation, or its error. */
export type Outcome = { readonly value: unknown } | { readonly code: string; readonly message: string };

export interface HomeAnswer {
  /** Identifies the storage of the home object. A new storage knows no relays. */
  readonly home: string;
  /** Grows with each call that changes what the home object stores of the relay. If it is lower than before, the storage is an older copy. */
  readonly revision: number;
  /** The outcomes of the first operations, as many as fit into one answer. The other operations were not carried out. */
  readonly outcomes: readonly Outcome[];
}

/** An item that the home object sends to relays. */
export type Item =
  | {
    readonly type: "publication";
    readonly channel: string;
    readonly content: PublicationContent;
    readonly position: Position | null;
    /** Offset of the previous publication of the channel. */
    readonly previous: number;
  }
  | {
    readonly type: "presence";
    readonly channel: string;
    readonly joined: readonly Member[];
    readonly left: readonly string[];
    /** Whether relays may have received this change before, because the home object has started again. */
    readonly isRepeated?: boolean | undefined;
  }
  | MessageItem;

/** A message, or `lost`: orders were dropped before the relay received them. Earlier versions ignore `lost`. */
export type MessageItem = Message | { readonly type: "lost" };

interface Message {
  readonly type: "message";
  readonly text: string;
  /** Whether it is an order: if it is dropped, the relay is sent `lost`. */
  readonly isOrder?: boolean;
  /** Time since the order was sent, in ms. Absent unless the order is sent again. */
  readonly age?: number | undefined;
}

/** A call of the home object to a relay, which handles the items and forwards the call to other relays. */
export interface RelayCall {
  /** One start of the home object. */
  readonly run: string;
  /**
   * Grows with each call of the run: a relay handles the items of a repeated call once, and refuses a call that is older than the latest.
   * 0: a query without items.
   */
  readonly number: number;
  readonly items: readonly Item[];
  /** Whether earlier items are missing: the relay reads what it lacks. */
  readonly isLate: boolean;
  /** How long each relay may take to answer, in ms. @default {@link RELAY_TIMEOUT} */
  readonly timeout?: number | undefined;
  /** How long the calls to the other relays may take together, in ms. */
  readonly budget?: number | undefined;
  /** Names of the relays to forward the call to. */
  readonly others: readonly string[];
}

/** The answers of a relay and of those that it has forwarded the call to. */
export interface RelayAnswer {
  /** Relays that could not be reached: they may lack the items. */
  readonly failed: readonly string[];
  /** Relays that have the items, but could not read what they lacked before. */
  readonly behind: readonly string[];
  /** The nodes of the relays that have answered. */
  readonly nodes: readonly RelayNode[];
}

export interface RelayNode {
  readonly relay: string;
  readonly node: string;
  readonly generation: number;
  /** Whether the relay has no connection, subscription or member. It sends `hello` before it has one again. */
  readonly isIdle: boolean;
}

/** Calls the home object. Rejects if it cannot be reached. */
export type CallHome = (call: HomeCall) => Promise<HomeAnswer>;

/** Calls a relay by its name. Rejects if it cannot be reached. */
export type CallRelay = (relay: string, call: RelayCall) => Promise<RelayAnswer>;

/** Width of a call tree. workerd allows an object six connections at once; one is left for other calls. */
export const FAN_OUT = 5;

/** Time that a relay has to answer, in ms: it may have to start, and to read what it lacks. */
export const RELAY_TIMEOUT = 10_000;

/** Time limit of a tree, as a multiple of the time that it takes if its first relay hangs. */
const BUDGET_FACTOR = 2;

/** Approximate maximum size of the items or operations of one call, in characters. workerd allows 32 MiB. */
export const CALL_LENGTH = 1_000_000;

/** Merges the answers of several relays into one. */
export function mergeAnswers(answers: readonly RelayAnswer[]): RelayAnswer {
  return {
    failed: answers.flatMap(({ failed }) => failed),
    behind: answers.flatMap(({ behind }) => behind),
    nodes: answers.flatMap(({ nodes }) => nodes),
  };
}

/**
 * Calls relays as a tree: the first relay handles the call and forwards it to the others. If it fails, the next one is called instead.
 * Relays for which no time is left count as failed.
 *
 * Resolves when all have answered or failed, within twice the time that a tree takes whose first relay hangs.
 */
export async function callTree(
  relays: readonly string[],
  call: Omit<RelayCall, "others">,
  callRelay: CallRelay,
): Promise<RelayAnswer> {
  const failed: string[] = [];
  const { timeout = RELAY_TIMEOUT, budget = BUDGET_FACTOR * timeout * levelsOf(relays.length - 1) } = call;
  const end = performance.now() + budget;
  for (const [number, relay] of relays.entries()) {
    const left = end - performance.now();
    // The level below would have no time left. A timer that fires early leaves a fraction of a millisecond, too.
    if (left <= timeout / 4) return { failed: [...failed, ...relays.slice(number)], behind: [], nodes: [] };
    const others = relays.slice(number + 1);
    // Each level of the tree waits for the level below it, whose budget is shorter so that its answer arrives in time.
    const time = Math.min(left, timeout * levelsOf(others.length));
    try {
      const answer = await withTimeout(callRelay(relay, { ...call, others, budget: time - timeout / 4 }), time);
      return { ...answer, failed: [...failed, ...answer.failed] };
    } catch {
      failed.push(relay); // `LateRelay` reports it if later attempts fail.
    }
  }
  return { failed, behind: [], nodes: [] };
}

/** Passes a message to the node, or reports that it has missed orders. */
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
    "Cannot receive all orders: the home object dropped some while an object could not be reached, or lost its storage; send " +
      "them again unless the option revalidate is set",
  );

/** Forwards a call to other relays, over up to {@link FAN_OUT} trees at once. */
export async function forwardCall(
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

/** Levels of a call tree whose first relay forwards the call to so many others. */
function levelsOf(others: number): number {
  let levels = 1;
  for (let left = others; left > 0; left = Math.ceil(left / FAN_OUT) - 1) levels++;
  return levels;
}

/** Rejects after `timeout` ms. It uses a timer instead of the object's alarm, because a call under way keeps the object awake anyway. */
export function withTimeout<Value>(value: Promise<Value>, timeout: number): Promise<Value> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error("Too late")), timeout);
    value.then(resolve, reject).finally(() => clearTimeout(timer));
  });
}

/** Resolves after so many ms. For use while a caller waits, because the timer prevents hibernation. */
export const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** Converts an error of an operation to data, because RPC keeps neither class nor code of an error. */
export function failureOf(error: unknown): Outcome & { code: string } {
  const own = WebSocketError.from(error);
  if (own) return { code: own.code, message: own.message };
  return { code: "ENGINE_UNAVAILABLE", message: "Cannot carry out the operation: the home object has failed, see its log" };
}

/** Whether the operation changes what the home object stores of the relay. */
export const isChange = ({ type }: Operation): boolean =>
  type === "subscribe" || type === "unsubscribe" || type === "join" || type === "leave" || type === "resync";

/** Whether the operation ends the relay. */
export const isClose = ({ type }: Operation): boolean => type === "close";

/** Approximate size of an item or operation, in characters. */
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

/** Approximate size of a member, in characters. */
export const lengthOfMember = ({ user, data = "" }: Member): number => 50 + user.length + data.length;

const lengthOfMembers = (members: readonly Member[]): number => members.reduce((sum, each) => sum + lengthOfMember(each), 0);

/** Removes and returns the first entries of the queue that fit into one call, at least one. */
export function takeCall<Entry>(queue: Entry[], sizeOf: (entry: Entry) => number): Entry[] {
  let length = 0;
  const end = queue.findIndex((entry, number) => (length += sizeOf(entry)) > CALL_LENGTH && number > 0);
  return queue.splice(0, end < 0 ? queue.length : end);
}
