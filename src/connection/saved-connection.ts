import type { Connection } from "./connection.ts";
import type { SavedConnection } from "../delivery/transport.ts";

/**
 * The fields of a connection to save, so that it continues after hibernation.
 *
 * @param endsAt when it reaches `maxAge`, in ms of the monotonic clock; `undefined` without a limit.
 */
export function savedOf(
  { client: { uid, handshake, state }, identity: { until, accountability, expiresAt }, lag, host }: Connection,
  phase: SavedConnection["phase"],
  endsAt: number | undefined,
): SavedConnection {
  return {
    controller: host.options.name,
    uid,
    handshake,
    state,
    phase,
    until,
    accountability,
    expires_at: expiresAt,
    ...(endsAt !== undefined && { ends_at: host.now() + endsAt - host.monotonic() }),
    ...(lag && lag.missed > 0 && { missed: lag.missed }),
  };
}
