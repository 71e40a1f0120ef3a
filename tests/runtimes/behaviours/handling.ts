import assert from "node:assert/strict";
import type { Behaviour } from "../conformance.ts";
import { frames, Wire } from "../wire.ts";

const internal = (type: string, uid?: number) => ({
  type,
  status: "error",
  error: { code: "INTERNAL_ERROR", message: "Something went wrong" },
  ...(uid === undefined ? {} : { uid }),
});

/** Handlers, middleware and listeners of the application. */
export const handling: Behaviour[] = [
  {
    title: "a handler's result is the data of the answer",
    async run({ port }) {
      const wire = await Wire.open(port, "/public");
      assert.deepEqual(await wire.ask({ type: "say", uid: 1, text: "hello" }), {
        type: "say",
        status: "ok",
        uid: 1,
        data: "hello",
      });
      assert.deepEqual(await wire.ask({ type: "keep", state: 1 }), { type: "keep", status: "ok" });
      wire.reset();
    },
  },
  {
    title: "an invalid payload is answered INVALID_PAYLOAD with the path that failed, and the handler does not run",
    async run({ port }) {
      const wire = await Wire.open(port, "/public");
      const wrong: [unknown, string | undefined][] = [
        [{ type: "say", uid: 1, text: 5 }, "text"],
        [{ type: "say", uid: 1 }, "text"],
        [{ type: "say", uid: 1, text: "x".repeat(21) }, "text"],
        [{ type: "say", uid: 1, text: "x", more: 1 }, "more"],
        [{ type: "nested", uid: 1, items: [{ text: "a" }, { text: 2 }] }, "items.1.text"],
      ];
      for (const [message, path] of wrong) {
        const { status, error, uid } = await wire.ask(message);
        assert.deepEqual({ status, code: error.code, path: error.path, uid }, {
          status: "error",
          code: "INVALID_PAYLOAD",
          path,
          uid: 1,
        });
      }
      wire.reset();
    },
  },
  {
    title: "the contents of an invalid payload are not sent back",
    async run({ port }) {
      const wire = await Wire.open(port, "/public");
      wire.send({ type: "say", text: { secret: "x".repeat(5000) } });
      const text = await wire.text();
      assert.ok(text !== null && text.length < 300 && !text.includes("xxx"), `${text}`);
      wire.send({ type: "say", text: "t", ["long-key-".repeat(500)]: 1 });
      assert.ok((await wire.text())!.length < 300);
      wire.reset();
    },
  },
  ...["throw", "reject", "throw-undefined", "hostile-thenable", "cyclic"].map((type): Behaviour => ({
    title: `a handler that fails (${type}) is answered INTERNAL_ERROR without detail and becomes an error event`,
    async run(server) {
      const wire = await Wire.open(server.port, "/public");
      assert.deepEqual(await wire.ask({ type, uid: 9 }), internal(type, 9));
      assert.equal((await server.control("public", "wait", { event: "error" })).length, 1);
      assert.equal((await wire.ask({ type: "ping" })).type, "pong");
      wire.reset();
    },
  })),
  {
    title: "a handler's WebSocketError is answered as it is, with the uid",
    async run(server) {
      const wire = await Wire.open(server.port, "/public");
      assert.deepEqual(await wire.ask({ type: "known", uid: "k" }), {
        type: "known",
        status: "error",
        error: { id: 7, code: "NOT_FOUND", message: "No such thing" },
        uid: "k",
      });
      assert.equal((await wire.ask({ type: "ping" })).type, "pong");
      const log = await server.control("public", "log");
      assert.equal(log.some(({ event }: { event: string }) => event === "error"), false);
      wire.reset();
    },
  },
  {
    title: "a handler that never returns delays no other message",
    async run({ port }) {
      const wire = await Wire.open(port, "/public");
      wire.send({ type: "never" });
      assert.equal((await wire.ask({ type: "say", text: "next" })).data, "next");
      wire.reset();
    },
  },
  {
    title: "handlers of one client overlap, told apart by the uid",
    async run(server) {
      const wire = await Wire.open(server.port, "/public");
      wire.send({ type: "stall", name: "slow", uid: 1 });
      assert.equal((await wire.ask({ type: "say", text: "fast", uid: 2 })).uid, 2);
      await server.control("public", "release", { name: "slow" });
      assert.deepEqual(await wire.next(), { type: "stall", status: "ok", uid: 1, data: "slow" });
      wire.reset();
    },
  },
  {
    title: "a type that nothing handles is answered UNSUPPORTED_TYPE",
    async run({ port }) {
      const wire = await Wire.open(port, "/listening");
      const { type, status, error, uid } = await wire.ask({ type: "no-such-type", uid: 4 });
      assert.deepEqual({ type, status, code: error.code, uid }, {
        type: "no-such-type",
        status: "error",
        code: "UNSUPPORTED_TYPE",
        uid: 4,
      });
      wire.reset();
    },
  },
  {
    title: "a type that only a message listener handles is not answered",
    async run(server) {
      await server.control("listening", "listen", { kind: "record" });
      const wire = await Wire.open(server.port, "/listening");
      assert.deepEqual(await (wire.send({ type: "no-such-type", a: 1 }), wire.ask({ type: "ping" })), { type: "pong" });
      const [{ message }] = await server.control("listening", "wait", { event: "message" });
      assert.deepEqual(message, { type: "no-such-type", a: 1 });
      wire.reset();
    },
  },
  {
    title: "listeners receive neither auth nor ping nor pong",
    async run(server) {
      await server.control("public", "listen", { kind: "record" });
      const wire = await Wire.open(server.port, "/public");
      wire.write(frames({ type: "auth", access_token: "ann" }, { type: "pong" }, { type: "ping" }, { type: "seen" }));
      const heard = await server.control("public", "wait", { event: "message" });
      assert.deepEqual(heard.map(({ message }: { message: unknown }) => message), [{ type: "seen" }]);
      wire.reset();
    },
  },
  ...["throw", "reject", "reject-undefined"].map((kind): Behaviour => ({
    title: `a message listener that fails (${kind}) does not prevent other listeners and becomes an error event`,
    async run(server) {
      await server.control("listening", "listen", { kind });
      const wire = await Wire.open(server.port, "/listening");
      assert.equal((await wire.ask({ type: "say", text: "answered" })).data, "answered");
      await server.control("listening", "wait", { event: "second" });
      const [error] = await server.control("listening", "wait", { event: "error" });
      assert.equal(typeof error.client, "string");
      assert.equal((await wire.ask({ type: "ping" })).type, "pong");
      wire.reset();
    },
  })),
  {
    title: "a connect listener that throws leaves the client connected",
    async run(server) {
      const wire = await Wire.open(server.port, "/public?connect=throw");
      await server.control("public", "wait", { event: "error" });
      assert.equal((await wire.ask({ type: "who" })).data.listed, true);
      wire.reset();
    },
  },
  {
    title: "a close listener that throws becomes an error event",
    async run(server) {
      const wire = await Wire.open(server.port, "/public");
      await wire.ask({ type: "keep", state: "throw in close" });
      await wire.close(1000);
      const [{ error }] = await server.control("public", "wait", { event: "error" });
      assert.match(error, /thrown in close/);
    },
  },
  {
    title: "off removes just the callback it is given, once",
    async run(server) {
      await server.control("public", "listen", { kind: "record" });
      const wire = await Wire.open(server.port, "/public");
      // Added, removed, added twice, removed once: one is left.
      await wire.ask({ type: "removable" });
      await wire.ask({ type: "say", text: "now" });
      assert.equal((await server.control("public", "wait", { event: "removable" })).length, 1);
      assert.equal((await server.control("public", "wait", { event: "message", count: 2 })).length, 2);
      wire.reset();
    },
  },
  {
    title: "middleware can keep a message, replace it, and run after its handler",
    async run(server) {
      const wire = await Wire.open(server.port, "/middleware");
      wire.send({ type: "keep-back" });
      const { type, data } = await wire.ask({ type: "rename", uid: 1 });
      assert.deepEqual({ type, data }, { type: "echo", data: { type: "echo", uid: 1, renamed: true } });
      await wire.ask({ type: "say", text: "after" });
      const [after] = await server.control("middleware", "wait", { event: "after" });
      assert.equal(after.type, "say");
      wire.reset();
    },
  },
  {
    title: "middleware that throws is answered INTERNAL_ERROR, and its WebSocketError as it is",
    async run(server) {
      const wire = await Wire.open(server.port, "/middleware");
      assert.deepEqual(await wire.ask({ type: "mw-throw", uid: 1 }), internal("mw-throw", 1));
      assert.equal((await wire.ask({ type: "mw-forbidden", uid: 2 })).error.code, "FORBIDDEN");
      await server.control("middleware", "wait", { event: "error" });
      assert.equal((await wire.ask({ type: "say", text: "alive" })).data, "alive");
      wire.reset();
    },
  },
  {
    title: "a message that waits in a middleware is not handled once its client is disconnected, although its socket is open",
    async run(server) {
      const wire = await Wire.open(server.port, "/middleware");
      wire.answersClose = false;
      await server.control("middleware", "listen", { kind: "record" });
      const { data: { uid } } = await wire.ask({ type: "who" });
      wire.write(frames({ type: "mw-stall", name: "held", uid: 1 }, { type: "say", text: "behind", uid: 2 }));
      await server.control("middleware", "wait", { event: "stalled" });
      await server.control("middleware", "disconnect", { filter: { uid } });
      await server.control("middleware", "release", { name: "held" });
      const other = await Wire.open(server.port, "/middleware");
      await other.ask({ type: "say", text: "after" });
      const log = await server.control("middleware", "log");
      const heard = log.filter(({ event }: { event: string }) => event === "message");
      assert.deepEqual(heard.map(({ message }: { message: { type: string } }) => message.type), ["who", "say"]);
      assert.equal(heard[1].message.text, "after");
    },
  },
  {
    title: "middleware that awaits lets no later message of the client overtake",
    async run(server) {
      const wire = await Wire.open(server.port, "/middleware");
      const other = await Wire.open(server.port, "/middleware");
      wire.write(
        frames({ type: "mw-stall", name: "first", uid: 1 }, { type: "say", text: "second", uid: 2 }, { type: "ping", uid: 3 }),
      );
      await server.control("middleware", "wait", { event: "stalled" });
      // Nobody else waits for it.
      assert.equal((await other.ask({ type: "say", text: "meanwhile" })).data, "meanwhile");
      await server.control("middleware", "release", { name: "first" });
      assert.deepEqual([(await wire.next()).uid, (await wire.next()).uid, (await wire.next()).uid], [1, 2, 3]);
      wire.reset();
      other.reset();
    },
  },
];
