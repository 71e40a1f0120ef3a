import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { isBuiltin } from "node:module";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import process from "node:process";
import { createInterface } from "node:readline";
import { after, afterEach, before, describe, it } from "node:test";
import { fileURLToPath } from "node:url";
import { type ClientOptions, WebSocket } from "ws";
import { TYPESCRIPT } from "../support/typescript.ts";
import { ConnectedSdk, Gate, type Message, next, type SdkVersion } from "./directus-sdk.ts";

const root = join(dirname(fileURLToPath(import.meta.url)), "../..");
const bin = (name: string): string => join(root, "node_modules/.bin", name);

const COMMANDS = {
  Bun: [bin("bun"), "run"],
  Deno: [bin("deno"), "run", "-A", "--no-lock"],
  Node: [process.execPath, ...TYPESCRIPT],
} as const;

/** Starts the example. `url` rejects with its output if it exits before it listens. */
function start(runtime: keyof typeof COMMANDS, database: string): { child: ChildProcess; url: Promise<string> } {
  const [command, ...args] = COMMANDS[runtime];
  const env = {
    ...process.env,
    HOST: "127.0.0.1",
    PORT: "0",
    DATABASE: database,
    EDITOR_TOKEN: "editing",
    READER_TOKEN: "reading",
  };
  const child = spawn(command, [...args, "examples/directus/main.ts"], { cwd: root, env, stdio: ["ignore", "pipe", "pipe"] });
  const said: string[] = [];
  const url = new Promise<string>((resolve, reject) => {
    for (const input of [child.stdout!, child.stderr!]) {
      createInterface({ input }).on("line", (line) => {
        said.push(line);
        const [, address] = line.match(/^Listening on http:\/\/(127\.0\.0\.1:\d+)$/) ?? [];
        if (address) resolve(`ws://${address}/websocket`);
      });
    }
    child.on("close", (code) => reject(new Error(`Exited with ${code}: ${said.join("\n")}`)));
  });
  return { child, url };
}

/** A client that returns each frame unchanged, but of an error only the code. */
class Session {
  readonly #socket: WebSocket;
  readonly #frames: Message[] = [];
  #wake = (): void => {};
  readonly closed: Promise<number>;

  private constructor(socket: WebSocket) {
    this.#socket = socket;
    this.closed = new Promise((resolve) => socket.on("close", resolve));
    socket.on("message", (data) => {
      const { error, ...frame } = JSON.parse(String(data));
      this.#frames.push(error ? { ...frame, error: { code: error.code } } : frame);
      this.#wake();
    });
  }

  static async open(url: string): Promise<Session> {
    const socket = new WebSocket(url);
    const session = new Session(socket);
    await new Promise((resolve, reject) => socket.on("open", resolve).on("error", reject));
    return session;
  }

  /** Sends a message, and resolves with the next frames. Fails if frames have arrived before. */
  async ask(message: Message, count = 1): Promise<Message[]> {
    assert.deepEqual(this.#frames, []);
    this.#socket.send(JSON.stringify(message));
    while (this.#frames.length < count) await new Promise<void>((resolve) => this.#wake = resolve);
    return this.#frames.splice(0);
  }

  close(): void {
    this.#socket.close();
  }
}

/** The order of an answer and of the event of the same write is not specified. */
const inOrder = (frames: Message[]): Message[] =>
  frames.toSorted((a, b) => Number(a["type"] !== "items") - Number(b["type"] !== "items"));

const items = (action: string, rest: Message = {}): Message => ({ type: "items", action, collection: "articles", ...rest });

for (const runtime of ["Bun", "Deno", "Node"] as const) {
  const hasSqlite = runtime !== "Node" || isBuiltin("node:sqlite");
  if (hasSqlite) describe(`addItems on ${runtime}`, () => testItems(runtime));
  else {
    it(`the example names the required versions on Node ${process.versions.node}, which has no SQLite`, async () => {
      await assert.rejects(
        start(runtime, ":memory:").url,
        /Exited with 1: [^]*no node:sqlite, use Node 22\.13, Deno 2\.2, Bun 1\.4/,
      );
    });
  }
}

function testItems(runtime: keyof typeof COMMANDS): void {
  let folder: string;
  let server: ReturnType<typeof start>;
  let url: string;
  const open: ConnectedSdk[] = [];

  before(async () => {
    folder = mkdtempSync(join(tmpdir(), "noroshi-items-"));
    await startServer();
  });
  afterEach(() => {
    for (const { sdk } of open.splice(0)) sdk.disconnect();
  });
  after(async () => {
    await stopServer();
    rmSync(folder, { recursive: true, force: true });
  });

  async function startServer(): Promise<void> {
    server = start(runtime, join(folder, "articles.db"));
    url = await server.url;
  }

  async function stopServer(): Promise<void> {
    const exited = new Promise((resolve) => server.child.on("exit", resolve));
    server.child.kill("SIGTERM");
    assert.equal(await exited, 0);
  }

  async function connect(version: SdkVersion, token = "editing", options?: ClientOptions): Promise<ConnectedSdk> {
    const connected = new ConnectedSdk(version, url, token, options);
    open.push(connected);
    await connected.sdk.connect();
    return connected;
  }

  /** An editor of a table with exactly these rows. */
  async function editor(...slugs: string[]): Promise<ConnectedSdk> {
    const connected = await connect(26);
    await data(connected, items("delete", { query: {} }));
    if (slugs.length > 0) await data(connected, items("create", { data: slugs.map((slug) => ({ slug, title: slug })) }));
    return connected;
  }

  async function data(connected: ConnectedSdk, message: Message): Promise<unknown> {
    const { type, status, data, error } = await connected.ask(message);
    assert.deepEqual({ type, status, error }, { type: "items", status: "ok", error: undefined });
    return data;
  }

  for (const version of [26, 18] satisfies SdkVersion[]) {
    it(`addItems publishes creates, updates and deletes to the Directus SDK ${version}, and stores them in the file`, async () => {
      const writer = await editor();
      const reader = await connect(version, "reading");
      const { subscription } = await reader.sdk.subscribe("articles", { uid: "mine" });
      const heard = async (message: Promise<Message>) => {
        const { type, event, data, uid } = await message;
        assert.deepEqual({ type, uid }, { type: "subscription", uid: "mine" });
        return [event, data];
      };
      assert.deepEqual(await heard(next(subscription)), ["init", []]);

      let message = next(subscription);
      const one = await data(writer, items("create", { data: { slug: "one", title: "One" } })) as { id: number };
      assert.deepEqual(one, { id: one.id, slug: "one", title: "One", status: "draft", rating: null });
      assert.deepEqual(await heard(message), ["create", [one]]);

      message = next(subscription);
      const two = { id: one.id + 1, slug: "two", title: "Two", status: "published", rating: 4.5 };
      const three = { id: one.id + 2, slug: "three", title: "Three", status: "draft", rating: null };
      const { id: _, ...row } = two;
      assert.deepEqual(
        await data(writer, items("create", { data: [row, { slug: "three", title: "Three" }], query: { fields: ["slug"] } })),
        [{ slug: "two" }, { slug: "three" }],
      );
      assert.deepEqual(await heard(message), ["create", [two, three]]);

      // The key may be a string, and fields that are not in the data keep their values.
      message = next(subscription);
      assert.deepEqual(await data(writer, items("update", { id: String(two.id), data: { title: "Deux" } })), {
        ...two,
        title: "Deux",
      });
      assert.deepEqual(await heard(message), ["update", [{ ...two, title: "Deux" }]]);

      message = next(subscription);
      const published = { data: { status: "published" }, query: { filter: { status: { _eq: "draft" } }, fields: ["id"] } };
      assert.deepEqual(await data(writer, items("update", published)), [{ id: one.id }, { id: three.id }]);
      assert.deepEqual(await heard(message), [
        "update",
        [{ ...one, status: "published" }, { ...three, status: "published" }],
      ]);

      message = next(subscription);
      assert.deepEqual(await data(writer, items("delete", { ids: [one.id, two.id] })), [one.id, two.id]);
      assert.deepEqual(await heard(message), ["delete", [one.id, two.id]]);
      assert.deepEqual(await data(writer, items("read", { id: three.id })), { ...three, status: "published" });

      message = next(subscription);
      assert.deepEqual(await data(writer, items("update", { ids: [three.id], data: { rating: 1 } })), [
        { ...three, status: "published", rating: 1 },
      ]);
      assert.equal((await heard(message))[0], "update");
      const four = await data(writer, items("create", { data: { slug: "four", title: "Four" }, query: { fields: ["id"] } }));
      const { id: key } = four as { id: number };
      assert.equal(await data(writer, items("delete", { id: String(key) })), key);
      await data(writer, items("update", { id: three.id, data: { rating: null } }));

      await stopServer();
      await startServer();
      const later = await connect(version, "reading");
      const again = await later.sdk.subscribe("articles");
      assert.deepEqual((await next(again.subscription))["data"], [{ ...three, status: "published" }]);
    });

    it(`addItems reads with queries of the Directus SDK ${version}`, async () => {
      await editor("alpha", "beta", "alps", "gamma");
      const reader = await connect(version, "reading");
      const ask = async (query: object) => {
        const { subscription } = await reader.sdk.subscribe("articles", { query: query as never });
        return (await next(subscription))["data"];
      };
      const by = (filter: object) => ask({ fields: ["slug"], filter });
      assert.deepEqual(await ask({ fields: ["slug", "status"], limit: 1 }), [{ slug: "alpha", status: "draft" }]);
      assert.deepEqual(await ask({ fields: ["slug"], sort: ["-slug"], limit: 2, page: 2 }), [{ slug: "alps" }, {
        slug: "alpha",
      }]);
      assert.deepEqual(await by({ slug: { _starts_with: "al" } }), [{ slug: "alpha" }, { slug: "alps" }]);
      assert.deepEqual(await by({ _or: [{ slug: "beta" }, { slug: { _ends_with: "mma" } }] }), [{ slug: "beta" }, {
        slug: "gamma",
      }]);
      assert.deepEqual(await by({ slug: { _in: ["beta", "alps"], _neq: "alps" }, rating: { _null: true } }), [{ slug: "beta" }]);
      // Values are never read as operators or SQL.
      assert.deepEqual(await by({ slug: { _eq: `x' OR 1=1 --` } }), []);
      assert.deepEqual(await by({ slug: { _contains: "%" } }), []);
    });
  }

  it("addItems refuses invalid messages with the codes of Directus, and changes nothing", async () => {
    const writer = await editor("there");
    const reader = await connect(26, "reading");
    const { subscription } = await reader.sdk.subscribe("articles");
    assert.equal((await next(subscription))["event"], "init");
    const before = await data(writer, items("read"));
    const fine = { slug: "fine", title: "Fine" };

    const refused: [code: string, message: Message][] = [
      ["INVALID_PAYLOAD", items("truncate")],
      ["INVALID_PAYLOAD", items("create")],
      ["INVALID_PAYLOAD", items("create", { data: [] })],
      ["INVALID_PAYLOAD", items("read", { id: 1.5 })],
      ["INVALID_PAYLOAD", items("delete")],
      ["INVALID_PAYLOAD", items("update", { data: { title: "All of them" } })],
      ["INVALID_PAYLOAD", items("update", { query: {}, filter: { slug: { _eq: "there" } }, data: { title: "All of them" } })],
      ["INVALID_PAYLOAD", items("delete", { query: {}, limit: 1 })],
      ["INVALID_PAYLOAD", items("read", { fields: ["id"] })],
      ["INVALID_PAYLOAD", items("delete", { id: 1, ids: [2] })],
      ["FORBIDDEN", items("delete", { id: 1, query: { filter: { slug: { _eq: "another" } } } })],
      ["FORBIDDEN", items("update", { ids: [1], query: { limit: 0 }, data: { title: "x" } })],
      ["INVALID_QUERY", items("read", { query: { meta: ["rows"] } })],
      ["INVALID_QUERY", items("delete", { query: { meta: "*" } })],
      ["INVALID_QUERY", items("create", { data: fine, query: { meta: "*" } })],
      ["INVALID_COLLECTION", { ...items("read"), collection: "sqlite_master" }],
      ["INVALID_COLLECTION", { ...items("read"), collection: 'articles"; DROP TABLE articles; --' }],
      ["INVALID_COLLECTION", { ...items("read"), collection: "constructor" }],
      ["FORBIDDEN", items("read", { id: 999_999 })],
      ["FORBIDDEN", items("delete", { ids: [1, 999_999] })],
      ["FORBIDDEN", items("create", { data: { ...fine, owner: "me" } })],
      ["FORBIDDEN", items("create", { data: { ...fine, id: 7 } })],
      ["FORBIDDEN", items("read", { query: { fields: ["rowid"] } })],
      ["FORBIDDEN", items("read", { query: { sort: ['slug" DESC; --'] } })],
      ["FORBIDDEN", items("delete", { query: { filter: { 'slug" OR 1=1 --': { _eq: 1 } } } })],
      ["FAILED_VALIDATION", items("create", { data: { slug: "No Slug", title: "x" } })],
      ["FAILED_VALIDATION", items("create", { data: { slug: "no-title" } })],
      ["FAILED_VALIDATION", items("update", { query: {}, data: { title: null } })],
      ["RECORD_NOT_UNIQUE", items("create", { data: [fine, { slug: "there", title: "Twice" }] })],
      ["INVALID_QUERY", items("read", { query: { limit: "many" } })],
      ["INVALID_QUERY", items("read", { query: { search: "x" } })],
      ["INVALID_QUERY", items("delete", { query: { filter: { slug: { _like: "%" } } } })],
      ["INVALID_QUERY", items("delete", { query: { filter: { slug: { __proto__: null, toString: 1 } } } })],
      ["INVALID_QUERY", items("read", { query: { filter: { slug: { _eq: { a: 1 } } } } })],
    ];
    for (const [code, message] of refused) {
      const answer = await writer.ask(message) as { type: string; status: string; error?: { code: string } };
      const { type, status, error } = answer;
      assert.deepEqual({ type, status, code: error?.code }, { type: "items", status: "error", code }, JSON.stringify(message));
      assert.doesNotMatch(JSON.stringify(answer), /SELECT|constraint failed/i);
    }
    for (const action of ["create", "update", "delete"]) {
      const { error } = await reader.ask(items(action, { query: {}, data: fine }));
      assert.equal((error as { code: string }).code, "FORBIDDEN");
    }
    const { error } = await reader.ask({ type: "publish", channel: "articles", event: "create", data: [fine] });
    assert.equal((error as { code: string }).code, "FORBIDDEN");

    assert.deepEqual(await data(writer, items("read")), before);
    assert.deepEqual(reader.frames.map(({ event }) => event), ["init"]);
  });

  it("addItems returns counts in meta, beside data", async () => {
    await editor("alpha", "beta", "alps");
    const reader = await connect(26, "reading");
    const ask = async (query: object) => {
      const { type, status, data, meta } = await reader.ask(items("read", { query: { fields: ["slug"], ...query } }));
      assert.deepEqual([type, status], ["items", "ok"]);
      return { slugs: (data as { slug: string }[]).map(({ slug }) => slug), meta };
    };
    const filter = { slug: { _starts_with: "al" } };
    const both = { total_count: 3, filter_count: 2 };
    assert.deepEqual(await ask({ filter, limit: 1, meta: "*" }), { slugs: ["alpha"], meta: both });
    assert.deepEqual(await ask({ filter, meta: ["filter_count", "total_count"] }), { slugs: ["alpha", "alps"], meta: both });
    assert.deepEqual(await ask({ meta: "total_count" }), { slugs: ["alpha", "beta", "alps"], meta: { total_count: 3 } });
    assert.deepEqual(await ask({ filter }), { slugs: ["alpha", "alps"], meta: undefined });
  });

  it("addItems limits a subscription to its item, fields and filter", async () => {
    const writer = await editor("one", "two");
    const [one, two] = await data(writer, items("read")) as { id: number }[];
    const reader = await connect(26, "reading");
    const subscribe = (rest: Message) => reader.sdk.sendMessage({ type: "subscribe", collection: "articles", ...rest });
    const filter = { status: { _eq: "published" } };
    subscribe({ uid: "item", item: one!.id, query: { fields: "id,title" } });
    subscribe({ uid: "text", item: String(two!.id), event: "update" });
    subscribe({ uid: "published", query: { fields: ["id"], filter } });
    subscribe({ uid: "created", event: "create", query: { filter: JSON.stringify(filter) } });
    await reader.until(4);
    const told = (uid: string) =>
      reader.frames.filter((frame) => frame["uid"] === uid).map(({ event, data }) => data === undefined ? event : [event, data]);
    assert.deepEqual(told("item"), [["init", [{ id: one!.id, title: "one" }]]]);
    assert.deepEqual([told("text"), told("published"), told("created")], [["init"], [["init", []]], ["init"]]);

    await data(writer, items("update", { id: one!.id, data: { title: "Uno", status: "published" } }));
    await data(writer, items("update", { id: two!.id, data: { title: "Dos" } }));
    const three = await data(writer, items("create", { data: { slug: "three", title: "Three", status: "published" } })) as {
      id: number;
    };
    await data(writer, items("create", { data: { slug: "four", title: "Four" } }));
    await data(writer, items("delete", { query: {} }));
    for (let n = 0; n < 2; n++) await reader.ask({ type: "ping" });
    assert.deepEqual(told("item").slice(1), [["update", [{ id: one!.id, title: "Uno" }]], ["delete", [one!.id]]]);
    assert.deepEqual(told("text").slice(1), [["update", [{ ...two, title: "Dos" }]]]);
    assert.deepEqual(told("published").slice(1).slice(0, 2), [["update", [{ id: one!.id }]], ["create", [{ id: three.id }]]]);
    assert.deepEqual(told("published").at(-1), ["delete", [one!.id, two!.id, three.id, three.id + 1]]);
    assert.deepEqual(told("created").slice(1), [["create", [three]]]);
  });

  it("addItems refuses a subscription with an invalid item, event or query", async () => {
    const writer = await editor("one");
    const [one] = await data(writer, items("read")) as { id: number }[];
    const reader = await connect(26, "reading");
    const refused: [code: string, rest: Message][] = [
      ["INVALID_PAYLOAD", { event: "publish" }],
      ["INVALID_PAYLOAD", { event: "Create", item: one!.id }],
      ["INVALID_PAYLOAD", { item: 1.5 }],
      ["INVALID_PAYLOAD", { item: null }],
      ["INVALID_PAYLOAD", { item: [one!.id] }],
      ["INVALID_PAYLOAD", { item: one!.id, channel: "articles" }],
      ["INVALID_PAYLOAD", { filter: {} }],
      ["FORBIDDEN", { item: 999_999 }],
      ["FORBIDDEN", { item: 999_999, event: "update" }],
      ["FORBIDDEN", { query: { fields: ["rowid"] } }],
      ["FORBIDDEN", { channel: "articles/999", collection: undefined }],
      ["INVALID_QUERY", { query: { search: "one" } }],
      ["INVALID_QUERY", { query: { search: "one" }, event: "create" }],
      ["INVALID_QUERY", { query: { meta: "*" } }],
      ["INVALID_QUERY", { query: { filter: { slug: { _like: "%" } } }, event: "create" }],
    ];
    for (const [code, rest] of refused) {
      const { type, status, error } = await reader.ask({ type: "subscribe", collection: "articles", ...rest });
      assert.deepEqual(
        { type, status, code: (error as { code?: string } | undefined)?.code },
        { type: "subscribe", status: "error", code },
        JSON.stringify(rest),
      );
    }
    assert.equal(reader.frames.some(({ type }) => type === "subscription"), false);
  });

  it("a session matches docs/reference/directus.md frame by frame", async () => {
    await editor();
    const session = await Session.open(url);
    const error = (type: string, code: string, uid?: unknown) => ({
      type,
      status: "error",
      error: { code },
      ...(uid === undefined ? {} : { uid }),
    });
    const event = (name: string, data: unknown, offset: number, more: Message = {}) => ({
      type: "subscription",
      event: name,
      channel: "articles",
      data,
      offset,
      uid: "a",
      ...more,
    });

    // In handshake mode the first message is `auth`.
    assert.deepEqual(await session.ask({ type: "auth", access_token: "editing", uid: "auth" }), [
      { type: "auth", status: "ok", uid: "auth" },
    ]);
    assert.deepEqual(await session.ask({ type: "ping", uid: 1 }), [{ type: "pong", uid: 1 }]);
    assert.deepEqual(await session.ask({ type: "nothing", uid: "n" }), [error("nothing", "UNSUPPORTED_TYPE", "n")]);
    assert.deepEqual(await session.ask({ type: "subscribe", collection: "nowhere", uid: "n" }), [
      error("subscribe", "FORBIDDEN", "n"),
    ]);

    const [init] = await session.ask({ type: "subscribe", collection: "articles", query: { limit: "10" }, uid: "a" });
    const { epoch, offset } = init as { epoch: string; offset: number };
    assert.deepEqual(init, { type: "subscription", event: "init", channel: "articles", data: [], uid: "a", epoch, offset });

    const ask = async (count: number, message: Message) => await session.ask({ ...items("read"), ...message }, count);
    const row = { id: 0, slug: "one", title: "One", status: "draft", rating: null };
    const created = await ask(2, { action: "create", data: { slug: "one", title: "One" }, uid: 7 });
    row.id = (created.at(-1) as { data: { id: number } }).data.id;
    assert.deepEqual(inOrder(created), [
      { type: "items", status: "ok", data: row, uid: 7 },
      event("create", [row], offset + 1),
    ]);
    const { id } = row;
    const uno = { ...row, title: "Uno" };
    assert.deepEqual(inOrder(await ask(2, { action: "update", id, data: { title: "Uno" }, uid: "u" })), [
      { type: "items", status: "ok", data: uno, uid: "u" },
      event("update", [uno], offset + 2),
    ]);
    assert.deepEqual(inOrder(await ask(2, { action: "update", ids: [id], data: { title: "Uno" }, uid: "us" })), [
      { type: "items", status: "ok", data: [uno], uid: "us" },
      event("update", [uno], offset + 3),
    ]);
    assert.deepEqual(await ask(1, { id, uid: "r" }), [{ type: "items", status: "ok", data: uno, uid: "r" }]);
    assert.deepEqual(await ask(1, { query: { meta: "*", fields: "id" }, uid: "m" }), [
      { type: "items", status: "ok", data: [{ id }], meta: { total_count: 1, filter_count: 1 }, uid: "m" },
    ]);
    assert.deepEqual(await ask(1, { id: 999_999, uid: "x" }), [error("items", "FORBIDDEN", "x")]);
    assert.deepEqual(await ask(1, { action: "truncate", uid: "x" }), [error("items", "INVALID_PAYLOAD", "x")]);
    assert.deepEqual(inOrder(await ask(2, { action: "delete", id, uid: "d" })), [
      { type: "items", status: "ok", data: id, uid: "d" },
      event("delete", [id], offset + 4),
    ]);

    // With a numeric uid each frame has the number; `item` has a channel of its own.
    await ask(2, { action: "create", data: { slug: "two", title: "Two" } });
    const two = { ...row, id: id + 1, slug: "two", title: "Two" };
    const [ofItem] = await session.ask({ type: "subscribe", collection: "articles", item: two.id, uid: 9 });
    const { channel } = ofItem as { channel: string };
    assert.match(channel, /^articles\/\d+$/);
    assert.deepEqual(ofItem, { type: "subscription", event: "init", channel, data: [two], uid: 9 });
    assert.deepEqual(inOrder(await ask(3, { action: "delete", ids: [two.id] })), [
      { type: "items", status: "ok", data: [two.id] },
      event("delete", [two.id], offset + 6),
      { type: "subscription", event: "delete", channel, data: [two.id], uid: 9 },
    ]);
    assert.deepEqual(await session.ask({ type: "unsubscribe", uid: 9 }), [{
      type: "subscription",
      event: "unsubscribe",
      uid: 9,
    }]);
    assert.deepEqual(await session.ask({ type: "unsubscribe" }), [{ type: "subscription", event: "unsubscribe" }]);
    assert.deepEqual(await ask(1, { action: "create", data: { slug: "three", title: "x" }, query: { fields: ["slug"] } }), [
      { type: "items", status: "ok", data: { slug: "three" } },
    ]);
    assert.deepEqual(await session.ask({ type: "ping", uid: "last" }), [{ type: "pong", uid: "last" }]);
    session.close();
  });

  it("a session begins with a token in the URL or in a message, and ends with a wrong one", async () => {
    const shown = await Session.open(`${url}?access_token=reading`);
    assert.deepEqual(await shown.ask({ type: "ping" }), [{ type: "pong" }]);
    shown.close();
    await assert.rejects(Session.open(`${url}?access_token=wrong`), /401/);
    const wrong = await Session.open(url);
    assert.deepEqual(await wrong.ask({ type: "auth", access_token: "wrong", uid: "a" }), [
      { type: "auth", status: "error", error: { code: "AUTH_FAILED" }, uid: "a" },
    ]);
    assert.equal(await wrong.closed, 4401);
    const first = await Session.open(url);
    assert.deepEqual(await first.ask({ type: "ping" }), [{ type: "auth", status: "error", error: { code: "AUTH_FAILED" } }]);
    assert.equal(await first.closed, 4401);
  });

  it("addItems sends the Directus SDK after a reconnect what was written meanwhile", async () => {
    const writer = await editor("before");
    const agent = new Gate();
    const reader = await connect(26, "reading", { agent });
    const { subscription } = await reader.sdk.subscribe("articles", { query: { fields: ["slug"] } as never });
    const slugs = async () => ((await next(subscription))["data"] as { slug: string }[]).map(({ slug }) => slug);
    assert.deepEqual(await slugs(), ["before"]);
    const again = slugs();
    agent.shut();
    reader.cut();
    await data(writer, items("create", { data: { slug: "meanwhile", title: "Missed" } }));
    agent.open();
    assert.deepEqual(await again, ["before", "meanwhile"]);
    // After a reconnect the SDK subscribes twice. The first answer may overtake the second `init`, which then comes before the next.
    for (let n = 0; n < 3; n++) await reader.ask({ type: "ping" });
    const afterwards = reader.frames.length;
    await data(writer, items("create", { data: { slug: "after", title: "Not missed" } }));
    await reader.ask({ type: "ping" });
    assert.deepEqual(reader.frames.slice(afterwards).map(({ event, uid }) => [event, uid]), [["create", "1"]]);
  });
}
