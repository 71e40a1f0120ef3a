import { systemClock } from "../../src/base/clock.ts";
import { HomeEngine } from "../../src/engines/shards/home-engine.ts";
import { RelayEngine } from "../../src/engines/shards/relay-engine.ts";
import { conformance } from "./conformance.ts";
import { ShardedObjects } from "./sharded-objects.ts";
import { noSqlite } from "./sqlite.ts";
import type { TestNode } from "./test-host.ts";

/** The number of channels that an engine holds. An unused channel is released after its ttl. */
function held({ engine }: TestNode): number {
  return engine instanceof HomeEngine || engine instanceof RelayEngine ? engine.channels : NaN;
}

for (const [name, isHome] of [["relays", false], ["a home object and relays", true]] as const) {
  conformance(`shards: ${name}`, {
    nodes: 4,
    skip: noSqlite,
    create() {
      let objects = new ShardedObjects();
      let nodes = 0;
      return Promise.resolve({
        node: () => Promise.resolve(objects.start(isHome && nodes++ === 0 ? "main" : undefined)),
        advance: (ms: number) => new Promise<void>((resolve) => void systemClock.setTimeout(resolve, ms)),
        forget: () => {
          objects = new ShardedObjects();
          return Promise.resolve(objects.start());
        },
        held,
        close: () => Promise.resolve(objects.stop()),
      });
    },
  });
}
