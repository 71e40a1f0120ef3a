import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { after, describe, it } from "node:test";
import { fileURLToPath } from "node:url";
import { COMMANDS, startServer } from "./server.ts";
import { Wire } from "./wire.ts";

describe("serve on deno", () => {
  it("listens again after it ran out of file descriptors", { timeout: 30_000 }, async () => {
    const server = await startServer("deno", undefined, 60);
    const wires: Wire[] = [];
    // As many as there are descriptors, and some: they are accepted or not.
    for (let i = 0; i < 100; i++) wires.push(Wire.begin(server.port, "/public"));
    await Promise.all(wires.slice(0, 20).map((wire) => wire.answered));
    for (const wire of wires) wire.reset();
    await Promise.all(wires.map((wire) => wire.closed));
    // Not accepted until it listens again: each try is a connection of its own, and its answer is what is waited for.
    for (let status = 0; status !== 101;) {
      const wire = Wire.begin(server.port, "/public");
      await wire.answered;
      status = wire.answer.status;
    }
    assert.equal(await server.stop(), 0);
  });
});

for (const runtime of ["bun", "deno", "node"] as const) {
  it(
    `a history that is kept for an hour and a BroadcastChannel keep no process on ${runtime} from ending`,
    { timeout: 20_000 },
    async () => {
      const [command = "", ...args] = COMMANDS[runtime]!; // One of these.
      const child = spawn(command, [...args, fileURLToPath(new URL("fixture/idle.ts", import.meta.url))], { stdio: "inherit" });
      after(() => child.kill());
      const [code] = await once(child, "exit");
      assert.equal(code, 0);
    },
  );

  describe(`serve on ${runtime}`, () => {
    it("closes clients with 1001 and exits with 0 when told to terminate", { timeout: 20_000 }, async () => {
      const server = await startServer(runtime);
      const admitted = await Wire.open(server.port, "/public");
      const pending = await Wire.open(server.port, "/handshake");
      const stopped = server.stop();
      assert.deepEqual(await admitted.closed, { code: 1001, reason: "Going away" });
      assert.deepEqual(await pending.closed, { code: 1001, reason: "Going away" });
      assert.equal(await stopped, 0);
    });

    it("exits with 0 though a client never answers the close handshake", { timeout: 20_000 }, async () => {
      const server = await startServer(runtime);
      const wire = await Wire.open(server.port, "/public");
      wire.answersClose = false;
      assert.equal(await server.stop(), 0);
      wire.reset();
    });
  });
}
