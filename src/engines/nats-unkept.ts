/** Channels that are watched at once. */
const MAX_CHANNELS = 10_000;

/** What is asked of the session. */
export interface UnkeptHost {
  /** Calls back when something is added to the channel's history. Returns what ends this. */
  watch(channel: string, added: () => void): () => void;
  /** Ends the history of a channel; `false` where there is none. */
  end(channel: string): Promise<boolean>;
  failed(error: unknown): void;
}

interface Watched {
  /** Whether something was published since it had no history. */
  isPublished: boolean;
  /** Whether anything was published since the last round. */
  isUsed: boolean;
  stop(): void;
}

/**
 * Publications to channels for which this node declares no history. Other nodes may keep one, as in a rolling deploy: then it lacks the
 * publication, and ends, so that nobody recovers over it. A channel without one is watched, for to ask each time would double the cost.
 */
export class Unkept {
  readonly #host: UnkeptHost;
  readonly #watched = new Map<string, Watched>();

  constructor(host: UnkeptHost) {
    this.#host = host;
  }

  /** Something was published to the channel. */
  published(channel: string): Promise<void> | undefined {
    const watched = this.#watched.get(channel);
    if (!watched) return this.#look(channel);
    watched.isPublished = watched.isUsed = true;
    return undefined;
  }

  /** Channels to which nothing is published any more are given up. */
  round(): void {
    for (const [channel, watched] of this.#watched) {
      if (!watched.isUsed) this.#give(channel, watched);
      watched.isUsed = false;
    }
  }

  close(): void {
    for (const [channel, watched] of this.#watched) this.#give(channel, watched);
  }

  async #look(channel: string): Promise<void> {
    if (this.#watched.size >= MAX_CHANNELS) return void await this.#host.end(channel);
    let isAdded = false;
    const watched: Watched = {
      isPublished: false,
      isUsed: true,
      stop: this.#host.watch(channel, () => {
        isAdded = true;
        this.#give(channel, watched);
        if (watched.isPublished) this.#host.end(channel).catch((error) => this.#host.failed(error));
      }),
    };
    // From here on nothing is added without being noticed.
    let hasHistory = true;
    try {
      hasHistory = await this.#host.end(channel);
    } finally {
      if (hasHistory || isAdded || this.#watched.has(channel)) watched.stop();
      else this.#watched.set(channel, watched);
    }
  }

  #give(channel: string, watched: Watched): void {
    watched.stop();
    if (this.#watched.get(channel) === watched) this.#watched.delete(channel);
  }
}
