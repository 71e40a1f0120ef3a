import assert from "node:assert/strict";
import type { Behaviour } from "../conformance.ts";
import type { TestServer } from "../server.ts";
import { codeOf, Reader } from "./streaming.ts";

const BOB = "/streaming?access_token=bob";

/** Starts a resumable stream, and returns its name. */
async function start(reader: Reader, steps: unknown[], more: object = {}): Promise<string> {
  reader.send({ type: "lasting", uid: 1, steps, ...more });
  const { type, status, uid, id } = await reader.next();
  assert.deepEqual([type, status, uid, typeof id], ["lasting", "open", 1, "string"]);
  return id;
}

/** Resumes a stream, which is there. */
async function resume(reader: Reader, id: string, after?: number, uid: unknown = 2): Promise<void> {
  reader.send({ type: "stream.resume", uid, id, after });
  assert.deepEqual(await reader.next(), { type: "stream.resume", status: "open", uid, id });
}

/** The items and the end of a stream, as `[status, data, offset]`. */
// deno-lint-ignore no-explicit-any -- a test reads what it expects and fails on the rest
const parts = (messages: any[]) =>
  messages.map(({ status, data, items, offset, error }) => [status, error?.code ?? items ?? data, offset]);

/** Starts a stream of three numbers that waits before the third, and loses its client. */
async function interrupted(server: TestServer): Promise<string> {
  const reader = await Reader.open(server);
  const id = await start(reader, [["yield", 1], ["yield", 2], ["stall", "third"], ["yield", 3], ["return", "end"]]);
  assert.deepEqual(parts(await reader.take(2)), [["next", 1, 1], ["next", 2, 2]]);
  reader.wire.reset();
  return id;
}

/** Waits until the client of a stream is seen to be gone. */
async function gone(reader: Reader): Promise<void> {
  await reader.control("wait", { event: "close" });
}

/** Streams that outlive their connections. */
export const resuming: Behaviour[] = [
  {
    title: "a resumable stream is named first, and its items are numbered",
    async run(server) {
      const reader = await Reader.open(server);
      const id = await start(reader, [["yield", "a"], ["odd", "undefined"], ["return", "end"]]);
      assert.match(id, /^[\da-f-]{36}\/lasting$/);
      assert.deepEqual(parts(await reader.take(3)), [["next", "a", 1], ["next", undefined, 2], ["ok", "end", undefined]]);
    },
  },
  ...[0, 1, 2].map((after): Behaviour => ({
    title: `a resumable stream goes on without its connection, and is resumed after item ${after}`,
    async run(server) {
      const id = await interrupted(server);
      const reader = await Reader.open(server);
      await gone(reader);
      await resume(reader, id, after);
      assert.deepEqual(parts(await reader.take(2 - after)), [["next", 1, 1], ["next", 2, 2]].slice(after));
      await reader.control("release", { name: "third" });
      assert.deepEqual(parts(await reader.take(2)), [["next", 3, 3], ["ok", "end", undefined]]);
      const [{ aborted }] = await reader.finished();
      assert.equal(aborted, false);
    },
  })),
  {
    title: "a resumable stream that ended meanwhile is sent to its end, also twice",
    async run(server) {
      const id = await interrupted(server);
      const reader = await Reader.open(server);
      await gone(reader);
      await reader.control("release", { name: "third" });
      await reader.finished();
      for (const uid of ["a", "b"]) {
        await resume(reader, id, 1, uid);
        assert.deepEqual(parts(await reader.take(3)), [["next", 2, 2], ["next", 3, 3], ["ok", "end", undefined]]);
      }
      await resume(reader, id, 3, "c");
      assert.deepEqual(parts(await reader.take(1)), [["ok", "end", undefined]]);
    },
  },
  {
    title: "a resumable stream ends with its error for a client that comes back, and sends no detail of an unknown one",
    async run(server) {
      for (const [kind, code] of [["known", "NO_MODEL"], ["unknown", "INTERNAL_ERROR"]]) {
        const reader = await Reader.open(server);
        const id = await start(reader, [["yield", 1], ["throw", kind]]);
        assert.deepEqual(parts(await reader.take(2)), [["next", 1, 1], ["error", code, undefined]]);
        await resume(reader, id, 1);
        const end = await reader.next();
        assert.deepEqual(codeOf(end), [2, "error", code]);
        assert.ok(!JSON.stringify(end).includes("secret"));
      }
    },
  },
  {
    title: "texts that a late client has missed are merged into one message, whose offset is that of the last",
    async run(server) {
      const reader = await Reader.open(server);
      const id = await start(reader, [["yield", "a"], ["stall", "rest"], ["yield", "b"], ["yield", "c"], ["return", 1]]);
      await reader.take(1);
      await reader.control("release", { name: "rest" });
      await reader.take(3);
      await resume(reader, id);
      assert.deepEqual(parts(await reader.take(2)), [["next", ["abc"], 3], ["ok", 1, undefined]]);
    },
  },
  {
    title: "two clients of a user read one stream, each with a credit of its own",
    async run(server) {
      const reader = await Reader.open(server);
      const other = await Reader.open(server);
      const id = await start(reader, [["stall", "begin"], ["texts", 150, 1], ["return", "end"]]);
      await resume(other, id);
      await reader.control("release", { name: "begin" });
      assert.equal((await reader.take(63)).at(-1).offset, 63);
      await reader.isQuiet();
      let last = await other.next();
      for (; last.status === "next"; last = await other.next()) {
        if (last.credit) other.send({ type: "stream.credit", uid: 2, credit: last.credit });
      }
      assert.deepEqual([last.status, last.data], ["ok", "end"]);
    },
  },
  {
    title: "a foreign user and an anonymous id are answered as one for which there is no stream, and cannot stop it",
    async run(server) {
      const id = await interrupted(server);
      const foreign = await Reader.open(server, undefined, BOB);
      await gone(foreign);
      const answers = [];
      for (const each of [id, id.replace(/^./, "x"), "nothing", `${crypto.randomUUID()}/lasting`]) {
        foreign.send({ type: "stream.resume", uid: 2, id: each });
        answers.push(await foreign.next());
        foreign.send({ type: "stream.cancel", id: each });
      }
      assert.equal(answers[0].error.code, "STREAM_LOST");
      for (const answer of answers) assert.deepEqual(answer, answers[0]);
      await foreign.isQuiet();
      const reader = await Reader.open(server);
      await resume(reader, id, 2);
      await reader.control("release", { name: "third" });
      assert.deepEqual(parts(await reader.take(2)), [["next", 3, 3], ["ok", "end", undefined]]);
    },
  },
  {
    title: "authorize decides who reads a stream, by its user",
    async run(server) {
      const reader = await Reader.open(server);
      reader.send({ type: "shared", uid: 1, steps: [["yield", 1], ["stall", "shared"], ["return", 2]] });
      const [{ id }] = await reader.take(2);
      reader.send({ type: "stream.resume", uid: 2, id });
      assert.deepEqual(codeOf(await reader.next()), [2, "error", "STREAM_LOST"]);
      const bob = await Reader.open(server, undefined, BOB);
      await resume(bob, id);
      assert.deepEqual(parts(await bob.take(1)), [["next", 1, 1]]);
      await reader.control("release", { name: "shared" });
      assert.deepEqual(parts(await bob.take(1)), [["ok", 2, undefined]]);
    },
  },
  ...["uid", "id", "id, without a client"].map((how): Behaviour => ({
    title: `stream.cancel stops a resumable stream (${how})`,
    async run(server) {
      const reader = await Reader.open(server);
      const other = await Reader.open(server);
      const id = await start(reader, [["yield", 1], ["aborted"], ["return", "stopped"]]);
      await reader.take(1);
      if (how === "id, without a client") {
        reader.wire.reset();
        await gone(other);
      }
      other.send({ type: "stream.cancel", ...(how === "uid" ? { uid: 1 } : { id }) });
      await other.isQuiet();
      if (how === "uid") reader.send({ type: "stream.cancel", uid: 1 });
      if (how !== "id, without a client") assert.deepEqual(parts(await reader.take(1)), [["ok", "stopped", undefined]]);
      const [{ code }] = await other.finished();
      assert.equal(code, "CANCELLED");
      await resume(other, id);
      assert.deepEqual(parts(await other.take(2)), [["next", 1, 1], ["ok", "stopped", undefined]]);
    },
  })),
  {
    title: "stream.cancel with an id is read once in a wait, when the client has used up its rate",
    async run(server) {
      const reader = await Reader.open(server, undefined, "/streamlimited");
      const ids = [];
      for (const uid of [1, 2]) {
        reader.send({ type: "lasting", uid, steps: [["yield", 1], ["aborted"], ["return", "stopped"]] });
        ids.push((await reader.take(2))[0].id);
      }
      for (let answer = { type: "pong" }; answer.type === "pong"; answer = await reader.next()) {
        reader.send({ type: "ping", uid: 3 });
      }
      for (const id of ids) reader.send({ type: "stream.cancel", id });
      assert.deepEqual(parts(await reader.take(1)), [["ok", "stopped", undefined]]);
      // It has cost what others do.
      await server.control("streamlimited", "advance", { ms: 1_000 });
      reader.send({ type: "ping", uid: 4 });
      assert.equal((await reader.next()).error.code, "REQUESTS_EXCEEDED");
      assert.equal((await server.control("streamlimited", "stats")).streams, 1);
      await server.control("streamlimited", "advance", { ms: 1_100 });
      reader.send({ type: "stream.cancel", id: ids[1] });
      assert.deepEqual(parts(await reader.take(1)), [["ok", "stopped", undefined]]);
    },
  },
  {
    title: "a resumable stream that no client has read for ttl ends with STREAM_LOST, after what was kept",
    async run(server) {
      const reader = await Reader.open(server);
      const other = await Reader.open(server);
      const id = await start(reader, [["yield", 1], ["aborted"]]);
      await reader.take(1);
      await reader.control("advance", { ms: 60_000 });
      reader.wire.reset();
      await gone(other);
      await other.control("advance", { ms: 29_000 });
      assert.equal(await other.streams(), 1);
      await other.control("advance", { ms: 1_000 });
      const [{ code }] = await other.finished();
      assert.equal(code, "STREAM_LOST");
      await resume(other, id);
      assert.deepEqual(parts(await other.take(2)), [["next", 1, 1], ["error", "STREAM_LOST", undefined]]);
      assert.equal(await other.streams(), 0);
    },
  },
  {
    title: "a stream whose items are not kept any more is answered STREAM_LOST, and not sent with a gap",
    async run(server) {
      const reader = await Reader.open(server);
      const id = await start(reader, [["texts", 150, 1], ["return", "end"]]);
      let last = await reader.next();
      for (; last.status === "next"; last = await reader.next()) {
        if (last.credit) reader.send({ type: "stream.credit", uid: 1, credit: last.credit });
      }
      reader.send({ type: "stream.resume", uid: 2, id, after: 10 });
      assert.deepEqual(codeOf(await reader.next()), [2, "error", "STREAM_LOST"]);
      await resume(reader, id, 145, 3);
      const rest = await reader.take(2);
      assert.deepEqual([rest[0].items?.join("").length, rest[0].offset, rest[1].data], [5, 150, "end"]);
    },
  },
  {
    title: "a generator is at most size items ahead of the fastest client",
    async run(server) {
      const reader = await Reader.open(server);
      await start(reader, [["texts", null, 1]]);
      await reader.take(63);
      await reader.isQuiet();
      assert.equal(await reader.yielded(), 63 + 99);
      reader.send({ type: "stream.credit", uid: 1, credit: 32 });
      await reader.take(32);
      assert.equal(await reader.yielded(), 63 + 99 + 32);
    },
  },
  {
    title: "stream.list names the running streams of the user, and nobody else's",
    async run(server) {
      const id = await interrupted(server);
      const reader = await Reader.open(server);
      await gone(reader);
      reader.send({ type: "stream.list", uid: "l" });
      assert.deepEqual(await reader.next(), {
        type: "stream.list",
        status: "ok",
        uid: "l",
        data: [{ id, type: "lasting", key: "stream" }],
      });
      const foreign = await Reader.open(server, undefined, BOB);
      foreign.send({ type: "stream.list", uid: "l" });
      assert.deepEqual((await foreign.next()).data, []);
      await reader.control("release", { name: "third" });
      await reader.finished();
      reader.send({ type: "stream.list", uid: "l" });
      assert.deepEqual((await reader.next()).data, []);
    },
  },
  {
    title: "a resumable stream ends with FORBIDDEN when the role of its client changes",
    async run(server) {
      const reader = await Reader.open(server, undefined, "/streaming?access_token=ann:editor");
      await start(reader, [["yield", 1], ["aborted"], ["return", "secret result"]]);
      await reader.take(1);
      await reader.control("plan", { plan: "demote" });
      await reader.control("refresh");
      assert.deepEqual(codeOf(await reader.next()), [1, "error", "FORBIDDEN"]);
      const [{ code }] = await reader.finished();
      assert.equal(code, "FORBIDDEN");
    },
  },
  {
    title: "streams without a client count against the limit of the user, and those of another do not",
    async run(server) {
      const reader = await Reader.open(server);
      for (let uid = 1; uid <= 32; uid++) reader.send({ type: "lasting", uid, steps: [["stall", "many"]] });
      await reader.take(32);
      reader.wire.reset();
      const other = await Reader.open(server);
      await gone(other);
      // Those of the connection that is gone count once the server has detached them all.
      let asked = 0;
      for (let status = "open"; status === "open";) {
        other.send({ type: "lasting", uid: ++asked, steps: [["return", 1]] });
        const answer = await other.next();
        status = answer.status;
        if (status === "open") await other.next();
        else assert.deepEqual(codeOf(answer), [asked, "error", "LIMIT_EXCEEDED"]);
      }
      const foreign = await Reader.open(server, undefined, BOB);
      foreign.send({ type: "lasting", uid: 1, steps: [["return", 1]] });
      assert.deepEqual((await foreign.take(2)).map(({ status }) => status), ["open", "ok"]);
      await other.control("release", { name: "many" });
      await other.finished(32 + asked);
      other.send({ type: "lasting", uid: 1, steps: [["return", 1]] });
      assert.deepEqual((await other.take(2)).map(({ status }) => status), ["open", "ok"]);
    },
  },
  {
    title: "stream.resume is refused with a position that is no number, and with one ahead of the stream",
    async run(server) {
      const reader = await Reader.open(server);
      const id = await start(reader, [["yield", 1], ["return", 2]]);
      await reader.take(2);
      for (const after of [-1, 1.5, "1", null]) {
        reader.send({ type: "stream.resume", uid: 2, id, after });
        assert.deepEqual(codeOf(await reader.next()), [2, "error", "INVALID_PAYLOAD"]);
      }
      reader.send({ type: "stream.resume", uid: 2, id, after: 3 });
      assert.deepEqual(codeOf(await reader.next()), [2, "error", "STREAM_LOST"]);
    },
  },
];
