import { encodeAny } from "../broker/channel-name.ts";
import type { BrokerSession } from "../broker/broker.ts";
import { isGone, type JetStream, NANOSECONDS } from "./jetstream.ts";

/** Maximum size of the stream, in bytes. A full one refuses new answers: a forgotten one would be handled again. */
const MAX_BYTES = 2 ** 26;

/** Answers in a stream of their own, one message for each key. It is created with the first. */
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
        if (known) return known.text; // Else it has just expired.
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
      if (isGone(error)) this.#opening = undefined; // Nobody knows any more whether it was handled: the next call creates the stream again.
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
      max_age: this.#ttl * NANOSECONDS,
    });
    opening.catch(() => {
      if (this.#opening === opening) this.#opening = undefined; // The next call tries again; this one gets the error.
    });
    return opening;
  }
}
