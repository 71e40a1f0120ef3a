/** What a run of the bench has found: its samples, summed up. */
import type { Sample } from "./measure.ts";
import type { RuntimeName, Server } from "./servers.ts";
import type { Figure, Work } from "./works.ts";

export interface Spread {
  median: number;
  min: number;
  max: number;
}

export interface ServerResult {
  runtime: RuntimeName;
  name: string;
  kind: Server["kind"];
  /** Absent where no round succeeded. */
  figures?: Record<Exclude<keyof Sample, "round" | "faults">, Spread>;
  /** To the runtime's best raw server, of the same round each. */
  ratio?: Spread;
  /** That is the best raw server. */
  isBaseline: boolean;
  /** In all rounds. */
  faults: number;
  /** Of the rounds that failed. */
  errors: string[];
  samples: Sample[];
}

export interface WorkResult {
  name: string;
  title: string;
  unit: Work["unit"];
  figure: Figure;
  isCrossNode: boolean;
  servers: ServerResult[];
}

export interface Results {
  date: string;
  rounds: number;
  quick: boolean;
  /** Cores, their model, and the versions of what is measured. */
  machine: { cores: number; model: string; system: string };
  versions: Record<string, string>;
  works: WorkResult[];
}

/** A server's rounds of one work. */
export interface Rounds {
  server: Server;
  samples: Sample[];
  errors: string[];
}

export function sumUp({ name, title, unit, figure, isCrossNode = false }: Work, all: readonly Rounds[]): WorkResult {
  const servers = all.map(({ server, samples, errors }) => {
    const baseline = figure === "peak" ? undefined : bestRaw(all, server.runtime, figure);
    const ratios = samples.flatMap((sample) => {
      const other = baseline?.samples.find(({ round }) => round === sample.round);
      return other ? [sample[figure] / other[figure]] : [];
    });
    return {
      runtime: server.runtime,
      name: server.name,
      kind: server.kind,
      ...samples.length > 0 && { figures: figuresOf(samples) },
      ...ratios.length > 0 && { ratio: spread(ratios) },
      isBaseline: baseline?.server === server,
      faults: samples.reduce((sum, { faults }) => sum + faults, 0),
      errors,
      samples,
    };
  });
  return { name, title, unit, figure, isCrossNode, servers };
}

/** Whichever way of a runtime is the cheapest at this work, so that nobody is compared with a straw man. */
function bestRaw(all: readonly Rounds[], runtime: RuntimeName, figure: Figure): Rounds | undefined {
  const median = ({ samples }: Rounds) => spread(samples.map((sample) => sample[figure])).median;
  return all
    .filter(({ server, samples }) => server.kind === "raw" && server.runtime === runtime && samples.length > 0)
    .filter(({ samples }) => samples.every(({ faults }) => faults === 0))
    .sort((one, other) => median(one) - median(other))[0];
}

function figuresOf(samples: readonly Sample[]): NonNullable<ServerResult["figures"]> {
  const of = (name: keyof Sample) => spread(samples.map((sample) => sample[name]));
  return {
    cpu: of("cpu"),
    origin: of("origin"),
    broker: of("broker"),
    rate: of("rate"),
    p50: of("p50"),
    p99: of("p99"),
    memory: of("memory"),
    peak: of("peak"),
    idle: of("idle"),
  };
}

function spread(values: readonly number[]): Spread {
  const sorted = [...values].sort((one, other) => one - other);
  const middle = (sorted.length - 1) / 2;
  const median = (sorted[Math.floor(middle)]! + sorted[Math.ceil(middle)]!) / 2;
  return { median, min: sorted[0]!, max: sorted.at(-1)! };
}
