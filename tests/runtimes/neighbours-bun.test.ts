/** Who else is in a Bun process: other copies of the package, other libraries' sockets and handlers, middleware that copies requests. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { createInterface } from "node:readline";
import { after, afterEach, before, describe, it } from "node:test";
import { fileURLToPath, pathToFileURL } from "node:url";
import { COMMANDS, startServer, type TestServer } from "./server.ts";
import { Wire } from "./wire.ts";

const fixtures = join(dirname(fileURLToPath(import.meta.url)), "fixture/neighbours");

let bun: TestServer;
let ports: Record<string, number>;
before(async () => {
  bun = await startServer("bun", join(fixtures, "bun-servers.ts"));
  ports = await bun.control("all", "ports");
});
after(() => bun.stop());
afterEach(() => Wire.resetAll());

const open = (server: string, path: string) => Wire.open(ports[server]!, path);

describe("Two copies of the package on one Bun server", () => {
  for (const server of ["first handler", "second handler"]) {
    it(`serve each their own sockets under the ${server}`, async () => {
      for (const path of ["/first?access_token=ada", "/second?access_token=bob"]) {
        const wire = await open(server, path);
        assert.equal((await wire.ask({ type: "hello" })).type, "echo", path);
        wire.write(Buffer.from([0x89, 0x80, 0, 0, 0, 0])); // A ping.
        await wire.ponged(1);
        assert.equal((await wire.close(1000)).code, 1000);
      }
    });

    it(`send what one broadcasts to its admins to no guest of the other under the ${server}`, async () => {
      for (const [ours, theirs] of [["first", "second"], ["second", "first"]] as const) {
        const guests = await Promise.all([1, 2].map(() => open(server, `/${ours}?access_token=guest`)));
        const admins = await Promise.all([1, 2].map(() => open(server, `/${theirs}?access_token=admin`)));
        await bun.control(ours, "broadcast", { role: "guest" });
        for (const guest of guests) assert.deepEqual(await guest.next(), { type: "secret", of: ours });
        await bun.control(theirs, "broadcast", { role: "admin" });
        for (const admin of admins) assert.deepEqual(await admin.next(), { type: "secret", of: theirs });
        for (const guest of guests) assert.equal((await guest.ask({ type: "hello" })).type, "echo", "nothing came before it");
        for (const wire of [...guests, ...admins]) await wire.close(1000);
      }
    });
  }
});

describe("A Bun server that lives through a hot reload", () => {
  it("sends what is broadcast to admins after it to no guest from before it, whose socket lives on", async () => {
    const folder = mkdtempSync(join(tmpdir(), "noroshi-hot-"));
    const main = join(folder, "main.ts");
    const load = (count: number) =>
      writeFileSync(main, `import ${JSON.stringify(pathToFileURL(join(fixtures, "bun-hot.ts")).href)}; // ${count}\n`);
    load(1);
    const [command = "", ...args] = COMMANDS["bun"]!;
    const child = spawn(command, ["--hot", "--no-clear-screen", ...args, main], { stdio: ["ignore", "pipe", "inherit"] });
    try {
      const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
      const port = Number((await lines.next()).value.replace("PORT ", ""));
      const broadcast = async (role: string): Promise<number> => {
        const response = await fetch(`http://127.0.0.1:${port}/control/${role}/broadcast`, {
          method: "POST",
          headers: { connection: "close" },
        });
        return (await response.json() as { result: number }).result;
      };
      const join = (role: string) => Promise.all([1, 2].map(() => Wire.open(port, `/websocket?access_token=${role}`)));

      const guests = await join("guest");
      assert.equal(await broadcast("guest"), 1);
      for (const guest of guests) assert.deepEqual(await guest.next(), { type: "secret", load: 1 });
      load(2);
      assert.equal((await lines.next()).value, "LOAD 2");
      const admins = await join("admin");
      assert.equal(await broadcast("admin"), 2);
      for (const admin of admins) assert.deepEqual(await admin.next(), { type: "secret", load: 2 });
      for (const guest of guests) assert.equal((await guest.ask({ type: "hello" })).type, "echo", "nothing came before it");
    } finally {
      child.kill();
      rmSync(folder, { recursive: true });
    }
  });
});
