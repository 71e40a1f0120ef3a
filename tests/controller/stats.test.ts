/** `WebSocketController.stats`, whose counters must add up whatever happens to connections. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import fc from "fast-check";
import type { AuthenticationState } from "../../src/application/authentication.ts";
import type { Connection } from "../../src/connection/connection.ts";
import { Refusals } from "../../src/application/refusals.ts";
import { createRoute } from "../support/fake-runtime.ts";
import { FakeTransport, HANDSHAKE } from "../support/fake-transport.ts";
import { assertProperty } from "../support/property.ts";
import { TestClock } from "../support/test-clock.ts";
import { Stall, turn } from "../support/waiting.ts";

const CLOSES = {
  client: 0,
  server: 0,
  auth: 0,
  expired: 0,
  rate: 0,
  payload: 0,
  slow: 0,
  heartbeat: 0,
  age: 0,
  drain: 0,
  error: 0,
};

/** What has happened, where nothing has. */
const NOTHING = {
  closedBy: CLOSES,
  dropped: 0,
  limited: 0,
  streams: 0,
  refused: new Refusals({ warn: () => {} }, () => false).counts,
};

const IDLE = { active: 0, clients: 0, pending: 0, reserved: 0, deadlines: 0, keys: 0 };

/** What may happen, to the connection with this number where it is about one. */
const step = fc.oneof(
  fc.record({
    kind: fc.constantFrom("upgrade", "upgrade as ann", "upgrade, refused", "upgrade, away", "open", "restore"),
    at: fc.constant(0),
  }),
  fc.record({
    kind: fc.constantFrom(
      "auth",
      "auth, refused",
      "auth, later",
      "settle",
      "message",
      "close",
      "closed",
      "reset",
      "stuck",
      "expire",
    ),
    at: fc.nat(20),
  }),
  fc.record({ kind: fc.constantFrom("disconnect", "advance"), at: fc.nat(6000) }),
);

describe("WebSocketController.stats", () => {
  it("starts with nothing", () => {
    const { controller } = createRoute();
    assert.deepEqual(controller.stats(), { opened: 0, closed: 0, ...IDLE, ...NOTHING });
  });

  it("counts a connection from pending to closed", async () => {
    const { controller, request, opened } = createRoute({
      authenticate: () => ({ accountability: { user: "ann", role: null } }),
      // What is not limited is not counted.
      maxConnectionsPerIp: 5,
      maxConnectionsPerUser: 5,
    });
    await request("/websocket");
    const pending = { opened: 1, closed: 0, active: 1, clients: 0, pending: 1, reserved: 1, deadlines: 1, keys: 1, ...NOTHING };
    assert.deepEqual(controller.stats(), pending);
    opened[0]!.message('{"type":"auth","access_token":"token-1"}');
    await turn();
    assert.deepEqual(controller.stats(), { ...pending, clients: 1, pending: 0, deadlines: 0, keys: 2 });
    opened[0]!.closed(1000, "", true);
    assert.deepEqual(controller.stats(), { opened: 1, closed: 1, ...IDLE, ...NOTHING, closedBy: { ...CLOSES, client: 1 } });
  });

  it("counts closes by their cause, those of connections that were never admitted too", async () => {
    const clock = new TestClock();
    const { controller, request, opened, transports } = createRoute({
      authenticate: (credentials) => "access_token" in credentials ? { accountability: { user: "ann", role: null } } : null,
      maxPayload: 1_000,
      maxAge: 60_000,
      timeout: 5_000,
      rateLimit: { burst: 1, messages: 0.001 },
      heartbeat: false,
      clock,
    });
    const connect = async (query = "?access_token=ann") => {
      await request(`/websocket${query}`);
      return { connection: opened.at(-1)!, transport: transports.at(-1)! };
    };
    const causes: Record<string, (of: Awaited<ReturnType<typeof connect>>) => void> = {
      client: ({ connection }) => connection.closed(1000, "", true),
      error: ({ connection }) => connection.closed(1006, "", false),
      server: ({ connection }) => connection.client.close(),
      payload: ({ connection }) => connection.message("x".repeat(1_001)),
      slow: ({ connection, transport }) => {
        transport.sends = false;
        connection.client.send("x");
      },
      rate: ({ connection }) => {
        for (let n = 0; n < 200; n++) connection.message('{"type":"ping"}');
      },
      auth: () => {},
      age: () => {},
      drain: () => void controller.close(),
    };
    const { connection: pending } = await connect("");
    clock.advance(5_000);
    pending.closed(4408, "", true);
    const { connection: old } = await connect();
    clock.advance(60_000);
    old.closed(1012, "", true);
    for (const [cause, end] of Object.entries(causes)) {
      if (cause === "auth" || cause === "age") continue;
      const of = await connect();
      end(of);
      of.connection.closed(1005, "", true);
    }
    const { closedBy, closed, limited, dropped } = controller.stats();
    assert.deepEqual(closedBy, { ...CLOSES, ...Object.fromEntries(Object.keys(causes).map((cause) => [cause, 1])) });
    assert.equal(closed, Object.keys(causes).length);
    assert.deepEqual([limited, dropped], [101, 1]);
    // What was read is a copy.
    closedBy.client = 9;
    assert.equal(controller.stats().closedBy.client, 1);
  });

  it("counts messages that a slow client was not handed, and those that are not handled for the rate", async () => {
    const { controller, request, opened, transports } = createRoute({
      slowConsumer: "drop",
      rateLimit: { burst: 2, messages: 0.001, key: () => "all" },
    });
    await request("/websocket");
    transports[0]!.sends = false;
    for (let n = 0; n < 3; n++) await controller.broadcast("x");
    for (let n = 0; n < 5; n++) opened[0]!.message('{"type":"x"}');
    const { dropped, limited } = controller.stats();
    // Two answers and the refusal could not be sent either.
    assert.deepEqual({ dropped, limited }, { dropped: 6, limited: 3 });
  });

  it("adds up inside every listener too, where a connection that closes is not open any more", async () => {
    const { controller, request, opened, transports } = createRoute({
      authenticate: () => ({ accountability: { user: "ann", role: null } }),
    });
    const seen: string[] = [];
    for (const event of ["connect", "message", "error", "close", "auth.success", "auth.failure"] as const) {
      controller.on(event, () => {
        const { opened, closed, active, reserved, clients } = controller.stats();
        seen.push(`${event}: ${opened} = ${closed} + ${active}, ${reserved} reserved, ${clients} clients`);
      });
    }
    for (let n = 0; n < 2; n++) await request("/websocket?access_token=token-1");
    await request("/websocket");
    opened[0]!.message('{"type":"x"}');
    opened[2]!.message('{"type":"x"}');
    opened[2]!.closed(4401, "", true);
    opened[0]!.closed(1000, "", true);
    transports[1]!.closeError = new Error("gone");
    opened[1]!.close();
    assert.deepEqual(seen, [
      "connect: 1 = 0 + 1, 1 reserved, 1 clients",
      "connect: 2 = 0 + 2, 2 reserved, 2 clients",
      "message: 3 = 0 + 3, 3 reserved, 2 clients",
      "auth.failure: 3 = 0 + 3, 3 reserved, 2 clients",
      "close: 3 = 2 + 1, 1 reserved, 1 clients",
      "error: 3 = 2 + 1, 1 reserved, 1 clients",
      "close: 3 = 3 + 0, 0 reserved, 0 clients",
    ]);
  });

  it("adds up after any sequence, and is at rest once all are gone", async () => {
    await assertProperty(
      fc.asyncProperty(
        fc.constantFrom("public", "handshake", "strict"),
        fc.array(step, { maxLength: 40 }),
        async (mode, steps) => {
          const clock = new TestClock();
          const stalls: Stall<AuthenticationState | null>[] = [];
          const ann = () => ({ accountability: { user: "ann", role: null }, expires_at: clock.now() / 1000 + 60 });
          const route = createRoute({
            mode,
            clock,
            timeout: 3000,
            maxConnections: 8,
            maxPending: 4,
            maxConnectionsPerUser: 3,
            rateLimit: false,
            authenticate(credentials) {
              const token = "access_token" in credentials ? credentials.access_token : "";
              if (token !== "later") return token === "good" ? ann() : null;
              stalls.push(new Stall());
              return stalls.at(-1)!.promise;
            },
          });
          const { controller, opened, transports, host, request } = route;
          const { accept } = host.runtime;
          const open = (connection: Connection, transport: FakeTransport) => {
            opened.push(connection);
            transports.push(transport);
          };
          for (const { kind, at } of steps) {
            const index = at % Math.max(1, opened.length);
            const [connection, transport] = [opened[index], transports[index]];
            if (kind === "upgrade") await request("/websocket");
            else if (kind === "upgrade as ann") await request("/websocket?access_token=good");
            else if (kind === "upgrade, refused") await request("/websocket?access_token=bad");
            else if (kind === "upgrade, away") {
              host.runtime.accept = () => null;
              await request("/websocket?access_token=good");
              host.runtime.accept = accept;
            } else if (kind === "open") {
              const transport = new FakeTransport();
              open(controller.open(transport, { ...HANDSHAKE, mode }, null), transport);
            } else if (kind === "restore") {
              const transport = new FakeTransport();
              const saved = {
                controller: "main",
                uid: "1",
                handshake: HANDSHAKE,
                state: null,
                until: 0,
                phase: "admitted" as const,
              };
              open(controller.restore(transport, { ...saved, ...ann() }), transport);
            } else if (kind === "settle") stalls.shift()?.resolve(at % 2 === 0 ? ann() : null);
            else if (kind === "disconnect") controller.disconnect({ user: "ann" });
            else if (kind === "advance") clock.advance(at);
            else if (!connection || !transport) continue;
            else if (kind === "auth") connection.message('{"type":"auth","access_token":"good"}');
            else if (kind === "auth, refused") connection.message('{"type":"auth","access_token":"bad"}');
            else if (kind === "auth, later") connection.message('{"type":"auth","access_token":"later"}');
            else if (kind === "message") connection.message('{"type":"x"}');
            else if (kind === "close") connection.close(4000);
            else if (kind === "closed") connection.closed(1000, "", true);
            else if (kind === "reset") {
              transport.readyState = 3;
              connection.error(new Error("reset"));
              connection.closed(1006, "", false);
            } else if (kind === "stuck") transport.sends = false;
            else clock.advance(61_000);
            await turn();
            const stats = controller.stats();
            const context = `${kind} ${JSON.stringify(stats)}`;
            assert.equal(stats.opened, stats.closed + stats.active, context);
            assert.equal(stats.opened, opened.length, context);
            assert.equal(stats.closed, Object.values(stats.closedBy).reduce((sum, count) => sum + count, 0), context);
            assert.equal(stats.reserved, stats.active, context);
            assert.ok(stats.pending <= stats.active && stats.clients <= stats.active, context);
          }
          for (const stall of stalls) stall.resolve(ann());
          await turn();
          for (const connection of opened) connection.closed(1006, "", false);
          clock.advance(3000);
          const { closedBy: _, dropped: __, limited: ___, streams: ____, refused, ...stats } = controller.stats();
          assert.deepEqual(stats, { opened: opened.length, closed: opened.length, ...IDLE });
          assert.deepEqual(Object.keys(refused), Object.keys(NOTHING.refused));
          assert.equal(clock.timers, 0);
        },
      ),
      { numRuns: 60 },
    );
  });
});
