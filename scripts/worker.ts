import { build } from "esbuild";
import { Miniflare } from "miniflare";

/** A Worker under Miniflare. */
export interface Worker {
  readonly miniflare: Miniflare;
  readonly port: number;
}

/** Options of {@link startWorker}. */
export interface WorkerOptions {
  /** Whether the class has SQLite storage. @default {true} */
  useSQLite?: boolean;
  /** Whether it can be inspected. @default {false} */
  inspects?: boolean;
  /** Name of a queue that the Worker produces to, as `QUEUE`, and consumes. @default none */
  queue?: string;
  /** Further classes, bound in the same way. @default none */
  others?: readonly string[];
}

/** By file: a test that starts a Worker twenty times bundles it once. */
const bundles = new Map<string, Promise<string>>();

/** Starts a file that exports a Durable Object class, bound under its name in capitals, and resolves once it listens. */
export async function startWorker(file: string, className: string, options: WorkerOptions = {}): Promise<Worker> {
  const { useSQLite = true, inspects = false, queue, others = [] } = options;
  const script = await (bundles.get(file) ?? bundle(file));
  const miniflare = new Miniflare({
    modules: true,
    script,
    compatibilityDate: "2026-07-01",
    compatibilityFlags: ["enable_request_signal"],
    host: "127.0.0.1",
    port: 0,
    ...(inspects && { inspectorPort: 0 }),
    ...(queue !== undefined && {
      queueProducers: { QUEUE: queue },
      queueConsumers: { [queue]: { maxBatchSize: 1, maxBatchTimeout: 0 } },
    }),
    durableObjects: Object.fromEntries(
      [className, ...others].map((name) => [name.toUpperCase(), { className: name, useSQLite }]),
    ),
  });
  const { port } = await miniflare.ready;
  return { miniflare, port: Number(port) };
}

function bundle(file: string): Promise<string> {
  const bundled = build({
    entryPoints: [file],
    bundle: true,
    format: "esm",
    target: "es2024",
    write: false,
    logLevel: "warning",
    // Loaded on other runtimes only.
    external: ["node:*", "ws", "@hono/node-server", "cloudflare:*"],
  }).then(({ outputFiles }) => outputFiles[0]!.text); // One entry has one.
  bundles.set(file, bundled);
  return bundled;
}
