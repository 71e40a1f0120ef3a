/** The client on each runtime with the server on each: `fixture/client.ts` runs its checks through a network that fails. */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { dirname, join } from "node:path";
import process from "node:process";
import { after, before, describe, it } from "node:test";
import { fileURLToPath } from "node:url";
import { COMMANDS, startDurableObject, startServer, type TestServer } from "./server.ts";

const here = dirname(fileURLToPath(import.meta.url));

const SERVERS: Record<string, () => Promise<TestServer>> = {
  Bun: () => startServer("bun"),
  Deno: () => startServer("deno"),
  Node: () => startServer("node"),
  "Durable Object": () => startDurableObject(),
};

// Most of the time, a client waits for a silent server.
describe("createClient", { concurrency: true }, () => {
  for (const [name, start] of Object.entries(SERVERS)) {
    describe(`with a server on ${name}`, { concurrency: 1 }, () => {
      let server: TestServer;
      before(async () => void (server = await start()));
      after(() => server.stop());

      for (const [runtime, [command = "", ...args]] of Object.entries(COMMANDS)) {
        it(`passes all checks of fixture/client.ts on ${runtime}`, { timeout: 300_000 }, async (t) => {
          const { code, output } = await new Promise<{ code: unknown; output: string }>((resolve) => {
            const env = { ...process.env, PORT: String(server.port), NO_COLOR: "1" };
            const file = join(here, "fixture/client.ts");
            execFile(command, [...args, file], { env, cwd: join(here, "../.."), timeout: 240_000 }, (error, stdout, stderr) => {
              resolve({ code: error ? error.code ?? error.signal : 0, output: stdout + stderr });
            });
          });
          const [, held, all] = output.match(/^(\d+) of (\d+)$/m) ?? [];
          assert.equal(code, 0, output);
          assert.ok(held === all && Number(all) >= 9, output);
          t.diagnostic(output.match(/^noticed after .*$/m)?.[0] ?? "");
        });
      }
    });
  }
});
