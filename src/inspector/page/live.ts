import { ClientError, createClient } from "../../client/client.ts";
import { streams } from "../../client/streams.ts";
import type { Answers, InspectorAction, Part, Snapshot } from "../shown.ts";
import { CHANNEL, TAP_CHANNEL, type TapBatch } from "../shown.ts";
import { type NodeView, takeSnapshot } from "./node-views.ts";

/** The folder of the inspector. */
const base = new URL(".", import.meta.url);

export const client = createClient(new URL("live", base), {
  streams,
  backoff: { base: 500, cap: 5_000 },
  // A browser does not say that an upgrade was refused: ask whether this person may still look.
  renew: async () => {
    const { status, ok, redirected } = await fetch(new URL("actions", base));
    return status >= 500 || ok && !redirected; // A redirect leads to a login.
  },
});

export const nodes = new Map<string, NodeView>();

/** Calls back when there is something new to show: at most once in half a second. */
export function follow(show: () => void): void {
  let shownAt = -Infinity;
  const take = (snapshot: Snapshot) => {
    const seenAt = performance.now();
    takeSnapshot(nodes, snapshot, seenAt);
    if (seenAt - shownAt < 500) return;
    shownAt = seenAt;
    show();
  };
  client.subscribe(CHANNEL, {
    // What the page has seen before the connection was lost has nothing to do with the counters of now.
    onInit: ({ data }) => (data as Snapshot[]).forEach(take),
    onEvent: ({ data }) => take(data as Snapshot),
  });
}

/** Asks all nodes, or one of them. */
export async function* look<About extends keyof Answers>(
  about: About,
  query: Record<string, unknown> = {},
): AsyncGenerator<Part<About>> {
  for await (const part of client.stream("look", { about, ...query })) yield part as Part<About>; // As the server answers.
}

/** Follows the tap over a connection of its own, which was authorized for it. Returns the end of it. */
export function tap(onBatch: (batch: TapBatch) => void, onError: (error: ClientError) => void): () => void {
  const tapping = createClient(new URL("live?tap", base), { maxAttempts: 3 });
  tapping.subscribe(TAP_CHANNEL, { onEvent: ({ data }) => onBatch(data as TapBatch), onError });
  return () => void tapping.close();
}

let allowed: readonly InspectorAction[] = [];

/** Asks what this person may do. */
export async function readActions(): Promise<void> {
  const response = await fetch(new URL("actions", base));
  if (response.ok) allowed = (await response.json()).actions;
}

export const may = (action: InspectorAction): boolean => allowed.includes(action);

/** Does something; the rejection says why not. */
export async function act(action: InspectorAction, body: object): Promise<unknown> {
  const response = await fetch(new URL(`actions/${action}`, base), {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
  });
  const { result, error } = await response.json().catch(() => ({ error: { message: `The server answered ${response.status}` } }));
  if (!response.ok) throw new Error(error.message);
  return result;
}
