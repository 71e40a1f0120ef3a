interface Calls<Value> {
  readonly running: Promise<Value>;
  next?: Promise<Value>;
}

/** Calls with an answer that many wait for: one at a time for each key. Those who call meanwhile share the next one. */
export class SharedCalls<Value> {
  readonly #calls = new Map<string, Calls<Value>>();

  /** Resolves with the answer of a call that began after this. */
  run(key: string, call: () => Promise<Value>): Promise<Value> {
    const calls = this.#calls.get(key);
    if (!calls) return this.#start(key, call);
    const start = () => this.#start(key, call);
    return calls.next ??= calls.running.then(start, start);
  }

  #start(key: string, call: () => Promise<Value>): Promise<Value> {
    const calls: Calls<Value> = { running: call() };
    this.#calls.set(key, calls);
    const end = () => {
      if (!calls.next) this.#calls.delete(key);
    };
    calls.running.then(end, end);
    return calls.running;
  }
}
