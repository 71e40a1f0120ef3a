import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { serve, type ServeOptions } from "../../src/serve/serve.ts";
import { FAILURES } from "../support/failures.ts";
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
    const server = await serve(app, OPTIONS);
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

  it("serves, and logs it, when what onListen began fails later", async () => {
    const { error } = console;
    const logged: string[] = [];
    console.error = (line: string) => void logged.push(line);
    try {
      for (const { name, fail, isSynchronous, kind } of FAILURES) {
        if (isSynchronous || kind !== "thrown") continue;
        let server: Awaited<ReturnType<typeof serve>> | undefined;
        const unhandled = await unhandledIn(async () => server = await serve(app, { ...OPTIONS, onListen: fail }));
        assert.equal(unhandled.length, 0, name);
        assert.match(logged.at(-1) ?? "", /^\[noroshi\] /, name);
        assert.equal(await (await fetch(server!.url)).text(), "plain page");
        await server!.close();
      }
    } finally {
      console.error = error;
    }
  });

  it("rejects with the error that onListen throws, and leaves no listener behind", async () => {
    const before = signalListeners();
    let port = 0;
    const thrown = new Error("thrown in onListen");
    const starting = serve(app, {
      ...OPTIONS,
      onListen: (server) => {
        port = server.port;
        throw thrown;
      },
    });
    await assert.rejects(starting, thrown);
    assert.deepEqual(signalListeners(), before);
    await (await serve(app, { ...OPTIONS, port })).close();
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
