/** The program of `examples/deploy/` by its environment, and what the guides say to set there. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { dirname, join } from "node:path";
import process from "node:process";
import { createInterface } from "node:readline";
import { after, before, describe, it, type TestContext } from "node:test";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";
import { WebSocket } from "ws";

const root = join(dirname(fileURLToPath(import.meta.url)), "../..");
const recipe = (name: string) => readFileSync(join(root, "examples/deploy", name), "utf8");
const guide = (name: string) => readFileSync(join(root, "docs/guides", name), "utf8");

/** A folder from which Node finds the packages of the project. */
let folder: string;
/** The program with the source of this repository in place of the package, of which another test may be making a build. */
let program: string;
before(async () => {
  folder = mkdtempSync(join(root, "node_modules/.noroshi-deploy-"));
  program = join(folder, "main.mjs");
  const { exports } = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));
  const sourceOf = (name: string): string => exports[name.replace("noroshi", ".")].replace("/dist", "").replace(/js$/, "ts");
  await build({
    entryPoints: [join(root, "examples/deploy/main.ts")],
    outfile: program,
    bundle: true,
    packages: "external",
    platform: "node",
    format: "esm",
    plugins: [{
      name: "source",
      setup: ({ onResolve }) => onResolve({ filter: /^noroshi(?:\/|$)/ }, ({ path }) => ({ path: join(root, sourceOf(path)) })),
    }],
  });
});
after(() => rmSync(folder, { recursive: true, force: true }));

/** Starts the program. */
function run(t: TestContext, env: Record<string, string>) {
  const child = spawn(process.execPath, [program], {
    cwd: root,
    env: { ...process.env, HOST: "127.0.0.1", PORT: "0", ...env },
    stdio: ["ignore", "pipe", "pipe"],
  });
  t.after(() => child.kill("SIGKILL"));
  return child;
}

describe("The program of the recipes", () => {
  it("does not start with a broker and without a secret", { timeout: 300_000 }, async (t) => {
    for (const secret of [{}, { NODE_SECRET: "" }]) {
      const child = run(t, { NATS_URL: "nats://127.0.0.1:1", ...secret });
      let errors = "";
      child.stderr.setEncoding("utf8").on("data", (text: string) => errors += text);
      child.stdout.once("data", () => child.kill("SIGKILL")); // It listens.
      const [code] = await once(child, "close");
      assert.equal(code, 1);
      assert.match(errors, /Error: Cannot start: NATS_URL is set, and NODE_SECRET is not/);
    }
  });

  it("on Fly.io takes the address of a client from the header of Fly", { timeout: 300_000 }, async (t) => {
    const [, header] = /^ +CLIENT_IP_HEADER = "(.+)"$/m.exec(recipe("fly.toml")) ?? [];
    assert.equal(header, "fly-client-ip");
    for (const [env, address] of [[{ CLIENT_IP_HEADER: header }, "203.0.113.7"], [{}, "198.51.100.1"]] as const) {
      const child = run(t, env);
      child.stderr.pipe(process.stderr);
      const [line] = await once(createInterface({ input: child.stdout }), "line");
      const socket = new WebSocket(`ws://127.0.0.1:${new URL(/http\S+/.exec(line)![0]).port}/websocket`, {
        headers: { "fly-client-ip": "203.0.113.7", "x-forwarded-for": "203.0.113.7, 198.51.100.1" },
      });
      await once(socket, "open");
      const answered = new Promise<unknown>((resolve) =>
        socket.on("message", (text) => {
          const { uid, data } = JSON.parse(String(text));
          if (uid === 1) resolve(data);
        })
      );
      socket.send('{"type":"say","uid":1,"text":"hello"}');
      assert.deepEqual(await answered, { address });
      socket.terminate();
    }
  });
});

it("The unit of several processes keeps what the unit of one sets", () => {
  const [one] = /^Environment=.*$/m.exec(recipe("chat.service"))!;
  assert.ok(guide("deploy-systemd.md").includes(`\`${one.replace("PORT=3000", "PORT=%i")}\``));
});
