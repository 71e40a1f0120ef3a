import assert from "node:assert/strict";
import { test } from "node:test";
import { createClient } from "noroshi/client";
import type { contract } from "../src/contract.ts";
import { start, WebSocket } from "./start.ts";

async function logIn(url: string, name: string): Promise<string> {
  const response = await fetch(new URL("/login", url), {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ name }),
  });
  return (await response.json() as { token: string }).token;
}

test("what one says reaches the other, and is there for those who come later", async () => {
  const server = await start();
  const url = new URL("/websocket", server.url);
  const connect = (name: string) => createClient<typeof contract>(url, { token: () => logIn(server.url, name), WebSocket });
  const [ann, ben, eve] = [connect("Ann"), connect("Ben"), connect("Eve")];
  try {
    // A subscription is read like any async iterable: "init" comes first.
    const chat = ben.subscribe("chat", { presence: true })[Symbol.asyncIterator]();
    assert.deepEqual((await chat.next()).value, { event: "init", data: [] });
    await ann.request("say", { text: " Hello " });
    const { value } = await chat.next();
    assert.equal(value?.event, "said");
    assert.deepEqual({ ...value.data, at: 0 }, { from: "Ann", text: "Hello", at: 0 });

    for await (const { event, data } of eve.subscribe("chat")) {
      assert.equal(event, "init");
      assert.deepEqual(data.map(({ text }) => text), ["Hello"]);
      break;
    }
    await assert.rejects(ann.request("say", { text: "" }), { code: "INVALID_PAYLOAD" });
  } finally {
    await Promise.all([ann, ben, eve].map((client) => client.close()));
    await server.stop();
  }
});
