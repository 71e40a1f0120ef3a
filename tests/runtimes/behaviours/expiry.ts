import assert from "node:assert/strict";
import type { Behaviour } from "../conformance.ts";
import type { TestServer } from "../server.ts";
import { frames, Wire } from "../wire.ts";

const expired = (uid?: string | number) => ({
  type: "auth",
  status: "error",
  error: { code: "TOKEN_EXPIRED", message: "The token has expired" },
  ...(uid === undefined ? {} : { uid }),
});

/** A client whose token ends in a minute. */
async function openExpiring({ port }: TestServer, path = "/expiring"): Promise<Wire> {
  const wire = await Wire.open(port, path);
  await wire.ask({ type: "auth", access_token: "ann:editor:60" });
  return wire;
}

const advance = (server: TestServer, subject: string, ms: number) => server.control(subject, "advance", { ms });

/** What time and the application do to an identity. */
export const expiry: Behaviour[] = [
  {
    title: "at expires_at a client receives TOKEN_EXPIRED, then nothing, and may only auth or ping",
    async run(server) {
      const wire = await openExpiring(server);
      const other = await Wire.open(server.port, "/expiring");
      await other.ask({ type: "auth", access_token: "bob:editor:3600" });
      await advance(server, "expiring", 60_000);
      assert.deepEqual(await wire.next(), expired());
      for (const filter of [undefined, { user: "ann" }, { role: "editor" }]) {
        await server.control("expiring", "broadcast", { message: { type: "secret" }, filter });
      }
      for (const _ of ["to all", "to editors"]) assert.deepEqual(await other.next(), { type: "secret" });
      assert.deepEqual(await wire.ask({ type: "ping", uid: 1 }), { type: "pong", uid: 1 });
      assert.deepEqual(await wire.ask({ type: "say", text: "x", uid: 2 }), expired(2));
      assert.deepEqual(await wire.ask({ type: "auth", uid: 3 }), {
        type: "auth",
        status: "error",
        error: { code: "INVALID_PAYLOAD", message: "Send access_token, refresh_token, or email and password" },
        uid: 3,
      });
    },
  },
  {
    title: "an expired client is sent the answer to a request that was handled before, and no broadcast",
    async run(server) {
      const wire = await openExpiring(server);
      wire.send({ type: "stall", name: "answered late", uid: 1 });
      await server.control("expiring", "wait", { event: "stalled" });
      await advance(server, "expiring", 60_000);
      assert.deepEqual(await wire.next(), expired());
      await server.control("expiring", "broadcast", { message: { type: "secret" } });
      await server.control("expiring", "release", { name: "answered late" });
      assert.deepEqual(await wire.next(), { type: "stall", status: "ok", uid: 1, data: "answered late" });
      assert.deepEqual(await wire.ask({ type: "auth", access_token: "ann", uid: 2 }), { type: "auth", status: "ok", uid: 2 });
    },
  },
  {
    title: "an answer does not wait while revalidate renews an expired client, but messages do",
    async run(server) {
      const wire = await openExpiring(server, "/renewing");
      wire.send({ type: "stall", name: "answered meanwhile", uid: 1 });
      await server.control("renewing", "wait", { event: "stalled" });
      await server.control("renewing", "plan", { plan: "stall" });
      await advance(server, "renewing", 60_000);
      await server.control("renewing", "wait", { event: "stalled", count: 2 });
      wire.send({ type: "say", text: "waits", uid: 2 });
      await server.control("renewing", "release", { name: "answered meanwhile" });
      assert.deepEqual(await wire.next(), { type: "stall", status: "ok", uid: 1, data: "answered meanwhile" });
      await server.control("renewing", "release", { name: "revalidate" });
      assert.deepEqual(await wire.next(), { type: "say", status: "ok", uid: 2, data: "waits" });
    },
  },
  {
    title: "a valid auth in the grace restores the client in place",
    hibernates: true,
    async run(server) {
      const wire = await openExpiring(server);
      await wire.ask({ type: "keep", state: { draft: 1 } });
      const before = (await wire.ask({ type: "who" })).data;
      await advance(server, "expiring", 60_000);
      assert.deepEqual(await wire.next(), expired());
      await server.pause();
      assert.deepEqual(await wire.ask({ type: "auth", access_token: "ann:editor:60", uid: 1 }), {
        type: "auth",
        status: "ok",
        uid: 1,
      });
      const after = (await wire.ask({ type: "who" })).data;
      assert.deepEqual({ uid: after.uid, state: after.state, listed: after.listed }, {
        uid: before.uid,
        state: before.state,
        listed: true,
      });
      await server.control("expiring", "broadcast", { message: { type: "news" }, filter: { user: "ann" } });
      assert.deepEqual(await wire.next(), { type: "news" });
    },
  },
  {
    title: "after the grace an expired client receives AUTH_TIMEOUT and is closed with 4401",
    async run(server) {
      const wire = await openExpiring(server);
      await advance(server, "expiring", 60_000);
      assert.deepEqual(await wire.next(), expired());
      wire.send({ type: "say", text: "no credentials" }); // It does not count, and prolongs nothing.
      assert.equal((await wire.next()).error.code, "TOKEN_EXPIRED");
      await advance(server, "expiring", 10_000);
      assert.equal((await wire.next()).error.code, "AUTH_TIMEOUT");
      assert.equal((await wire.closed).code, 4401);
      const [{ cause }] = await server.control("expiring", "wait", { event: "close" });
      assert.equal(cause, "expired");
    },
  },
  {
    title: "after the grace an expired client of public mode is anonymous and stays connected",
    async run(server) {
      const wire = await openExpiring(server, "/expiringpublic");
      await advance(server, "expiringpublic", 60_000);
      assert.deepEqual(await wire.next(), expired());
      await advance(server, "expiringpublic", 10_000);
      const { data } = await wire.ask({ type: "who" });
      assert.deepEqual({ who: data.accountability, until: data.expires_at }, { who: { user: null, role: null }, until: null });
    },
  },
  {
    title: "a wrong auth in the grace closes with 4401",
    async run(server) {
      const wire = await openExpiring(server);
      await advance(server, "expiring", 60_000);
      await wire.next();
      assert.equal((await wire.ask({ type: "auth", access_token: "bad", uid: 1 })).error.code, "AUTH_FAILED");
      assert.equal((await wire.closed).code, 4401);
    },
  },
  {
    title: "three failed attempts close a client of public mode with 4401",
    async run(server) {
      const wire = await Wire.open(server.port, "/public");
      for (const uid of [1, 2, 3]) {
        assert.equal((await wire.ask({ type: "auth", access_token: "bad", uid })).error.code, "AUTH_FAILED");
      }
      assert.equal((await wire.closed).code, 4401);
      const [{ cause }] = await server.control("public", "wait", { event: "close" });
      assert.equal(cause, "auth");
    },
  },
  {
    title: "a token that lasts longer than a timer can wait does not expire at once",
    async run(server) {
      const wire = await Wire.open(server.port, "/expiring");
      await wire.ask({ type: "auth", access_token: `ann:editor:${60 * 86_400}` });
      await advance(server, "expiring", 30 * 86_400_000);
      assert.equal((await wire.ask({ type: "who" })).data.accountability.user, "ann");
      await advance(server, "expiring", 30 * 86_400_000);
      assert.deepEqual(await wire.next(), expired());
    },
  },
  {
    title: "revalidate renews an expired client silently, and its messages wait meanwhile",
    async run(server) {
      const wire = await openExpiring(server, "/renewing");
      await server.control("renewing", "plan", { plan: "stall" });
      await advance(server, "renewing", 60_000);
      await server.control("renewing", "wait", { event: "stalled" });
      wire.write(frames({ type: "say", text: "1", uid: 1 }, { type: "say", text: "2", uid: 2 }));
      await server.control("renewing", "release", { name: "revalidate" });
      assert.deepEqual([(await wire.next()).data, (await wire.next()).data], ["1", "2"]);
      await server.control("renewing", "broadcast", { message: { type: "news" }, filter: { user: "ann" } });
      assert.deepEqual(await wire.next(), { type: "news" });
    },
  },
  ...["null", "throw", "throw-undefined", "reject", "thenable"].map((plan): Behaviour => ({
    title: `a revalidate that goes wrong (${plan}) ends in TOKEN_EXPIRED`,
    async run(server) {
      const wire = await openExpiring(server, "/renewing");
      await server.control("renewing", "plan", { plan });
      await advance(server, "renewing", 60_000);
      assert.deepEqual(await wire.next(), expired());
      assert.deepEqual(await wire.ask({ type: "auth", access_token: "ann" }), { type: "auth", status: "ok" });
    },
  })),
  {
    title: "a revalidate that never answers ends in TOKEN_EXPIRED after the timeout",
    async run(server) {
      const wire = await openExpiring(server, "/renewing");
      await server.control("renewing", "plan", { plan: "never" });
      await advance(server, "renewing", 60_000);
      await server.control("renewing", "wait", { event: "failing" });
      await advance(server, "renewing", 10_000);
      assert.deepEqual(await wire.next(), expired());
    },
  },
  {
    title: "refresh applies changed rights, and expires clients that have none left",
    async run(server) {
      const wire = await openExpiring(server, "/renewing");
      await server.control("renewing", "plan", { plan: "demote" });
      await server.control("renewing", "refresh", { filter: { user: "ann" } });
      assert.equal((await wire.ask({ type: "who" })).data.accountability.role, "reader");
      await server.control("renewing", "broadcast", { message: { type: "secret" }, filter: { role: "editor" } });
      await server.control("renewing", "broadcast", { message: { type: "news" }, filter: { role: "reader" } });
      assert.deepEqual(await wire.next(), { type: "news" });
      await server.control("renewing", "plan", { plan: "null" });
      await server.control("renewing", "refresh", { filter: { user: "bob" } });
      assert.equal((await wire.ask({ type: "ping" })).type, "pong");
      await server.control("renewing", "refresh", { filter: { user: "ann" } });
      assert.deepEqual(await wire.next(), expired());
    },
  },
  {
    title: "disconnect closes the clients that it names, and only those",
    async run(server) {
      const wires = await Promise.all(
        ["ann:editor", "bob:editor", "cid:reader"].map((token) => Wire.open(server.port, `/strict?access_token=${token}`)),
      );
      const uids = await Promise.all(wires.map(async (wire) => (await wire.ask({ type: "who" })).data.uid));
      const ended = await server.control("strict", "disconnect", { filter: { user: "ann", role: "reader" } });
      assert.deepEqual(ended, { missing: [], isSent: true });
      assert.equal((await wires[0]!.ask({ type: "ping" })).type, "pong");
      await server.control("strict", "disconnect", { filter: { user: "ann" } });
      assert.equal((await wires[0]!.closed).code, 4403);
      await server.control("strict", "disconnect", { filter: { uid: uids[2] }, code: 4000 });
      assert.equal((await wires[2]!.closed).code, 4000);
      assert.equal((await wires[1]!.ask({ type: "ping" })).type, "pong");
      for (const filter of [{}, { user: "" }, { uid: "" }, { team: "a" }]) {
        assert.match(await server.control("strict", "disconnect", { filter }), /^TypeError: Cannot/);
      }
    },
  },
  {
    title: "disconnect closes a client that is authenticating",
    async run(server) {
      const wire = await Wire.open(server.port, "/handshake");
      wire.send({ type: "auth", access_token: "stall:ann", uid: 1 });
      const upgrading = Wire.begin(server.port, "/handshake?access_token=stall:ann");
      await server.control("handshake", "wait", { event: "stalled", count: 2 });
      await server.control("handshake", "disconnect", { filter: { user: "ann" } });
      await server.control("handshake", "release", { name: "stall:ann" });
      assert.equal((await wire.next()).error.code, "FORBIDDEN");
      assert.equal((await wire.closed).code, 4403);
      await upgrading.answered;
      assert.equal(upgrading.answer.status, 403);
      await Wire.open(server.port, "/handshake?access_token=ann");
    },
  },
];
