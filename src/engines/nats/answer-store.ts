import { encodeAny } from "../broker/channel-name.ts";
import type { BrokerSession } from "../broker/broker.ts";
import { isGone, type JetStream } from "./jetstream.ts";
import { NS_PER_MS } from "./pull-consumer.ts";

/** Maximum size of the stream, in bytes. A full stream refuses new answers instead of deleting old ones, whose requests would run again. */
const MAX_BYTES = 2 ** 26;

/** Stores answers in a stream of their own, one message for each key. The stream is created with the first answer. */
export class NatsAnswerStore implements Required<BrokerSession["answers"]> {
  readonly #jetstream: JetStream;
  readonly #stream: string;
  readonly #prefix: string;
  readonly #storage: { readonly storage: string; readonly num_replicas: number };
  #ttl = 0;
  #opening: Promise<unknown> | undefined;

  constructor(
    jetstream: JetStream,
    namespace: string,
    { storage, replicas }: { readonly storage: string; readonly replicas: number },
  ) {
    this.#jetstream = jetstream;
    this.#stream = `NOROSHI_${namespace}_answers`;
    this.#prefix = `noroshi.${namespace}.answers`;
    this.#storage = { storage, num_replicas: replicas };
  }

  async claim(key: string, text: string, ttl: number): Promise<string | null> {
    return await this.#inStream(ttl, async () => {
      const subject = `${this.#prefix}.${await encodeAny(key)}`;
      for (;;) {
        if (await this.#jetstream.publish(subject, text, 0) !== null) return null;
        const known = await this.#jetstream.last(this.#stream, subject);
        if (known) return known.text; // Otherwise it has just expired: try again.
      }
    });
  }

  async settle(key: string, text: string, ttl: number): Promise<void> {
    await this.#inStream(ttl, async () => void await this.#jetstream.publish(`${this.#prefix}.${await encodeAny(key)}`, text));
  }

  async #inStream<Result>(ttl: number, request: () => Promise<Result>): Promise<Result> {
    if (ttl > this.#ttl) {
      this.#ttl = ttl;
      this.#opening = undefined;
    }
    await this.#open();
    try {
      return await request();
    } catch (error) {
      if (isGone(error)) this.#opening = undefined; // Not retried, because the lost stream may have had the answer. The next call creates it again.
      throw error;
    }
  }

  #open(): Promise<unknown> {
    const opening = this.#opening ??= this.#jetstream.open({
      ...this.#storage,
      name: this.#stream,
      retention: "limits",
      discard: "new",
      subjects: [`${this.#prefix}.*`],
      max_msgs_per_subject: 1,
      max_bytes: MAX_BYTES,
      max_age: this.#ttl * NS_PER_MS,
    });
    opening.catch(() => {
      if (this.#opening === opening) this.#opening = undefined; // This call gets the error; the next one tries again.
    });
    return opening;
  }
}
