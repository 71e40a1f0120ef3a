import assert from "node:assert/strict";
import { WebSocket } from "ws";
import { ClientError, createClient } from "../../../src/client/client.ts";
import { streams } from "../../../src/client/streams.ts";
import { PATIENT } from "../../support/patient.ts";
import type { Behaviour } from "../conformance.ts";
import type { TestServer } from "../server.ts";
import { codeOf, Reader, V1 } from "./streaming.ts";

/** Numbers the input of a request. */
class Sender {
  readonly reader: Reader;
  readonly uid: unknown;
  #last = 0;

  private constructor(reader: Reader, uid: unknown) {
    this.reader = reader;
    this.uid = uid;
  }

  /** Sends the request, and waits until the handler reads. */
  static async start(reader: Reader, type: string, payload: object = {}, uid: unknown = 1): Promise<Sender> {
    reader.send({ type, uid, ...payload });
    if (!("before" in payload)) assert.equal((await reader.next()).type, "stream.credit");
    return new Sender(reader, uid);
  }

  input(...items: unknown[]): void {
    for (const data of items) this.reader.send({ type: "stream.input", uid: this.uid, item: ++this.#last, data });
  }

  end(error?: object): void {
    this.reader.send({ type: "stream.end", uid: this.uid, item: ++this.#last, ...(error && { error }) });
  }
}

/** Reads as far as the end of a stream. Returns the items, and the end. */
// deno-lint-ignore no-explicit-any -- a test reads what it expects and fails on the rest
async function readAll(reader: Reader): Promise<{ items: unknown[]; end: any }> {
  const items: unknown[] = [];
  for (;;) {
    const message = await reader.next();
    if (message.type === "stream.credit" || message.type === "stream.cancel") continue;
    if (message.status !== "next") return { items, end: message };
    items.push(message.data);
  }
}

function connect({ port }: TestServer) {
  const options = { WebSocket: WebSocket as never, streams, ...PATIENT }; // As the client uses it.
  return createClient(`ws://127.0.0.1:${port}/streaming?access_token=ann`, options);
}

/** What clients send after a request: how far they may be ahead of the handler, and how it ends. */
export const inputs: Behaviour[] = [
  ...([["noroshi.v1", V1], ["a bare client", {}]] as const).map(([title, options]): Behaviour => ({
    title: `input is read item by item, and the request is answered at its end (${title})`,
    async run(server) {
      const reader = await Reader.open(server, options);
      reader.send({ type: "gather", uid: 1 });
      const { type, uid, item, bytes } = await reader.next();
      assert.deepEqual([type, uid, item], ["stream.credit", 1, 32]);
      assert.ok(bytes >= 65_536);
      for (const [n, data] of [7, "text", 9].entries()) reader.send({ type: "stream.input", uid: 1, item: n + 1, data });
      reader.send({ type: "stream.end", uid: 1, item: 4 });
      assert.deepEqual(await reader.next(), {
        type: "gather",
        status: "ok",
        uid: 1,
        data: { items: [7, 4, 9], end: "read 3" },
      });
      await reader.isQuiet();
      assert.equal((await reader.finished()).length, 1);
    },
  })),
  {
    title: "a stream with input is answered item by item while its input goes on",
    async run(server) {
      const reader = await Reader.open(server);
      const sender = await Sender.start(reader, "convert");
      for (const n of [1, 2, 3]) {
        sender.input(n);
        assert.deepEqual(await reader.next(), { type: "convert", status: "next", uid: 1, data: n });
      }
      sender.end();
      assert.deepEqual(await reader.next(), { type: "convert", status: "ok", uid: 1, data: "read 3" });
      assert.equal(await reader.streams(), 0);
    },
  },
  {
    title: "input of more items than the credit is granted as the handler reads, in order",
    async run(server) {
      const reader = await Reader.open(server);
      reader.send({ type: "gather", uid: 1 });
      let granted = 0;
      for (let item = 1; item <= 100; item++) {
        while (item > granted) granted = (await reader.next()).item;
        reader.send({ type: "stream.input", uid: 1, item, data: item });
      }
      reader.send({ type: "stream.end", uid: 1, item: 101 });
      const { end } = await readAll(reader);
      assert.deepEqual(end.data.items, Array.from({ length: 100 }, (_, n) => n + 1));
    },
  },
  {
    title: "input may end before the handler reads it",
    async run(server) {
      const reader = await Reader.open(server);
      const sender = await Sender.start(reader, "gather", { before: "input" });
      await reader.control("wait", { event: "stalled" });
      sender.end();
      await reader.isQuiet();
      await reader.control("release", { name: "input" });
      assert.deepEqual((await readAll(reader)).end.data, { items: [], end: "read 0" });
    },
  },
  {
    title: "a handler may answer before its input ends: later items are ignored, and the uid is free",
    async run(server) {
      const reader = await Reader.open(server);
      const sender = await Sender.start(reader, "gather", { limit: 2 });
      sender.input(1, 2, 3);
      assert.deepEqual((await readAll(reader)).end.data, { items: [1, 2], end: "read 2" });
      sender.input(4);
      sender.end();
      await reader.isQuiet();
      const next = await Sender.start(reader, "gather");
      next.end();
      assert.deepEqual((await readAll(reader)).end.data.items, []);
    },
  },
  {
    title: "a handler that stops reading asks the client to stop, and answers later",
    async run(server) {
      const reader = await Reader.open(server);
      const sender = await Sender.start(reader, "gather", { limit: 1, after: "input" });
      sender.input(1);
      assert.deepEqual(await reader.next(), { type: "stream.cancel", uid: 1 });
      sender.input(2);
      await reader.isQuiet();
      await reader.control("release", { name: "input" });
      assert.equal((await reader.next()).data.end, "read 1");
    },
  },
  {
    title: "an item that the schema refuses ends the stream with INVALID_PAYLOAD, after the items before it",
    async run(server) {
      const reader = await Reader.open(server);
      const sender = await Sender.start(reader, "convert");
      sender.input(1, { secret: 1 }, 3);
      const { items, end } = await readAll(reader);
      assert.deepEqual([items, codeOf(end), end.error.item], [[1], [1, "error", "INVALID_PAYLOAD"], 2]);
      assert.ok(!JSON.stringify(end).includes("secret"));
      await reader.isQuiet();
      assert.equal((await reader.finished()).length, 1);
      assert.ok(!(await reader.control("log") as { event: string }[]).some(({ event }) => event === "error"));
    },
  },
  {
    title: "a handler that catches what the schema refuses answers all the same",
    async run(server) {
      const reader = await Reader.open(server);
      const sender = await Sender.start(reader, "gather", { catches: true });
      sender.input(1, null);
      assert.deepEqual((await readAll(reader)).end.data, { items: [1], end: "INVALID_PAYLOAD" });
    },
  },
  ...[false, true].map((catches): Behaviour => ({
    title: `input that ends with an error fails with its code, ${
      catches ? "and the handler may answer all the same" : "and so does the stream"
    }`,
    async run(server) {
      const reader = await Reader.open(server);
      const sender = await Sender.start(reader, "convert", { catches });
      sender.input(1);
      sender.end({ code: "NO_MICROPHONE", message: "secret" });
      const { items, end } = await readAll(reader);
      assert.deepEqual(items, [1]);
      if (catches) assert.equal(end.data, "NO_MICROPHONE");
      else assert.deepEqual(codeOf(end), [1, "error", "NO_MICROPHONE"]);
      assert.ok(!JSON.stringify(end).includes("secret"));
    },
  })),
  ...["gather", "convert", "unread"].map((type): Behaviour => ({
    title: `a cancel before the first item of the input is answered CANCELLED (${type})`,
    async run(server) {
      const reader = await Reader.open(server);
      reader.send({ type, uid: 1 });
      if (type !== "unread") assert.equal((await reader.next()).type, "stream.credit");
      reader.send({ type: "stream.cancel", uid: 1 });
      assert.deepEqual(codeOf(await reader.next()), [1, "error", "CANCELLED"]);
      const [{ aborted, code }] = await reader.finished();
      assert.deepEqual([aborted, code], [true, "CANCELLED"]);
      await reader.isQuiet();
    },
  })),
  {
    title: "a handler that never reads grants nothing: a client that sends loses the stream, and not the connection",
    async run(server) {
      const reader = await Reader.open(server);
      reader.send({ type: "unread", uid: 1 });
      await reader.isQuiet();
      reader.send({ type: "stream.input", uid: 1, item: 1, data: 1 });
      assert.deepEqual(codeOf(await reader.next()), [1, "error", "LIMIT_EXCEEDED"]);
      const [{ code }] = await reader.finished();
      assert.equal(code, "LIMIT_EXCEEDED");
      await reader.isQuiet();
    },
  },
  ...["items", "bytes"].map((kind): Behaviour => ({
    title: `a handler that stops reading holds no more than the credit (${kind}): a client that sends more loses the stream`,
    async run(server) {
      const reader = await Reader.open(server);
      reader.send({ type: "gather", uid: 1, between: "stopped" });
      const credit = await reader.next();
      const data = kind === "items" ? 1 : "x".repeat(60_000);
      let [item, bytes] = [0, 0];
      const send = () => {
        const message = { type: "stream.input", uid: 1, item: ++item, data };
        bytes += JSON.stringify(message).length;
        reader.send(message);
      };
      send();
      await reader.control("wait", { event: "stalled" });
      while (item < credit.item && bytes < credit.bytes) send();
      await reader.isQuiet();
      send();
      await reader.isQuiet();
      await reader.control("release", { name: "stopped" });
      assert.deepEqual(codeOf(await reader.next()), [1, "error", "LIMIT_EXCEEDED"]);
      const [{ count, code }] = await reader.finished();
      assert.deepEqual([count, code], [1, "LIMIT_EXCEEDED"]);
      await reader.isQuiet();
    },
  })),
  {
    title: "a missing item ends the stream with INVALID_PAYLOAD",
    async run(server) {
      const reader = await Reader.open(server);
      await Sender.start(reader, "gather");
      reader.send({ type: "stream.input", uid: 1, item: 2, data: 1 });
      const { uid, error } = await reader.next();
      assert.deepEqual([uid, error.code, error.path], [1, "INVALID_PAYLOAD", "item"]);
      await reader.isQuiet();
    },
  },
  {
    title: "input is ignored for a uid that no request has, and ends a stream that takes none",
    async run(server) {
      const reader = await Reader.open(server);
      for (const uid of [7, "7"]) {
        reader.send({ type: "stream.input", uid, item: 1, data: 1 });
        reader.send({ type: "stream.end", uid, item: 2 });
      }
      await reader.isQuiet();
      reader.run(1, [["aborted"]]);
      reader.send({ type: "stream.input", uid: 1, item: 1, data: 1 });
      assert.deepEqual(codeOf(await reader.next()), [1, "error", "INVALID_PAYLOAD"]);
      for (const type of ["stream.input", "stream.end"]) {
        reader.send({ type, item: 1 });
        const { error } = await reader.next();
        assert.deepEqual([error.code, error.path], ["INVALID_PAYLOAD", "uid"]);
      }
    },
  },
  {
    title: "a request with input has a uid of its own, and counts as a stream of the client",
    async run(server) {
      const reader = await Reader.open(server);
      reader.send({ type: "gather" });
      assert.deepEqual(codeOf(await reader.next()), [undefined, "error", "INVALID_PAYLOAD"]);
      const first = await Sender.start(reader, "gather");
      reader.send({ type: "gather", uid: 1 });
      assert.deepEqual(codeOf(await reader.next()), [1, "error", "INVALID_PAYLOAD"]);
      for (let uid = 2; uid <= 32; uid++) await Sender.start(reader, "gather", {}, uid);
      reader.send({ type: "gather", uid: 33 });
      assert.deepEqual(codeOf(await reader.next()), [33, "error", "LIMIT_EXCEEDED"]);
      first.end();
      assert.equal((await reader.next()).data.end, "read 0");
      await Sender.start(reader, "gather", {}, 33);
    },
  },
  ...["reset", "close", "disconnect"].map((how): Behaviour => ({
    title: `input fails with DISCONNECTED when its connection ends (${how})`,
    async run(server) {
      const reader = await Reader.open(server);
      await Sender.start(reader, "convert", {}, 1);
      const second = await Sender.start(reader, "gather", {}, 2);
      second.input(1);
      if (how === "reset") reader.wire.reset();
      else if (how === "close") await reader.wire.close(1000);
      else await reader.control("disconnect", { filter: { user: "ann" } });
      const ends = await reader.finished(2);
      assert.ok(ends.every(({ aborted, code }) => aborted && code === "DISCONNECTED"), JSON.stringify(ends));
      assert.equal(await reader.streams(), 0);
      assert.ok(!(await reader.control("log") as { event: string }[]).some(({ event }) => event === "error"));
    },
  })),
  {
    title: "input that comes while the credentials are expired waits, and is read once they are renewed",
    async run(server) {
      const reader = await Reader.open(server, V1, "/streaming?access_token=ann::60");
      const sender = await Sender.start(reader, "convert");
      await reader.control("advance", { ms: 60_000 });
      assert.equal((await reader.next()).error.code, "TOKEN_EXPIRED");
      sender.input(1);
      sender.end();
      await reader.isQuiet();
      reader.send({ type: "auth", uid: "a", access_token: "ann" });
      assert.deepEqual((await reader.take(3)).map(({ status, data }) => [status, data]), [
        ["ok", undefined],
        ["next", 1],
        ["ok", "read 1"],
      ]);
    },
  },
  {
    title: "a refresh that takes a role away ends a stream with open input with FORBIDDEN",
    async run(server) {
      const reader = await Reader.open(server, V1, "/streaming?access_token=ann:editor");
      await Sender.start(reader, "gather");
      await reader.control("plan", { plan: "demote" });
      await reader.control("refresh");
      assert.deepEqual(codeOf(await reader.next()), [1, "error", "FORBIDDEN"]);
      await reader.isQuiet();
    },
  },
  {
    title: "items of input may have 1 MiB, and each is granted",
    async run(server) {
      const reader = await Reader.open(server, V1, "/streamlarge");
      reader.send({ type: "gather", uid: 1 });
      let granted = 0;
      let sent = 0;
      for (let item = 1; item <= 6; item++) {
        while (sent >= granted) granted = (await reader.next()).bytes;
        const message = { type: "stream.input", uid: 1, item, data: "x".repeat(1_048_576) };
        sent += JSON.stringify(message).length;
        reader.send(message);
      }
      reader.send({ type: "stream.end", uid: 1, item: 7 });
      assert.deepEqual((await readAll(reader)).end.data.items, new Array(6).fill(1_048_576));
    },
  },
  {
    title: "noroshi/client sends the input of a stream while it reads the answer, and 300 items arrive in order",
    async run(server) {
      const client = connect(server);
      try {
        const stream = client.stream("convert", {}, { input: numbers(300) });
        let last = 0;
        for await (const item of stream) assert.equal(item, ++last);
        assert.deepEqual([last, await stream.result], [300, "read 300"]);
      } finally {
        await client.close();
      }
    },
  },
  {
    title: "an input that throws at noroshi/client ends the stream with what it has thrown, unless the handler answers",
    async run(server) {
      const client = connect(server);
      try {
        const error = new ClientError("NO_MICROPHONE", "No microphone");
        const input = () => numbers(2, error);
        const stream = client.stream("gather", {}, { input: input() });
        await assert.rejects(stream.result, (thrown) => thrown === error);
        const answered = client.stream("gather", { catches: true }, { input: input() });
        assert.deepEqual(await answered.result, { items: [1, 2], end: "NO_MICROPHONE" });
      } finally {
        await client.close();
      }
    },
  },
  {
    title: "noroshi/client ends its input when the handler stops reading, and when the stream is cancelled",
    async run(server) {
      const client = connect(server);
      try {
        const input = numbers(Infinity);
        const stream = client.stream("convert", { limit: 3 }, { input });
        const items = [];
        for await (const item of stream) items.push(item);
        assert.deepEqual([items, await stream.result, (await input.next()).done], [[1, 2, 3], "read 3", true]);
        const other = numbers(Infinity);
        const cancelled = client.stream("convert", {}, { input: other });
        for await (const item of cancelled) if (item === 2) break;
        await assert.rejects(cancelled.result, { code: "CANCELLED" });
        assert.equal((await other.next()).done, true);
      } finally {
        await client.close();
      }
    },
  },
];

async function* numbers(count: number, error?: Error): AsyncGenerator<number> {
  for (let n = 1; n <= count; n++) yield n;
  if (error) throw error;
}
