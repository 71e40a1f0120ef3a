/** Schemas of the replies of Redis. */
import * as v from "valibot";

const Offset = v.pipe(v.string(), v.regex(/^\d{1,15}$/), v.transform(Number));
const PositionReply = v.tuple([v.string(), Offset]);

/** An entry of a stream: its id and its only field. */
type Entry = [id: string, fields: [name: string, envelope: string]];
const Entries = v.array(v.tuple([v.string(), v.tuple([v.string(), v.string()])]));

/** Reply of the script `PUBLISH`. `publications` counts those of all channels; 0 unless persistent, -1 if the id was published before. */
export const Published: v.GenericSchema<unknown, [epoch: string, offset: number, publications: number]> = v.tuple([
  ...PositionReply.items,
  v.number(),
]);

/** Reply of the script `READ`: the end of the history, whether nothing is missing, the entries, and whether more follow. */
export const Page: v.GenericSchema<
  unknown,
  [epoch: string, offset: number, isComplete: number, entries: Entry[], hasMore: number]
> = v.tuple([...PositionReply.items, v.number(), Entries, v.number()]);

/** Reply of the script `LATEST_POSITIONS`: the latest position of each history. */
export const LatestPositions: v.GenericSchema<unknown, ([epoch: string, offset: number] | null)[]> = v.array(
  v.union([PositionReply, v.pipe(v.tuple([]), v.transform(() => null))]),
);

/** A reply that is a list of strings. */
export const Strings: v.GenericSchema<unknown, string[]> = v.array(v.string());

/** Reply of `XRANGE` for the stored orders. */
export const Orders: v.GenericSchema<unknown, Entry[]> = Entries;
