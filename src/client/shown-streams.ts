import type { BareClient } from "./client.ts";
import type { AttachOptions, ClientStream, StreamOptions } from "./streams.ts";

/** Where a stream that is shown is: not started, or how it ended: by `stop`, with its result, or with an error. */
export type StreamStatus = "idle" | "streaming" | "stopped" | "done" | "failed";

/** The state of a stream, as a component shows it. */
export interface StreamState<Item = unknown, Result = unknown> {
  /** Where the stream is. */
  readonly status: StreamStatus;
  /** The name of a resumable stream, for `resume`; `undefined`: another one, or it has not been answered yet. */
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

/** @param show called with each new state. */
export function createShownStreams(client: BareClient, type: string, show: (state: StreamState) => void): ShownStreams {
  let current: ClientStream | undefined;
  let state: StreamState = IDLE;

  const follow = (begin: () => ClientStream) => {
    current?.cancel();
    const stream = current = begin();
    show(state = { ...IDLE, status: "streaming" });
    const update = (change: Partial<StreamState>) => {
      if (current === stream) show(state = { ...state, ...change });
    };
    void stream.id.then((id) => update({ id }));
    void (async () => {
      try {
        for await (const item of stream) {
          update({ items: [...state.items, item], text: state.text + (typeof item === "string" ? item : "") });
        }
        const result = await stream.result;
        update({ result, status: state.status === "streaming" ? "done" : state.status });
      } catch (error) {
        if (state.status === "streaming") update({ status: "failed", error: error as Error }); // Of the client, or of the input.
      }
    })();
  };

  return {
    start: (payload, options) => follow(() => client.stream(type, payload as Record<string, unknown>, options)), // Of the contract.
    resume: (id, options) => follow(() => client.attach(id, options)),
    stop() {
      if (state.status !== "streaming") return;
      show(state = { ...state, status: "stopped" });
      current?.cancel();
    },
    end() {
      if (state.id === undefined) current?.cancel();
      current = undefined;
      show(state = IDLE);
    },
  };
}
