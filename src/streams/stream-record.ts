import type { Position, Publication } from "../engines/engine.ts";

/** `ok` and `error` are the end. */
export type RecordKind = "next" | "ok" | "error";

/** A part of a stream in its history: an item, several that were merged, or the end. */
export interface StreamRecord {
  readonly kind: RecordKind;
  /** Numbers of its items: 1, 2, 3 … */
  readonly first: number;
  readonly last: number;
  /** The fields of the message, as a JSON object. */
  readonly body: string;
  readonly position: Position | null;
}

/** The event of a publication. An item that is published again after an uncertain failure has the same one. */
export const eventOf = (number: number, kind: RecordKind): string => `${number} ${kind}`;

export function recordOf({ event, data, position }: Publication): StreamRecord {
  const [number, kind] = event.split(" ");
  // Written by `eventOf`.
  return { kind: kind as RecordKind, first: Number(number), last: Number(number), body: data, position };
}

/** Joins items by the application's `merge`. The end stays, and items that do not become fewer. */
export function mergeRecords(records: StreamRecord[], merge: (items: unknown[]) => unknown[]): StreamRecord[] {
  const items = records.filter(({ kind }) => kind === "next");
  const [first, last] = [items[0], items.at(-1)];
  if (!first || !last || first === last) return records;
  const merged = merge(items.map(({ body }) => JSON.parse(body).data));
  if (!Array.isArray(merged)) throw new TypeError("Cannot merge: return an array of items");
  if (merged.length >= items.length) return records;
  const body = JSON.stringify({ items: merged });
  return [{ ...last, first: first.first, body }, ...records.filter(({ kind }) => kind !== "next")];
}
