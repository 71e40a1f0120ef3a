import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { Agent, type IncomingMessage, request } from "node:http";
import { dirname, join } from "node:path";
import process from "node:process";
import { createInterface } from "node:readline";
import { json, text as textOf } from "node:stream/consumers";
import { fileURLToPath } from "node:url";
import type { Worker } from "../../scripts/worker.ts";
import { TYPESCRIPT } from "../support/typescript.ts";

/** A server under test, in a process of its own. */
export interface TestServer {
  port: number;
  /** Has a command of the fixture run, and resolves with its result. */
  // deno-lint-ignore no-explicit-any -- a test reads what it expects and fails on the rest
  control(subject: string, command: string, body?: unknown): Promise<any>;
  /**
   * Throws the Durable Object out of memory, its sockets hibernating. Resolves with whether it was in memory: workerd evicts one by itself that
   * is idle for some seconds. Absent where nothing hibernates.
   */
  evict?(): Promise<boolean>;
  /** Restarts the Durable Object as a deployment does, which cuts its sockets. Absent elsewhere. */
  restart?(): Promise<void>;
  /** The bytes of a Durable Object's heap. Absent where nothing inspects it. */
  heap?(): Promise<number>;
  /** A moment in which a connection may hibernate: where that is tested it does. */
  pause(): Promise<void>;
  /** Ends with SIGTERM and resolves with the exit code. */
  stop(): Promise<number | null>;
}

const here = dirname(fileURLToPath(import.meta.url));
const root = join(here, "../..");
const bin = (name: string): string => join(root, "node_modules/.bin", name);

/** The fixture behind Deno's own server and upgrade, which `noroshi/serve` does not use. */
export const NATIVE_DENO: string = join(here, "fixture/serve-deno.ts");

/** The fixture with a drain that no busy machine exceeds, for tests of how a server exits. */
export const PATIENT_SERVE: string = join(here, "fixture/serve-patient.ts");

/** The fixture without a free file descriptor while it begins to listen. */
export const EXHAUSTED_SERVE: string = join(here, "fixture/serve-exhausted.ts");

/** How a fixture is run on each runtime; the rest of the arguments is the file. */
export const COMMANDS: Record<string, string[]> = {
  bun: [bin("bun"), "run"],
  deno: [bin("deno"), "run", "-A", "--no-lock"],
  node: [process.execPath, ...TYPESCRIPT],
};

/** Starts the fixture on a runtime and resolves once it listens. */
export async function startServer(
  runtime: "bun" | "deno" | "node",
  file = join(here, "fixture/serve.ts"),
  maxOpenFiles?: number,
): Promise<TestServer> {
  const limited = maxOpenFiles === undefined ? [] : ["sh", "-c", `ulimit -n ${maxOpenFiles} && exec "$0" "$@"`];
  const [command = "", ...args] = [...limited, ...COMMANDS[runtime] ?? []];
  const child = spawn(command, [...args, file], { cwd: root, stdio: ["ignore", "pipe", "inherit"] });
  const exited = new Promise<number | null>((resolve) => child.on("exit", (code) => resolve(code)));
  const port = await readPort(child, exited);
  return {
    port,
    control: (subject, name, body = {}) => control(port, subject, name, body),
    pause: () => Promise.resolve(),
    stop: () => {
      child.kill("SIGTERM");
      return exited;
    },
  };
}

async function readPort(child: ChildProcess, exited: Promise<number | null>): Promise<number> {
  const port = (async () => {
    for await (const line of createInterface({ input: child.stdout! })) {
      const [, port] = line.match(/^PORT (\d+)$/) ?? [];
      if (port) return Number(port);
    }
    throw new Error("The server ended its output without saying its port");
  })();
  const gone = exited.then((code) => {
    throw new Error(`The server exited with ${code} before it listened`);
  });
  return await Promise.race([port, gone]);
}

/** Starts the fixture in a Durable Object under Miniflare and resolves once it listens. */
export async function startDurableObject(
  file = join(here, "fixture/worker.ts"),
  useSQLite = true,
  inspects = false,
): Promise<TestServer> {
  const { startWorker } = await import("../../scripts/worker.ts"); // Miniflare takes a second to load.
  if (inspects) process.env["MINIFLARE_WORKERD_V8_FLAGS"] = "--expose-gc"; // Read when workerd is started.
  const { miniflare, port } = await startWorker(file, "Fixture", { useSQLite, inspects });
  return {
    port,
    control: (subject, name, body = {}) => control(port, subject, name, body),
    evict: () => evict(miniflare, "main"),
    restart: async () => void await evict(miniflare, "main", "close"),
    ...(inspects && { heap: async () => await measureHeap(await miniflare.getInspectorURL()) }),
    pause: () => Promise.resolve(),
    stop: async () => {
      await miniflare.dispose();
      return 0;
    },
  };
}

/** Throws an object of the class `Fixture` out of memory, its sockets hibernating or closed. Resolves with whether it was in memory. */
export async function evict(
  miniflare: Worker["miniflare"],
  name: string,
  webSockets: "hibernate" | "close" = "hibernate",
): Promise<boolean> {
  try {
    await miniflare.unsafeEvictDurableObject("", "Fixture", { name, webSockets });
    return true;
  } catch (error) {
    assert.match(String(error), /not currently running/);
    return false;
  }
}

/** Asks over the protocol of Chromium's developer tools. */
async function measureHeap(inspector: URL): Promise<number> {
  const { WebSocket } = await import("ws");
  const socket = new WebSocket(new URL("/core:user:", inspector));
  try {
    await once(socket, "open");
    socket.send(JSON.stringify({ id: 1, method: "Runtime.getHeapUsage" }));
    for (;;) {
      const [data] = await once(socket, "message") as [Buffer]; // ws hands it over as a Buffer.
      const answer = JSON.parse(data.toString()) as { id?: number; result: { usedSize: number } };
      if (answer.id === 1) return answer.result.usedSize;
    }
  } finally {
    socket.terminate();
  }
}

/** Asks a server again and again over one connection. */
export class Asker {
  readonly #port: number;
  readonly #agent = new Agent({ keepAlive: true, maxSockets: 1 });

  constructor(port: number) {
    this.#port = port;
  }

  /** Resolves with the JSON that it answers. */
  async ask<Answer>(path: string, method: "GET" | "POST" = "GET"): Promise<Answer> {
    for (;;) {
      const asked = request({ host: "127.0.0.1", port: this.#port, path, method, agent: this.#agent });
      asked.end();
      try {
        const [answer] = await once(asked, "response") as [IncomingMessage]; // As node:http emits it.
        return await json(answer) as Answer; // Of a fixture.
      } catch (error) {
        // The server may end a connection that was idle just when it is used again.
        if (!asked.reusedSocket) throw error;
      }
    }
  }

  close(): void {
    this.#agent.destroy();
  }
}

/** Has a command of the fixture run that listens on the port. Each test asks three times, and `fetch` takes far more CPU than node:http. */
export async function control(port: number, subject: string, command: string, body: unknown): Promise<unknown> {
  const path = encodeURI(`/control/${subject}/${command}`);
  const asked = request({ host: "127.0.0.1", port, path, method: "POST", agent: false });
  asked.end(JSON.stringify(body));
  const [answer] = await once(asked, "response") as [IncomingMessage]; // As node:http emits it.
  const text = await textOf(answer);
  if (answer.statusCode !== 200) throw new Error(`The control answered ${answer.statusCode} ${text}`);
  return (JSON.parse(text) as { result: unknown }).result;
}
