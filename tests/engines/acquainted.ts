import type { ClusterStats } from "../../src/controller/cluster.ts";
import type { WebSocketController } from "../../src/controller/controller.ts";
import { until } from "../support/waiting.ts";

/**
 * Waits until each node receives the statistics of all others, and returns them. Pass all nodes of the cluster. A node that signs is ready
 * before it knows nodes that do not answer its greeting within a second, and drops what they send until then.
 */
export async function untilAcquainted(nodes: readonly { readonly controller: WebSocketController }[]): Promise<ClusterStats[]> {
  let all: ClusterStats[] = [];
  await until(async () => {
    all = await Promise.all(nodes.map(({ controller }) => controller.cluster.stats()));
    return all.every((stats) => stats.missing.length === 0 && Object.keys(stats.nodes).length === nodes.length);
  }, () => all);
  return all;
}
