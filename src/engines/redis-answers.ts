import * as v from "valibot";

/** What the scripts answer, and what else Redis does. */
const Offset = v.pipe(v.string(), v.regex(/^\d{1,15}$/), v.transform(Number));
const Place = v.tuple([v.string(), Offset]);
export const Published = v.tuple([...Place.items, v.number()]);
const Entries = v.array(v.tuple([v.string(), v.tuple([v.string(), v.string()])]));
export const Page = v.tuple([...Place.items, v.number(), Entries, v.number()]);
export const Tops = v.array(v.union([Place, v.pipe(v.tuple([]), v.transform(() => null))]));
export const Strings = v.array(v.string());
export const Orders = v.array(v.tuple([v.string(), v.tuple([v.string(), v.string()])]));
