/** Nodes that meet at a real broker. */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import process from "node:process";
import { createInterface } from "node:readline";
import { BrokerProcess } from "../tests/support/brokers.ts";
import { buildServers, builtFile } from "./build.ts";
import { COMMANDS, root, type RuntimeName } from "./servers.ts";

const FILE = { kind: "noroshi", file: "cluster.ts" } as const;

/** A node in a process of its own. */
export interface RunningNode {
  readonly port: number;
  kill(): Promise<void>;
}

export const BROKERS: Record<string, () => Promise<BrokerProcess>> = {
  redis: () => BrokerProcess.redis("--appendonly", "yes", "--appendfsync", "always"),
  nats: () => BrokerProcess.nats(),
};

/** Runs with a broker of each name, and a node on each of the runtimes, which are ended afterwards. */
export async function withNodes(
  brokers: readonly string[],
  runtimes: readonly RuntimeName[],
  run: (nodes: RunningNode[], broker: string) => Promise<void>,
): Promise<void> {
  await buildServers([{ name: "cluster", runtime: "node", ...FILE }]);
  for (const name of brokers) {
    const broker = await BROKERS[name]!(); // One of them, as the caller has looked.
    const nodes: RunningNode[] = [];
    try {
      for (const runtime of runtimes) nodes.push(await startNode(runtime, name, broker.port));
      await run(nodes, name);
    } finally {
      await Promise.all(nodes.map((node) => node.kill()));
      await broker.close();
    }
  }
}

async function startNode(runtime: RuntimeName, broker: string, brokerPort: number): Promise<RunningNode> {
  const [command = "", ...args] = COMMANDS[runtime];
  const file = runtime === "node" ? builtFile(FILE) : join(root, "bench/servers", FILE.file);
  const child = spawn(command, [...args, file, broker, String(brokerPort)], { cwd: root, stdio: ["ignore", "pipe", "inherit"] });
  process.once("exit", () => child.kill("SIGKILL"));
  for await (const line of createInterface({ input: child.stdout })) {
    if (!line.startsWith("PORT ")) continue;
    const kill = async () => {
      if (child.exitCode !== null || child.signalCode !== null) return;
      child.kill("SIGKILL");
      await once(child, "exit");
    };
    return { port: Number(line.slice(5)), kill };
  }
  throw new Error(`Cannot start a node on ${runtime}: it has ended`);
}

/** In whole ms. */
export function sumUp(times: readonly number[]): string {
  const [p50, p99, most] = [0.5, 0.99, 1].map((part) => Math.round(quantile(times, part)));
  return `p50 ${p50} ms, p99 ${p99} ms, most ${most} ms`;
}

/** The value that the part of them is not above. */
function quantile(values: readonly number[], part: number): number {
  return values.toSorted((a, b) => a - b)[Math.max(0, Math.ceil(values.length * part) - 1)] ?? NaN;
}
