import { type AttachOptions, checkStreams, type ClientStream, type StreamOptions } from "./stream.ts";
import type { Streaming } from "./streams.ts";

/** The state of a shown stream: not started, running, or how it ended: by `stop`, with its result, or with an error. */
export type StreamStatus = "idle" | "streaming" | "stopped" | "done" | "failed";

/** The state of a stream, as a component shows it. */
export interface StreamState<Item = unknown, Result = unknown> {
  /** Where the stream is. */
  readonly status: StreamStatus;
  /** The id of a resumable stream, for `resume`; `undefined`: it is not resumable, or has not been answered yet. */
  readonly id: string | undefined;
  /** The items so far. */
  readonly items: readonly Item[];
  /** The items that are strings, joined. */
  readonly text: string;
  /** The result, once it is `done`, or if a stopped handler returns one. */
  readonly result: Result | undefined;
  /** Why it has failed: a `ClientError` with its code, or what the input has thrown. */
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

/** Shows the streams of one component, one at a time. */
export interface ShownStreams {
  /** Starts a stream, in place of the one before. */
  start(payload?: object, options?: StreamOptions): void;
  /** Attaches to a resumable stream, in place of the one before. */
  resume(id: string, options?: AttachOptions): void;
  /** Asks the handler to stop. The items stay. */
  stop(): void;
  /** The component is gone: a resumable stream goes on, any other is cancelled. */
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
        // Not `for await`: leaving it would cancel a stream that goes on. The server ends one that is no longer read.
        for (let next = await iterator.next(); !next.done && current === own; next = await iterator.next()) {
          all.push(next.value);
          copy = copyOf(all);
          own.update(typeof next.value === "string" ? { text: rest.text + next.value } : {});
        }
        if (current !== own) return;
        const result = await stream.result;
        own.update({ result, status: rest.status === "streaming" ? "done" : rest.status });
      } catch (error) {
        if (rest.status === "streaming") own.update({ status: "failed", error: error as Error }); // Of the client, or of the input.
      }
    })();
  };

  return {
    start: (payload, options) => follow(() => client.stream(type, payload as Record<string, unknown>, options)), // Of the contract.
    resume: (id, options) => follow(() => client.attach(id, options), id), // Known at once: the component may be gone at once.
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

/** Returns the items that are there now: copied when they are first asked for, since copying them with each item takes n². */
function copyOf(all: readonly unknown[]): () => readonly unknown[] {
  const { length } = all;
  let copy: readonly unknown[] | undefined;
  return () => copy ??= all.slice(0, length);
}
