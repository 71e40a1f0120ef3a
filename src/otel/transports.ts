import type { Attributes } from "@opentelemetry/api";
import { connectionOf, type WebSocketClient } from "../application/websocket-client.ts";
import type { CountedConnections } from "../connection/connection-host.ts";

/** Reports one value. */
type Observe = (value: number, attributes?: Attributes) => void;

/** Labels connections by their transport: WebSocket or HTTP. */
export class Transports {
  readonly #websocket: Attributes;
  readonly #http: Attributes;

  constructor(common: Attributes) {
    this.#websocket = { ...common, "network.protocol.name": "websocket" };
    this.#http = { ...common, "network.protocol.name": "http" };
  }

  /** The labels of one connection. */
  of(client: WebSocketClient): Attributes {
    return connectionOf(client).isOverHttp ? this.#http : this.#websocket;
  }

  /**
   * Returns a function that reports values of all connections. Those over HTTP are separate once there are any.
   *
   * @param read must return the same labels, in the same order, each time.
   */
  by(
    counted: () => { readonly all: CountedConnections; readonly overHttp: CountedConnections },
    read: (counted: CountedConnections) => (readonly [value: number, labels?: Attributes])[],
  ): (observe: Observe) => void {
    return (observe) => {
      const { all, overHttp } = counted();
      const over = read(overHttp);
      for (const [index, [value, labels]] of read(all).entries()) {
        const [overValue] = over[index]!; // The same labels.
        observe(value - overValue, { ...this.#websocket, ...labels });
        if (overHttp.opened > 0) observe(overValue, { ...this.#http, ...labels });
      }
    };
  }
}

/** The number of connections that are open. */
export const activeOf = ({ opened, closedBy }: CountedConnections): number =>
  Object.values(closedBy).reduce((left, count) => left - count, opened);
