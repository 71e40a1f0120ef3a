import type { WebSocketControllerOptions } from "../../src/application/options.ts";
import type { ChannelDeclarations } from "../../src/channels/channels.ts";
import type { SubscriptionKeeper } from "../../src/engines/engine.ts";
import { MemoryEngine } from "../../src/engines/memory-engine.ts";
import { createChannels, TestPeer } from "./channels-fixture.ts";
import { HANDSHAKE, HibernatingTransport } from "./fake-transport.ts";
import { TestClock } from "./test-clock.ts";

export const subscribe = (channel: string, rest: Record<string, unknown> = {}): Record<string, unknown> & { type: string } => ({
  type: "subscribe",
  channel,
  ...rest,
});

/** Subscriptions by the client and their name. */
export type Kept = Map<string, Map<string, string>>;

/** An engine that loses all but the subscriptions when it is away. */
class KeepingEngine extends MemoryEngine {
  readonly keeper: SubscriptionKeeper;

  constructor(kept: Kept) {
    super();
    this.keeper = {
      save: (uid, name, text) => void kept.set(uid, (kept.get(uid) ?? new Map()).set(name, text)),
      load: (uid) => [...kept.get(uid)?.values() ?? []],
      delete: (uid, name) => {
        if (name !== undefined) kept.get(uid)?.delete(name);
        if (name === undefined || kept.get(uid)?.size === 0) kept.delete(uid);
      },
    };
  }
}

/** A server that goes away and comes back with the connections it had. */
export function createObject(declarations: ChannelDeclarations, options: WebSocketControllerOptions = {}) {
  const kept: Kept = new Map();
  const peers: { transport: HibernatingTransport }[] = [];
  const build = (elapsed: number) => {
    const clock = new TestClock();
    clock.jump(elapsed);
    const built = createChannels(declarations, { ...options, engine: new KeepingEngine(kept), clock });
    const { controller } = built;
    return {
      ...built,
      clock,
      kept,
      connect: (user: string, expires_at: number | null = null) => {
        const transport = new HibernatingTransport();
        peers.push({ transport });
        const connection = controller.open(transport, HANDSHAKE, { accountability: { user, role: null }, expires_at });
        return new TestPeer(connection, connection.client, transport);
      },
      /** The server that comes back so many ms after the first one began, and its clients in the order they came. */
      evict: (ms = 0) => {
        const next = build(ms);
        return {
          ...next,
          peers: peers.map(({ transport }) => {
            const connection = next.controller.restore(transport, transport.saved.at(-1)!); // Each was let in.
            return new TestPeer(connection, connection.client, transport);
          }),
        };
      },
    };
  };
  return build(0);
}
