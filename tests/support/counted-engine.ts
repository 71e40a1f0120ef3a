import { MemoryEngine } from "../../src/engines/memory-engine.ts";

/** An engine that counts how often it is closed. */
export class CountedEngine extends MemoryEngine {
  closes = 0;

  override close(): void {
    this.closes++;
    super.close();
  }
}
