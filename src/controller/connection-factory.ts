import type { AuthenticationState } from "../application/authentication.ts";
import type { Handshake, JsonValue } from "../application/websocket-client.ts";
import type { Admission, Slot } from "../base/limits.ts";
import type { ConnectionHost } from "../connection/connection-host.ts";
import { Connection } from "../connection/connection.ts";
import type { Connections } from "../connection/connections.ts";
import type { SavedConnection, Transport } from "../delivery/transport.ts";
import { CloseCode } from "../protocol/close.ts";
import type { Backplane } from "./backplane.ts";
import type { ConnectionCounts } from "./stats.ts";

/** Creates the connections of a controller: on open sockets, and from hibernation. */
export class ConnectionFactory {
  readonly #host: ConnectionHost;
  readonly #admission: Admission;
  readonly #backplane: Backplane;
  readonly #connections: Connections;
  readonly #counts: ConnectionCounts;

  constructor(
    host: ConnectionHost,
    admission: Admission,
    backplane: Backplane,
    connections: Connections,
    counts: ConnectionCounts,
  ) {
    this.#host = host;
    this.#admission = admission;
    this.#backplane = backplane;
    this.#connections = connections;
    this.#counts = counts;
  }

  /** See `open` of the controller. */
  open(
    transport: Transport,
    handshake: Handshake,
    identity: AuthenticationState | null,
    slot: Slot = this.#admission.restore(handshake.ip),
    since: number = this.#host.revocations.number,
  ): Connection {
    const connection = this.#create(transport, slot, handshake);
    if (slot.released) connection.close(CloseCode.TRY_AGAIN_LATER, "It took too long"); // Its slot had timed out.
    else if (identity && !slot.claim(identity.accountability.user)) {
      connection.close(CloseCode.RATE_LIMITED, "Too many connections of this user", "auth");
    }
    connection.opened(identity, since);
    return connection;
  }

  /** See `restore` of the controller. */
  restore(transport: Transport, saved: SavedConnection): Connection {
    const { handshake, state } = saved as { handshake: Handshake; state: JsonValue }; // As Connection.save wrote them.
    const connection = this.#create(transport, this.#admission.restore(handshake.ip), handshake, saved.uid, state);
    connection.restored(saved);
    return connection;
  }

  #create(transport: Transport, slot: Slot, handshake: Handshake, uid?: string, state?: JsonValue): Connection {
    const connection = new Connection(this.#host, transport, slot, handshake, uid, state);
    this.#counts.add(connection);
    this.#host.observed.observer?.opened?.(connection.client);
    this.#connections.hold(connection);
    this.#backplane.start();
    return connection;
  }
}
