/**
 * The recipes of `examples/deploy/`: the Dockerfiles are carried out without their base images, and what they make runs as three nodes behind
 * nginx and Caddy with the files of that folder. Replaced: the package itself, names and ports.
 */
import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { copyFile, mkdir, mkdtemp, rm } from "node:fs/promises";
import { createServer, type Server } from "node:http";
import { request } from "node:https";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import process from "node:process";
import { createInterface } from "node:readline";
import { after, before, describe, it } from "node:test";
import { fileURLToPath } from "node:url";
import { WebSocket } from "ws";
import { createClient } from "../../src/client/client.ts";
import { endAll, findNode, install, start, type Tools, unpackPackage } from "../docs/projects.ts";
import { BrokerProcess, freePort, lacks } from "../support/brokers.ts";
import { PATIENT } from "../support/patient.ts";
import { environmentOf, type Image, playDockerfile } from "./dockerfile.ts";
import { type Front, SITE, startFront, toThisMachine } from "./front.ts";

const root = join(dirname(fileURLToPath(import.meta.url)), "../..");
const recipes = join(root, "examples/deploy");
const recipe = (name: string) => readFileSync(join(recipes, name), "utf8");
const modules = join(root, "node_modules");

/** What a reader has installed before, by the first word of a Dockerfile's name. */
const INSTALLS = {
  node: [
    "npm install noroshi hono valibot ws @hono/node-server @nats-io/nats-core @nats-io/transport-node",
    "npm pkg set type=module",
  ],
  bun: ["bun add noroshi hono valibot @nats-io/nats-core @nats-io/transport-node"],
  deno: [
    "deno add noroshi@jsr:@noroshi/noroshi npm:hono npm:valibot npm:ws npm:@hono/node-server npm:@nats-io/nats-core npm:@nats-io/transport-node",
    "deno install --entrypoint main.ts",
  ],
} as const;
type RuntimeName = keyof typeof INSTALLS;
const RUNTIMES = Object.keys(INSTALLS) as RuntimeName[]; // Its own keys.

const noShell = process.platform === "win32" && "the commands of the recipes are those of a POSIX shell";

describe("The recipes", { skip: noShell }, () => {
  let folder: string;
  let tools: Tools;
  let noRegistry: string | false = false;

  before(async () => {
    folder = await mkdtemp(join(tmpdir(), "noroshi-deploy-"));
    noRegistry = await start("npm view valibot version --prefer-online --fetch-retries=0", folder, { path: [] }).ended
      .then(() => false as const, () => "no npm registry");
    if (noRegistry) return;
    const [packed, node] = await Promise.all([unpackPackage(folder), findNode(folder)]);
    if (node === undefined) noRegistry = "no Node 22.18 or newer, and the npm package node@24 cannot be had";
    else tools = { ...packed, path: [node, join(modules, ".bin")] };
  }, { timeout: 900_000 });
  after(async () => {
    endAll();
    await rm(folder, { recursive: true, force: true });
  });

  describe("in containers", { skip: lacks("nats-server") }, () => {
    const nodes = new Map<RuntimeName, Container>();
    let broker: BrokerProcess;

    before(async () => {
      if (noRegistry) return;
      broker = await BrokerProcess.nats();
      for (const runtime of RUNTIMES) {
        const project = join(folder, runtime);
        await mkdir(project);
        await copyFile(join(recipes, "main.ts"), join(project, "main.ts"));
        for (const command of INSTALLS[runtime]) await install(command, project, tools);
        const image = await playDockerfile(
          join(recipes, `${runtime}.Dockerfile`),
          project,
          join(folder, `${runtime}-image`),
          tools,
        );
        nodes.set(runtime, await Container.run(image, tools, broker.port));
      }
    }, { timeout: 900_000 });
    after(async () => {
      await Promise.all([...nodes.values()].map((node) => node.stop()));
      await broker?.close();
    });

    it("run as another user than root", (t) => {
      if (noRegistry) return t.skip(noRegistry);
      for (const { image } of nodes.values()) assert.match(image.user ?? "", /^(?!root$|0$)\w+$/);
    });

    it("are healthy while they run", { timeout: 300_000 }, async (t) => {
      if (noRegistry) return t.skip(noRegistry);
      for (const node of nodes.values()) assert.equal(await node.checkHealth(), 0);
    });

    it("answer on every path that the manifests probe and scrape", async (t) => {
      if (noRegistry) return t.skip(noRegistry);
      const files = ["kubernetes.yaml", "Caddyfile", "fly.toml"].map(recipe).join("\n");
      const probed = [...files.matchAll(/(?:httpGet: \{ path: |health_uri |^ +path = ")([\w/]+)/gm)].map(([, path]) => path!);
      assert.deepEqual([...new Set(probed)].sort(), ["/live", "/ready"]);
      for (const node of nodes.values()) {
        for (const path of [...probed, "/metrics"]) assert.equal((await node.get(path)).status, 200, path);
        assert.match(await (await node.get("/metrics")).text(), /^chat_connections \d+$/m);
      }
    });

    for (const proxy of ["nginx", "Caddy"] as const) {
      describe(`behind ${proxy}`, { skip: lacks(proxy.toLowerCase()) || (proxy === "nginx" && lacks("openssl")) }, () => {
        let front: Front;
        const clients = new Set<{ close(): Promise<void> }>();

        before(async () => {
          if (noRegistry) return;
          front = await startFront(proxy, [...nodes.values()].map(({ port }) => port));
        });
        after(async () => {
          for (const client of clients) await client.close();
          await front?.stop();
        });

        /** A client of another address than the proxy's, which is a page of the site. */
        function connect(path: string) {
          const { port, certificate: ca } = front;
          class Socket extends WebSocket {
            constructor(url: string, protocols: string[]) {
              super(url, protocols, {
                ca,
                lookup: toThisMachine,
                localAddress: "127.0.0.2",
                origin: `https://${SITE}:${port}`,
                headers: { "X-Forwarded-For": "203.0.113.7" },
              } as object); // Its types do not know the options of `https.request`.
            }
          }
          const client = createClient(`wss://${SITE}:${port}${path}`, { WebSocket: Socket as never, ...PATIENT }); // As `ws` itself.
          clients.add(client);
          const heard: unknown[] = [];
          let wake = () => {};
          client.on("message", ({ message }) => {
            heard.push(message["text"]);
            wake();
          });
          const hear = async (text: string) => {
            while (!heard.includes(text)) await new Promise<void>((resolve) => wake = resolve);
          };
          return { client, hear };
        }

        it("a client of each node reaches those of all, at the site and below a path", { timeout: 300_000 }, async (t) => {
          if (noRegistry) return t.skip(noRegistry);
          const connected = [];
          for (const path of ["/websocket", "/chat/websocket", "/chat/websocket"]) {
            const { client, hear } = connect(path);
            // The address is the one that the proxy saw, not that of the proxy or that which the client says it has.
            assert.deepEqual(await client.request("say", { text: path }), { address: "127.0.0.2" });
            connected.push({ client, hear });
          }
          for (const node of nodes.values()) assert.match(await (await node.get("/metrics")).text(), /^chat_connections 1$/m);
          for (const [index, { client }] of connected.entries()) {
            await client.request("say", { text: `from ${index}` });
            await Promise.all(connected.map(({ hear }) => hear(`from ${index}`)));
          }
          for (const { client } of connected) await client.close();
        });

        it("nobody reads the metrics", async (t) => {
          if (noRegistry) return t.skip(noRegistry);
          const { port, certificate: ca } = front;
          for (const path of ["/metrics", "/chat/metrics"]) {
            const asked = request(`https://${SITE}:${port}${path}`, { ca, lookup: toThisMachine }).end();
            const [response] = await once(asked, "response");
            assert.equal(response.statusCode, 404, path);
            response.resume();
          }
        });

        it("a page of another site is refused", async (t) => {
          if (noRegistry) return t.skip(noRegistry);
          const { port, certificate: ca } = front;
          const socket = new WebSocket(
            `wss://${SITE}:${port}/websocket`,
            { ca, lookup: toThisMachine, origin: "https://evil.example" } as object, // As above.
          );
          const [, response] = await once(socket, "unexpected-response");
          assert.equal(response.statusCode, 403);
          response.destroy();
        });

        it("a client of a node that stops goes on at another one, and misses nothing", { timeout: 300_000 }, async (t) => {
          if (noRegistry) return t.skip(noRegistry);
          const { client } = connect("/chat/websocket");
          const room = client.subscribe("room:1")[Symbol.asyncIterator]();
          assert.equal((await room.next()).value.event, "init");
          const serving = await findServing([...nodes.values()]);
          const { client: other } = connect("/websocket"); // With least_conn it is on another node.
          await other.publish("room:1", "said", "before");
          const closed = new Promise<void>((resolve) => client.on("close", () => resolve()));
          const stopped = serving.stop();
          await closed;
          await other.publish("room:1", "said", "meanwhile");
          assert.equal(await stopped, 0);
          await other.publish("room:1", "said", "after");
          const received = [];
          for (let count = 0; count < 3; count++) received.push((await room.next()).value);
          assert.deepEqual(received.map(({ data }) => data), ["before", "meanwhile", "after"]);
          for (const each of [client, other]) await each.close();
          await serving.start();
        });

        it("a response is passed on while it is still being sent", { timeout: 300_000 }, async (t) => {
          if (noRegistry) return t.skip(noRegistry);
          const streaming = createServer((_incoming, outgoing) => void outgoing.write("first part"));
          streaming.listen(0, "127.0.0.1");
          await once(streaming, "listening");
          const front = await startFront(proxy, Array(3).fill(portOf(streaming)));
          t.after(async () => {
            await front.stop();
            streaming.closeAllConnections();
            streaming.close();
          });
          const asked = request({
            host: SITE,
            servername: SITE,
            port: front.port,
            path: "/chat/stream",
            ca: front.certificate,
            lookup: toThisMachine,
          });
          asked.end();
          const [response] = await once(asked, "response");
          const [chunk] = await once(response, "data");
          assert.equal(String(chunk), "first part");
          asked.destroy();
        });
      });
    }

    it("are not ready while the broker is away, and live all the same", { timeout: 300_000 }, async (t) => {
      if (noRegistry) return t.skip(noRegistry);
      await broker.stop();
      for (const node of nodes.values()) {
        while ((await node.get("/ready")).status !== 503);
        assert.equal((await node.get("/live")).status, 200);
        assert.notEqual(await node.checkHealth(), 0);
      }
    });
  });
});

/** A node, as its image says. */
class Container {
  readonly image: Image;
  readonly port: number;
  readonly #env: Record<string, string>;
  #child: ChildProcess | undefined;

  private constructor(image: Image, port: number, env: Record<string, string>) {
    this.image = image;
    this.port = port;
    this.#env = env;
  }

  static async run(image: Image, tools: Tools, brokerPort: number): Promise<Container> {
    const port = await freePort();
    const container = new Container(
      image,
      port,
      environmentOf(image, tools, {
        HOST: "127.0.0.1",
        PORT: String(port),
        NATS_URL: `nats://127.0.0.1:${brokerPort}`,
        NODE_SECRET: "a secret of the nodes",
      }),
    );
    await container.start();
    return container;
  }

  /** Resolves when it listens and has reached the broker. */
  async start(): Promise<void> {
    const [command = "", ...args] = this.image.command;
    const child = this.#child = spawn(command, args, {
      cwd: this.image.folder,
      env: this.#env,
      stdio: ["ignore", "pipe", "inherit"],
    });
    await new Promise<void>((resolve, reject) => {
      createInterface({ input: child.stdout! }).on("line", (line) => line.includes("Listening on") && resolve()); // Piped.
      child.on("error", reject);
      child.on("exit", (code) => reject(new Error(`${this.image.command.join(" ")} exited with ${code}`)));
    });
    while ((await this.get("/ready")).status !== 200);
  }

  get(path: string): Promise<Response> {
    return fetch(`http://127.0.0.1:${this.port}${path}`, { headers: { connection: "close" } });
  }

  /** Runs the health check of the image, and resolves with its exit code. */
  async checkHealth(): Promise<number | null> {
    const [command = "", ...args] = this.image.healthcheck.map((word) => word.replaceAll("3000", String(this.port)));
    const [code] = await once(spawn(command, args, { cwd: this.image.folder, env: this.#env, stdio: "ignore" }), "exit");
    return code;
  }

  /** Ends it as a deployment does, and resolves with its exit code. */
  async stop(): Promise<number | null> {
    const child = this.#child!; // It has started.
    if (child.exitCode !== null) return child.exitCode;
    const exited = once(child, "exit");
    child.kill("SIGTERM");
    const [code] = await exited;
    return code;
  }
}

async function findServing(nodes: readonly Container[]): Promise<Container> {
  for (;;) {
    for (const node of nodes) if (/^chat_connections 1$/m.test(await (await node.get("/metrics")).text())) return node;
  }
}

function portOf(server: Server): number {
  return (server.address() as AddressInfo).port; // It listens on TCP.
}
