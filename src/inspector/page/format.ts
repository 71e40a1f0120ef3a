const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const clock = new Intl.DateTimeFormat("en", { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" });
const day = new Intl.DateTimeFormat("en", { dateStyle: "medium" });

/** `12,345` and `1.5`. */
export const number = (value: number): string =>
  value > 0 && value < 10 && !Number.isInteger(value) ? value.toFixed(1) : whole.format(value);

/** `1.5 MB`. */
export function bytes(value: number): string {
  if (value < 1_000) return `${value} B`;
  const unit = Math.min(3, Math.floor(Math.log10(value) / 3));
  const scaled = value / 1_000 ** unit;
  return `${scaled < 10 ? scaled.toFixed(1) : whole.format(scaled)} ${["B", "kB", "MB", "GB"][unit]}`;
}

/** `850 ms` and `2.5 s`. */
export const milliseconds = (value: number): string =>
  value < 10 ? `${value.toFixed(1)} ms` : value < 1_000 ? `${whole.format(value)} ms` : `${(value / 1_000).toFixed(1)} s`;

/** `4 min`. */
export function duration(ms: number): string {
  const seconds = Math.max(0, Math.round(ms / 1_000));
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3_600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 86_400) return `${Math.floor(seconds / 3_600)} h ${Math.floor(seconds % 3_600 / 60)} min`;
  return `${Math.floor(seconds / 86_400)} d ${Math.floor(seconds % 86_400 / 3_600)} h`;
}

/** The time of the day, and the day if it is another one. */
export function time(at: number): string {
  const isToday = day.format(at) === day.format(Date.now());
  return isToday ? clock.format(at) : `${day.format(at)}, ${clock.format(at)}`;
}

/** The name that was given to a node, less the random part that its start has added. */
export const nodeName = (node: string): string =>
  /^.+-[\da-f]{12}$/.test(node) && node.length !== 36 ? node.slice(0, -13) : node.slice(0, 8);

/** JSON on several lines. */
export const json = (value: unknown): string => JSON.stringify(value, null, 2) ?? "";
