/** Endless streams to clients that never read use bounded memory, and release everything at their end. */
import assert from "node:assert/strict";
import { dirname, join } from "node:path";
import process from "node:process";
import { after, afterEach, before, describe, it } from "node:test";
import { fileURLToPath } from "node:url";
import { until as waitUntil } from "../support/waiting.ts";
import { WINDOW } from "./fixture/endless.ts";
import { Asker, startDurableObject, startServer, type TestServer } from "./server.ts";
import { Wire } from "./wire.ts";
import { rssOfWorkerd } from "./workerd.ts";

const fixture = (name: string) => join(dirname(fileURLToPath(import.meta.url)), "fixture", name);

/** Memory of a client beside its window: its connection, its generator and garbage that is not collected yet. */
const CLIENT_BYTES = 65_536;

/** Items that are sent ahead of a credit. */
const MAX_ITEMS = 64;

/** Concurrent handshakes. */
const AT_ONCE = 50;

/** Requests to the server while memory is measured. */
const LOOKS = 10;

interface State {
  /** Items that the generators have yielded. */
  yielded: number;
  /** Generators that have run their `finally`. */
  finished: number;
  /** Clients with a full window of buffered bytes. */
  full: number;
  active: number;
  streams: number;
}

/**
 * 64 items nearly fill a window. For a plain client the kernel holds some 4 MB first. So there are fewer, and the heap counts beside them;
 * a runtime's own buffer may be twice as large as what it holds.
 */
const KINDS = {
  "noroshi.v1": { protocol: "noroshi.v1", clients: 500, size: 4_000, max: 500 * (WINDOW + CLIENT_BYTES) },
  "no subprotocol": { protocol: undefined, clients: 100, size: 16_000, max: 100 * (2 * WINDOW + CLIENT_BYTES) + 32_000_000 },
};

/** workerd takes memory of its own, which is little beside that of more clients. */
const IN_AN_OBJECT = { ...KINDS["noroshi.v1"], clients: 1_000, max: 1_000 * (WINDOW + CLIENT_BYTES) };

for (const runtime of ["node", "bun", "deno", "Deno.serve", "durable object"] as const) {
  const isObject = runtime === "durable object";
  describe(`Endless streams to clients that do not read, on ${runtime}`, {
    skip: isObject && process.platform !== "linux" && "it reads /proc",
  }, () => {
    let server: TestServer;
    let asker: Asker;

    before(async () => {
      if (isObject) server = await startDurableObject(fixture("endless-worker.ts"));
      else if (runtime === "Deno.serve") server = await startServer("deno", fixture("serve-endless-deno.ts"));
      else server = await startServer(runtime, fixture("serve-endless.ts"));
      asker = new Asker(server.port);
    }, { timeout: 300_000 });
    afterEach(() => Wire.resetAll());
    after(() => {
      asker?.close();
      return server?.stop();
    }, { timeout: 300_000 });

    const state = () => asker.ask<State>("/state");
    const rss = async () => await asker.ask<number>("/rss") || rssOfWorkerd();

    async function until(isSo: (state: State) => boolean): Promise<State> {
      let now = await state();
      await waitUntil(async () => isSo(now = await state()), () => now);
      return now;
    }

    async function open(count: number, protocol: string | undefined): Promise<Wire[]> {
      const wires: Wire[] = [];
      while (wires.length < count) {
        const some = Array.from(
          { length: Math.min(AT_ONCE, count - wires.length) },
          () => Wire.open(server.port, "/websocket", { headers: { "Sec-WebSocket-Protocol": protocol } }),
        );
        wires.push(...await Promise.all(some));
      }
      return wires;
    }

    /** Runs clients that request a stream, do not read it and leave. Returns the largest growth of memory. */
    async function run(clients: number, protocol: string | undefined, size: number): Promise<number> {
      const before = { ...await state(), rss: await rss() };
      const wires = await open(clients, protocol);
      for (const wire of wires) {
        wire.socket.pause();
        wire.send({ type: "endless", uid: 1, size });
      }
      const isFilled = ({ yielded, full }: State) => protocol ? yielded - before.yielded >= clients * MAX_ITEMS : full >= clients;
      const filled = await until(isFilled);
      assert.equal(filled.streams, clients);
      let most = 0;
      for (let looks = 0; looks < LOOKS; looks++) {
        const now = await state();
        most = Math.max(most, await rss());
        // The kernel's buffers may still grow for a while.
        if (protocol) assert.equal(now.yielded, filled.yielded, "a generator was asked for more");
      }
      // Every second client cancels, still without reading. The others reset their connections.
      for (const [at, wire] of wires.entries()) {
        if (at % 2) wire.socket.resetAndDestroy();
        else wire.send({ type: "stream.cancel", uid: 1 });
      }
      const left = await until(({ finished }) => finished - before.finished >= clients);
      assert.deepEqual([left.finished - before.finished, left.streams], [clients, 0]);
      Wire.resetAll();
      await until(({ active }) => active === 0);
      return most - before.rss;
    }

    // An object cannot measure how much waits for a client without a subprotocol.
    for (const [name, { protocol, clients, size, max }] of Object.entries(isObject ? { "noroshi.v1": IN_AN_OBJECT } : KINDS)) {
      it(`use bounded memory per client and release everything, by ${name}`, { timeout: 600_000 }, async () => {
        // Warms up: the heap grows to the size that the work needs.
        await run(clients / 5, protocol, size);
        const growth = await run(clients, protocol, size);
        assert.ok(growth <= max, `it has grown by ${Math.round(growth / 1e6)} MB`);
      });
    }
  });
}
