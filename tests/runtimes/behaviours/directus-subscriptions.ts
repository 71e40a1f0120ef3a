import assert from "node:assert/strict";
import type { ClientOptions } from "ws";
import type { Behaviour } from "../conformance.ts";
import { type Article, ConnectedSdk, type Message, next, type SdkVersion } from "../directus-sdk.ts";
import type { TestServer } from "../server.ts";

const ROWS = [{ id: 1, title: "One" }, { id: 2, title: "Two" }];

const publish = (server: TestServer, event: string, ...data: unknown[]) =>
  server.control("articles", "publish", { channel: "articles", event, data });

/** Publishes and resolves with what the generator yields of it. The generator keeps nothing: it has to be asked before. */
async function published(server: TestServer, subscription: AsyncGenerator<unknown, void>, event: string, data: unknown) {
  const message = next(subscription);
  await publish(server, event, data);
  return await message;
}

/** Subscriptions of the Directus SDK, unmodified, to a channel with a snapshot. The frames are those of Directus, and `channel` beside. */
export const directusSubscriptions: Behaviour[] = ([26, 18] satisfies SdkVersion[]).flatMap((version): Behaviour[] => {
  const connect = ({ port }: TestServer, token = "ann:editor", subject = "articles", options?: ClientOptions) =>
    new ConnectedSdk(version, `ws://127.0.0.1:${port}/${subject}`, token, options);
  const title = (what: string) => `the Directus SDK ${version} ${what}`;
  return [
    {
      title: title("subscribes: the rows as init, then arrays of rows and of keys, until it unsubscribes"),
      async run(server) {
        const connected = connect(server);
        const { sdk } = connected;
        await sdk.connect();
        const { subscription, unsubscribe } = await sdk.subscribe("articles", { uid: "mine" });
        const common = { type: "subscription", channel: "articles", uid: "mine" };
        assert.deepEqual(await next(subscription), { ...common, event: "init", data: ROWS });

        for (
          const [event, data] of [
            ["create", [{ id: 3, title: "Three" }]],
            ["update", [{ id: 1, title: "Uno" }, { id: 2, title: "Dos" }]],
            ["delete", [1, 2]],
          ] as const
        ) {
          assert.deepEqual(await published(server, subscription, event, data), { ...common, event, data });
        }

        const ended = next(subscription);
        unsubscribe();
        assert.deepEqual(await ended, { type: "subscription", event: "unsubscribe", uid: "mine" });
        assert.deepEqual(await subscription.next(), { value: undefined, done: true });
        await publish(server, "create", [{ id: 4, title: "Four" }]);
        await connected.ask({ type: "ping" });
        assert.equal(connected.frames.length, 5);
        sdk.disconnect();
      },
    },
    {
      title: title("is sent one kind of event, and an init without data, when it asks for that event"),
      async run(server) {
        const connected = connect(server);
        const { sdk } = connected;
        await sdk.connect();
        const { subscription } = await sdk.subscribe("articles", { event: "delete", uid: "keys" });
        assert.deepEqual(await next(subscription), { type: "subscription", event: "init", channel: "articles", uid: "keys" });
        const deleted = next(subscription);
        await publish(server, "create", [{ id: 3, title: "Three" }]);
        await publish(server, "update", [{ id: 3, title: "Drei" }]);
        await publish(server, "delete", [3]);
        const { event, data } = await deleted;
        assert.deepEqual({ event, data }, { event: "delete", data: [3] });
        assert.equal(connected.frames.length, 2);
        assert.deepEqual(await server.control("articles", "log").then((log) => log.filter(isSnapshot)), []);
        sdk.disconnect();
      },
    },
    {
      title: title("has its query passed unchanged to the snapshot"),
      async run(server) {
        const { sdk } = connect(server);
        await sdk.connect();
        const query = {
          fields: ["id", "title"],
          filter: { title: { _starts_with: "O" } },
          sort: ["-id"],
          limit: 2,
        } as const;
        const { subscription } = await sdk.subscribe("articles", { query: structuredClone(query) as never });
        const { event, uid } = await next(subscription);
        assert.deepEqual({ event, uid }, { event: "init", uid: "1" });
        const [asked] = await server.control("articles", "wait", { event: "snapshot" });
        assert.deepEqual(
          asked.query,
          version === 18 ? query : { fields: "id,title", filter: '{"title":{"_starts_with":"O"}}', sort: "-id", limit: "2" },
        );
        sdk.disconnect();
      },
    },
    {
      title: title("has each of its subscriptions to one collection told apart by the uid, as it sent it"),
      async run(server) {
        const connected = connect(server);
        const { sdk } = connected;
        await sdk.connect();
        const all = await sdk.subscribe("articles");
        const keys = await sdk.subscribe("articles", { event: "delete" });
        sdk.sendMessage({ type: "subscribe", collection: "articles", event: "create", uid: 7 });
        await connected.until(3);
        await publish(server, "create", [{ id: 3, title: "Three" }]);
        await publish(server, "delete", [3]);
        await connected.until(7);
        // Each subscription is in order; which comes first of several is nowhere said.
        const told = () => connected.frames.map(({ event, uid }) => `${event} ${JSON.stringify(uid)}`);
        assert.deepEqual(told().slice(0, 3).sort(), ['init "1"', 'init "2"', "init 7"]);
        assert.deepEqual(told().slice(3).sort(), ['create "1"', "create 7", 'delete "1"', 'delete "2"']);
        all.unsubscribe();
        await connected.ask({ type: "ping" });
        await publish(server, "delete", [2]);
        await connected.until(9);
        assert.deepEqual(told().slice(7), ['unsubscribe "1"', 'delete "2"']);
        keys.unsubscribe();
        await connected.ask({ type: "ping" });
        assert.equal(await server.control("articles", "subscriptions"), 1);
        sdk.disconnect();
      },
    },
    {
      title: title("receives FORBIDDEN, and an unknown collection, through its generator"),
      async run(server) {
        for (const collection of ["secrets", "nowhere" as never] as const) {
          const { sdk } = connect(server);
          await sdk.connect();
          const { subscription } = await sdk.subscribe(collection, { uid: "mine" });
          await assert.rejects(subscription.next(), (error: Message) => {
            const { code } = error["error"] as { code: string };
            const { type, status, uid } = error;
            assert.deepEqual({ type, status, uid, code }, { type: "subscribe", status: "error", uid: "mine", code: "FORBIDDEN" });
            return true;
          });
          sdk.disconnect();
        }
        const { sdk } = connect(server, "ada:admin");
        await sdk.connect();
        const { subscription } = await sdk.subscribe("secrets");
        assert.equal((await next(subscription))["event"], "init");
        sdk.disconnect();
      },
    },
    {
      title: title("misses none of 30 events of one turn"),
      async run(server) {
        // Where there are no protocol pings, the fixture sends messages: on a busy machine no pause is long enough.
        const { sdk } = connect(server, "ann:editor", "sdk");
        await sdk.connect();
        const heard: unknown[] = [];
        sdk.onWebSocket("message", ({ event, data }) => {
          if (event === "create") heard.push(data[0].id);
        });
        const { subscription } = await sdk.subscribe("articles");
        assert.equal((await next(subscription))["event"], "init");
        const ids = Array.from({ length: 30 }, (_, index) => index);
        const yielded: unknown[] = [];
        const all = (async () => {
          for (const _ of ids) yielded.push(((await next(subscription))["data"] as Article[])[0]!.id);
        })();
        await server.control("sdk", "publish", {
          channel: "articles",
          event: "create",
          data: ids.map((id) => [{ id, title: "" }]),
        });
        await all;
        assert.deepEqual({ yielded, heard }, { yielded: ids, heard: ids });
        sdk.disconnect();
      },
    },
    {
      title: title("is sent answers, broadcasts and events of one turn in their order"),
      async run(server) {
        const connected = connect(server, "ann:editor", "sdk");
        const { sdk } = connected;
        await sdk.connect();
        const { subscription } = await sdk.subscribe("articles");
        assert.equal((await next(subscription))["event"], "init");
        const heard: unknown[] = [];
        const all = new Promise<void>((resolve) => {
          sdk.onWebSocket("message", ({ n }) => {
            if (heard.push(n) === 20) resolve();
          });
        });
        const steps = Array.from(
          { length: 20 },
          (_, n) => n % 2 ? { send: { type: "news", n } } : { broadcast: { type: "news", n } },
        );
        await server.control("sdk", "turn", { steps });
        await all;
        assert.deepEqual(heard, steps.map((_, n) => n));
        sdk.disconnect();
      },
    },
    {
      title: title("of a browser is sent what comes in one turn without a pause"),
      async run(server) {
        const connected = connect(server, "ann:editor", "articles", { origin: `http://127.0.0.1:${server.port}` });
        const { sdk, sockets } = connected;
        await sdk.connect();
        let pings = 0;
        sockets[0]!.on("ping", () => pings++);
        const { subscription } = await sdk.subscribe("articles");
        assert.equal((await next(subscription))["event"], "init");
        await publish(server, "create", ...Array.from({ length: 30 }, (_, id) => [{ id }]));
        await connected.until(31);
        await connected.ask({ type: "ping" });
        assert.equal(pings, 0);
        sdk.disconnect();
      },
    },
    {
      title: title("comes back after a lost connection, subscribes twice, and is sent each event once"),
      async run(server) {
        const connected = connect(server);
        const { sdk } = connected;
        await sdk.connect();
        const { subscription } = await sdk.subscribe("articles", { uid: "mine" });
        assert.equal((await next(subscription))["event"], "init");
        const again = next(subscription);
        connected.cut();
        // The generator goes on by itself, with the rows anew.
        assert.deepEqual((await again)["data"], ROWS);
        const subscribes = () => connected.sent.filter(({ type }) => type === "subscribe");
        assert.equal(connected.sockets.length, 2);
        // A ping that is read together with the second `subscribe` is answered before its `init`; the next one is not.
        for (let n = 0; n < 2; n++) await connected.ask({ type: "ping" });
        assert.deepEqual(subscribes().map(({ uid }) => uid), ["mine", "mine", "mine"]);
        await server.control("articles", "wait", { event: "close" });
        assert.equal(await server.control("articles", "subscriptions"), 1);

        const before = connected.frames.length;
        await publish(server, "create", [{ id: 3, title: "Three" }]);
        await connected.ask({ type: "ping" });
        const told = connected.frames.slice(before);
        assert.deepEqual(told.map(({ event, uid }) => [event, uid]), [["create", "mine"]]);
        sdk.disconnect();
      },
    },
  ];
});

const isSnapshot = ({ event }: { event: string }): boolean => event === "snapshot";
