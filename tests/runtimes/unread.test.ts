/** A client that requests much and reads nothing needs no more memory than a slow one, on every runtime and with every engine. */
import assert from "node:assert/strict";
import { dirname, join } from "node:path";
import process from "node:process";
import { after, before, describe, it } from "node:test";
import { fileURLToPath } from "node:url";
import type { Position } from "../../src/engines/engine.ts";
import { BrokerProcess, lacks } from "../support/brokers.ts";
import { until } from "../support/waiting.ts";
import { Asker, startDurableObject, startServer, type TestServer } from "./server.ts";
import { Wire } from "./wire.ts";
import { rssOfWorkerd } from "./workerd.ts";

const fixture = (name: string) => join(dirname(fileURLToPath(import.meta.url)), "fixture", name);

/** Far below the 310 to 640 MB that one such client once needed. */
const MAX_GROWTH = 120_000_000;

const SUBSCRIPTIONS = 128;

/** Requests to the server while memory is measured. */
const LOOKS = 10;

const ENGINES: Record<string, { skip: string | false; start(): Promise<BrokerProcess> }> = {
  redis: { skip: lacks("redis-server"), start: () => BrokerProcess.redis() },
  nats: { skip: lacks("nats-server"), start: () => BrokerProcess.nats() },
};

const KINDS = {
  "recoveries of 6 MB": (recover: Position, uid: number) => ({ channel: "big", uid, recover }),
  "snapshots of 1 MB": (_: Position, uid: number) => ({ channel: "big", uid }),
};

for (const runtime of ["node", "bun", "deno", "durable object"] as const) {
  for (const engine of runtime === "durable object" ? ["its own"] : ["memory", ...Object.keys(ENGINES)]) {
    describe(`A client that reads nothing, on ${runtime} with the engine ${engine}`, {
      skip: ENGINES[engine]?.skip ?? (runtime === "durable object" && process.platform !== "linux" && "it reads /proc"),
    }, () => {
      let broker: BrokerProcess | undefined;
      let server: TestServer;
      let asker: Asker;
      let start: Position;

      before(async () => {
        broker = await ENGINES[engine]?.start();
        process.env["HISTORY_ENGINE"] = `${engine}:${broker?.port ?? ""}`;
        server = runtime === "durable object"
          ? await startDurableObject(fixture("history-worker.ts"))
          : await startServer(runtime, fixture("serve-history.ts"));
        asker = new Asker(server.port);
        start = await asker.ask<Position>("/fill", "POST");
        await recover();
      }, { timeout: 300_000 });
      after(async () => {
        Wire.resetAll();
        asker?.close();
        await server?.stop();
        await broker?.close();
      }, { timeout: 300_000 });

      const rss = async () => await asker.ask<number>("/rss") || rssOfWorkerd();

      /** Checks that a client that reads receives everything in order. */
      async function recover(): Promise<void> {
        const wire = await Wire.open(server.port, "/websocket");
        wire.send({ type: "subscribe", channel: "big", recover: start });
        assert.equal((await wire.next()).recovered, true);
        for (let number = 0; number < 100; number++) assert.equal(parseInt((await wire.next()).data, 10), number);
        await wire.close(1000);
      }

      for (const protocol of engine in ENGINES ? [undefined] : [undefined, "noroshi.v1"]) {
        for (const [title, messageOf] of Object.entries(KINDS)) {
          it(`uses little memory for ${title}${protocol ? `, by ${protocol}` : ""}`, { timeout: 300_000 }, async () => {
            const before = await rss();
            const messages = await asker.ask<number>("/messages");
            const wire = await Wire.open(server.port, "/websocket", { headers: { "Sec-WebSocket-Protocol": protocol } });
            wire.socket.pause();
            for (let uid = 0; uid < SUBSCRIPTIONS; uid++) {
              wire.send({ type: "subscribe", ...messageOf(start, uid) });
              // One by one, because concurrent subscriptions share one read.
              let read = 0;
              await until(async () => (read = await asker.ask<number>("/messages") - messages) > uid, () => ({ uid, read }));
            }
            // This recovery is answered after all reads above, because the engine answers in order.
            await recover();
            let most = 0;
            for (let looks = 0; looks < LOOKS; looks++) most = Math.max(most, await rss());
            assert.ok(most - before < MAX_GROWTH, `it has grown by ${Math.round((most - before) / 1e6)} MB`);
            wire.socket.resetAndDestroy();
          });
        }
      }
    });
  }
}
