/** Incomplete bodies of the fallback over real sockets: a server reads their start, and answers before the rest. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { type ClientRequest, type IncomingMessage, request } from "node:http";
import { describe, it } from "node:test";
import { startDurableObject, startServer, type TestServer } from "./server.ts";

/** A connection of the fallback, written by hand. */
async function open({ port }: TestServer) {
  const path = "/public";
  const asked = request({ host: "127.0.0.1", port, path, headers: { accept: "text/event-stream" }, agent: false }).end();
  const [response] = await once(asked, "response") as [IncomingMessage];
  let text = "";
  response.setEncoding("utf8").on("data", (chunk) => text += chunk);
  /** Resolves with the data of the next event. */
  const next = async (): Promise<unknown> => {
    for (;;) {
      const [event, data] = /^(?:event: \w+\n)?data: (.*)\n\n/.exec(text) ?? [];
      if (event === undefined || data === undefined) {
        await once(response, "data");
        continue;
      }
      text = text.slice(event.length);
      return JSON.parse(data);
    }
  };
  const { connection, secret } = await next() as { connection: string; secret: string };
  /** Begins a POST whose body has 400 bytes. */
  const begin = (body: string): ClientRequest => {
    const headers = { "content-length": 400 };
    const to = { host: "127.0.0.1", port, path: `${path}?connection=${connection}`, method: "POST", headers, agent: false };
    const posted = request(to);
    posted.on("error", () => {}); // The test ends it.
    posted.write(body);
    return posted;
  };
  const statusOf = async (posted: ClientRequest) => {
    const [{ statusCode }] = await once(posted, "response") as [IncomingMessage];
    posted.destroy();
    return statusCode;
  };
  return { secret, next, begin, statusOf, end: () => asked.destroy() };
}

/** The body of a POST, padded with spaces, which JSON allows. */
const bodyOf = (secret: string, sequence: number, frame: object): string =>
  JSON.stringify({ secret, sequence, frames: [JSON.stringify(frame)] }).padEnd(400);

const SERVERS: Record<string, () => Promise<TestServer>> = {
  Node: () => startServer("node"),
  Bun: () => startServer("bun"),
  Deno: () => startServer("deno"),
  "a Durable Object": () => startDurableObject(),
};

describe("Incomplete bodies of the fallback", () => {
  for (const [name, start] of Object.entries(SERVERS)) {
    it(`do not block a client that sends its secret, on ${name}`, { timeout: 120_000 }, async () => {
      const server = await start();
      const client = await open(server);
      try {
        const held = [" ", " ", " "].map((body) => client.begin(body));
        // Until one of these is being read, others like it may be read to their end.
        let sequence = 0;
        for (let isHeld = false; !isHeld;) isHeld = await client.statusOf(client.begin("{".padEnd(400))) === 429;
        for (const split of [400, 100, 40, 1]) {
          const body = bodyOf(client.secret, ++sequence, { type: "ping", uid: sequence });
          const posted = client.begin(body.slice(0, split));
          posted.end(body.slice(split));
          assert.equal(await client.statusOf(posted), 204, `split at ${split}`);
          assert.deepEqual(await client.next(), { type: "pong", uid: sequence });
        }
        assert.equal(await client.statusOf(client.begin(bodyOf("0".repeat(64), 5, {}).slice(0, 200))), 429);
        for (const posted of held) posted.destroy();
      } finally {
        client.end();
        await server.stop();
      }
    });
  }
});
