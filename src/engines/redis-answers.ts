import * as v from "valibot";

const Offset = v.pipe(v.string(), v.regex(/^\d{1,15}$/), v.transform(Number));
const Place = v.tuple([v.string(), Offset]);

/** An entry of a stream: its id, and its one field. */
type Entry = [id: string, fields: [name: string, envelope: string]];
const Entries = v.array(v.tuple([v.string(), v.tuple([v.string(), v.string()])]));

/** What a script has published: its epoch and offset, and the publications of all channels. */
export const Published: v.GenericSchema<unknown, [epoch: string, offset: number, publications: number]> = v.tuple([
  ...Place.items,
  v.number(),
]);

/** A part of a history: where that ends, whether nothing is missing, what follows the position, and whether more follows. */
export const Page: v.GenericSchema<
  unknown,
  [epoch: string, offset: number, isComplete: number, entries: Entry[], hasMore: number]
> = v.tuple([...Place.items, v.number(), Entries, v.number()]);

/** Where channels stand. */
export const Tops: v.GenericSchema<unknown, ([epoch: string, offset: number] | null)[]> = v.array(
  v.union([Place, v.pipe(v.tuple([]), v.transform(() => null))]),
);

export const Strings: v.GenericSchema<unknown, string[]> = v.array(v.string());

export const Orders: v.GenericSchema<unknown, Entry[]> = Entries;
