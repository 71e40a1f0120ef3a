import assert from "node:assert/strict";
import { test } from "node:test";
import { createClient } from "noroshi/client";
import { logIn, start } from "./start.ts";

test("a session has the user that logged in, and a wrong password begins none", async () => {
  const { url, stop } = await start();
  try {
    await assert.rejects(logIn(url, "ann", "a guess"), /401/);
    await assert.rejects(logIn(url, "nobody"), /401/);
    const cookie = `session=${await logIn(url, "ann")}`;
    const response = await fetch(new URL("/session", url), {
      headers: { cookie },
    });
    assert.deepEqual(await response.json(), { user: "ann" });
  } finally {
    await stop();
  }
});

test("a client without a session is not let in", async () => {
  const { url, stop } = await start();
  try {
    await assert.rejects(
      createClient(new URL("/websocket", url), { reconnect: false }).ready,
    );
    // A page sends its cookie. A client without cookies sends the same token in the upgrade request.
    const ann = createClient(new URL("/websocket", url), {
      token: await logIn(url, "ann"),
      tokenIn: "protocol",
    });
    await ann.ready;
    await ann.close();
  } finally {
    await stop();
  }
});
