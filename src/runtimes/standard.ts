import { ABNORMAL, CloseCode } from "../close.ts";
import type { Connection } from "../connection.ts";
import type { Transport } from "../transport.ts";

/** What the sockets of Deno, workerd and ws have in common. workerd had no `bufferedAmount` before the runtime of late 2026. */
interface StandardSocket {
  readonly readyState: number;
  readonly bufferedAmount?: number;
  send(data: string): void;
  close(code: number, reason: string): void;
}

/** A {@link Transport} over a standard `WebSocket`, or one that is like it. */
export class StandardTransport<Socket extends StandardSocket = WebSocket> implements Transport {
  readonly socket: Socket;

  constructor(socket: Socket) {
    this.socket = socket;
  }

  get readyState(): number {
    return this.socket.readyState;
  }

  get bufferedAmount(): number {
    return this.socket.bufferedAmount ?? 0;
  }

  send(frame: string): boolean {
    this.socket.send(frame);
    return true;
  }

  close(code: number, reason: string): void {
    this.socket.close(code, reason);
  }

  /** The standard has no way to drop a connection; closing again changes nothing. */
  terminate(): void {}
}

/** Feeds a standard `WebSocket` into a connection that starts when the socket is open. */
export function attach(socket: WebSocket, open: (transport: Transport) => Connection): void {
  let connection: Connection | undefined;
  socket.binaryType = "arraybuffer";
  socket.addEventListener("open", () => connection = open(new StandardTransport(socket)));
  socket.addEventListener("message", ({ data }) => connection?.message(data));
  socket.addEventListener("error", (event) => {
    // Deno's own idle detection found the peer dead: the protocol pings are its own there. Whatever else fails is the network's or the
    // peer's doing, and ends in a close like an abrupt end.
    if ((event as ErrorEvent).message.includes("No response from ping frame")) {
      connection?.close(CloseCode.HEARTBEAT_TIMEOUT, "Heartbeat timed out", "heartbeat");
    }
  });
  socket.addEventListener("close", ({ code, reason, wasClean }) => {
    // Deno says 0 where RFC 6455 §7.1.5 has 1006: no close frame came.
    if (code === 0 || !wasClean) connection?.closed(ABNORMAL, "", false);
    else connection?.closed(code, reason, true);
  });
}
