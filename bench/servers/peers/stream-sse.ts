/** `streamSSE` of Hono, on Bun, Deno and Node: each write is awaited, as its documentation has it. */
import { Hono } from "hono";
import { streamSSE } from "hono/streaming";
import { paced } from "../stream-source.ts";
import { listen } from "./stream-listen.ts";

listen(
  new Hono().get("/paced", (c) =>
    streamSSE(c, async (stream) => {
      for await (const item of paced()) {
        if (stream.aborted) return;
        await stream.writeSSE({ data: JSON.stringify(item) });
      }
    })).fetch,
);
