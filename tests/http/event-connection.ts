import assert from "node:assert/strict";
import type { Hono } from "hono";

export const URL = "http://localhost/websocket";

/** What the next event of a stream is. */
export interface StreamEvent {
  name: string;
  data: unknown;
}

/** A connection of the fallback by hand, whose events a test reads one by one. */
export async function openStream(app: Hono, init: RequestInit = {}) {
  const response = await app.request(`${URL}?protocols=noroshi.v1`, {
    ...init,
    headers: { accept: "text/event-stream", ...init.headers },
  });
  assert.equal(response.status, 200, `answered ${response.status}`);
  const reader = response.body!.getReader();
  const decoder = new TextDecoder();
  let text = "";
  const next = async (): Promise<StreamEvent | null> => {
    for (;;) {
      const end = text.indexOf("\n\n");
      if (end >= 0) {
        const [, name = "", data = ""] = /^(?:event: (\w+)\n)?data: ([^]*)$/.exec(text.slice(0, end)) ?? [];
        text = text.slice(end + 2);
        return { name, data: JSON.parse(data) };
      }
      const { done, value } = await reader.read();
      if (done) return null;
      text += decoder.decode(value);
    }
  };
  const { data } = (await next())!; // The first event.
  const { connection, secret } = data as { connection: string; secret: string };
  let sequence = 0;
  /** @param to another connection, or another node. */
  const post = async (body: object, { connection: to = connection, app: node = app } = {}) =>
    await node.request(`${URL}?connection=${to}`, {
      method: "POST",
      body: JSON.stringify({ secret, sequence: ++sequence, ...body }),
    });
  return { response, connection, secret, next, post, cancel: () => reader.cancel() };
}
