import type { Engine, HistoryOptions, HistoryPage, Position, Publication } from "./engine.ts";

/** What to read of a history. */
export interface HistoryQuery {
  /** Publications at most: a whole number from 0, or `Infinity`. @default {Infinity}, which is all that are kept */
  readonly limit?: number;
  /** Reads the first publications after this position. @default none: the last publications */
  readonly after?: Position;
}

/** A publication, as the server reads it. */
export interface PublicationRecord {
  /** What happened. */
  event: string;
  /** What was published. */
  data: unknown;
  /** Its place in the history. */
  offset: number;
}

/**
 * Why a history has not given all since a position:
 *
 * - `limit`: more follow, after the last of these.
 * - `gone`: some were pushed out of the history or have expired.
 * - `epoch`: the position is of another history, such as the one before a store lost its data.
 * - `ahead`: the history ends before the position.
 * - `unreadable`: this node cannot open some, such as those signed with a secret that it does not have.
 */
export type HistoryReason = "limit" | "gone" | "epoch" | "ahead" | "unreadable";

/** The stored part of a channel. The position is the end of its history. */
export interface HistoryRecord extends Position {
  /** The oldest first. Where some are missing these are what is kept. */
  publications: PublicationRecord[];
  /** Whether these are all since `after`; without it, whether none of the last ones is missing. */
  isComplete: boolean;
  /** Why they are not. Absent when they are. */
  reason?: HistoryReason;
}

/** @throws {TypeError} for a limit or a position that is none. */
export async function readHistory(
  engine: Engine,
  channel: string,
  history: HistoryOptions,
  { limit = Infinity, after }: HistoryQuery,
): Promise<HistoryRecord> {
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
