/** The Directus SDK on the WebSockets of Node, Bun and Deno and on `ws`, each in a process of its own. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { dirname, join } from "node:path";
import process from "node:process";
import { createInterface } from "node:readline";
import { after, before, describe, it } from "node:test";
import { fileURLToPath } from "node:url";
import { TYPESCRIPT } from "../support/typescript.ts";
import { COMMANDS, NATIVE_DENO, startServer, type TestServer } from "./server.ts";

const here = dirname(fileURLToPath(import.meta.url));
const ROWS = Array.from({ length: 30 }, (_, id) => id);

/** Node 20 has a WebSocket behind a flag. */
const NODE = [process.execPath, ...(typeof WebSocket === "undefined" ? ["--experimental-websocket"] : []), ...TYPESCRIPT];

const CLIENTS: [runtime: string, command: string[], socket: "ws" | "global"][] = [
  ["Node", NODE, "global"],
  ["Bun", COMMANDS["bun"]!, "global"],
  ["Deno", COMMANDS["deno"]!, "global"],
  ["Node", NODE, "ws"],
  ["Bun", COMMANDS["bun"]!, "ws"],
  ["Deno", COMMANDS["deno"]!, "ws"],
];

/** Resolves with the number of rows that the socket received, and the rows that the SDK's generator and listener received. */
async function receive(server: TestServer, [command = "", ...args]: string[], socket: string, version: string) {
  const url = `ws://127.0.0.1:${server.port}/sdk`;
  const child = spawn(command, [...args, join(here, "fixture/directus-client.ts"), url, version, socket, String(ROWS.length)], {
    cwd: join(here, "../.."),
    stdio: ["ignore", "pipe", "inherit"],
  });
  try {
    for await (const line of createInterface({ input: child.stdout })) {
      if (line !== "READY") return JSON.parse(line) as { received: number; yielded: number[]; heard: number[] };
      const data = ROWS.map((id) => [{ id }]);
      await server.control("sdk", "publish", { channel: "articles", event: "create", data });
    }
    throw new Error("The client ended before it had all rows");
  } finally {
    child.kill();
  }
}

for (
  const [name, start] of [
    ["Node", () => startServer("node")],
    // Deno.serve sends no protocol pings.
    ["Deno.serve", () => startServer("deno", NATIVE_DENO)],
  ] as const
) {
  describe(`30 rows created in one turn of ${name}`, () => {
    let server: TestServer;
    before(async () => {
      server = await start();
    });
    after(() => server.stop());
    for (const [runtime, command, socket] of CLIENTS) {
      for (const version of ["26", "18"]) {
        it(`reach the generator of the Directus SDK ${version} on ${runtime} with ${socket === "ws" ? "ws" : "its WebSocket"}`, {
          timeout: 300_000,
        }, async () => {
          assert.deepEqual(await receive(server, command, socket, version), {
            received: ROWS.length,
            yielded: ROWS,
            heard: ROWS,
          });
        });
      }
    }
  });
}
