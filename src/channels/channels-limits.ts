import { isPositive } from "../application/option-checks.ts";
import { isMs, MS } from "../base/clock.ts";
import type { ChannelsOptions } from "./channels.ts";

export const DEFAULTS: Required<ChannelsOptions> = {
  maxSubscriptions: 128,
  maxSubscriptionsPerUser: 10_000,
  maxNewChannelsPerMinute: 1_000,
  idWindow: 300_000,
  maxIdsPerUser: 10_000,
};

/** Defaults with `rateLimit: false`, which turns off all limits per user. */
export const UNLIMITED: Required<ChannelsOptions> = {
  ...DEFAULTS,
  maxSubscriptionsPerUser: Infinity,
  maxNewChannelsPerMinute: Infinity,
  maxIdsPerUser: Infinity,
};

/** The options that are set. @throws {TypeError} for an unknown option or an invalid limit. */
export function checkLimits(options: ChannelsOptions): ChannelsOptions {
  const given = Object.entries(options).filter(([, value]) => value !== undefined);
  for (const [name, value] of given) {
    if (!Object.hasOwn(DEFAULTS, name)) {
      throw new TypeError(`Cannot create the channels: unknown option "${name}", use one of ${Object.keys(DEFAULTS).join(", ")}`);
    }
    if (name === "idWindow" ? !isMs(value) : value !== Infinity && !isPositive(value)) {
      const remedy = name === "idWindow" ? `${MS}, such as 300_000` : "a whole number from 1, or Infinity";
      throw new TypeError(`Cannot create the channels: option "${name}" must be ${remedy}`);
    }
  }
  return Object.fromEntries(given);
}
