/** Controllers with channels on several nodes that meet at a real broker. */
import assert from "node:assert/strict";
import process from "node:process";
import { describe, it } from "node:test";
import type { AuthenticationState } from "../../src/application/authentication.ts";
import { Channels } from "../../src/channels/channels.ts";
import { WebSocketController } from "../../src/controller/controller.ts";
import type { Engine } from "../../src/engines/engine.ts";
import type { BrokerEngine } from "../../src/engines/broker/broker-engine.ts";
import type { WebSocketControllerOptions } from "../../src/application/options.ts";
import { FakeTransport, openOn } from "../support/fake-transport.ts";
import { Stall, turn, until } from "../support/waiting.ts";
import type { BrokerProcess } from "../support/brokers.ts";
import { untilAcquainted } from "./acquainted.ts";
import { speakNextVersion } from "./next-version.ts";

/** Nodes sign by it. */
const secret = "a secret of the tests";

/** Quick to notice all but silence: a busy machine keeps a broker or a node silent for a while. */
export const FAST = { secret, checkInterval: 300, timeout: 10_000 };

/** A kind of broker. */
export interface NodesFixture {
  readonly skip: string | false;
  start(): Promise<BrokerProcess>;
  engine(port: number): Engine;
}

/** The other end of a connection. */
class Peer {
  readonly transport = new FakeTransport();
  // deno-lint-ignore no-explicit-any -- a test reads whatever was sent
  readonly received: any[] = [];
  readonly #opened: ReturnType<typeof openOn>;

  constructor(controller: WebSocketController, user: string) {
    this.#opened = openOn(this.transport, controller, { identity: { accountability: { user, role: "reader" } } });
  }

  get uid(): string {
    return this.#opened.client.uid;
  }

  send(message: Record<string, unknown>): void {
    this.#opened.connection.message(JSON.stringify(message));
  }

  /** The first message of which it is so, once it has come. */
  // deno-lint-ignore no-explicit-any -- as above
  async find(condition: (message: any) => boolean): Promise<any> {
    for (;;) {
      this.received.push(...this.transport.take());
      const found = this.received.find(condition);
      if (found) return found;
      await turn();
    }
  }

  leave(): void {
    this.transport.readyState = 3;
    this.#opened.connection.closed(1006, "", false);
  }
}

/** What a version writes is the same on all runtimes. */
const isNode = !("Deno" in globalThis || process.versions["bun"]);
const VERSIONS = ["", ", the first of the next version", ", the first of this version and the others of the next"]
  .slice(0, isNode ? 3 : 1);

export function nodes(name: string, { skip, start, engine }: NodesFixture): void {
  for (const [version, title] of VERSIONS.entries()) {
    describe(`Nodes that meet at ${name}${title}`, { skip }, () => {
      const create = async (options: WebSocketControllerOptions = {}) => {
        const broker = await start();
        const nodes = await Promise.all([1, 2, 3].map(async () => {
          const controller = new WebSocketController({
            engine: engine(broker.port),
            logger: false,
            rateLimit: false,
            ...options,
          });
          const channels = new Channels(controller, {
            room: { authorize: () => true, history: { size: 100, ttl: 60_000 }, presence: { grace: 0 } },
          });
          await until(() => controller.engine.status === "ready");
          return { controller, channels, join: (user: string) => new Peer(controller, user) };
        }));
        // Each names itself first.
        const names = (await untilAcquainted(nodes)).map(({ nodes }) => Object.keys(nodes)[0]!); // There are three.
        const droppedBy = () => nodes.map(({ controller }) => ({ ...(controller.engine as BrokerEngine).dropped }));
        const dropped = droppedBy();
        const restore = speakNextVersion(
          new Set(names.filter((_, index) => version > 0 && (index > 0) === (version > 1))),
          secret,
        );
        const close = async () => {
          restore();
          assert.deepEqual(droppedBy(), dropped);
          for (const { controller } of nodes) await controller.engine.close();
          await broker.close();
        };
        return { broker, nodes, a: nodes[0]!, b: nodes[1]!, close };
      };

      it(
        "broadcast, disconnect and name clients as one",
        { timeout: 300_000 },
        async () => {
          const { nodes, a, b, close } = await create();
          const peers = nodes.map(({ join }, index) => join(`user${index}`));
          await a.controller.broadcast({ type: "news" });
          for (const peer of peers) {
            await peer.find(({ type }) => type === "news");
          }
          const { clients, missing } = await a.controller.cluster.clients({}, { timeout: 60_000 });
          assert.deepEqual(
            clients.map(({ uid }) => uid).sort(),
            peers.map(({ uid }) => uid).sort(),
          );
          assert.deepEqual(missing, []);
          b.controller.disconnect({ user: "user2" }, 4403, "Out");
          await until(() => peers[2]!.transport.closes.length === 1);
          assert.deepEqual(peers[2]!.transport.closes, [{
            code: 4403,
            reason: "Out",
          }]);
          b.controller.broadcast({ type: "last" });
          await peers[0]!.find(({ type }) => type === "last");
          assert.equal(
            peers[0]!.received.filter(({ type }) => type === "news").length,
            1,
          );
          await close();
        },
      );

      it("disconnect a user whose authentication is under way on another one", { timeout: 300_000 }, async () => {
        const stall = new Stall<AuthenticationState>();
        const { a, b, close } = await create({ authenticate: () => stall.promise, timeout: 300_000 });
        const watcher = b.join("watcher");
        const { transport, connection } = openOn(new FakeTransport(), b.controller, { mode: "handshake" });
        connection.message(JSON.stringify({ type: "auth", access_token: "of ann" }));
        a.controller.disconnect({ user: "ann" });
        // It comes after.
        a.controller.broadcast({ type: "done" });
        await watcher.find(({ type }) => type === "done");
        stall.resolve({ accountability: { user: "ann", role: null } });
        const answers: Record<string, unknown>[] = [];
        await until(() => {
          answers.push(...transport.take());
          return transport.closes.length > 0 || answers.some(({ status }) => status === "ok");
        });
        assert.deepEqual(transport.closes.map(({ code }) => code), [4403]);
        assert.ok(answers.every(({ status }) => status === "error"));
        await close();
      });

      it(
        "publish to, recover and people a channel as one",
        { timeout: 300_000 },
        async () => {
          const { nodes, a, b, close } = await create();
          const [ann, bob] = [a.join("ann"), b.join("bob")];
          ann.send({ type: "subscribe", channel: "room", presence: true });
          await ann.find(({ type, event, members }) => type === "presence" && event === "join" && members[0].user === "ann");
          bob.send({ type: "subscribe", channel: "room" });
          const { epoch, offset } = await bob.find(({ event }) => event === "init");
          await ann.find(({ type, event, members }) => type === "presence" && event === "join" && members[0].user === "bob");
          const places = await Promise.all(
            [1, 2, 3].map((n) => nodes[2]!.channels.publish("room", "say", n)),
          );
          for (const peer of [ann, bob]) {
            await peer.find(({ data }) => data === 3);
          }
          assert.deepEqual(
            ann.received.filter(({ event }) => event === "say").map((
              { data },
            ) => data),
            [1, 2, 3],
          );
          assert.deepEqual(
            ann.received.filter(({ event }) => event === "say").map((
              { offset },
            ) => offset),
            places.map((place) => place!.offset),
          );
          bob.leave();
          await ann.find(({ type, event, members }) =>
            type === "presence" && event === "leave" &&
            members[0].user === "bob"
          );
          ann.received.length = 0;
          const again = nodes[2]!.join("bob");
          again.send({
            type: "subscribe",
            channel: "room",
            recover: { epoch, offset },
          });
          await again.find(({ data }) => data === 3);
          await ann.find(({ type, event, members }) => type === "presence" && event === "join" && members[0].user === "bob");
          const [init, ...missed] = again.received;
          assert.equal(init.recovered, true);
          assert.deepEqual(missed.map(({ data }) => data), [1, 2, 3]);
          assert.deepEqual(
            (await a.channels.presence("room")).map(({ user }) => user).sort(),
            ["ann", "bob"],
          );
          await close();
        },
      );
    });
  }
}
