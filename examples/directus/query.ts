import * as v from "valibot";
import { WebSocketError } from "../../mod.ts";

/** What SQLite takes as a parameter. */
export type SqlValue = string | number | null;

/** A piece of SQL. Its text is made of words that stand in this file and of declared names alone; all else is a parameter. */
export interface Sql {
  readonly text: string;
  readonly values: readonly SqlValue[];
}

/** What a client asks for, checked, and ready to be put into a `SELECT`. */
export interface ItemsQuery {
  readonly fields: readonly string[];
  readonly where: Sql;
  readonly order: string;
  /** `-1` for all. */
  readonly limit: number;
  readonly offset: number;
  /** What is to be counted. */
  readonly meta: readonly Count[];
}

/** The rows of the collection, or those that the filter lets through. */
export type Count = "total_count" | "filter_count";

/** Lets every row through. */
export const ALL: Sql = { text: "1", values: [] };

const MAX_CONDITIONS = 50;
const MAX_DEPTH = 8;
const MAX_LIST = 200;

/** The SDK sends what it has in `query` as strings since 19.1; a message by hand, and an older SDK, send it as it is. */
const list = v.union([
  v.pipe(v.string(), v.transform((text) => text.split(",").map((name) => name.trim()))),
  v.array(v.string()),
]);
const count = (from: number) =>
  v.pipe(v.union([v.number(), v.pipe(v.string(), v.regex(/^-?\d{1,9}$/), v.toNumber())]), v.safeInteger(), v.minValue(from));
const parsed = v.pipe(v.string(), v.parseJson(), v.record(v.string(), v.unknown()));

/** What of Directus' queries this recipe knows. Another key is refused, for a filter that is not applied shows too much. */
const QuerySchema = v.strictObject({
  fields: v.optional(list),
  filter: v.optional(v.union([parsed, v.record(v.string(), v.unknown())])),
  sort: v.optional(list),
  limit: v.optional(count(-1)),
  offset: v.optional(count(0)),
  page: v.optional(count(1)),
  meta: v.optional(list),
});

const COUNTS: readonly Count[] = ["total_count", "filter_count"];

/** @throws {WebSocketError} INVALID_QUERY for what cannot be counted. */
function countsOf(names: readonly string[]): readonly Count[] {
  if (names.includes("*")) return COUNTS;
  return names.map((name) => {
    const known = COUNTS.find((count) => count === name);
    if (!known) throw invalid("meta");
    return known;
  });
}

const scalar = v.union([v.string(), v.number(), v.boolean()]);
const scalars = v.union([
  v.pipe(v.array(scalar), v.maxLength(MAX_LIST)),
  v.pipe(v.string(), v.transform((text) => text.split(","))),
]);
const flag = v.union([v.literal(true), v.literal("true"), v.literal("")]);

const sqlValue = (value: string | number | boolean): SqlValue => typeof value === "boolean" ? Number(value) : value;

const comparing = (operator: string) => (column: string, value: unknown): Sql => ({
  text: `${column} ${operator} ?`,
  values: [sqlValue(v.parse(scalar, value))],
});
const listed = (operator: string) => (column: string, value: unknown): Sql => {
  const values = v.parse(scalars, value).map(sqlValue);
  return { text: `${column} ${operator} (${values.map(() => "?").join(", ")})`, values };
};
const flagged = (text: string) => (column: string, value: unknown): Sql => {
  v.parse(flag, value);
  return { text: `${column} ${text}`, values: [] };
};
/** Not LIKE, whose wildcards would have to be escaped, and which takes no notice of the letters' case. */
const matching = (text: (column: string) => string) => (column: string, value: unknown): Sql => {
  const words = v.parse(v.string(), value);
  const sql = text(column);
  return { text: sql, values: Array.from(sql.matchAll(/\?/g), () => words) };
};

const OPERATORS = new Map<string, (column: string, value: unknown) => Sql>(Object.entries({
  _eq: comparing("="),
  _neq: comparing("<>"),
  _lt: comparing("<"),
  _lte: comparing("<="),
  _gt: comparing(">"),
  _gte: comparing(">="),
  _in: listed("IN"),
  _nin: listed("NOT IN"),
  _null: flagged("IS NULL"),
  _nnull: flagged("IS NOT NULL"),
  _contains: matching((column) => `instr(${column}, ?) > 0`),
  _ncontains: matching((column) => `instr(${column}, ?) = 0`),
  _starts_with: matching((column) => `substr(${column}, 1, length(?)) = ?`),
  _ends_with: matching((column) => `(length(?) = 0 OR substr(${column}, -length(?)) = ?)`),
}));

const invalid = (what: string): WebSocketError => new WebSocketError("items", "INVALID_QUERY", `Invalid query: ${what}`);

/** A name in SQL. Only declared ones come here, and quoted they are no keyword. */
export const quoted = (name: string): string => `"${name}"`;

/**
 * Reads the `query` of an `items` or `subscribe` message.
 *
 * @param columns the names that may be asked for; another one is `FORBIDDEN`, as in Directus, whether or not it exists.
 * @param defaultLimit where the query has none.
 * @param takesMeta whether there is an answer that counts can be in.
 * @throws {WebSocketError} INVALID_QUERY, FORBIDDEN
 */
export function readQuery(query: unknown, columns: readonly string[], defaultLimit: number, takesMeta: boolean): ItemsQuery {
  const result = v.safeParse(QuerySchema, query ?? {}, { abortEarly: true, abortPipeEarly: true });
  if (!result.success) throw invalid(v.getDotPath(result.issues[0]) ?? "it must be an object");
  const { fields = ["*"], filter = {}, sort = [], limit = defaultLimit, offset, page = 1, meta } = result.output;
  if (meta && !takesMeta) throw invalid("meta");
  const known = (name: string): string => {
    if (columns.includes(name)) return quoted(name);
    throw new WebSocketError("items", "FORBIDDEN", "You may not access this field, or there is none");
  };
  const order = sort.map((name) => name.startsWith("-") ? `${known(name.slice(1))} DESC` : known(name));
  return {
    fields: fields.includes("*") ? columns : fields.map((name) => (known(name), name)),
    where: new Filter(known).read(filter),
    // By the key at last, so that pages do not overlap.
    order: [...order, quoted("id")].join(", "),
    limit,
    offset: offset ?? (limit < 0 ? 0 : (page - 1) * limit),
    meta: countsOf(meta ?? []),
  };
}

class Filter {
  readonly #known: (name: string) => string;
  #conditions = 0;

  constructor(known: (name: string) => string) {
    this.#known = known;
  }

  read(filter: unknown, depth = 0): Sql {
    if (typeof filter !== "object" || filter === null || Array.isArray(filter)) throw invalid("a filter must be an object");
    if (depth > MAX_DEPTH) throw invalid("the filter is too deep");
    return join(
      " AND ",
      Object.entries(filter).map(([name, value]) => {
        if (name !== "_and" && name !== "_or") return this.#conditionsOf(this.#known(name), value);
        if (!Array.isArray(value)) throw invalid(`${name} must be an array`);
        return join(name === "_and" ? " AND " : " OR ", value.map((each) => this.read(each, depth + 1)));
      }),
    );
  }

  #conditionsOf(column: string, value: unknown): Sql {
    // { status: "done" } is short for { status: { _eq: "done" } }.
    const conditions = typeof value === "object" && value !== null ? Object.entries(value) : [["_eq", value] as const];
    return join(
      " AND ",
      conditions.map(([name, operand]) => {
        const operator = OPERATORS.get(name);
        if (!operator) throw invalid("an operator that this recipe does not know");
        if (++this.#conditions > MAX_CONDITIONS) throw invalid("the filter has too many conditions");
        try {
          return operator(column, operand);
        } catch (error) {
          if (error instanceof v.ValiError) throw invalid(`${name} cannot be compared with that`);
          throw error;
        }
      }),
    );
  }
}

/** Nothing to join holds for all. */
function join(word: " AND " | " OR ", parts: readonly Sql[]): Sql {
  if (parts.length === 0) return { text: "1", values: [] };
  return { text: `(${parts.map(({ text }) => text).join(word)})`, values: parts.flatMap(({ values }) => values) };
}
