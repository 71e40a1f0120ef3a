import type { ChannelContract, DataOf, EventOf } from "../protocol/contract-types.ts";
import type { JsonItemOf } from "../protocol/json-of.ts";
import type { Engine, HistoryOptions, HistoryPage, Position, Publication } from "../engines/engine.ts";

/** Options to read a history. */
export interface HistoryQuery {
  /** Maximum number of publications: a whole number from 0, or `Infinity` for all. @default {Infinity} */
  readonly limit?: number;
  /** Reads the first publications after this position. Absent: the latest publications. */
  readonly after?: Position;
}

/** A publication in a history. */
export interface PublicationRecord<Event = string, Data = unknown> {
  /** Event name. */
  event: Event;
  /** Published data, which is JSON. */
  data: Data;
  /** Offset in the history. */
  offset: number;
}

/**
 * Why a {@link HistoryRecord} is not complete:
 *
 * - `limit`: more publications follow the last one.
 * - `gone`: some publications were evicted or have expired.
 * - `epoch`: the position belongs to another history, such as one from before the store lost its data.
 * - `ahead`: the history ends before the position.
 * - `unreadable`: this node cannot open some publications, such as those signed with a secret that it does not have.
 */
export type HistoryReason = "limit" | "gone" | "epoch" | "ahead" | "unreadable";

/** Publications from a history, with the position of its end. */
export interface HistoryRecord<H = ChannelContract> extends Position {
  /** Oldest first. If the record is not complete, those that remain. */
  publications: { [Event in EventOf<H>]: PublicationRecord<Event, JsonItemOf<DataOf<H, Event>>> }[EventOf<H>][];
  /** Whether these are all publications since `after`; without `after`, whether none of the latest ones is missing. */
  isComplete: boolean;
  /** Why publications are missing. Absent if the record is complete. */
  reason?: HistoryReason;
}

/** Reads a history for the application. @throws {TypeError} as a rejection, without a history, or for an invalid limit or position */
export async function readHistory(
  engine: Engine,
  channel: string,
  history: HistoryOptions | null,
  { limit = Infinity, after }: HistoryQuery,
): Promise<HistoryRecord> {
  if (!history) throw new TypeError(`Cannot read "${channel}": declare it with history: { size, ttl }`);
  check(channel, limit, after);
  const read = (position: Position | null, count: number) => engine.read(channel, history, position, count);
  if (!after) {
    const page = await read(null, Math.min(limit, history.size));
    return recordOf(page, page.publications, page.isComplete ? undefined : "unreadable");
  }
  const page = await read(after, history.size);
  if (page.isComplete) {
    return recordOf(page, page.publications.slice(0, limit), page.publications.length > limit ? "limit" : undefined);
  }
  const reason = reasonOf(after, page);
  const kept = await read(null, history.size);
  const isAfter = ({ position }: Publication) => position !== null && position.offset > after.offset;
  const following = reason === "gone" || reason === "unreadable" ? kept.publications.filter(isAfter) : kept.publications;
  return recordOf(kept, following.slice(0, limit), reason);
}

function check(channel: string, limit: number, after: Position | undefined): void {
  if (limit !== Infinity && !isCount(limit)) {
    throw new TypeError(`Cannot read "${channel}": limit must be a whole number from 0, or Infinity`);
  }
  if (after && !(typeof after.epoch === "string" && after.epoch !== "" && isCount(after.offset))) {
    throw new TypeError(`Cannot read "${channel}": after must be a position { epoch, offset }, as publish() gives it`);
  }
}

const isCount = (value: unknown): boolean => Number.isSafeInteger(value) && (value as number) >= 0; // A safe integer is a number.

function reasonOf(after: Position, { position, hasUnreadable }: HistoryPage): HistoryReason {
  if (hasUnreadable) return "unreadable";
  if (after.epoch !== position.epoch) return "epoch";
  return after.offset > position.offset ? "ahead" : "gone";
}

const recordOf = (
  { position }: HistoryPage,
  publications: readonly Publication[],
  reason: HistoryReason | undefined,
): HistoryRecord => ({
  ...position,
  publications: publications.map(({ event, data, position }) => ({
    event,
    data: JSON.parse(data),
    offset: position?.offset ?? 0,
  })),
  isComplete: reason === undefined,
  ...(reason && { reason }),
});
