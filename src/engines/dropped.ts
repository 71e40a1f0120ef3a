import type { EngineHost } from "../engine.ts";
import { WebSocketError } from "../errors.ts";
import type { DropReason } from "./envelope.ts";

/** Counts what came from other nodes and was not taken, and tells of it. */
export class Dropped {
  readonly #source: string;
  readonly #counts = new Map<DropReason, number>();
  #told = -Infinity;

  /** @param source what it came from, as it is called. */
  constructor(source: string) {
    this.#source = source;
  }

  /** How many, by reason. */
  get counts(): Readonly<Record<string, number>> {
    return Object.fromEntries(this.#counts);
  }

  count(reason: DropReason, host: Pick<EngineHost, "now" | "report">): void {
    this.#counts.set(reason, (this.#counts.get(reason) ?? 0) + 1);
    // Once a minute: whoever can write there must not fill the log.
    if (host.now() - this.#told < 60_000) return;
    this.#told = host.now();
    host.report(new WebSocketError("engine", "ENGINE_FAILED", `Cannot use what came from ${this.#source}: ${reason}`));
  }
}
