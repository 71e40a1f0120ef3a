import type { EngineHost } from "../../src/engines/engine.ts";
import { MemoryEngine } from "../../src/engines/memory-engine.ts";
import type { WebSocketControllerOptions } from "../../src/application/options.ts";
import { open } from "../support/fake-transport.ts";
import { observe } from "../support/observed.ts";

/** What joins the nodes of a test: each message is with the others in the next microtask. */
export class Wire {
  readonly engines = new Set<WiredEngine>();
  readonly messages: string[] = [];
}

/** An engine in memory that has other nodes. */
export class WiredEngine extends MemoryEngine {
  // @ts-expect-error -- a MemoryEngine has no other nodes, and this one has
  override readonly isAlone = false;
  readonly isSigned: boolean;
  isCut = false;
  readonly #wire: Wire;
  host!: EngineHost;

  constructor(wire: Wire, isSigned: boolean) {
    super();
    this.#wire = wire;
    this.isSigned = isSigned;
  }

  override start(host: EngineHost): void {
    super.start(this.host = host);
    this.#wire.engines.add(this);
  }

  override async send(message?: string): Promise<void> {
    if (this.isCut) throw new Error("The wire is cut");
    this.#wire.messages.push(message!);
    await Promise.resolve();
    for (const engine of this.#wire.engines) if (engine !== this && !engine.isCut) engine.host.received(message!);
  }

  override nodes(): string[] {
    return [...this.#wire.engines].map(({ host }) => host.node);
  }
}

/** Nodes that a wire joins. */
export function createNodes(count: number, options: WebSocketControllerOptions & { isSigned?: boolean } = {}) {
  const { isSigned = true, ...rest } = options;
  const wire = new Wire();
  const nodes = Array.from({ length: count }, () => {
    const engine = new WiredEngine(wire, isSigned);
    const node = observe({ engine, ...rest });
    const join = (user: string, role = "reader") => open(node.controller, { identity: { accountability: { user, role } } });
    return { ...node, engine, join };
  });
  return { wire, nodes, a: nodes[0]!, b: nodes[1]! };
}
