import type { PublishOnce } from "../engine.ts";
import { encodeName } from "../broker/channel-name.ts";
import { isGone, type JetStream, NANOSECONDS, type StreamConfig } from "./jetstream.ts";

/** Time in ms that ids are remembered at least: that of the channels' default, so that a stream is seldom changed later. */
export const WINDOW = 300_000;

/** The id of a message in a stream, from that of a publication in its channel. */
export function messageId(channel: string, { id }: PublishOnce): string {
  return `${encodeName(channel)}.${encodeName(id)}`;
}

/** Maximum size of the stream, in bytes. Older ids are forgotten when the server restarts. */
const MAX_BYTES = 2 ** 24;

/**
 * Publications that have an id and no history. A stream of their own stores them for the window of the id, so that the server drops
 * repeats, and republishes them as the events that nodes subscribe to. It is created at the first one.
 */
export class NatsPublishOnce {
  readonly #jetstream: JetStream;
  readonly #prefix: string;
  readonly #config: Pick<StreamConfig, "name" | "storage" | "num_replicas">;
  #window = 0;
  #opening: Promise<unknown> | undefined;

  constructor(
    jetstream: JetStream,
    namespace: string,
    { storage, replicas }: { readonly storage: string; readonly replicas: number },
  ) {
    this.#jetstream = jetstream;
    this.#prefix = `noroshi.${namespace}`;
    this.#config = { name: `NOROSHI_${namespace}_once`, storage, num_replicas: replicas };
  }

  async publish(channel: string, envelope: string, once: PublishOnce): Promise<void> {
    if (once.window > this.#window) {
      this.#window = Math.max(once.window, WINDOW);
      this.#opening = undefined;
    }
    const send = () =>
      this.#jetstream.publishOnce(`${this.#prefix}.once.${encodeName(channel)}`, envelope, messageId(channel, once));
    await this.#open();
    try {
      await send();
    } catch (error) {
      if (!isGone(error)) throw error;
      this.#opening = undefined;
      await this.#open();
      await send();
    }
  }

  #open(): Promise<unknown> {
    const subjects = `${this.#prefix}.once.*`;
    const opening = this.#opening ??= this.#jetstream.open({
      ...this.#config,
      retention: "limits",
      discard: "old",
      subjects: [subjects],
      max_msgs_per_subject: -1,
      max_bytes: MAX_BYTES,
      max_age: this.#window * NANOSECONDS,
      duplicate_window: this.#window * NANOSECONDS,
      republish: { src: subjects, dest: `${this.#prefix}.channel.{{wildcard(1)}}.event` },
    });
    opening.catch(() => {
      if (this.#opening === opening) this.#opening = undefined; // The next publication tries again; this one gets the error.
    });
    return opening;
  }
}
