import assert from "node:assert/strict";
import { afterEach, describe, it } from "node:test";
import { createElement, StrictMode, useEffect } from "react";
import { renderToString } from "react-dom/server";
import * as v from "valibot";
import { defineContract } from "../../mod.ts";
import { createClient } from "../../src/client/client.ts";
import { useStream, type UseStreamResult } from "../../src/client/react.ts";
import { connectFake, type FakeSocket } from "../support/fake-server.ts";
import { turn } from "../support/waiting.ts";

/** The parts of react-test-renderer that are used here. The package has no types. */
interface Renderer {
  act(callback: () => unknown): Promise<void>;
  create(element: unknown): { toJSON(): unknown; update(element: unknown): void; unmount(): void };
}
// @ts-ignore -- it has no types
const { act, create }: Renderer = (await import("react-test-renderer")).default;
(globalThis as { IS_REACT_ACT_ENVIRONMENT?: boolean }).IS_REACT_ACT_ENVIRONMENT = true;

const contract = defineContract({
  requests: {
    ask: { payload: v.object({ prompt: v.string() }), reply: v.object({ usage: v.number() }), stream: { output: v.string() } },
    upload: { reply: v.number(), stream: { input: v.number() } },
  },
});
type Fake = ReturnType<typeof connectFake<typeof contract>>;

let mounted: { unmount(): void } | undefined;
afterEach(async () => {
  await act(() => mounted?.unmount());
  mounted = undefined;
});

/** Mounts a component twice, as StrictMode does in development, whose stream the test starts. */
async function mount(client: Fake["client"]) {
  const seen: UseStreamResult<typeof contract, "ask">[] = [];
  const Answer = ({ client, asks }: { client: Fake["client"]; asks: boolean }) => {
    const answer = useStream(client, "ask");
    seen.push(answer);
    const { status, items, text, result, error, start } = answer;
    useEffect(() => {
      if (asks) start({ prompt: "in an effect" });
    }, [asks, start]);
    return [status, items.length, text, result?.usage ?? "-", error?.code ?? "fine"].join(" | ");
  };
  const element = (client: Fake["client"], asks: boolean) =>
    createElement(StrictMode, null, createElement(Answer, { client, asks }));
  let tree!: ReturnType<Renderer["create"]>;
  await act(() => mounted = tree = create(element(client, false)));
  return {
    seen,
    text: () => tree.toJSON(),
    /** The hook, as it was last rendered. */
    now: () => seen.at(-1)!,
    show: (other: Fake["client"], asks = false) => act(() => tree.update(element(other, asks))),
    unmount: () =>
      act(() => {
        tree.unmount();
        mounted = undefined;
      }),
  };
}

/** Plays the server for the stream that was started last. */
function answerer(socket: FakeSocket) {
  let uid: unknown;
  const receive = (message: object) =>
    act(async () => {
      socket.receive({ type: "ask", uid, ...message });
      await turn();
    });
  return {
    /** The messages since it was last asked. */
    take() {
      const all = socket.take();
      uid = all.findLast(({ type }) => type === "ask")?.uid ?? uid;
      return all.map(({ type }) => type);
    },
    next: (data: unknown) => receive({ status: "next", data }),
    ok: (data: unknown) => receive({ status: "ok", data }),
    fail: (code: string) => receive({ status: "error", error: { code, message: "No" } }),
  };
}

describe("useStream", () => {
  it("opens nothing while a server renders, and starts nothing by itself", async () => {
    const { client, sockets } = connectFake<typeof contract>({ lazy: true });
    const Answer = () => useStream(client, "ask").status;
    assert.equal(renderToString(createElement(Answer)), "idle");
    const { text } = await mount(client);
    assert.equal(text(), "idle | 0 |  | - | fine");
    assert.equal(sockets.length, 0);
  });

  it("says what a client without streams needs", () => {
    const client = createClient("ws://localhost", { lazy: true, WebSocket: class {} as never });
    // @ts-expect-error -- it has no streams
    const Answer = () => useStream(client, "ask").status;
    assert.throws(() => renderToString(createElement(Answer)), { name: "TypeError", message: /noroshi\/client\/streams$/ });
  });

  it("shows the items as they come, and then the result", async () => {
    const { client, admit } = connectFake<typeof contract>();
    const server = answerer(await admit());
    const { text, now, seen } = await mount(client);
    await act(() => now().start({ prompt: "hi" }));
    assert.equal(text(), "streaming | 0 |  | - | fine");
    assert.deepEqual(server.take(), ["ask"]);
    await server.next("Hel");
    await server.next("lo");
    assert.equal(text(), "streaming | 2 | Hello | - | fine");
    assert.deepEqual(now().items, ["Hel", "lo"]);
    await server.ok({ usage: 2 });
    assert.equal(text(), "done | 2 | Hello | 2 | fine");
    assert.equal(new Set(seen.map(({ start }) => start)).size <= 2, true); // StrictMode calls useMemo twice.
  });

  it("shows why it has failed, beside the items before", async () => {
    const { client, admit } = connectFake<typeof contract>();
    const socket = await admit();
    const server = answerer(socket);
    const { text, now } = await mount(client);
    await act(() => now().start({ prompt: "hi" }));
    server.take();
    await server.next("a");
    await server.fail("NO_MODEL");
    assert.equal(text(), "failed | 1 | a | - | NO_MODEL");
    await act(() => now().start({ prompt: "again" }));
    assert.equal(text(), "streaming | 0 |  | - | fine");
    await act(async () => {
      socket.end();
      await turn();
    });
    assert.equal(text(), "failed | 0 |  | - | DISCONNECTED");
  });

  it("keeps the items when it is stopped, and shows what the handler then returns", async () => {
    for (const isAnswered of [false, true]) {
      const { client, admit } = connectFake<typeof contract>();
      const server = answerer(await admit());
      const { text, now, unmount } = await mount(client);
      await act(() => now().start({ prompt: "hi" }));
      await server.next("late"); // Of no stream: the uid is not known yet.
      server.take();
      await server.next("a");
      await act(() => now().stop());
      assert.equal(text(), "stopped | 1 | a | - | fine");
      await act(() => now().stop());
      assert.deepEqual(server.take(), ["stream.cancel"]);
      if (isAnswered) await server.ok({ usage: 1 });
      else await server.fail("CANCELLED");
      assert.equal(text(), `stopped | 1 | a | ${isAnswered ? 1 : "-"} | fine`);
      await unmount();
    }
  });

  it("is cancelled when another is started, whose items alone are shown", async () => {
    const { client, admit } = connectFake<typeof contract>();
    const socket = await admit();
    const server = answerer(socket);
    const { text, now } = await mount(client);
    await act(() => now().start({ prompt: "1" }));
    server.take();
    await server.next("a");
    await act(() => now().start({ prompt: "2" }));
    assert.deepEqual(server.take(), ["stream.cancel", "ask"]);
    await server.next("b");
    assert.equal(text(), "streaming | 1 | b | - | fine");
  });

  it("is cancelled when it unmounts, and runs once if StrictMode starts it twice in an effect", async () => {
    const { client, admit } = connectFake<typeof contract>();
    const server = answerer(await admit());
    const { text, show, unmount } = await mount(client);
    await show(client, true);
    assert.deepEqual(server.take().filter((type) => type === "ask").length, 1);
    await server.next("a");
    assert.equal(text(), "streaming | 1 | a | - | fine");
    await unmount();
    await turn();
    assert.deepEqual(server.take(), ["stream.cancel"]);
    // Started while it mounts, which StrictMode does twice.
    const Asking = () => {
      const { start, status } = useStream(client, "ask");
      useEffect(() => start({ prompt: "mount" }), [start]);
      return status;
    };
    await act(() => mounted = create(createElement(StrictMode, null, createElement(Asking))));
    const sent = server.take();
    assert.deepEqual([sent.filter((type) => type === "ask").length, sent.filter((type) => type === "stream.cancel").length], [
      2,
      1,
    ]);
  });

  it("is cancelled with another client, and shows nothing of the one before", async () => {
    const first = connectFake<typeof contract>();
    const second = connectFake<typeof contract>();
    const server = answerer(await first.admit());
    await second.admit();
    const { text, now, show } = await mount(first.client);
    await act(() => now().start({ prompt: "1" }));
    server.take();
    await server.next("a");
    await show(second.client);
    assert.equal(text(), "idle | 0 |  | - | fine");
    await turn();
    assert.deepEqual(server.take(), ["stream.cancel"]);
  });

  it("goes on when it unmounts, if it is resumable, and is resumed by its id", async () => {
    const { client, admit } = connectFake<typeof contract>();
    const socket = await admit();
    const receive = (message: object) =>
      act(async () => {
        socket.receive(message);
        await turn();
      });
    const first = await mount(client);
    await act(() => first.now().start({ prompt: "hi" }));
    const [{ uid }] = socket.take();
    await receive({ type: "ask", status: "open", uid, id: "1/ask" });
    await receive({ type: "ask", status: "next", uid, data: "Hel", offset: 1 });
    const { id, text } = first.now();
    assert.deepEqual([id, text], ["1/ask", "Hel"]);
    await first.unmount();
    await turn();
    assert.deepEqual(socket.take(), []);
    const second = await mount(client);
    await act(() => second.now().resume(id!, { after: 1 }));
    const [{ uid: resumed, ...request }] = socket.take();
    assert.deepEqual(request, { type: "stream.resume", id: "1/ask", after: 1 });
    await receive({ type: "stream.resume", status: "open", uid: resumed, id: "1/ask" });
    await receive({ type: "stream.resume", status: "next", uid: resumed, items: ["lo"], offset: 2 });
    assert.equal(second.text(), "streaming | 1 | lo | - | fine");
    await act(() => second.now().stop());
    assert.deepEqual(socket.take(), [{ type: "stream.cancel", uid: resumed }, { type: "stream.cancel", id: "1/ask" }]);
  });

  it("goes on when it unmounts as soon as it is resumed, which StrictMode does by itself", async () => {
    const { client, admit } = connectFake<typeof contract>();
    const socket = await admit();
    const Answer = () => {
      const { id, status, resume } = useStream(client, "ask");
      useEffect(() => resume("1/ask"), [resume]);
      return `${status} ${id}`;
    };
    await act(() => mounted = create(createElement(StrictMode, null, createElement(Answer))));
    assert.equal((mounted as ReturnType<Renderer["create"]>).toJSON(), "streaming 1/ask");
    assert.deepEqual(socket.take().map(({ type }) => type), ["stream.resume", "stream.resume"]);
  });

  it("reads nothing any more of a stream that goes on without it", async () => {
    const { client, admit } = connectFake<typeof contract>();
    const socket = await admit();
    const { now, unmount } = await mount(client);
    await act(() => now().start({ prompt: "hi" }));
    const [{ uid }] = socket.take();
    const receive = (message: object) =>
      act(async () => {
        socket.receive({ type: "ask", uid, ...message });
        await turn();
      });
    await receive({ status: "open", id: "1/ask" });
    await receive({ status: "next", data: "a", offset: 1, credit: 1 });
    assert.deepEqual(socket.take(), [{ type: "stream.credit", uid, credit: 1 }]);
    await unmount();
    for (let offset = 2; offset < 5; offset++) await receive({ status: "next", data: "b", offset, credit: offset });
    assert.deepEqual(socket.take(), []);
  });

  it("copies the items when they are read, once for each state", async () => {
    const { client, admit } = connectFake<typeof contract>();
    const server = answerer(await admit());
    const { now, seen } = await mount(client);
    await act(() => now().start({ prompt: "hi" }));
    server.take();
    await server.next("a");
    const one = now();
    await server.next("b");
    const two = now();
    assert.deepEqual([one.items, two.items, two.text], [["a"], ["a", "b"], "ab"]);
    assert.equal(one.items, one.items);
    assert.equal(two.items, now().items);
    // A state that held its own items would be n² of them.
    for (const each of seen) assert.equal(typeof Object.getOwnPropertyDescriptor(each, "items")?.get, "function");
    await server.ok({ usage: 2 });
    assert.equal(now().items, two.items);
  });

  it("sends input, and has the types of the contract", async () => {
    const { client, admit } = connectFake<typeof contract>();
    const socket = await admit();
    let upload!: UseStreamResult<typeof contract, "upload">;
    const Upload = () => {
      upload = useStream(client, "upload");
      return upload.status;
    };
    await act(() => mounted = create(createElement(Upload)));
    await act(() =>
      upload.start({}, {
        input: (async function* () {
          yield 1;
        })(),
      })
    );
    const [{ uid }] = socket.take();
    await act(async () => {
      socket.receive({ type: "stream.credit", uid, item: 32, bytes: 1_000 });
      await turn();
    });
    assert.deepEqual(socket.take().map(({ type, item }) => [type, item]), [["stream.input", 1], ["stream.end", 2]]);
    const result: number | undefined = upload.result;
    assert.equal(result, undefined);
    const misuse = () => {
      // @ts-expect-error -- it has input
      upload.start({});
      // @ts-expect-error -- no such request
      useStream(client, "aks");
      // @ts-expect-error -- the prompt is a string
      useStream(client, "ask").start({ prompt: 1 });
      // @ts-expect-error -- its items are strings
      useStream(client, "ask").items[0]?.toFixed();
    };
    assert.ok(misuse);
  });
});
