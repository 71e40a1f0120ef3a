import { setImmediate } from "node:timers";

/** A promise that the test settles, to stall a step for as long as a race needs. (Node 20 has no `Promise.withResolvers`.) */
export class Stall<T = void> {
  resolve!: (value: T) => void;
  reject!: (reason: unknown) => void;
  readonly promise = new Promise<T>((resolve, reject) => {
    this.resolve = resolve;
    this.reject = reject;
  });
}

/** One turn of the event loop: by then every microtask that could run has run. */
export function turn(): Promise<void> {
  return new Promise((resolve) => void setImmediate(resolve));
}
