/** The results as Markdown, formatted as `deno fmt` would. */
import type { Results, ServerResult, Spread, WorkResult } from "./results.ts";
import { RUNTIME_TITLES } from "./servers.ts";

interface Column {
  title: string;
  isText?: boolean;
  cell(server: ServerResult): string;
}

const NONE = "–";
/** Of deno.json. */
const LINE_WIDTH = 130;

export function report(results: Results, charts: ReadonlyMap<string, string>): string {
  const { date, rounds, quick, machine, versions, works } = results;
  const versionList = Object.entries(versions).map(([name, version]) => `${name} ${version}`).join(", ");
  const what = `Medians of ${rounds} alternating ${rounds === 1 ? "round" : "rounds"}${
    quick ? ", the quick set" : ""
  }, with the least and the most.`;
  const parts = [
    "# Bench",
    wrap(`${date.slice(0, 10)}, ${machine.cores} × ${machine.model}, ${machine.system}; ${versionList}.`),
    wrap(
      `${what} A ratio is the median of the ratios within each round to the runtime's cheapest raw server, which is marked with an ` +
        "asterisk.",
    ),
  ];
  for (const work of works) {
    parts.push(`## ${work.title}`);
    const chart = charts.get(work.name);
    if (chart) parts.push(`![${work.title}](${chart})`);
    parts.push(table(columnsOf(work), work.servers));
    for (const { runtime, name, errors } of work.servers) {
      if (errors.length > 0) parts.push(`${RUNTIME_TITLES[runtime]}, ${name}: ${errors.length} of ${rounds} rounds failed.`);
    }
  }
  return parts.join("\n\n") + "\n";
}

/** Figures that all works have, around the one that counts. */
function columnsOf({ figure, unit, isCrossNode }: WorkResult): Column[] {
  const columns: Column[] = [
    { title: "runtime", isText: true, cell: ({ runtime }) => RUNTIME_TITLES[runtime] },
    { title: "server", isText: true, cell: ({ name, isBaseline }) => isBaseline ? `${name} \\*` : name },
  ];
  if (figure === "cpu") columns.push({ title: `CPU s/M ${unit}`, cell: ({ figures }) => withSpread(figures?.cpu, 2) });
  if (figure === "memory") columns.push({ title: "kB/connection", cell: ({ figures }) => withSpread(figures?.memory, 1) });
  if (figure === "peak") columns.push({ title: "memory rose by (MiB)", cell: ({ figures }) => withSpread(figures?.peak, 1) });
  if (isCrossNode) {
    columns.push({ title: "of it origin", cell: ({ figures }) => round(figures?.origin.median, 2) });
    columns.push({ title: "broker besides", cell: ({ figures }) => round(figures?.broker.median, 2) });
  }
  if (figure !== "peak") columns.push({ title: "ratio", cell: ({ ratio }) => withSpread(ratio, 2) });
  if (figure !== "memory") {
    // Pings come when the server sends them.
    if (unit !== "pings") columns.push({ title: "thousand/s", cell: ({ figures }) => withSpread(figures?.rate, 0) });
    if (unit !== "handshakes" && unit !== "pings") {
      columns.push({ title: "p50 ms", cell: ({ figures }) => round(figures?.p50.median, 2) });
      columns.push({ title: "p99 ms", cell: ({ figures }) => round(figures?.p99.median, 2) });
    }
    columns.push({ title: "generator idle", cell: ({ figures }) => figures ? `${round(figures.idle.median * 100, 0)} %` : NONE });
  }
  columns.push({ title: "faults", cell: ({ figures, faults }) => figures ? String(faults) : "failed" });
  return columns;
}

/** Prose in lines as `deno fmt` breaks them. */
function wrap(text: string): string {
  const lines = [""];
  for (const word of text.split(" ")) {
    const line = lines.at(-1)!;
    if (line && line.length + 1 + word.length > LINE_WIDTH) lines.push(word);
    else lines[lines.length - 1] = line ? `${line} ${word}` : word;
  }
  return lines.join("\n");
}

function withSpread(spread: Spread | undefined, digits: number): string {
  if (!spread) return NONE;
  const [median, min, max] = [spread.median, spread.min, spread.max].map((value) => round(value, digits));
  return `${median} (${min}–${max})`;
}

export function round(value: number | undefined, digits: number): string {
  return value === undefined ? NONE : value.toFixed(digits);
}

function table(columns: readonly Column[], servers: readonly ServerResult[]): string {
  const rows = servers.map((server) => columns.map(({ cell }) => cell(server)));
  const widths = columns.map(({ title }, index) => Math.max(3, title.length, ...rows.map((row) => row[index]!.length)));
  const pad = (cell: string, index: number) =>
    columns[index]!.isText ? cell.padEnd(widths[index]!) : cell.padStart(widths[index]!);
  const line = (cells: readonly string[]) => `| ${cells.map(pad).join(" | ")} |`;
  const rule = columns.map(({ isText }, index) => isText ? "-".repeat(widths[index]!) : "-".repeat(widths[index]! - 1) + ":");
  return [line(columns.map(({ title }) => title)), line(rule), ...rows.map(line)].join("\n");
}
