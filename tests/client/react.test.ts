import assert from "node:assert/strict";
import { afterEach, describe, it } from "node:test";
import { createElement, StrictMode } from "react";
import { renderToString } from "react-dom/server";
import { defineContract } from "../../mod.ts";
import { useConnectionError, useConnectionStatus, usePresence, useSubscription } from "../../src/client/react.ts";
import { connectFake, type FakeSocket } from "../support/fake-server.ts";
import { turn } from "../support/waiting.ts";

/** What is used of react-test-renderer, which brings no types. */
interface Renderer {
  act(callback: () => unknown): Promise<void>;
  create(element: unknown): { root: unknown; toJSON(): unknown; update(element: unknown): void; unmount(): void };
}
// @ts-ignore -- it has no types
const { act, create }: Renderer = (await import("react-test-renderer")).default;
(globalThis as { IS_REACT_ACT_ENVIRONMENT?: boolean }).IS_REACT_ACT_ENVIRONMENT = true;

const contract = defineContract({});
type Fake = ReturnType<typeof connectFake<typeof contract>>;

let mounted: { unmount(): void } | undefined;
afterEach(async () => {
  await act(() => mounted?.unmount());
  mounted = undefined;
});

function Room({ client, channel = "room:1" }: { client: Fake["client"]; channel?: string }) {
  const status = useConnectionStatus(client);
  const people = usePresence(client, channel, { data: { name: "Ann" } });
  const { state, error } = useSubscription(client, channel, {
    initial: ["nothing"],
    reduce: (said: string[], { event, data }) => event === "init" ? data as string[] : [...said, data as string],
  });
  return [status, state.join(), people.map(({ user }) => user).join(), error?.code ?? "fine"].join(" | ");
}

/** Mounted twice, as StrictMode does in development. */
async function mount(client: Fake["client"], channel?: string) {
  const element = (channel?: string) =>
    createElement(StrictMode, null, createElement(Room, { client, ...(channel && { channel }) }));
  let tree!: ReturnType<Renderer["create"]>;
  await act(() => tree = create(element(channel)));
  mounted = tree;
  return { text: () => tree.toJSON(), show: (channel: string) => act(() => tree.update(element(channel))) };
}

/** The subscriptions that are there, by what was sent. */
function open(socket: FakeSocket): { uid: string; channel: string; presence?: boolean }[] {
  const subscriptions = new Map<string, { uid: string; channel: string; presence?: boolean }>();
  for (const message of socket.take()) {
    if (message.type === "subscribe") subscriptions.set(message.uid, message);
    if (message.type === "unsubscribe") subscriptions.delete(message.uid);
  }
  return [...subscriptions.values()];
}

describe("The hooks", () => {
  it("open nothing while a server renders", async () => {
    const { client, sockets } = connectFake<typeof contract>({ lazy: true });
    assert.equal(renderToString(createElement(Room, { client })), "connecting | nothing |  | fine");
    await turn();
    assert.equal(sockets.length, 0);
  });

  it("are one subscription each in StrictMode, and none once unmounted", async () => {
    const { client, admit } = connectFake<typeof contract>({ lazy: true });
    const { text } = await mount(client);
    let socket!: FakeSocket;
    await act(async () => socket = await admit());
    const [presence, plain, ...others] = open(socket);
    assert.deepEqual([presence?.presence, plain?.presence, others], [true, undefined, []]);
    await act(() => {
      for (const uid of [presence!.uid, plain!.uid]) {
        socket.receive({ type: "subscription", event: "init", channel: "room:1", uid, data: ["a"] });
      }
      socket.receive({ type: "presence", event: "init", channel: "room:1", uid: presence!.uid, members: [{ user: "ann" }] });
      socket.receive({ type: "subscription", event: "said", channel: "room:1", uid: plain!.uid, data: "b" });
      socket.receive({ type: "subscription", event: "said", channel: "room:1", uid: plain!.uid, data: "c" });
    });
    assert.equal(text(), "open | a,b,c | ann | fine");
    await act(() => mounted?.unmount());
    mounted = undefined;
    assert.deepEqual(socket.take().map(({ type }) => type).sort(), ["unsubscribe", "unsubscribe"]);
  });

  it("begin anew with another channel, and show nothing of the one before", async () => {
    const { client, admit } = connectFake<typeof contract>();
    const socket = await admit();
    const { text, show } = await mount(client);
    const [, first] = open(socket);
    await act(() => socket.receive({ type: "subscription", event: "init", channel: "room:1", uid: first!.uid, data: ["of 1"] }));
    assert.equal(text(), "open | of 1 |  | fine");
    await show("room:2");
    assert.equal(text(), "open | nothing |  | fine");
    const [, second] = open(socket);
    assert.equal(second?.channel, "room:2");
    await act(() => {
      socket.receive({ type: "subscription", event: "said", channel: "room:1", uid: first!.uid, data: "late" });
      socket.receive({ type: "subscribe", status: "error", uid: second!.uid, error: { code: "FORBIDDEN", message: "No" } });
    });
    assert.equal(text(), "open | nothing |  | FORBIDDEN");
  });

  it("begin anew when they are enabled again, and show nothing meanwhile", async () => {
    const { client, admit } = connectFake<typeof contract>();
    const socket = await admit();
    const Reader = ({ enabled }: { enabled: boolean }) => {
      const people = usePresence(client, "room:1", { enabled });
      const { state } = useSubscription(client, "room:1", { enabled });
      return [people.length, state ? JSON.stringify(state.data) : "nothing"].join(" | ");
    };
    let tree!: ReturnType<Renderer["create"]>;
    await act(() => mounted = tree = create(createElement(Reader, { enabled: true })));
    await act(() => {
      for (const { uid } of open(socket)) {
        socket.receive({ type: "subscription", event: "init", channel: "room:1", uid, data: "old" });
        socket.receive({ type: "presence", event: "init", channel: "room:1", uid, members: [{ user: "ann" }] });
      }
    });
    assert.equal(tree.toJSON(), '1 | "old"');
    await act(() => tree.update(createElement(Reader, { enabled: false })));
    assert.equal(tree.toJSON(), "0 | nothing");
    await act(() => tree.update(createElement(Reader, { enabled: true })));
    assert.equal(tree.toJSON(), "0 | nothing");
  });

  it("render who is there for no publication", async () => {
    const { client, admit } = connectFake<typeof contract>();
    const socket = await admit();
    let renders = 0;
    const People = () => {
      renders++;
      return String(usePresence(client, "room:1").length);
    };
    await act(() => mounted = create(createElement(People)));
    const [{ uid } = { uid: "" }] = open(socket);
    await act(() => socket.receive({ type: "subscription", event: "init", channel: "room:1", uid }));
    await act(() => socket.receive({ type: "subscription", event: "said", channel: "room:1", uid, data: "hello" }));
    assert.equal(renders, 1);
    await act(() => socket.receive({ type: "presence", event: "join", channel: "room:1", uid, members: [{ user: "ann" }] }));
    assert.equal(renders, 2);
  });

  it("show that the connection is lost, and the new data once it is restored", async () => {
    const { client, admit, retry } = connectFake<typeof contract>();
    const socket = await admit();
    const { text } = await mount(client);
    const [, { uid } = { uid: "" }] = open(socket);
    await act(() => socket.receive({ type: "subscription", event: "init", uid, data: ["a"] }));
    await act(() => socket.end());
    assert.equal(text(), "waiting | a |  | fine");
    await act(async () => {
      retry();
      (await admit()).receive({ type: "subscription", event: "init", uid, data: ["b"] });
    });
    assert.equal(text(), "open | b |  | fine");
  });

  it("show why there is no connection, and go on when a closed client is opened again", async () => {
    const { client, socket, admit, retry } = connectFake<typeof contract>({ token: () => "of ann" });
    const Door = () => {
      const { state, error } = useSubscription(client, "room:1");
      const why = useConnectionError(client);
      return [useConnectionStatus(client), why?.code, error?.code, state?.data].map((shown) => shown ?? "-").join(" | ");
    };
    let tree!: ReturnType<Renderer["create"]>;
    await act(() => mounted = tree = create(createElement(Door)));
    assert.equal(tree.toJSON(), "connecting | - | - | -");
    await act(async () => (await socket()).end());
    assert.equal(tree.toJSON(), "waiting | NOT_CONNECTED | - | -");
    await act(async () => {
      retry();
      (await admit()).end(4403);
    });
    assert.equal(tree.toJSON(), "closed | FORBIDDEN | FORBIDDEN | -");
    await act(async () => {
      client.connect();
      const next = await admit();
      const [{ uid } = { uid: "" }] = open(next);
      next.receive({ type: "subscription", event: "init", uid, data: "back" });
    });
    assert.equal(tree.toJSON(), "open | - | - | back");
    assert.equal(renderToString(createElement(Door)), "connecting | - | - | -");
  });

  it("call the callbacks of the last render, one that was not there at first too", async () => {
    const { client, admit } = connectFake<typeof contract>();
    const socket = await admit();
    const told: unknown[] = [];
    const Reader = ({ render, hasPresence }: { render: number; hasPresence: boolean }) => {
      useSubscription(client, "room:1", {
        onInit: () => told.push([render, "init"]),
        onEvent: () => told.push([render, "event"]),
        onGap: () => told.push([render, "gap"]),
        onError: () => told.push([render, "error"]),
        ...(hasPresence && { onPresence: ({ event }) => told.push([render, `presence ${event}`]) }),
      });
      return null;
    };
    let tree!: ReturnType<Renderer["create"]>;
    const show = (render: number, hasPresence: boolean) => act(() => tree.update(createElement(Reader, { render, hasPresence })));
    await act(() => mounted = tree = create(createElement(Reader, { render: 1, hasPresence: false })));
    const asked = open(socket);
    assert.deepEqual(asked.map(({ presence }) => presence), [undefined]);
    await show(2, false);
    assert.deepEqual(open(socket), []);
    await show(3, true);
    const [{ uid, presence } = { uid: "", presence: false }] = open(socket);
    assert.equal(presence, true);
    const receive = (message: object) => act(() => socket.receive({ channel: "room:1", uid, ...message }));
    await receive({ type: "subscription", event: "init" });
    await receive({ type: "presence", event: "init", members: [{ user: "ann" }] });
    await show(4, true);
    assert.deepEqual(open(socket), []);
    await receive({ type: "presence", event: "join", members: [{ user: "bob" }] });
    await receive({ type: "subscription", event: "said" });
    await receive({ type: "subscription", event: "init" });
    await receive({ type: "subscription", event: "unsubscribe", reason: "GONE" });
    const expected = [[3, "init"], [3, "presence init"], [4, "presence join"], [4, "event"], [4, "gap"], [4, "init"], [
      4,
      "error",
    ]];
    assert.deepEqual(told, expected);
  });

  it("call an onPresence that a later render brings to a subscription with presence", async () => {
    const { client, admit } = connectFake<typeof contract>();
    const socket = await admit();
    const told: string[] = [];
    const Reader = ({ isLater }: { isLater: boolean }) => {
      useSubscription(client, "room:1", {
        presence: true,
        ...(isLater && { onPresence: ({ present }) => told.push(present.map(({ user }) => user).join()) }),
      });
      return null;
    };
    let tree!: ReturnType<Renderer["create"]>;
    await act(() => mounted = tree = create(createElement(Reader, { isLater: false })));
    const [{ uid } = { uid: "" }] = open(socket);
    await act(() => tree.update(createElement(Reader, { isLater: true })));
    await act(() => socket.receive({ type: "presence", event: "init", uid, members: [{ user: "ann" }] }));
    assert.deepEqual([told, open(socket)], [["ann"], []]);
  });

  it("show a lazy client the same on a server and in a browser, until something is wanted of it", async () => {
    const { client, admit, take } = connectFake<typeof contract>({ lazy: true });
    const seen: string[] = [];
    const Status = () => {
      const status = useConnectionStatus(client);
      seen.push(status);
      return status;
    };
    assert.equal(renderToString(createElement(Status)), "connecting");
    let tree!: ReturnType<Renderer["create"]>;
    await act(() => mounted = tree = create(createElement(Status)));
    assert.deepEqual([client.status, take("status")], ["closed", []]);
    await act(async () => {
      client.connect();
      await admit();
    });
    assert.equal(tree.toJSON(), "open");
    assert.deepEqual([...new Set(seen)], ["connecting", "open"]);
    await act(() => void client.close());
    assert.equal(tree.toJSON(), "closed");
    const unused = connectFake<typeof contract>({ lazy: true }).client;
    const Unused = () => useConnectionStatus(unused);
    await act(() => tree.update(createElement(Unused)));
    assert.equal(tree.toJSON(), "connecting");
    await act(() => void unused.close());
    assert.equal(tree.toJSON(), "closed");
    assert.equal(renderToString(createElement(Unused)), "connecting");
  });
});
