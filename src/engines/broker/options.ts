import { checkMs } from "../../base/clock.ts";
import { checkNamespace } from "./channel-name.ts";

/** Options common to all engines over a broker. */
export interface BrokerEngineOptions {
  /** Separates applications on one broker: 1 to 32 letters, digits, `_` or `-`. @default {"noroshi"} */
  namespace?: string;
  /**
   * Secret for HMAC-SHA256 of at least 16 characters, for a broker that others can write to: nodes sign their messages to each other, and
   * drop unsigned ones. If you pass several, the first one signs and all of them verify, so that a secret can be rotated.
   * @default none: nothing is signed
   */
  secret?: string | readonly string[];
  /** Silence after which a node counts as dead and its members are removed, in ms. @default {10_000} */
  lease?: number;
  /** Interval in ms at which a node compares the ends of histories, to notice the loss of a last publication. @default {5_000} */
  checkInterval?: number;
  /**
   * Silence after which the broker counts as unavailable, in ms. One request may take three times as long while others are answered.
   *
   * @default {2_000}
   */
  timeout?: number;
  /** Time in ms that a node still listens to a channel without subscribers; up to twice as long. @default {5_000} */
  linger?: number;
  /** Maximum length of a publication or message, in characters. A longer one is refused, and dropped if another node sends it. @default {900_000} */
  maxLength?: number;
}

/** {@link BrokerEngineOptions} with the defaults filled in. */
export interface ResolvedBrokerOptions extends Required<Omit<BrokerEngineOptions, "secret">> {
  readonly secrets: readonly string[];
}

/** Checks options and fills in the defaults. @throws {TypeError} for an invalid option. */
export function resolveBrokerOptions(options: BrokerEngineOptions): ResolvedBrokerOptions {
  const { namespace = "noroshi", secret = [], lease = 10_000, checkInterval = 5_000, timeout = 2_000, linger = 5_000 } = options;
  const { maxLength = 900_000 } = options;
  checkNamespace(namespace);
  const secrets = typeof secret === "string" ? [secret] : secret;
  if (secrets.some((each) => typeof each !== "string" || each.length < 16)) {
    throw new TypeError("Cannot create the engine: a secret must be a string of 16 characters or more");
  }
  for (const [name, value] of Object.entries({ lease, checkInterval, timeout, linger })) {
    checkMs(`Cannot create the engine: ${name}`, value);
  }
  if (!(Number.isFinite(maxLength) && maxLength >= 1)) {
    throw new TypeError("Cannot create the engine: maxLength must be a number from 1");
  }
  return { namespace, secrets, lease, checkInterval, timeout, linger, maxLength };
}
