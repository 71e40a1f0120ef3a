/** Maximum number of watched channels. */
const MAX_CHANNELS = 10_000;

/** What {@link UndeclaredHistories} needs from its session. */
export interface UndeclaredHistoriesHost {
  /** Calls `added` for each addition to the channel's history. Returns a function that stops this. */
  watch(channel: string, added: () => void): () => void;
  /** Ends the history of a channel. Resolves with `false` if there is none. */
  end(channel: string): Promise<boolean>;
  failed(error: unknown): void;
}

interface Watched {
  /** Whether this node has published since it began to watch the channel. */
  isPublished: boolean;
  /** Whether this node has published since the last call of `stopUnused`. */
  isUsed: boolean;
  stop(): void;
}

/**
 * Ends histories of channels for which this node declares none, as in a rolling deploy. They lack this node's publications, so that clients
 * must not recover from them. It makes one request for each channel, then watches for new histories, because one request for each
 * publication would double the cost.
 */
export class UndeclaredHistories {
  readonly #host: UndeclaredHistoriesHost;
  readonly #watched = new Map<string, Watched>();
  #isClosed = false;

  constructor(host: UndeclaredHistoriesHost) {
    this.#host = host;
  }

  /** Call after each publication without a history. Resolves when there is no history any more; `undefined` if the channel is watched. */
  afterPublish(channel: string): Promise<void> | undefined {
    const watched = this.#watched.get(channel);
    if (!watched) return this.#endAndWatch(channel);
    watched.isPublished = watched.isUsed = true;
    return undefined;
  }

  /** Stops watching channels that had no publication since the last call. */
  stopUnused(): void {
    for (const [channel, watched] of this.#watched) {
      if (!watched.isUsed) this.#stopWatching(channel, watched);
      watched.isUsed = false;
    }
  }

  close(): void {
    this.#isClosed = true;
    for (const [channel, watched] of this.#watched) this.#stopWatching(channel, watched);
  }

  async #endAndWatch(channel: string): Promise<void> {
    if (this.#watched.size >= MAX_CHANNELS) return void await this.#host.end(channel);
    let isAdded = false;
    const watched: Watched = {
      isPublished: false,
      isUsed: true,
      stop: this.#host.watch(channel, () => {
        isAdded = true;
        this.#stopWatching(channel, watched);
        if (watched.isPublished) this.#host.end(channel).catch((error) => this.#host.failed(error));
      }),
    };
    // The watch comes first, so that no addition is missed between the request and it.
    let hasHistory = true;
    try {
      hasHistory = await this.#host.end(channel);
    } finally {
      if (hasHistory || isAdded || this.#isClosed || this.#watched.has(channel)) watched.stop();
      else this.#watched.set(channel, watched);
    }
  }

  #stopWatching(channel: string, watched: Watched): void {
    watched.stop();
    if (this.#watched.get(channel) === watched) this.#watched.delete(channel);
  }
}
