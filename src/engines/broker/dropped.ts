import type { EngineHost } from "../engine.ts";
import { WebSocketError } from "../../protocol/errors.ts";
import type { DropReason } from "./envelope.ts";

/** Counts dropped envelopes, and reports them at most once a minute. */
export class Dropped {
  readonly #source: string;
  readonly #counts = new Map<DropReason, number>();
  #reported = -Infinity;

  /** @param source names the broker in the report. */
  constructor(source: string) {
    this.#source = source;
  }

  /** Number of dropped envelopes, by reason. */
  get counts(): Readonly<Record<string, number>> {
    return Object.fromEntries(this.#counts);
  }

  count(reason: DropReason, host: Pick<EngineHost, "now" | "report">): void {
    this.#counts.set(reason, (this.#counts.get(reason) ?? 0) + 1);
    // Limited, because anybody who can write to the broker could fill the log.
    if (host.now() - this.#reported < 60_000) return;
    this.#reported = host.now();
    host.report(new WebSocketError("engine", "ENGINE_FAILED", `Cannot use what came from ${this.#source}: ${reason}`));
  }
}
