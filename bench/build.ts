/** The servers for Node, as JavaScript: tsx keeps the name of every function it compiles, at a cost that what is published does not have. */
import { dirname, join } from "node:path";
import { build } from "esbuild";
import { root, type Server } from "./servers.ts";

const sources = join(root, "bench/servers");

/** Where a server's JavaScript is: below the packages that it is to find, for those of the peers bring another ws. */
export function builtFile({ kind, file }: Pick<Server, "kind" | "file">): string {
  const modules = join(root, kind === "peer" ? "bench/node_modules" : "node_modules");
  return join(modules, ".noroshi-bench", file.replace(/\.ts$/, ".js"));
}

/** Builds those that run on Node. */
export async function buildServers(servers: readonly Server[]): Promise<void> {
  for (const server of servers) {
    if (server.runtime !== "node") continue;
    await build({
      entryPoints: [join(sources, server.file)],
      outdir: dirname(builtFile(server)),
      bundle: true,
      splitting: true, // Otherwise a package that a server imports only for some of its works is loaded for all.
      packages: "external",
      platform: "node",
      format: "esm",
      target: "node20",
      logLevel: "warning",
    });
  }
}
