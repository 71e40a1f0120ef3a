import { MemoryEngine } from "../../src/engines/memory-engine.ts";

type Host = Parameters<MemoryEngine["start"]>[0];

/** An engine in memory that keeps publications in its histories but, while `loses` is set, delivers none to the channels. */
export class LossyEngine extends MemoryEngine {
  loses = false;
  /** What the controller has started the engine with, for tests that report a gap. */
  host!: Host;

  override start(host: Host): void {
    this.host = host;
    super.start({
      ...host,
      published: (channel, publication) => {
        if (!this.loses) host.published(channel, publication);
      },
    });
  }
}
