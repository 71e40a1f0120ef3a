import type { DatabaseSync } from "node:sqlite";
import * as v from "valibot";
import { type WebSocketClient, type WebSocketController, WebSocketError } from "../../mod.ts";
import { type ChannelDeclarations, Channels } from "../../src/channels.ts";
import { readQuery, type SqlValue } from "./query.ts";
import { type Key, type Row, Table } from "./table.ts";

/** What can be done with the items of a collection. */
export type ItemsAction = "create" | "read" | "update" | "delete";

/** A table that clients may use, and its channel of the same name. */
export interface Collection {
  /** Its columns beside the key `id`, and what may be written to them: `null`, numbers and strings. */
  readonly fields: { readonly [column: string]: v.GenericSchema<unknown, SqlValue> };
  /** Whether the client may. Who may read may subscribe. */
  may(client: WebSocketClient, action: ItemsAction): boolean;
}

/** How many rows are read where the query does not say, as in Directus. */
const DEFAULT_LIMIT = 100;

/** Items that one message may create, or name by their keys. */
const MAX_ITEMS = 100;

const key = v.union([v.pipe(v.number(), v.safeInteger()), v.pipe(v.string(), v.minLength(1), v.maxLength(255))]);
// To valibot an array is a record too.
const item = v.pipe(v.unknown(), v.check((value) => !Array.isArray(value)), v.record(v.string(), v.unknown()));
const several = <Each extends v.GenericSchema>(each: Each) => v.pipe(v.array(each), v.minLength(1), v.maxLength(MAX_ITEMS));

const common = { collection: v.string(), query: v.optional(v.record(v.string(), v.unknown())) };
const which = { ...common, id: v.optional(key), ids: v.optional(several(key)) };

/** The `items` message as the Directus SDK sends it by `sendMessage`. */
const ItemsSchema = v.variant("action", [
  v.object({ action: v.literal("create"), ...common, data: v.union([several(item), item]) }),
  v.object({ action: v.literal("read"), ...which }),
  v.object({ action: v.literal("update"), ...which, data: item }),
  v.object({ action: v.literal("delete"), ...which }),
]);

type ItemsMessage = v.InferOutput<typeof ItemsSchema>;

/**
 * Makes the controller answer `items` from a SQLite database, and gives each collection a channel: `subscribe` begins with its rows, and
 * each write is published as `create` and `update` with the rows, and as `delete` with the keys.
 *
 * SQLite is asked and told within one turn, so that what is published is in the order it was written, and a snapshot holds just what was
 * published before it. With a database that is waited for, write and publish in one queue.
 */
export function addItems(
  controller: WebSocketController,
  database: DatabaseSync,
  collections: { readonly [name: string]: Collection },
): Channels {
  const stores = new Map(Object.entries(collections).map(([name, collection]) => [name, new Store(database, name, collection)]));

  const declarations = Object.fromEntries([...stores].map(([name, store]): [string, ChannelDeclarations[string]] => [name, {
    // What clients publish is what they write: by `items`.
    authorize: ({ client, action }) => action === "subscribe" && store.collection.may(client, "read"),
    snapshot: ({ query }) => store.read(query),
    history: { size: 1_000, ttl: 10 * 60_000 },
  }]));
  const channels = new Channels<ChannelDeclarations>(controller, declarations);

  controller.handle("items", ItemsSchema, ({ client, message }) => {
    const store = stores.get(message.collection);
    if (!store) throw new WebSocketError("items", "INVALID_COLLECTION", "There is no such collection, or you may not access it");
    if (!store.collection.may(client, message.action)) throw new WebSocketError("items", "FORBIDDEN", "You may not do this");
    const { data, written } = store.do(message);
    // A failure to publish is an `error` event: what was written stays so.
    if (written !== undefined) void channels.publish(message.collection, message.action, written);
    return data;
  });
  return channels;
}

/** What a message came to: its answer, and what the subscribers are told. */
interface Outcome {
  data: unknown;
  written?: readonly Row[] | readonly Key[];
}

/** One collection in the database. */
class Store {
  readonly collection: Collection;
  readonly #table: Table;
  readonly #complete: v.GenericSchema<unknown, Row>;
  readonly #partial: v.GenericSchema<unknown, Row>;

  constructor(database: DatabaseSync, name: string, collection: Collection) {
    this.collection = collection;
    this.#table = new Table(database, name, Object.keys(collection.fields));
    this.#complete = v.strictObject(collection.fields);
    this.#partial = v.partial(v.strictObject(collection.fields)) as v.GenericSchema<unknown, Row>; // What is absent stays absent.
  }

  read(query: unknown): Row[] {
    return this.#table.read(this.#query(query, DEFAULT_LIMIT));
  }

  do(message: ItemsMessage): Outcome {
    if (message.action === "create") return this.#create(message);
    if (message.action === "read") return { data: this.#read(message) };
    return message.action === "update" ? this.#update(message) : this.#delete(message);
  }

  #create({ data, query }: ItemsMessage & { action: "create" }): Outcome {
    const answer = this.#query(query, -1);
    const rows = (Array.isArray(data) ? data : [data]).map((row) => this.#check(this.#complete, row));
    const keys = this.#table.transaction(() => rows.map((row) => this.#table.insert(row)));
    const written = this.#rows(keys);
    const created = this.#table.read({ ...answer, where: ALL }, keys);
    return { data: Array.isArray(data) ? created : created[0], written };
  }

  #read({ id, ids, query }: ItemsMessage & { action: "read" }): Row | Row[] {
    const read = this.#query(query, DEFAULT_LIMIT);
    return id === undefined ? this.#table.read(read, ids) : this.#table.one(read, id);
  }

  #update(message: ItemsMessage & { action: "update" }): Outcome {
    const row = this.#check(this.#partial, message.data);
    const answer = this.#query(message.query, -1);
    const keys = this.#table.transaction(() => {
      const keys = this.#keys(message);
      this.#table.update(keys, row);
      return keys;
    });
    if (keys.length === 0) return { data: [] };
    // Without the filter: what was written may not fit it any more.
    return { data: this.#table.read({ ...answer, where: ALL, limit: -1, offset: 0 }, keys), written: this.#rows(keys) };
  }

  #delete(message: ItemsMessage & { action: "delete" }): Outcome {
    const keys = this.#table.transaction(() => {
      const keys = this.#keys(message);
      this.#table.delete(keys);
      return keys;
    });
    return keys.length === 0 ? { data: [] } : { data: keys, written: keys };
  }

  #rows(keys: readonly Key[]): Row[] {
    return this.#table.read(this.#query({}, -1), keys);
  }

  /** The keys that are meant. Nothing is not all. */
  #keys({ id, ids, query }: { id?: Key | undefined; ids?: Key[] | undefined; query?: unknown }): Key[] {
    const asked = id === undefined ? ids : [id];
    if (asked) return this.#table.keys(this.#query({}, -1), asked);
    if (query === undefined) throw new WebSocketError("items", "INVALID_PAYLOAD", 'Pass "id", "ids" or "query"');
    return this.#table.keys(this.#query(query, -1));
  }

  #query(query: unknown, defaultLimit: number) {
    return readQuery(query, this.#table.columns, defaultLimit);
  }

  #check(schema: v.GenericSchema<unknown, Row>, row: unknown): Row {
    const result = v.safeParse(schema, row, { abortEarly: true, abortPipeEarly: true });
    if (result.success) return result.output;
    const [issue] = result.issues;
    const path = v.getDotPath(issue) ?? "";
    // A field that is not declared is no more than one that may not be written.
    if (issue.type === "strict_object" && issue.expected === "never") {
      throw new WebSocketError("items", "FORBIDDEN", "You may not write this field, or there is none");
    }
    throw new WebSocketError("items", "FAILED_VALIDATION", `Not a value for "${path}"`, { details: { path } });
  }
}

const ALL = { text: "1", values: [] } as const;
