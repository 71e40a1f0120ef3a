/** `examples/worker`, a project of its own: its types, its tests inside workerd, what wrangler would deploy, and what `wrangler dev` serves. */
import assert from "node:assert/strict";
import { cp, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import process from "node:process";
import { after, before, describe, it } from "node:test";
import { fileURLToPath } from "node:url";
import { WebSocket } from "ws";
import { createClient } from "../../src/client/client.ts";
import { packPackage } from "../support/packed.ts";
import { PATIENT } from "../support/patient.ts";
import { endAll, findNode, start } from "../docs/projects.ts";
import { freePort } from "../support/brokers.ts";

const root = join(dirname(fileURLToPath(import.meta.url)), "../..");
const noShell = process.platform === "win32" && "its commands are those of a POSIX shell";

describe("examples/worker", { skip: noShell }, () => {
  let folder: string;
  let project: string;
  let path: string[];
  let missing: string | false = false;

  before(async () => {
    folder = await mkdtemp(join(tmpdir(), "noroshi-worker-"));
    project = join(folder, "project");
    await cp(join(root, "examples/worker"), project, { recursive: true });
    const hasRegistry = await start("npm view valibot version --prefer-online --fetch-retries=0", folder, { path: [] }).ended
      .then(() => true, () => false);
    const node = hasRegistry ? await findNode(folder) : undefined;
    if (node === undefined) {
      missing = "no npm registry, or no Node 22.18 or newer, which wrangler needs";
      return;
    }
    path = [join(project, "node_modules/.bin"), node];
    const manifest = join(project, "package.json");
    const text = await readFile(manifest, "utf8");
    await writeFile(manifest, text.replace(/"noroshi": "[^"]+"/, `"noroshi": "file:${await packPackage(folder)}"`));
    await start("npm install --no-audit --no-fund", project, { path }).ended;
  }, { timeout: 900_000 });
  after(async () => {
    endAll();
    await rm(folder, { recursive: true, force: true });
  });

  it("type-checks with the types of workerd, calls by RPC too", { timeout: 300_000 }, async (t) => {
    if (missing) return t.skip(missing);
    // One check of the project and of what is wrong: the compiler refuses an error that it does not expect, and one that does not come.
    const wrong = join(project, "src/wrong.ts");
    await writeFile(
      wrong,
      `import { typeStub } from "noroshi/cloudflare";
      import { contract } from "./contract.ts";
      import { hall } from "./hall.ts";
      export async function call(env: Env): Promise<void> {
        const board = env.BOARD.getByName("main");
        // @ts-expect-error -- an order, as the contract says
        await board.publish("orders", "placed", { id: 1 });
        // @ts-expect-error -- no such channel
        await board.publish("others", "placed", { id: "1", text: "" });
        const { publications } = await typeStub(contract, board).history("clock");
        const cron: string | undefined = publications[0]?.data.cron;
        void cron;
        // @ts-expect-error -- no such channel
        await typeStub(contract, board).publish("others", "placed", { id: "1", text: "" });
        // @ts-expect-error -- no such handler
        await board.schedule(1_000, "remember", { id: "1", text: "" });
        const [publication] = (await board.history("orders")).publications;
        const offset: number | undefined = publication?.offset;
        // @ts-expect-error -- a number
        const text: string = offset;
        void text;
        // @ts-expect-error -- no such event
        await hall(env).home.publish("hall", "sung", { text: "" });
      }`,
    );
    try {
      await start("npm run check", project, { path }).ended;
    } finally {
      await rm(wrong);
    }
  });

  it("passes its tests inside workerd", { timeout: 300_000 }, async (t) => {
    if (missing) return t.skip(missing);
    // Vitest's own limit of a test is 5 s.
    assert.match(await start("npm test -- --testTimeout=60000", project, { path }).ended, /\b3 passed/);
  });

  it("is bundled for a deployment with its bindings", { timeout: 300_000 }, async (t) => {
    if (missing) return t.skip(missing);
    const output = await start("npm run deploy -- --dry-run", project, { path }).ended;
    assert.match(output, /env\.BOARD \(Board\) +Durable Object/);
    assert.match(output, /env\.HALL \(Hall\) +Durable Object/);
    assert.match(output, /env\.ORDERS \(orders\) +Queue/);
  });

  it(
    "shows an order that came by the queue, and what is said in the hall, when wrangler dev serves it",
    { timeout: 300_000 },
    async (t) => {
      if (missing) return t.skip(missing);
      const [port, inspector] = await Promise.all([freePort(), freePort()]);
      // Another wrangler that starts at the same time would take the same port for its inspector.
      const server = start(`npm start -- --port ${port} --inspector-port ${inspector} --ip 127.0.0.1`, project, { path });
      await Promise.race([server.listens, server.ended]);
      const url = `http://127.0.0.1:${port}`;
      const connect = (path: string) =>
        createClient(`${url.replace("http", "ws")}${path}`, { WebSocket: WebSocket as never, ...PATIENT }); // As the client uses it.
      const [client, guest] = [connect("/websocket"), connect("/hall/websocket")];
      try {
        const orders = client.subscribe("orders")[Symbol.asyncIterator]();
        assert.equal((await orders.next()).value?.event, "init");
        const order = await (await fetch(`${url}/orders`, { method: "POST", body: "Two teas" })).json();
        const { value } = await orders.next();
        assert.deepEqual([value?.event, value?.data], ["placed", order]);
        const said = guest.subscribe("hall")[Symbol.asyncIterator]();
        assert.equal((await said.next()).value?.event, "init");
        await guest.publish("hall", "said", { text: "Good evening" });
        assert.deepEqual((await said.next()).value?.data, { text: "Good evening" });
      } finally {
        await guest.close();
        await client.close();
        server.kill();
      }
    },
  );
});
