import { createDirectus, realtime, staticToken } from "@directus/sdk";
import assert from "node:assert/strict";
import { WebSocket } from "ws";
import type { Behaviour } from "../conformance.ts";

/** The SDK as it is published, on the only WebSocket it is given. */
function connectSdk(port: number, authMode: "public" | "handshake" | "strict", token = "ann:editor") {
  return createDirectus(`http://127.0.0.1:${port}`, { globals: { WebSocket, URL, fetch, logger: console } as never })
    .with(staticToken(token))
    .with(realtime({ authMode, url: `ws://127.0.0.1:${port}/${authMode}`, reconnect: false, connect: false }));
}

type Sdk = ReturnType<typeof connectSdk>;

/** The next message the SDK hands to its application. */
function nextMessage(sdk: Sdk): Promise<Record<string, unknown>> {
  return new Promise((resolve) => {
    const remove = sdk.onWebSocket("message", (message) => {
      remove();
      resolve(message);
    });
  });
}

/** The Directus SDK, unmodified, as a client that nobody here wrote. */
export const directus: Behaviour[] = [
  ...(["public", "handshake", "strict"] as const).map((mode): Behaviour => ({
    title: `the Directus SDK connects in ${mode} mode and sends and receives messages`,
    async run(server) {
      const sdk = connectSdk(server.port, mode);
      await sdk.connect();
      const [{ user }] = await server.control(mode, "wait", { event: "connect" });
      assert.equal(user, mode === "public" ? null : "ann");

      const reply = nextMessage(sdk);
      sdk.sendMessage({ type: "say", text: "hello" });
      const { type, status, data, uid } = await reply;
      assert.deepEqual({ type, status, data }, { type: "say", status: "ok", data: "hello" });
      assert.equal(typeof uid, "string");

      const news = nextMessage(sdk);
      await server.control(mode, "broadcast", { message: { type: "news", n: 1 } });
      assert.deepEqual(await news, { type: "news", n: 1 });

      sdk.disconnect();
      await server.control(mode, "wait", { event: "close" });
    },
  })),
  {
    title: "the Directus SDK answers the service's ping, and its answer gets no reply",
    async run(server) {
      const sdk = connectSdk(server.port, "handshake");
      const socket = await sdk.connect() as unknown as WebSocket;
      const sent: string[] = [];
      const send = socket.send.bind(socket);
      // Watched, not replaced: what the SDK sends goes out.
      const ponged = new Promise<void>((resolve) => {
        socket.send = ((data: string) => (sent.push(data), send(data), resolve())) as never;
      });
      const news = nextMessage(sdk);
      await server.control("handshake", "broadcast", { message: { type: "ping" } });
      // The SDK misses one of two messages that ws reads together.
      await ponged;
      await server.control("handshake", "broadcast", { message: { type: "news" } });
      assert.deepEqual(await news, { type: "news" });
      assert.deepEqual(sent.map((text) => JSON.parse(text).type), ["pong"]);
      const reply = nextMessage(sdk);
      sdk.sendMessage({ type: "ping", uid: "mine" });
      assert.deepEqual(await reply, { type: "pong", uid: "mine" });
      sdk.disconnect();
    },
  },
  {
    title: "the Directus SDK's connect rejects when its token is wrong",
    async run(server) {
      await assert.rejects(connectSdk(server.port, "handshake", "bad").connect());
      await assert.rejects(connectSdk(server.port, "strict", "bad").connect());
    },
  },
];
