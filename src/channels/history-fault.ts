import { isMs, MS } from "../base/clock.ts";
import type { ChannelHistoryOptions } from "./channel-options.ts";

// Not that of option-checks.ts: a publisher would have the checks of a contract with it.
const isPositive = (value: unknown): boolean => Number.isSafeInteger(value) && (value as number) > 0;

/** Describes what is wrong with the history of a channel and what to write instead; `null`: valid, or absent. */
export function historyFault(history: ChannelHistoryOptions | undefined): string | null {
  if (history === undefined) return null;
  const remedy = `history must be { size, ttl, maxRecover? }: ttl ${MS}, the others whole numbers from 1`;
  if (typeof history !== "object" || history === null) return remedy;
  const { size, ttl, maxRecover = 1, ...rest } = history;
  const [unknown] = Object.keys(rest);
  if (unknown !== undefined) return `unknown option "history.${unknown}", use size, ttl or maxRecover`;
  return isPositive(size) && isMs(ttl) && isPositive(maxRecover) ? null : remedy;
}
