import assert from "node:assert/strict";
import { once } from "node:events";
import { describe, it } from "node:test";
import { Hono } from "hono";
import * as v from "valibot";
import { WebSocket as Client } from "ws";
import { WebSocketController } from "../../src/controller/controller.ts";
import { health } from "../../src/controller/health.ts";
import { serve, type ServeOptions } from "../../src/serve/serve.ts";
import { freePort } from "../support/brokers.ts";
import { FAILURES } from "../support/failures.ts";
import { countTimers } from "../support/pending-timers.ts";
import { inspector } from "../../src/inspector/inspector.ts";
import { Stall } from "../support/waiting.ts";
import { unhandledIn } from "../support/unhandled.ts";

// Bun, Deno and Node define it, without a need for their types.
const { process } = globalThis as unknown as { process: NodeJS.Process };

const app = { fetch: () => new Response("plain page") };
const OPTIONS: ServeOptions = { port: 0, hostname: "127.0.0.1", onListen: false };

const signalListeners = (): number[] => [process.listenerCount("SIGINT"), process.listenerCount("SIGTERM")];

describe("serve", () => {
  it("listens to signals while a server runs", async () => {
    const before = signalListeners();
    const servers = [await serve(app, OPTIONS), await serve(app, OPTIONS)];
    assert.deepEqual(signalListeners(), before.map((count) => count + 1));
    await servers[0]!.close();
    assert.deepEqual(signalListeners(), before.map((count) => count + 1));
    await servers[1]!.close();
    assert.deepEqual(signalListeners(), before);
  });

  it("listens to no signals when no server handles them", async () => {
    const before = signalListeners();
    const server = await serve(app, { ...OPTIONS, handleSignals: false });
    assert.deepEqual(signalListeners(), before);
    const other = await serve(app, OPTIONS);
    await other.close();
    assert.deepEqual(signalListeners(), before);
    await server.close();
  });

  it("closes once when close is called twice, and accepts no more requests", async () => {
    const server = await serve(app, OPTIONS);
    assert.equal(await (await fetch(server.url)).text(), "plain page");
    assert.equal(server.close(), server.close());
    await server.close();
    await server.close();
    await assert.rejects(fetch(server.url));
  });

  it("leaves no timer once it is closed", () =>
    countTimers(async (pending) => {
      const server = await serve(app, { ...OPTIONS, drain: { timeout: 2_345_678 } });
      await server.close();
      assert.equal(pending(1_000), 0);
    }));

  it("hands on the body of a request, however the app reads it", async () => {
    const join = async (stream: AsyncIterable<Uint8Array>) => {
      let text = "";
      const decoder = new TextDecoder();
      for await (const chunk of stream) text += decoder.decode(chunk, { stream: true });
      return text;
    };
    const ways: Record<string, (request: Request) => Promise<string>> = {
      text: (request) => request.text(),
      parts: (request) => join(request.body!), // There is one in each request.
      seen: async (request) => request.body === request.body ? await request.text() : "another",
      used: async (request) => `${await request.text()}${request.bodyUsed ? "" : " not used"}`,
      clone: async (request) => {
        const copy = request.clone();
        return await join(request.body!) === await copy.text() ? "hello" : "another";
      },
      copy: (request) => new Request(request).text(),
      copied: (request) => new Request(request.url, { method: "POST", body: request.body, duplex: "half" } as RequestInit).text(),
      cancelled: async (request) => {
        await request.body!.cancel();
        return "hello";
      },
      none: (request) => Promise.resolve(request.body ? "hello" : "nothing"),
    };
    const server = await serve(
      { fetch: async (request) => new Response(await ways[new URL(request.url).pathname.slice(1)]!(request)) },
      OPTIONS,
    );
    const post = async (way: string, body?: string) =>
      await (await fetch(new URL(way, server.url), { method: "POST", ...(body !== undefined && { body }) })).text();
    const answers = await Promise.all(Object.keys(ways).map(async (way) => [way, await post(way, "hello")]));
    const empty = await post("text");
    await server.close();
    assert.deepEqual(Object.fromEntries(answers), Object.fromEntries(Object.keys(ways).map((way) => [way, "hello"])));
    assert.equal(empty, "");
  });

  it("closes when its signal aborts, and removes its listener from the signal", async () => {
    const before = signalListeners();
    const abort = new AbortController();
    const watched = watch(abort.signal);
    const server = await serve(app, { ...OPTIONS, signal: abort.signal });
    assert.equal(watched.listeners, 1);
    abort.abort();
    await server.close();
    await assert.rejects(fetch(server.url));
    assert.deepEqual(signalListeners(), before);

    const other = new AbortController();
    const kept = watch(other.signal);
    await (await serve(app, { ...OPTIONS, signal: other.signal })).close();
    assert.equal(kept.listeners, 0);
  });

  it("is closed when its signal aborts before the server listens", async () => {
    const before = signalListeners();
    for (const when of ["before", "meanwhile"]) {
      const abort = new AbortController();
      if (when === "before") abort.abort();
      let heard = 0;
      const starting = serve(app, { ...OPTIONS, signal: abort.signal, onListen: () => heard++ });
      abort.abort();
      const server = await starting;
      await assert.rejects(fetch(server.url), when);
      assert.equal(heard, 0, when);
      await server.close();
    }
    assert.deepEqual(signalListeners(), before);
  });

  it("rejects with the reason when the address is taken, and leaves no listener behind", async () => {
    const before = signalListeners();
    const server = await serve(app, { ...OPTIONS, port: await freePort() });
    const running = signalListeners();
    const abort = new AbortController();
    const watched = watch(abort.signal);
    await assert.rejects(serve(app, { ...OPTIONS, port: server.port, signal: abort.signal }), { code: "EADDRINUSE" });
    assert.deepEqual(signalListeners(), running);
    assert.equal(watched.listeners, 0);
    await server.close();
    assert.deepEqual(signalListeners(), before);
    // The address is free again.
    await (await serve(app, { ...OPTIONS, port: server.port })).close();
  });

  const skip = !("WebSocket" in globalThis) && "Node 20 has no WebSocket";
  it(
    "drains the controllers of its routes and of its clients, and closes none of them with close",
    { skip },
    async () => {
      const [listed, wrapped, other] = Array.from(
        { length: 3 },
        () => new WebSocketController({ mode: "public", logger: false }),
      );
      const hono = new Hono().get("/listed", listed!.upgrade).get("/wrapped", (c, next) => wrapped!.upgrade(c, next));
      const first = await serve(hono, OPTIONS);
      await first.close();
      assert.equal(listed!.status, "running");
      const before = signalListeners();
      const server = await serve(hono, OPTIONS);
      const socket = new WebSocket(`ws://127.0.0.1:${server.port}/wrapped`);
      await new Promise((resolve) => socket.onopen = resolve);
      const closed = new Promise<{ code: number }>((resolve) => socket.onclose = resolve);
      const drained = server.drain();
      assert.equal(server.drain(), drained);
      assert.equal((await closed).code, 1012);
      assert.deepEqual(await drained, { closed: 1, cut: 0, isClean: true });
      assert.deepEqual([listed, wrapped, other].map((each) => each!.status), ["closed", "closed", "running"]);
      assert.deepEqual(signalListeners(), before);
      await assert.rejects(fetch(server.url));
    },
  );

  it("counts the closed clients when a request keeps the drain from ending in time", async () => {
    const controller = new WebSocketController({ mode: "public", logger: false });
    const errors: string[] = [];
    controller.on("error", ({ error }) => errors.push(String(error)));
    const arrived = new Stall();
    const hono = new Hono().get("/websocket", controller.upgrade).get("/hang", () => {
      arrived.resolve();
      return new Promise<Response>(() => {});
    });
    const server = await serve(hono, { ...OPTIONS, drain: { timeout: 3_000 } });
    const closes: Promise<unknown[]>[] = [];
    for (let n = 0; n < 3; n++) {
      const socket = new Client(`ws://127.0.0.1:${server.port}/websocket`);
      await once(socket, "open");
      closes.push(once(socket, "close"));
    }
    const hanging = fetch(`${server.url}hang`).catch(() => "ended");
    await arrived.promise;
    const result = await server.drain();
    assert.deepEqual(result, { closed: 3, cut: 0, isClean: false });
    assert.deepEqual((await Promise.all(closes)).map(([code]) => code), [1012, 1012, 1012]);
    assert.equal(await hanging, "ended");
    assert.deepEqual(errors, ["Error: Cannot drain in 3000 ms: requests of the server are in progress"]);
  });

  it("drains a controller that is first reached through a wrapped route during the drain", async () => {
    const [first, wrapped, probed] = [0, 1, 2].map(() => new WebSocketController({ mode: "public", logger: false })) as [
      WebSocketController,
      WebSocketController,
      WebSocketController,
    ];
    const [work, begun] = [new Stall(), new Stall()];
    first.handle("work", v.object({}), () => {
      begun.resolve();
      return work.promise;
    });
    const { ready } = health(probed);
    const hono = new Hono().get("/websocket", first.upgrade).get("/wrapped", (c, next) => wrapped.upgrade(c, next)).get(
      "/ready",
      ready,
    );
    const server = await serve(hono, { ...OPTIONS, drain: { timeout: 600_000 } });
    const client = new Client(`ws://127.0.0.1:${server.port}/websocket`);
    await once(client, "open");
    client.send('{"type":"work"}');
    await begun.promise;
    const drained = server.drain();
    const refused = new Client(`ws://127.0.0.1:${server.port}/wrapped`);
    const [error] = await once(refused, "error");
    assert.match(String(error), /503/);
    assert.equal((await fetch(`${server.url}ready`)).status, 503);
    work.resolve();
    assert.deepEqual(await drained, { closed: 1, cut: 0, isClean: true });
    assert.deepEqual([first, wrapped, probed].map(({ status }) => status), ["closed", "closed", "closed"]);
  });

  it("shows a drain in the inspector until the clients have left", async () => {
    const controller = new WebSocketController({ mode: "public", logger: false });
    const [work, begun] = [new Stall(), new Stall()];
    controller.handle("work", v.object({}), () => {
      begun.resolve();
      return work.promise;
    });
    const hono = new Hono().get("/websocket", controller.upgrade).route(
      "/inspector",
      inspector(controller, { authorize: () => true }),
    );
    const server = await serve(hono, { ...OPTIONS, drain: { timeout: 600_000 } });
    const open = async (path: string) => {
      const socket = new Client(`ws://127.0.0.1:${server.port}${path}`);
      const closed = once(socket, "close").then(([code]) => code);
      await once(socket, "open");
      return { socket, closed };
    };
    const client = await open("/websocket");
    const pages = [await open("/inspector/live")];
    client.socket.send('{"type":"work"}');
    await begun.promise;
    const drained = server.drain();
    pages.push(await open("/inspector/live")); // It stays open as long as the first page.
    assert.equal(pages[0]!.socket.readyState, Client.OPEN);
    work.resolve();
    assert.equal((await drained).isClean, true);
    assert.deepEqual(await Promise.all([client, ...pages].map(({ closed }) => closed)), [1012, 1012, 1012]);
  });

  it("throws TypeError that names the remedy for an unknown option or an invalid value", async () => {
    const cases: [options: object, message: RegExp][] = [
      [{ drain: { window: -1 } }, /^Cannot serve: option "drain": option "window" must be 0 or .*, such as 30_000$/],
      [
        { drain: { window: 2, timeout: 1 } },
        /^Cannot serve: option "drain": option "timeout" must be at least the window of 2 ms/,
      ],
      [{ drain: 30_000 }, /^Cannot serve: option "drain": pass an object, such as \{ window: 30_000, timeout: 45_000 \}$/],
      [{ drainTimeout: 500 }, /^Cannot serve: write "drain: \{ timeout \}" in place of "drainTimeout"$/],
      // Ignored, it would make the server listen on all addresses.
      [{ host: "127.0.0.1" }, /^Cannot serve: write "hostname" in place of "host"$/],
      [
        { hostName: "127.0.0.1" },
        /^Cannot serve: unknown option "hostName", use one of port, hostname, signal, onListen, drain, handleSignals$/,
      ],
      [{ toString: 1 }, /^Cannot serve: unknown option "toString"/],
      [{ port: "3000" }, /^Cannot serve: option "port" must be a whole number from 0 to 65535, such as 3000$/],
      [{ port: 65_536 }, /option "port" must be/],
      [{ hostname: "" }, /^Cannot serve: option "hostname" must be an address, such as "127.0.0.1"$/],
      [{ signal: "SIGTERM" }, /^Cannot serve: option "signal" must be an AbortSignal$/],
      [{ onListen: true }, /^Cannot serve: option "onListen" must be a function or false$/],
      [{ handleSignals: "no" }, /^Cannot serve: option "handleSignals" must be true or false$/],
    ];
    const before = signalListeners();
    for (const [options, message] of cases) {
      const serving = serve(app, { ...OPTIONS, ...options });
      serving.then((server) => server.close(), () => {}); // If the option is accepted.
      await assert.rejects(serving, { name: "TypeError", message });
    }
    assert.deepEqual(signalListeners(), before);
    await (await serve(app, { ...OPTIONS, signal: undefined, drain: undefined } as object)).close();
  });

  it("keeps serving and logs the error when work that onListen began fails later", async () => {
    const { error } = console;
    const logged: string[] = [];
    console.error = (line: string) => void logged.push(line);
    try {
      for (const { name, fail, isSynchronous, kind } of FAILURES) {
        if (isSynchronous || kind !== "thrown") continue;
        let server: Awaited<ReturnType<typeof serve>> | undefined;
        const unhandled = await unhandledIn(async () => server = await serve(app, { ...OPTIONS, onListen: fail }));
        const page = await (await fetch(server!.url)).text(); // Set by the call above.
        await server!.close();
        assert.deepEqual([unhandled.length, page], [0, "plain page"], name);
        assert.match(logged.at(-1) ?? "", /noroshi/, name);
      }
    } finally {
      console.error = error;
    }
  });

  it("rejects with the error that onListen throws, and leaves no listener behind", async () => {
    const before = signalListeners();
    const options = { ...OPTIONS, port: await freePort() };
    const thrown = new Error("thrown in onListen");
    const starting = serve(app, {
      ...options,
      onListen: () => {
        throw thrown;
      },
    });
    await assert.rejects(starting, thrown);
    assert.deepEqual(signalListeners(), before);
    await (await serve(app, options)).close();
  });
});

/** Counts the listeners of an AbortSignal. */
function watch(signal: AbortSignal): { listeners: number } {
  const watched = { listeners: 0 };
  const { addEventListener, removeEventListener } = signal;
  signal.addEventListener = (...args: Parameters<typeof addEventListener>) => {
    watched.listeners++;
    addEventListener.apply(signal, args);
  };
  signal.removeEventListener = (...args: Parameters<typeof removeEventListener>) => {
    watched.listeners--;
    removeEventListener.apply(signal, args);
  };
  return watched;
}
