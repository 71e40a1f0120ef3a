import { checkMs } from "../clock.ts";
import { checkNamespace } from "./channel-name.ts";

/** What the engines over a broker have in common. */
export interface BrokerEngineOptions {
  /** Separates applications on one broker: 1 to 32 letters, digits, `_` or `-`. @default {"noroshi"} */
  namespace?: string;
  /**
   * Signs all that nodes send to each other with HMAC-SHA256, and drops what is not signed so: for a broker that others can write to. Of
   * several the first signs, and each may have signed, so that one can be replaced. @default none: nothing is signed
   */
  secret?: string | readonly string[];
  /** How long a node that says nothing is alive, in ms: members of one that was killed are there so long. @default {10_000} */
  lease?: number;
  /** How often the ends of histories are compared, in ms, so that a lost last publication is noticed. @default {5_000} */
  checkInterval?: number;
  /** How long the broker may say nothing, in ms, before it is taken to be away; three times as long for one answer while others come. @default {2_000} */
  timeout?: number;
  /** How long a channel is listened to after nobody is subscribed any more, in ms. @default {5_000} */
  linger?: number;
  /** Characters of one publication or message: more is refused, and dropped on arrival. @default {900_000} */
  maxLength?: number;
}

/** {@link BrokerEngineOptions}, with what is not given. */
export interface ResolvedBrokerOptions extends Required<Omit<BrokerEngineOptions, "secret">> {
  readonly secrets: readonly string[];
}

/** @throws {TypeError} for an option out of range. */
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
