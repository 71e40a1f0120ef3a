import type { ClientKey } from "../application/client-key.ts";
import type { Extension, ExtensionHost } from "../application/extension.ts";
import type { ConnectionHost } from "../connection/connection-host.ts";
import type { Delivery } from "../delivery/delivery.ts";
import type { Backplane } from "./backplane.ts";

/** What an extension of a controller works with. */
interface Extended {
  readonly host: ConnectionHost;
  readonly backplane: Backplane;
  readonly delivery: Delivery;
  readonly keyOf: ClientKey;
}

/** Installs an extension, and returns what it receives. */
export function extend(extension: Extension, { host, backplane, delivery, keyOf }: Extended): ExtensionHost {
  const { deadlines, monotonic, now, observed, options: { contract, maxBufferedBytes, timeout }, outbound, rateGate, report } =
    host;
  if (contract) extension.declare(contract); // Returned by `defineContract`.
  backplane.check(extension);
  host.handlers.reserve(extension.types, (client, message) => extension.handle(client, message));
  backplane.extension = extension;
  return {
    get engine() {
      return backplane.engine;
    },
    deadlines,
    delivery,
    timeout,
    maxBufferedBytes,
    rateGate,
    keyOf,
    now,
    monotonic,
    report,
    outbound,
    observed,
  };
}
