import type { PublishOnce } from "../engine.ts";
import { encodeName } from "../broker/channel-name.ts";
import { isGone, type JetStream, type StreamConfig } from "./jetstream.ts";
import { NS_PER_MS } from "./pull-consumer.ts";

/** Minimum time in ms for which repeated ids are recognized: the default of `idWindow`, so that streams rarely have to be updated. */
export const WINDOW = 300_000;

/** The id of a message in a stream, from the id of a publication in a channel. */
export function messageId(channel: string, { id }: PublishOnce): string {
  return `${encodeName(channel)}.${encodeName(id)}`;
}

/** Maximum size of the stream, in bytes. Ids of messages beyond it are forgotten when the server restarts. */
const MAX_BYTES = 2 ** 24;

/**
 * Publishes with an id and without a history. A stream of its own stores these publications for the window of their ids, so that the
 * server drops repeats, and republishes them as the events that nodes subscribe to. The stream is created with the first publication.
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
      max_age: this.#window * NS_PER_MS,
      duplicate_window: this.#window * NS_PER_MS,
      republish: { src: subjects, dest: `${this.#prefix}.channel.{{wildcard(1)}}.event` },
    });
    opening.catch(() => {
      if (this.#opening === opening) this.#opening = undefined; // This publication gets the error; the next one tries again.
    });
    return opening;
  }
}
