interface Calls<Value> {
  readonly running: Promise<Value>;
  next?: Promise<Value>;
}

/** Shares calls between callers: one call at a time for each key. Callers that arrive during a call share the next one. */
export class SharedCalls<Value> {
  readonly #calls = new Map<string, Calls<Value>>();

  /** Resolves with the answer of a call that begins no earlier than now. */
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
