/** A page that is put aside with its connection (the back/forward cache) and comes back, or does not. */
import assert from "node:assert/strict";
import { afterEach, beforeEach, describe, it } from "node:test";
import { connectFake } from "../support/fake-server.ts";
import { Stall, turn } from "../support/waiting.ts";

const page = globalThis as unknown as Record<string, unknown>;

describe("A client in a page of the back/forward cache", () => {
  let target: EventTarget;
  let before: Record<string, unknown>;

  beforeEach(() => {
    before = { addEventListener: page["addEventListener"], removeEventListener: page["removeEventListener"] };
    target = new EventTarget();
    page["addEventListener"] = target.addEventListener.bind(target);
    page["removeEventListener"] = target.removeEventListener.bind(target);
  });
  afterEach(() => {
    for (const [name, value] of Object.entries(before)) {
      if (value === undefined) delete page[name];
      else page[name] = value;
    }
  });

  const dispatch = (event: "pagehide" | "pageshow", persisted = true) =>
    target.dispatchEvent(Object.assign(new Event(event), { persisted }));

  it("closes without leaving when the page enters the back/forward cache, and reconnects with it", async () => {
    const { client, clock, sockets, admit, socket, take } = connectFake();
    const first = await admit();
    client.subscribe("news", { onEvent: () => {} });
    const [{ uid }] = first.take();
    first.receive({ type: "subscription", event: "init", channel: "news", uid, epoch: "e", offset: 7 });
    take();
    dispatch("pagehide");
    // 1000 would say that the client has left.
    assert.deepEqual([client.status, first.closedWith?.code, take("close").map(({ isFinal }) => isFinal)], ["waiting", 4000, [
      false,
    ]]);
    clock.advance(3_600_000);
    await turn();
    assert.equal(sockets.length, 1);
    const asked = client.request("ask", { n: 1 }, { timeout: 0 });
    dispatch("pageshow");
    assert.equal(client.status, "connecting");
    const second = await admit();
    const [subscribe, ask] = second.take();
    assert.deepEqual([sockets.length, subscribe.uid, subscribe.recover, ask.n], [2, uid, { epoch: "e", offset: 7 }, 1]);
    second.receive({ type: "ask", status: "ok", uid: ask.uid, data: 2 });
    assert.equal(await asked, 2);
    dispatch("pagehide");
    dispatch("pagehide");
    dispatch("pageshow");
    await admit();
    assert.deepEqual([sockets.length, client.status, await socket()], [3, "open", sockets[2]]);
  });

  it("leaves a page that is unloaded, or shown at first, to the browser", async () => {
    const { client, sockets, admit } = connectFake();
    dispatch("pageshow", false);
    const socket = await admit();
    dispatch("pageshow", false);
    dispatch("pagehide", false);
    await turn();
    assert.deepEqual([client.status, socket.closedWith, socket.take(), sockets.length], ["open", undefined, [], 1]);
  });

  it("opens nothing with a token that comes while the page is put aside", async () => {
    const tokens: Stall<string>[] = [];
    const { client, sockets } = connectFake({
      token: () => {
        const stall = new Stall<string>();
        tokens.push(stall);
        return stall.promise;
      },
    });
    dispatch("pagehide");
    tokens[0]!.resolve("of then");
    await turn();
    assert.deepEqual([sockets.length, client.status], [0, "waiting"]);
    dispatch("pageshow");
    tokens[1]!.resolve("of now");
    await turn();
    assert.equal(sockets.length, 1);
    sockets[0]!.open();
    assert.equal(JSON.parse(sockets[0]!.sent[0]!).access_token, "of now");
    sockets[0]!.letIn();
    assert.equal(client.status, "open");
  });

  it("gives up a connection that was not open yet, and tries nothing that it waited for", async () => {
    const { client, clock, sockets, socket, admit } = connectFake();
    const first = await socket();
    dispatch("pagehide");
    assert.deepEqual([client.status, first.readyState], ["waiting", 2]);
    dispatch("pageshow");
    (await admit()).end();
    assert.equal(client.status, "waiting");
    dispatch("pagehide");
    clock.advance(3_600_000);
    await turn();
    assert.deepEqual([client.status, sockets.length], ["waiting", 2]);
    dispatch("pageshow");
    await admit();
    assert.deepEqual([client.status, sockets.length], ["open", 3]);
  });

  it("waits, back again, as long as the server has asked for", async () => {
    const { client, clock, sockets, admit } = connectFake({ random: () => 0 });
    const error = { code: "SERVICE_UNAVAILABLE", message: "", retry_after: 60_000 };
    (await admit()).receive({ type: "server", status: "error", error });
    dispatch("pagehide");
    dispatch("pageshow");
    clock.advance(59_999);
    await turn();
    assert.deepEqual([client.status, sockets.length], ["waiting", 1]);
    clock.advance(1);
    await turn();
    assert.deepEqual([client.status, sockets.length], ["connecting", 2]);
  });

  it("stays closed where it was closed", async () => {
    for (const isHidden of [false, true]) {
      const { client, clock, sockets, admit, take } = connectFake();
      await admit();
      if (isHidden) dispatch("pagehide");
      void client.close();
      assert.equal(client.status, "closed");
      take();
      dispatch("pagehide");
      dispatch("pageshow");
      clock.advance(3_600_000);
      await turn();
      assert.deepEqual([client.status, sockets.length, take()], ["closed", 1, []]);
    }
  });
});
