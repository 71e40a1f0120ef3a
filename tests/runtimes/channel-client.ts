import assert from "node:assert/strict";
import type { TestServer } from "./server.ts";
import { Wire } from "./wire.ts";

let names = 0;

/** A channel of a test's own; the kind says how it behaves (fixture/channels.ts). */
export const channelOf = (kind: string): string => `${kind}:${++names}`;

/** A client of the fixture's channels: `user:role:seconds`. */
export function connect({ port }: TestServer, token = "ann:editor", headers: Record<string, string> = {}): Promise<Wire> {
  return Wire.open(port, `/channels?access_token=${token}`, { headers });
}

type Fields = Record<string, unknown>;

export const subscribe = (channel: string, more: Fields = {}): Fields => ({ type: "subscribe", channel, ...more });

export const init = (channel: string, more: Fields = {}): Fields => ({ type: "subscription", event: "init", channel, ...more });

export const said = (channel: string, data: unknown, more: Fields = {}): Fields => ({
  type: "subscription",
  event: "say",
  channel,
  data,
  ...more,
});

export const ended = (more: Fields = {}): Fields => ({ type: "subscription", event: "unsubscribe", ...more });

/** What a test reads of an error. */
export function codeOf({ type, status, error, uid }: Fields & { error?: { code: string } }): unknown[] {
  return [type, status, error?.code, ...(uid === undefined ? [] : [uid])];
}

/** Subscribes, and resolves with the `init` that answers it. */
// deno-lint-ignore no-explicit-any -- a test reads what it expects and fails on the rest
export async function begin(wire: Wire, channel: string, more: Fields = {}): Promise<any> {
  const answer = await wire.ask(subscribe(channel, more));
  assert.deepEqual([answer?.type, answer?.event, answer?.channel, answer?.uid], ["subscription", "init", channel, more["uid"]]);
  return answer;
}

/** Has the server publish; resolves with the position, or the error as text. */
// deno-lint-ignore no-explicit-any -- as above
export function publish(server: TestServer, channel: string, data: unknown, event = "say"): Promise<any> {
  return server.control("channels", "publish", { channel, event, data });
}

/** How often an event was recorded so far: an object that was evicted begins anew. */
export async function recorded(server: TestServer, event: string, name?: string): Promise<number> {
  const log: { event: string; name?: string }[] = await server.control("channels", "log");
  return log.filter((each) => each.event === event && (name === undefined || each.name === name)).length;
}

/** Nothing has been sent to the client, and nothing is by the end of the turn. */
export async function nothing(...wires: Wire[]): Promise<void> {
  for (const wire of wires) {
    for (const uid of ["nothing, 1", "nothing, 2"]) {
      const { type, uid: echoed } = await wire.ask({ type: "ping", uid });
      assert.deepEqual([type, echoed], ["pong", uid]);
    }
  }
}

/** The next so many messages. */
// deno-lint-ignore no-explicit-any -- as above
export async function take(wire: Wire, count: number): Promise<any[]> {
  const messages = [];
  for (let n = 0; n < count; n++) messages.push(await wire.next());
  return messages;
}

/** Numbers from 0, or from where they begin. */
export const range = (count: number, from = 0): number[] => Array.from({ length: count }, (_, n) => n + from);
