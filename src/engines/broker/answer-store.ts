import type { AnswerStore, Awaitable } from "../engine.ts";
import type { Opened } from "./envelope.ts";
import type { Reconnection } from "./reconnection.ts";

/** What {@link BrokerAnswerStore} needs from its engine. */
export interface AnswerStoreHost {
  link(action: string): Promise<Reconnection>;
  /** Seals a text under a key, so that nodes can verify that a node has stored it there. */
  seal(key: string, text: string): Awaitable<string>;
  open(key: string, envelope: string): Awaitable<Opened | null>;
}

/** Stores answers at the broker, in sealed envelopes. */
export class BrokerAnswerStore implements AnswerStore {
  readonly #host: AnswerStoreHost;

  constructor(host: AnswerStoreHost) {
    this.#host = host;
  }

  async claim(key: string, text: string, ttl: number): Promise<string | null> {
    const link = await this.#host.link("claim");
    const envelope = await this.#host.seal(key, text);
    const found = await link.call("claim", (session) => session.answers.claim(key, envelope, ttl));
    if (found === null) return null;
    return (await this.#host.open(key, found))?.body ?? ""; // The envelope was not sealed by a node.
  }

  async settle(key: string, text: string, ttl: number): Promise<void> {
    const link = await this.#host.link("settle");
    const envelope = await this.#host.seal(key, text);
    await link.call("settle", async (session) => await session.answers.settle(key, envelope, ttl));
  }
}
