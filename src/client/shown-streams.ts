import { type AttachOptions, checkStreams, type ClientStream, type StreamOptions } from "./stream.ts";
import type { Streaming } from "./streams.ts";

/** Status of a stream: not started, running, stopped by `stop`, done with a result, or failed with an error. */
export type StreamStatus = "idle" | "streaming" | "stopped" | "done" | "failed";

/** The state of a stream, for a component. */
export interface StreamState<Item = unknown, Result = unknown> {
  /** The status of the stream. */
  readonly status: StreamStatus;
  /** The id of a resumable stream, for `resume`; `undefined` if it is not resumable, or the server has not answered yet. */
  readonly id: string | undefined;
  /** The items received so far. */
  readonly items: readonly Item[];
  /** The items that are strings, joined. */
  readonly text: string;
  /** The result, if the stream is `done` or a stopped handler has returned one. */
  readonly result: Result | undefined;
  /** Why the stream has failed: a `ClientError` with a code, or what the input has thrown. */
  readonly error: Error & { readonly code?: string } | undefined;
}

/** The state before the first stream. */
export const IDLE: StreamState<never, never> = {
  status: "idle",
  id: undefined,
  items: [],
  text: "",
  result: undefined,
  error: undefined,
};

/** The streams of one component, one at a time. */
export interface ShownStreams {
  /** Starts a stream, which replaces the previous one. */
  start(payload?: object, options?: StreamOptions): void;
  /** Attaches to a resumable stream, which replaces the previous one. */
  resume(id: string, options?: AttachOptions): void;
  /** Asks the handler to stop. The items stay. */
  stop(): void;
  /** Called when the component has unmounted. A resumable stream continues, any other is cancelled. */
  end(): void;
}

/**
 * @param show called with each new state.
 * @throws {TypeError} for a client without streams.
 */
export function createShownStreams(client: Streaming, type: string, show: (state: StreamState) => void): ShownStreams {
  checkStreams(client);
  let current: { readonly stream: ClientStream; update(change: Partial<StreamState>): void } | undefined;
  let state: StreamState = IDLE;

  const follow = (begin: () => ClientStream, id?: string) => {
    current?.stream.cancel();
    const stream = begin();
    const all: unknown[] = [];
    let copy = copyOf(all);
    let rest: Omit<StreamState, "items"> = { ...IDLE, status: "streaming", id };
    const own = current = {
      stream,
      update(change: Partial<StreamState>) {
        if (current !== own) return;
        rest = { ...rest, ...change };
        const shown = copy;
        show(
          state = {
            ...rest,
            get items() {
              return shown();
            },
          },
        );
      },
    };
    own.update({});
    void stream.id.then((id) => own.update({ id }));
    void (async () => {
      const iterator = stream[Symbol.asyncIterator]();
      try {
        // Not `for await`, because leaving the loop would cancel a stream that is to continue. The server ends a stream that nobody reads.
        for (let next = await iterator.next(); !next.done && current === own; next = await iterator.next()) {
          all.push(next.value);
          copy = copyOf(all);
          own.update(typeof next.value === "string" ? { text: rest.text + next.value } : {});
        }
        if (current !== own) return;
        const result = await stream.result;
        own.update({ result, status: rest.status === "streaming" ? "done" : rest.status });
      } catch (error) {
        if (rest.status === "streaming") own.update({ status: "failed", error: error as Error }); // A `ClientError`, or thrown by the input.
      }
    })();
  };

  return {
    start: (payload, options) => follow(() => client.stream(type, payload as Record<string, unknown>, options)), // Typed by the contract.
    resume: (id, options) => follow(() => client.attach(id, options), id), // Sets `id` at once, because the component may unmount at any time.
    stop() {
      if (state.status !== "streaming") return;
      current?.update({ status: "stopped" });
      current?.stream.cancel();
    },
    end() {
      if (state.id === undefined) current?.stream.cancel();
      current = undefined;
      show(state = IDLE);
    },
  };
}

/** Returns a function that copies the items of now when it is first called. Copying them for each new item would take n² time. */
function copyOf(all: readonly unknown[]): () => readonly unknown[] {
  const { length } = all;
  let copy: readonly unknown[] | undefined;
  return () => copy ??= all.slice(0, length);
}
