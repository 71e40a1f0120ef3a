/** A bar chart of one work as SVG, readable on light and on dark ground. */
import { round } from "./report.ts";
import type { ServerResult, WorkResult } from "./results.ts";
import { RUNTIME_TITLES } from "./servers.ts";

const WIDTH = 860;
const LABEL = 250;
const VALUE = 130;
const ROW = 22;
const HEAD = 56;

const CAPTIONS: Record<WorkResult["figure"], string> = {
  cpu: "server CPU, seconds per million",
  memory: "kB per connection",
  peak: "memory rose by, MiB",
};

const STYLE = `
    text { font: 13px system-ui, sans-serif; fill: #1f2328 }
    .title { font-size: 15px; font-weight: 600 }
    .caption { fill: #59636e }
    .runtime { font-weight: 600 }
    .ground { fill: #ffffff }
    .noroshi { fill: #d1242f }
    .raw, .floor { fill: #59636e }
    .peer { fill: #0969da }
    .spread { stroke: #1f2328 }
    @media (prefers-color-scheme: dark) {
      text { fill: #f0f6fc }
      .caption { fill: #9198a1 }
      .ground { fill: #0d1117 }
      .noroshi { fill: #f85149 }
      .raw, .floor { fill: #9198a1 }
      .peer { fill: #4493f8 }
      .spread { stroke: #f0f6fc }
    }`;

export function chart(work: WorkResult): string {
  const unit = work.figure === "cpu" ? ` ${work.unit}` : "";
  const most = Math.max(...work.servers.map(({ figures }) => figures?.[work.figure].max ?? 0), Number.MIN_VALUE);
  const scale = (value: number) => Math.max(0, value) / most * (WIDTH - LABEL - VALUE);
  const parts: string[] = [];
  let y = HEAD;
  let runtime = "";
  for (const server of work.servers) {
    if (server.runtime !== runtime) {
      runtime = server.runtime;
      parts.push(`<text class="runtime" x="16" y="${y + 16}">${RUNTIME_TITLES[server.runtime]}</text>`);
      y += ROW;
    }
    parts.push(bar(server, work.figure, y, scale));
    y += ROW;
  }
  const height = y + 14;
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" width="${WIDTH}" height="${height}" role="img">
  <title>${escape(work.title)}</title>
  <style>${STYLE}
  </style>
  <rect class="ground" width="${WIDTH}" height="${height}" rx="6" />
  <text class="title" x="16" y="24">${escape(work.title)}</text>
  <text class="caption" x="16" y="43">${CAPTIONS[work.figure]}${unit}: less is better; the line is from least to most</text>
  ${parts.join("\n  ")}
</svg>
`;
}

function bar(server: ServerResult, figure: WorkResult["figure"], y: number, scale: (value: number) => number): string {
  const label = `<text x="28" y="${y + 15}">${escape(server.name)}</text>`;
  if (!server.figures) {
    return `${label}<text class="caption" x="${LABEL}" y="${y + 15}">failed</text>`;
  }
  const { median, min, max } = server.figures[figure];
  const [width, from, to] = [median, min, max].map((value) => scale(value).toFixed(1));
  const value = round(median, figure === "cpu" ? 2 : 1) +
    (server.faults > 0 ? `, ${server.faults} faults` : "");
  return label +
    `<rect class="${server.kind}" x="${LABEL}" y="${y + 4}" width="${width}" height="14" rx="2" />` +
    `<line class="spread" x1="${LABEL + Number(from)}" x2="${LABEL + Number(to)}" y1="${y + 11}" y2="${y + 11}" />` +
    `<text x="${LABEL + Number(to) + 8}" y="${y + 15}">${value}</text>`;
}

function escape(text: string): string {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;");
}
