import { Hono } from "hono";
import type { Connection } from "../../src/connection/connection.ts";
import { Connections } from "../../src/connection/connections.ts";
import { WebSocketController } from "../../src/controller/controller.ts";
import type { WebSocketControllerOptions } from "../../src/application/options.ts";
import { type Acceptance, HOST, type Host, type Runtime } from "../../src/runtimes/runtime.ts";
import { FakeTransport } from "./fake-transport.ts";
import { TestClock } from "./test-clock.ts";

/** What a client's opening handshake has (RFC 6455 §4.1); the key is the RFC's own. */
export const HANDSHAKE_HEADERS = {
  upgrade: "websocket",
  connection: "Upgrade",
  "sec-websocket-version": "13",
  "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
};

/** An app with a WebSocket route, on a runtime that accepts in memory; `before` adds middleware. */
export function createRoute(options: WebSocketControllerOptions = {}, before: (app: Hono) => void = () => {}) {
  const controller = new WebSocketController({ logger: false, clock: new TestClock(), ...options });
  const accepted: Acceptance[] = [];
  const opened: Connection[] = [];
  const transports: FakeTransport[] = [];
  const runtime: Runtime = {
    ip: () => "192.0.2.1",
    accept(_request, acceptance) {
      accepted.push(acceptance);
      const transport = new FakeTransport();
      transports.push(transport);
      opened.push(acceptance.open(transport));
      return new Response(null, { headers: { "x-fake": "runtime" } }); // A 101 cannot be made by hand.
    },
  };
  const host: Host & { runtime: Runtime } = { runtime, connections: new Connections() };
  const env = { [HOST]: host };
  const app = new Hono();
  before(app);
  app.all("/websocket", controller.upgrade);
  return {
    app,
    controller,
    env,
    host,
    accepted,
    opened,
    transports,
    /** Asks for the upgrade; headers replace those of a good handshake, `null` takes one away. */
    async request(path: string, headers: Record<string, string | null> = {}, init: RequestInit = {}): Promise<Response> {
      const all = new Headers(HANDSHAKE_HEADERS);
      for (const [name, value] of Object.entries(headers)) {
        if (value === null) all.delete(name);
        else all.set(name, value);
      }
      return await app.request(path, { ...init, headers: all }, env);
    },
  };
}
