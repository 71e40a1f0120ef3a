import * as v from "valibot";
import { type ChannelDeclarations, Channels, type ChannelsOptions } from "../../src/channels/channels.ts";
import type { WebSocketControllerOptions } from "../../src/application/options.ts";
import type { WebSocketMessage } from "../../src/protocol/protocol.ts";
import type { WebSocketClient } from "../../src/application/websocket-client.ts";
import type { Frame } from "../../src/protocol/frame.ts";
import type { Publisher } from "../../src/delivery/transport.ts";
import { FakeTransport, type open, openOn } from "./fake-transport.ts";
import { observe } from "./observed.ts";
import { turn } from "./waiting.ts";

export const anybody = { authorize: () => true };
export const kept = { authorize: () => true, history: { size: 10, ttl: 60_000 } };
export const say = { ...anybody, schema: { say: v.object({ text: v.string() }) } };

/** A server's topics, which every other publication goes by: the rest is sent to each client by itself. */
export class Topics implements Publisher {
  bytesSent = 0;
  publications = 0;
  readonly #members = new Map<string, Set<FakeTransport>>();
  #calls = 0;

  of(topic: string): Set<FakeTransport> {
    const members = this.#members.get(topic) ?? new Set();
    this.#members.set(topic, members);
    return members;
  }

  publish(topic: string, frame: Frame): boolean {
    if (++this.#calls % 2 === 0) return false;
    this.publications++;
    for (const transport of this.of(topic)) {
      this.bytesSent += frame.bytes;
      transport.send(frame);
    }
    return true;
  }
}

/** A socket that topics may be sent to. */
class TopicTransport extends FakeTransport {
  readonly publisher: Topics;

  constructor(publisher: Topics) {
    super();
    this.publisher = publisher;
  }

  join(topic: string): void {
    this.publisher.of(topic).add(this);
  }

  leave(topic: string): void {
    this.publisher.of(topic).delete(this);
  }
}

/** A controller with channels, whose time the test moves. */
export function createChannels<const D extends ChannelDeclarations>(
  declarations: D,
  options: WebSocketControllerOptions & ChannelsOptions = {},
) {
  const { maxSubscriptions, maxSubscriptionsPerUser, maxNewChannelsPerMinute, idWindow, maxIdsPerUser, ...rest } = options;
  const observed = observe({ rateLimit: false, ...rest });
  const limits = Object.entries({
    maxSubscriptions,
    maxSubscriptionsPerUser,
    maxNewChannelsPerMinute,
    idWindow,
    maxIdsPerUser,
  });
  const channels = new Channels(
    observed.controller,
    declarations,
    Object.fromEntries(limits.filter(([, limit]) => limit !== undefined)),
  );
  const topics = new Topics();
  return {
    ...observed,
    channels,
    topics,
    /** A client that is let in, as this user. */
    join: (user: string | null = null) => {
      const identity = user === null ? null : { accountability: { user, role: null } };
      const { connection, client, transport } = openOn(new TopicTransport(topics), observed.controller, { identity });
      return new TestPeer(connection, client, transport);
    },
  };
}

/** The other end of a connection. */
export class TestPeer {
  readonly client: WebSocketClient;
  readonly connection: ReturnType<typeof open>["connection"];
  readonly transport: FakeTransport;

  constructor(connection: ReturnType<typeof open>["connection"], client: WebSocketClient, transport: FakeTransport) {
    this.connection = connection;
    this.client = client;
    this.transport = transport;
  }

  /** Sends messages in one turn. */
  send(...messages: Omit<WebSocketMessage, never>[]): void {
    for (const message of messages) this.connection.message(JSON.stringify(message));
  }

  /** What it has been sent since it was last asked, once everything has run. */
  // deno-lint-ignore no-explicit-any -- a test reads whatever was sent
  async take(): Promise<any[]> {
    for (let turns = 0; turns < 4; turns++) await turn();
    return this.transport.take();
  }

  /** Sends messages and reads the answers. */
  // deno-lint-ignore no-explicit-any -- a test reads whatever was sent
  async ask(...messages: Omit<WebSocketMessage, never>[]): Promise<any[]> {
    this.send(...messages);
    return await this.take();
  }

  /** The connection is lost, or closed. */
  leave(wasClean = false): void {
    this.transport.readyState = 3;
    this.connection.closed(wasClean ? 1000 : 1006, "", wasClean);
  }
}
