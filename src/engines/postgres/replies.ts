/** Schemas of the replies of the calls that the session makes (see `noroshi_call`). */
import * as v from "valibot";

/** A whole number, from a column of 64 bits. */
const Whole = v.pipe(v.number(), v.safeInteger());

/** A list, which SQL returns as `null` when it is empty. */
const listOf = <Item>(item: v.GenericSchema<unknown, Item>): v.GenericSchema<unknown, Item[]> =>
  v.pipe(v.nullable(v.array(item)), v.transform((list) => list ?? []));

/** Reply of `append`: the position, and whether the id was published before. The reply of `event` is `null`. */
export const Appended: v.GenericSchema<unknown, [epoch: string, offset: number, isKnown: boolean]> = v.tuple([
  v.string(),
  Whole,
  v.boolean(),
]);

/** An entry of a page. */
type Entry = [offset: number, previous: number, at: number, envelope: string];

/** Reply of `read`: the end of the history, whether nothing is missing, the entries, and whether more follow. */
export const Page: v.GenericSchema<
  unknown,
  [epoch: string, offset: number, isComplete: boolean, entries: Entry[], hasMore: boolean]
> = v.tuple([v.string(), Whole, v.boolean(), v.array(v.tuple([Whole, Whole, Whole, v.string()])), v.boolean()]);

/** Reply of `fetch`: publications, and mail (events, members and messages to all nodes). */
export const Fetched: v.GenericSchema<
  unknown,
  [
    publications: [channel: string, epoch: string, offset: number, previous: number, envelope: string][],
    mail: [id: number, envelope: string][],
  ]
> = v.tuple([
  v.array(v.tuple([v.string(), v.string(), Whole, Whole, v.string()])),
  v.array(v.tuple([Whole, v.string()])),
]);

/** Reply of `tops`: the latest position of each history. */
export const LatestPositions: v.GenericSchema<unknown, ([epoch: string, offset: number] | null)[]> = listOf(
  v.nullable(v.tuple([v.string(), Whole])),
);

/** Reply of `beat`: whether the lease was valid, the time, the run, and the end of the write-ahead log if known. */
export const Heartbeat: v.GenericSchema<unknown, [wasKnown: boolean, now: number, run: string, lsn: string | null]> = v.tuple([
  v.boolean(),
  Whole,
  v.string(),
  v.nullable(v.string()),
]);

/** Reply of `start`: the time. It is the only call of its statement, and later versions may only append to the reply. */
export const Start: v.GenericSchema<unknown, [now: number]> = v.tuple([Whole]);

/** Reply of `nodes`, `members` and `kept`. */
export const Strings: v.GenericSchema<unknown, string[]> = listOf(v.string());

/** Reply of `own`: the envelopes of the members of this node, with their channels. */
export const Own: v.GenericSchema<unknown, [channel: string, envelope: string][]> = listOf(v.tuple([v.string(), v.string()]));
