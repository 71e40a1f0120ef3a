import type { DatabaseSync } from "node:sqlite";
import * as v from "valibot";
import { type WebSocketClient, type WebSocketController, WebSocketError, type WebSocketMessage } from "../../mod.ts";
import { type AuthorizeContext, type ChannelDeclarations, Channels } from "../../src/channels/channels.ts";
import { ALL, type ItemsQuery, readQuery, type SqlValue } from "./query.ts";
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
// It narrows nothing.
const unread = { data: v.optional(v.unknown()) };

/** The `items` message as the Directus SDK sends it by `sendMessage`. A key that is not read could be one that narrows: it is refused. */
const ItemsSchema = v.pipe(
  v.variant("action", [
    v.strictObject({ action: v.literal("create"), ...common, data: v.union([several(item), item]) }),
    v.strictObject({ action: v.literal("read"), ...which, ...unread }),
    v.strictObject({ action: v.literal("update"), ...which, data: item }),
    v.strictObject({ action: v.literal("delete"), ...which, ...unread }),
  ]),
  v.check((message) => message.action === "create" || message.id === undefined || message.ids === undefined),
);

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

  const declarations = Object.fromEntries([...stores].flatMap(([name, store]): [string, ChannelDeclarations[string]][] => [
    [name, {
      // What clients publish is what they write: by `items`.
      authorize: ({ action, ...context }) => action === "subscribe" && store.maySubscribe(context),
      snapshot: ({ query }) => store.read(query),
      history: { size: 1_000, ttl: 10 * 60_000 },
    }],
    [`${name}/*`, {
      authorize: ({ action, ...context }) => action === "subscribe" && store.maySubscribe(context),
      snapshot: ({ channel }) => store.look(channel),
    }],
  ]));
  const channels = new Channels<ChannelDeclarations>(controller, declarations);

  function answer(client: WebSocketClient, message: ItemsMessage): Outcome {
    const store = stores.get(message.collection);
    if (!store) throw new WebSocketError("items", "INVALID_COLLECTION", "There is no such collection, or you may not access it");
    if (!store.collection.may(client, message.action)) throw new WebSocketError("items", "FORBIDDEN", "You may not do this");
    const outcome = store.do(message);
    const { written } = outcome;
    if (written === undefined) return outcome;
    // A failure to publish is an `error` event: what was written stays so.
    void channels.publish(message.collection, message.action, written);
    for (const { channel, seen } of store.seen(written)) void channels.publish(channel, message.action, seen);
    return outcome;
  }

  controller.use(async ({ client, message }, next) => {
    const { type, uid, ...payload } = message;
    if (type === "subscribe") return await next(narrowed(client, message));
    // What a handler returns is `data` of the answer: `meta` stands beside it.
    const parsed = type === "items" ? v.safeParse(ItemsSchema, payload) : undefined;
    if (!parsed?.success || parsed.output.query?.["meta"] === undefined) return await next();
    const { data, meta } = answer(client, parsed.output);
    client.send({ type, status: "ok", data, meta, ...(uid === undefined ? {} : { uid }) });
  });

  /** A subscription to an item, to some fields or by a filter is one to a channel of its own. */
  function narrowed(client: WebSocketClient, message: WebSocketMessage): WebSocketMessage {
    const { collection, item: _item, query: _query, ...rest } = message;
    const store = typeof collection === "string" ? stores.get(collection) : undefined;
    if (!store || !store.collection.may(client, "read")) return message;
    const parsed = v.safeParse(SubscriptionSchema, message);
    if (rest["channel"] !== undefined || !parsed.success) return message;
    const { item, query } = parsed.output;
    if (item === undefined && query?.["fields"] === undefined && query?.["filter"] === undefined) return message;
    try {
      const isUnused = (channel: string) => channels.stats(channel).subscriptions === 0;
      return { ...rest, channel: store.view(item, query, isUnused) };
    } catch (error) {
      const shown = WebSocketError.from(error);
      throw shown ? new WebSocketError("subscribe", shown.code, shown.message) : error;
    }
  }

  controller.handle("items", ItemsSchema, ({ client, message }) => answer(client, message).data);
  return channels;
}

/** What of a `subscribe` asks for less than the whole collection. */
const SubscriptionSchema = v.object({ item: v.optional(key), query: common.query });

/** Different questions about one collection that may be subscribed to at once: each is asked again at each write. */
const MAX_VIEWS = 200;

/** What a message came to: its answer, and what the subscribers are told. */
interface Outcome {
  data: unknown;
  meta?: Record<string, number>;
  written?: readonly Row[] | readonly Key[];
}

/** A part of a collection that somebody is subscribed to. */
interface View {
  readonly channel: string;
  readonly item: Key | undefined;
  readonly query: ItemsQuery;
}

/** One collection in the database. */
class Store {
  readonly collection: Collection;
  readonly #name: string;
  /** By the question, and by the channel. */
  readonly #views = new Map<string, View>();
  readonly #channels = new Map<string, View>();
  #viewCount = 0;
  readonly #table: Table;
  readonly #complete: v.GenericSchema<unknown, Row>;
  readonly #partial: v.GenericSchema<unknown, Row>;

  constructor(database: DatabaseSync, name: string, collection: Collection) {
    this.collection = collection;
    this.#name = name;
    this.#table = new Table(database, name, Object.keys(collection.fields));
    this.#complete = v.strictObject(collection.fields);
    this.#partial = v.partial(v.strictObject(collection.fields)) as v.GenericSchema<unknown, Row>; // What is absent stays absent.
  }

  read(query: unknown): Row[] {
    return this.#table.read(this.#query(query, DEFAULT_LIMIT));
  }

  /** @throws {WebSocketError} for an event, a query or an item that is none. */
  maySubscribe({ client, channel, event, query }: Omit<AuthorizeContext, "action">): boolean {
    if (!this.collection.may(client, "read")) return false;
    if (event !== undefined && !EVENTS.has(event)) {
      throw new WebSocketError("subscribe", "INVALID_PAYLOAD", `Invalid payload at "event"`, { details: { path: "event" } });
    }
    if (channel === this.#name) return this.#query(query, DEFAULT_LIMIT) !== undefined;
    const view = this.#channels.get(channel);
    if (view?.item !== undefined) this.#table.one({ ...view.query, offset: 0 }, view.item);
    return view !== undefined;
  }

  /**
   * The channel of all who ask this.
   *
   * @throws {WebSocketError} INVALID_QUERY, FORBIDDEN, LIMIT_EXCEEDED
   */
  view(item: Key | undefined, query: unknown, isUnused: (channel: string) => boolean): string {
    const question = JSON.stringify([item === undefined ? null : String(item), query ?? {}]);
    const known = this.#views.get(question);
    if (known) return known.channel;
    const read = this.#query(query, DEFAULT_LIMIT);
    for (const [key, { channel }] of this.#views) {
      if (this.#views.size < MAX_VIEWS) break;
      if (isUnused(channel)) this.#channels.delete(channel) && this.#views.delete(key);
    }
    if (this.#views.size >= MAX_VIEWS) throw new WebSocketError("items", "LIMIT_EXCEEDED", "Too many different subscriptions");
    const view = { channel: `${this.#name}/${++this.#viewCount}`, item, query: read };
    this.#views.set(question, view);
    this.#channels.set(view.channel, view);
    return view.channel;
  }

  /** What a view begins with. */
  look(channel: string): Row[] {
    const view = this.#channels.get(channel);
    if (!view) throw new WebSocketError("subscribe", "SERVICE_UNAVAILABLE", "Cannot subscribe: try again");
    return view.item === undefined ? this.#table.read(view.query) : [this.#table.one(view.query, view.item)];
  }

  /** What each view shows of what was written. */
  *seen(written: readonly Row[] | readonly Key[]): Iterable<{ channel: string; seen: readonly unknown[] }> {
    const isDeleted = typeof written[0] !== "object";
    for (const { channel, item, query } of this.#views.values()) {
      // A deletion has keys only.
      const all = written.map((each) => typeof each === "object" ? each["id"] as Key : each);
      const keys = item === undefined ? all : all.filter((each) => String(each) === String(item));
      if (keys.length === 0) continue;
      const seen = isDeleted ? keys : this.#table.read({ ...query, limit: -1, offset: 0 }, keys);
      if (seen.length > 0) yield { channel, seen };
    }
  }

  do(message: ItemsMessage): Outcome {
    if (message.action === "create") return this.#create(message);
    if (message.action === "read") return this.#read(message);
    return message.action === "update" ? this.#update(message) : this.#delete(message);
  }

  #create({ data, query }: ItemsMessage & { action: "create" }): Outcome {
    const answer = this.#query(query, -1);
    const rows = (Array.isArray(data) ? data : [data]).map((row) => this.#check(this.#complete, row));
    const keys = this.#table.transaction(() => rows.map((row) => this.#table.insert(row)));
    const written = this.#rows(keys);
    const created = this.#table.read(answer, keys);
    return { data: Array.isArray(data) ? created : created[0], written };
  }

  #read({ id, ids, query }: ItemsMessage & { action: "read" }): Outcome {
    const read = this.#query(query, DEFAULT_LIMIT, true);
    const data = id === undefined ? this.#table.read(read, ids) : this.#table.one(read, id);
    return { data, meta: this.#table.count(read) };
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
    const rows = this.#table.read({ ...answer, where: ALL, limit: -1, offset: 0 }, keys);
    return { data: message.id === undefined ? rows : rows[0], written: this.#rows(keys) };
  }

  #delete(message: ItemsMessage & { action: "delete" }): Outcome {
    const keys = this.#table.transaction(() => {
      const keys = this.#keys(message);
      this.#table.delete(keys);
      return keys;
    });
    if (keys.length === 0) return { data: [] };
    return { data: message.id === undefined ? keys : keys[0], written: keys };
  }

  #rows(keys: readonly Key[]): Row[] {
    return this.#table.read(this.#query({}, -1), keys);
  }

  /** The keys that are meant. Nothing is not all. */
  #keys({ id, ids, query }: { id?: Key | undefined; ids?: Key[] | undefined; query?: unknown }): Key[] {
    const asked = id === undefined ? ids : [id];
    if (!asked && query === undefined) throw new WebSocketError("items", "INVALID_PAYLOAD", 'Pass "id", "ids" or "query"');
    return this.#table.keys(this.#query(query, -1), asked);
  }

  #query(query: unknown, defaultLimit: number, takesMeta = false): ItemsQuery {
    return readQuery(query, this.#table.columns, defaultLimit, takesMeta);
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

const EVENTS: ReadonlySet<string> = new Set(["create", "update", "delete"]);
