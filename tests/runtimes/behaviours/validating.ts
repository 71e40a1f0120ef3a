import assert from "node:assert/strict";
import { begin, channelOf, codeOf, connect, said, take } from "../channel-client.ts";
import type { Behaviour } from "../conformance.ts";
import { frames, Wire } from "../wire.ts";

/** Payloads and publications under schemas of each library. */
export const validating: Behaviour[] = [
  ...["valibot", "zod", "arktype"].map((library): Behaviour => ({
    title: `a schema of ${library} validates a payload, and its issues stay with the server but for a path`,
    async run({ port }) {
      const wire = await Wire.open(port, "/public");
      const type = `say-${library}`;
      assert.deepEqual(await wire.ask({ type, uid: 1, items: [{ text: " a " }, { text: "b" }] }), {
        type,
        status: "ok",
        uid: 1,
        data: ["a", "b"],
      });
      for (const text of [7, ["s3cr3t"], "s3cr3t".repeat(10)]) {
        assert.deepEqual(await wire.ask({ type, uid: 2, items: [{ text: "a" }, { text }] }), {
          type,
          status: "error",
          error: { path: "items.1.text", code: "INVALID_PAYLOAD", message: 'Invalid payload at "items.1.text"' },
          uid: 2,
        });
      }
      wire.reset();
    },
  })),
  ...["valibot", "zod"].flatMap((library): Behaviour[] => [
    {
      title: `an asynchronous schema of ${library} lets no later message of the client overtake, and holds no other client`,
      async run(server) {
        const wire = await Wire.open(server.port, "/public");
        const other = await Wire.open(server.port, "/public");
        const type = `later-${library}`;
        wire.write(frames({ type, text: "first", uid: 1 }, { type: "say", text: "second", uid: 2 }, { type: "ping", uid: 3 }));
        await server.control("public", "wait", { event: "stalled", name: "first" });
        assert.equal((await other.ask({ type: "say", text: "meanwhile" })).data, "meanwhile");
        await server.control("public", "release", { name: "first" });
        assert.deepEqual(await take(wire, 3), [
          { type, status: "ok", uid: 1, data: "first" },
          { type: "say", status: "ok", uid: 2, data: "second" },
          { type: "pong", uid: 3 },
        ]);
        wire.reset();
        other.reset();
      },
    },
    {
      title: `an asynchronous schema of ${library} refuses with the path, and one that rejects is an error event`,
      async run(server) {
        const wire = await Wire.open(server.port, "/public");
        const type = `later-${library}`;
        wire.send({ type, text: "wrong", uid: 1 });
        await server.control("public", "wait", { event: "stalled", name: "wrong" });
        await server.control("public", "release", { name: "wrong" });
        const { error } = await wire.next();
        assert.deepEqual([error.code, error.path], ["INVALID_PAYLOAD", "text"]);
        assert.deepEqual(codeOf(await wire.ask({ type, text: "reject", uid: 2 })), [type, "error", "INTERNAL_ERROR", 2]);
        assert.equal((await server.control("public", "wait", { event: "error" })).length, 1);
        assert.equal((await wire.ask({ type: "say", text: "alive" })).data, "alive");
        wire.reset();
      },
    },
    {
      title: `an asynchronous schema of ${library} keeps the order of a client's publications to a channel`,
      async run(server) {
        const channel = channelOf(`later-${library}`);
        const wire = await connect(server);
        await begin(wire, channel);
        for (const text of [`${channel} slow`, "wrong", "fast"]) {
          wire.send({ type: "publish", channel, event: "say", data: { text } });
        }
        await server.control("channels", "wait", { event: "stalled", name: `${channel} slow` });
        await server.control("channels", "release", { name: `${channel} slow` });
        const messages = await take(wire, 5);
        const [first, ok, wrong, second] = messages;
        assert.deepEqual(first, said(channel, { text: `${channel} slow` }, { offset: 1 }));
        assert.equal(ok.offset, 1);
        assert.deepEqual([...codeOf(wrong), wrong.error.path], ["publish", "error", "INVALID_PAYLOAD", "data.text"]);
        assert.deepEqual(second, said(channel, { text: "fast" }, { offset: 2 }));
      },
    },
  ]),
  ...["valibot", "zod", "arktype"].map((library): Behaviour => ({
    title: `a schema of ${library} validates a publication`,
    async run(server) {
      const channel = channelOf(`say-${library}`);
      const wire = await connect(server);
      await begin(wire, channel);
      const publish = (data: unknown) => wire.ask({ type: "publish", channel, event: "say", data, uid: 1 });
      const refused = await publish({ items: [{ text: "a" }, { text: "s3cr3t".repeat(10) }] });
      assert.deepEqual([...codeOf(refused), refused.error.path], [
        "publish",
        "error",
        "INVALID_PAYLOAD",
        1,
        "data.items.1.text",
      ]);
      assert.doesNotMatch(JSON.stringify(refused), /s3cr3t/);
      assert.deepEqual(await publish({ items: [{ text: " a " }] }), said(channel, { items: [{ text: "a" }] }));
    },
  })),
];
