import assert from "node:assert/strict";
import { describe, it } from "node:test";
import type { WebSocketConstructor } from "../../src/client/client.ts";
import { createClient } from "../../src/client/client.ts";
import { EventSocket, withFallback, type WithFallbackOptions } from "../../src/client/sse.ts";
import { WebSocketController } from "../../mod.ts";
import { fallback } from "../../src/http/http.ts";
import { Hono } from "hono";
import { countTimers } from "../support/pending-timers.ts";
import { unhandledIn } from "../support/unhandled.ts";
import { Stall, turn } from "../support/waiting.ts";

let lastHost = 0;

/** A server without a network: each has a host of its own, because what worked is remembered by host. */
function start() {
  const host = `server-${++lastHost}.example`;
  const controller = new WebSocketController({ mode: "public", heartbeat: false });
  const requests: string[] = [];
  const app = new Hono();
  app.use("/websocket", fallback());
  app.get("/websocket", controller.upgrade);
  const fetch = async (url: string, init: RequestInit) => {
    requests.push(`${init.method ?? "GET"} ${new Headers(init.headers).get("authorization") ?? ""}`.trim());
    return await app.request(url, init);
  };
  return { host, url: `ws://${host}/websocket`, controller, requests, fetch };
}

/** A WebSocket that does what the test says when it is opened. */
function socketThat(does: (socket: FakeSocket) => void): { Socket: WebSocketConstructor; opened: FakeSocket[] } {
  const opened: FakeSocket[] = [];
  return {
    opened,
    Socket: class extends FakeSocket {
      constructor() {
        super();
        opened.push(this);
        queueMicrotask(() => does(this));
      }
    },
  };
}

class FakeSocket {
  readyState = 0;
  onopen: ((event: never) => void) | null = null;
  onmessage: ((event: never) => void) | null = null;
  onclose: ((event: never) => void) | null = null;
  onerror: ((event: never) => void) | null = null;
  readonly sent: string[] = [];

  open(): void {
    this.readyState = 1;
    this.onopen?.({} as never);
  }

  fail(message = ""): void {
    this.readyState = 3;
    this.onerror?.({ message } as never);
    this.onclose?.({ code: 1006, reason: "", wasClean: false } as never);
  }

  send(data: string): void {
    this.sent.push(data);
  }

  close(code = 1005): void {
    if (this.readyState === 3) return;
    this.readyState = 3;
    this.onclose?.({ code, reason: "", wasClean: true } as never);
  }
}

describe("withFallback", () => {
  it("throws for an unknown option", () => {
    assert.throws(() => withFallback({ openTimout: 1 } as never), { name: "TypeError", message: /unknown option "openTimout"/ });
  });

  const connect = (server: ReturnType<typeof start>, options: WithFallbackOptions) =>
    createClient(server.url, {
      WebSocket: withFallback({ fetch: server.fetch, ...options }),
      backoff: { base: 1, cap: 1 },
    });

  it("goes over HTTP in the same attempt when the upgrade is refused", async () => {
    const server = start();
    const { Socket, opened } = socketThat((socket) => socket.fail("Unexpected server response: 426"));
    const client = connect(server, { WebSocket: Socket });
    const errors: string[] = [];
    client.on("error", ({ error }) => errors.push(String(error)));
    await client.ready;
    assert.equal(opened.length, 1);
    assert.deepEqual([errors, server.requests[0], server.controller.clients().size], [[], "GET", 1]);
    await client.close();
  });

  it("goes over HTTP when a WebSocket does not open in time", async () => {
    const server = start();
    const { Socket, opened } = socketThat(() => {});
    const client = connect(server, { WebSocket: Socket, openTimeout: 1 });
    await client.ready;
    assert.deepEqual([opened.length, opened[0]!.readyState], [1, 3]);
    await client.close();
  });

  it("remembers what worked, for the next connection and the next client", async () => {
    const server = start();
    const { Socket, opened } = socketThat((socket) => socket.fail());
    const client = connect(server, { WebSocket: Socket });
    await client.ready;
    const open = new Stall();
    client.on("open", () => open.resolve());
    void server.controller.disconnect({ uid: [...server.controller.clients()][0]!.uid }, 4504);
    await open.promise;
    const other = connect(server, { WebSocket: Socket });
    await other.ready;
    assert.equal(opened.length, 1);
    await Promise.all([client.close(), other.close()]);
  });

  it("tries HTTP next after a WebSocket that opened and received nothing", async () => {
    const server = start();
    const { Socket, opened } = socketThat((socket) => {
      socket.open();
      socket.fail();
    });
    const client = connect(server, { WebSocket: Socket });
    const open = new Stall();
    client.on("open", () => open.resolve());
    await open.promise;
    assert.equal(opened.length, 1);
    await client.close();
  });

  it("probes in the background whether WebSockets work, and opens one next time", async () => {
    const server = start();
    let works = false;
    const answered = new Stall();
    const { Socket, opened } = socketThat((socket) => {
      if (!works) return socket.fail();
      socket.open();
      socket.onmessage?.({ data: '{"type":"pong"}' } as never);
      answered.resolve();
    });
    const client = connect(server, { WebSocket: Socket, probeAfter: 1 });
    await client.ready;
    works = true;
    await answered.promise;
    const probe = opened.at(-1)!;
    assert.deepEqual([probe.sent, probe.readyState], [['{"type":"ping"}'], 3]);
    const before = opened.length;
    const next = connect(server, { WebSocket: Socket });
    await new Promise<void>((resolve) => queueMicrotask(resolve));
    assert.equal(opened.length, before + 1);
    await Promise.all([client.close(), next.close()]);
  });

  it("remembers nothing of a WebSocket that its owner closes before the first message", async () => {
    const server = start();
    const { Socket: WebSocket, opened } = socketThat((socket) => socket.open());
    const Socket = withFallback({ WebSocket, fetch: server.fetch });
    for (let n = 0; n < 2; n++) {
      const socket = new Socket(server.url);
      await new Promise((resolve) => socket.onopen = resolve as () => void);
      socket.close(1000);
    }
    assert.deepEqual([opened.length, server.requests.length], [2, 0]);
  });

  it("sends nothing in a probe for a client that authenticates by message", async () => {
    const server = start();
    const probed = new Stall<FakeSocket>();
    let sockets = 0;
    const { Socket: WebSocket } = socketThat((socket) => {
      if (sockets++ === 0) return socket.fail();
      socket.open();
      probed.resolve(socket);
    });
    const socket = new (withFallback({ WebSocket, fetch: server.fetch, probeAfter: 1 }))(server.url);
    await new Promise((resolve) => socket.onopen = resolve as () => void);
    socket.send('{"type":"auth","access_token":"ann"}');
    const { sent, readyState } = await probed.promise;
    assert.deepEqual([sent, readyState], [[], 3]);
    socket.close();
  });

  it("ends a probe with its connection, whoever closes it", () =>
    countTimers(async (pending) => {
      for (const closes of ["client", "server"]) {
        const server = start();
        const probed = new Stall();
        const { Socket, opened } = socketThat((socket) => opened.length === 1 ? socket.fail() : probed.resolve());
        const openTimeout = 1_234_567;
        const socket = new (withFallback({ WebSocket: Socket, fetch: server.fetch, probeAfter: 1, openTimeout }))(server.url);
        await new Promise((resolve) => socket.onopen = resolve as () => void);
        await probed.promise;
        assert.deepEqual([opened[1]!.readyState, pending(openTimeout)], [0, 1]);
        const closed = new Promise((resolve) => socket.onclose = resolve as () => void);
        if (closes === "client") socket.close();
        else void server.controller.disconnect({ uid: [...server.controller.clients()][0]!.uid }, 4403);
        await closed;
        assert.deepEqual([opened[1]!.readyState, pending(openTimeout), opened.length], [3, 0, 2]);
      }
    }));

  it("reports why the WebSocket failed when neither works, and begins with it again", async () => {
    const { Socket, opened } = socketThat((socket) => socket.fail("Unexpected server response: 401"));
    const client = createClient(`ws://nowhere-${++lastHost}.example/`, {
      WebSocket: withFallback({ WebSocket: Socket, fetch: () => Promise.reject(new TypeError("Failed to fetch")) }),
      backoff: { base: 1, cap: 1 },
      maxAttempts: 2,
    });
    await assert.rejects(client.ready, { code: "AUTH_FAILED", message: /2 attempts .* last close 1006 HTTP 401/ });
    assert.equal(opened.length, 2);
  });

  it("tries nothing else once the client has given up", async () => {
    const server = start();
    const { Socket } = socketThat(() => {});
    const client = connect(server, { WebSocket: Socket });
    await new Promise<void>((resolve) => queueMicrotask(resolve));
    await client.close();
    assert.deepEqual(server.requests, []);
  });
});

describe("EventSocket", () => {
  it("sends a token in a header, which logs omit", async () => {
    const server = start();
    const socket = new EventSocket(server.url, ["noroshi.v1", "bearer.abc"], server.fetch);
    const open = new Stall();
    socket.onopen = () => open.resolve();
    await open.promise;
    assert.deepEqual([server.requests, socket.protocol], [["GET Bearer abc"], "noroshi.v1"]);
    socket.terminate();
  });

  it("repeats a POST whose answer was lost, and the server handles it once", async () => {
    const server = start();
    let posts = 0;
    const fetch = async (url: string, init: RequestInit) => {
      const answer = await server.fetch(url, init);
      if (init.method === "POST" && ++posts === 1) throw new TypeError("Failed to fetch");
      return answer;
    };
    const socket = new EventSocket(server.url, ["noroshi.v1"], fetch);
    const received: string[] = [];
    const second = new Stall();
    socket.onopen = () => {
      socket.send('{"type":"ping","uid":1}');
    };
    socket.onmessage = ({ data }: { data: string }) => {
      received.push(data);
      if (received.length === 1) socket.send('{"type":"ping","uid":2}');
      else second.resolve();
    };
    await second.promise;
    assert.deepEqual(received.map((text) => JSON.parse(text).uid), [1, 2]);
    assert.ok(posts >= 2);
    socket.terminate();
  });

  it("does not repeat a POST once it has ended", () =>
    countTimers(async (pending) => {
      const server = start();
      const failed = new Stall();
      let posts = 0;
      const fetch = (url: string, init: RequestInit) => {
        if (init.method !== "POST") return server.fetch(url, init);
        posts++;
        return Promise.reject(new TypeError("Failed to fetch")).finally(() => failed.resolve());
      };
      const socket = new EventSocket(server.url, [], fetch);
      socket.onopen = () => socket.send("{}");
      await failed.promise;
      await turn();
      assert.deepEqual([posts, pending(250, 250)], [1, 1]);
      socket.terminate();
      assert.equal(pending(250, 250), 0);
    }));

  it("sends what is sent meanwhile in one POST, in order", async () => {
    const server = start();
    const socket = new EventSocket(server.url, ["noroshi.v1"], server.fetch);
    const done = new Stall();
    const received: number[] = [];
    socket.onopen = () => {
      for (let uid = 0; uid < 50; uid++) socket.send(JSON.stringify({ type: "ping", uid }));
    };
    socket.onmessage = ({ data }: { data: string }) => {
      received.push(JSON.parse(data).uid);
      if (received.length === 50) done.resolve();
    };
    await done.promise;
    assert.deepEqual(received, Array.from({ length: 50 }, (_, uid) => uid));
    assert.equal(server.requests.filter((request) => request === "POST").length, 1);
    socket.close(4000, "done");
    const closed = new Stall<object>();
    socket.onclose = (event) => closed.resolve(event);
    assert.deepEqual(await closed.promise, { code: 4000, reason: "done", wasClean: true });
  });

  it("fails with the status of a server without the fallback", async () => {
    const fetch = () => Promise.resolve(new Response("Not here", { status: 404 }));
    const socket = new EventSocket("wss://example.com/", [], fetch);
    const failure = new Stall<{ message: string }>();
    socket.onerror = (event) => failure.resolve(event);
    assert.equal((await failure.promise).message, "Unexpected server response: 404");
  });

  it("causes no unhandled rejection when the body of such an answer fails with the aborted request", async () => {
    const fetch = (_url: string, { signal }: RequestInit) => {
      const body = new ReadableStream({
        start: (stream) => signal!.addEventListener("abort", () => stream.error(signal!.reason)),
      });
      return Promise.resolve(new Response(body, { status: 404 }));
    };
    const closed = new Stall();
    const unhandled = await unhandledIn(async () => {
      const socket = new EventSocket("wss://example.com/", [], fetch);
      socket.onclose = () => closed.resolve();
      await closed.promise;
    });
    assert.deepEqual(unhandled, []);
  });

  it("fails where fetch throws at once: connecting, and sending", async () => {
    const server = start();
    for (const method of ["GET", "POST"]) {
      const fetch = (url: string, init: RequestInit) => {
        if ((init.method ?? "GET") === method) throw new Error("There is no network");
        return server.fetch(url, init);
      };
      const socket = new EventSocket(server.url, [], fetch);
      const over = new Stall<unknown>();
      socket.onopen = () => {
        // The first repeat is as far as the test goes.
        const unhandled = unhandledIn(() => socket.send("{}"));
        void unhandled.then(over.resolve).then(() => socket.terminate());
      };
      socket.onclose = () => over.resolve([]);
      assert.deepEqual(await over.promise, []);
    }
  });

  it("waits for the close code when the server no longer knows the connection", async () => {
    const server = start();
    const { controller } = server;
    const posted = new Stall();
    let isHeld = false;
    const fetch = async (url: string, init: RequestInit) => {
      const answer = await server.fetch(url, init);
      if (init.method === "POST") {
        posted.resolve();
        return answer;
      }
      const late = new TransformStream<Uint8Array, Uint8Array>({
        async transform(chunk, stream) {
          if (isHeld) await posted.promise.then(() => new Promise((resolve) => setTimeout(resolve)));
          stream.enqueue(chunk);
        },
      });
      return new Response(answer.body!.pipeThrough(late), answer);
    };
    const socket = new EventSocket(server.url, ["noroshi.v1"], fetch);
    await new Promise((resolve) => socket.onopen = resolve as () => void);
    const closed = new Promise((resolve) => socket.onclose = resolve as () => void);
    isHeld = true;
    await controller.disconnect({ uid: [...controller.clients()][0]!.uid }, 4403, "Out");
    await turn();
    socket.send('{"type":"ping"}');
    assert.deepEqual(await closed, { code: 4403, reason: "Out", wasClean: true });
  });

  it("ends when a POST is refused", async () => {
    const server = start();
    const fetch = async (url: string, init: RequestInit) =>
      init.method === "POST" ? new Response(null, { status: 409 }) : await server.fetch(url, init);
    const socket = new EventSocket(server.url, [], fetch);
    socket.onopen = () => socket.send("{}");
    const closed = new Stall<object>();
    socket.onclose = (event) => closed.resolve(event);
    assert.deepEqual(await closed.promise, { code: 1006, reason: "POST: HTTP 409", wasClean: false });
  });
});
