import { isMs, MS } from "../base/clock.ts";
import type { ChannelHistoryOptions } from "./channel-options.ts";

// Not imported from option-checks.ts, which would add the checks of contracts to the bundle of a publisher.
const isPositive = (value: unknown): boolean => Number.isSafeInteger(value) && (value as number) > 0;

/** Describes what to write instead of an invalid history; `null` if it is valid or absent. */
export function historyFault(history: ChannelHistoryOptions | undefined): string | null {
  if (history === undefined) return null;
  const remedy = `history must be { size, ttl, maxRecover? }: ttl ${MS}, the others whole numbers from 1`;
  if (typeof history !== "object" || history === null) return remedy;
  const { size, ttl, maxRecover = 1, ...rest } = history;
  const [unknown] = Object.keys(rest);
  if (unknown !== undefined) return `unknown option "history.${unknown}", use size, ttl or maxRecover`;
  return isPositive(size) && isMs(ttl) && isPositive(maxRecover) ? null : remedy;
}
