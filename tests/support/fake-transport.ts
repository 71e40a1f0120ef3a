import type { AuthenticationState } from "../../src/application/authentication.ts";
import type { Connection } from "../../src/connection/connection.ts";
import type { WebSocketController } from "../../src/controller/controller.ts";
import type { Frame } from "../../src/protocol/frame.ts";
import type { SavedConnection, Transport } from "../../src/delivery/transport.ts";
import type { Handshake, WebSocketClient } from "../../src/application/websocket-client.ts";

/** A socket that writes down what it is told; the test plays the peer. */
export class FakeTransport implements Transport {
  readonly socket = { name: "the runtime's socket" };
  readonly sent: string[] = [];
  readonly closes: { code: number; reason: string }[] = [];
  readyState = 1;
  bufferedAmount = 0;
  terminations = 0;
  /** What `send` answers; an error is thrown. */
  sends: boolean | Error = true;
  /** Thrown by `close`. */
  closeError: Error | undefined;

  /** The messages sent since it was last asked. */
  // deno-lint-ignore no-explicit-any -- a test reads whatever was sent
  take(): any[] {
    return this.sent.splice(0).map((frame) => JSON.parse(frame));
  }

  send({ text }: Frame): boolean {
    if (this.sends instanceof Error) throw this.sends;
    if (this.sends) this.sent.push(text);
    return this.sends;
  }

  close(code: number, reason: string): void {
    this.closes.push({ code, reason });
    if (this.closeError) throw this.closeError;
    this.readyState = 2;
  }

  terminate(): void {
    this.terminations++;
    this.readyState = 3;
  }
}

/** One that hibernates, as a Durable Object's does. */
export class HibernatingTransport extends FakeTransport {
  readonly saved: SavedConnection[] = [];

  save(saved: SavedConnection): void {
    this.saved.push(structuredClone(saved));
  }
}

export const HANDSHAKE: Handshake = {
  mode: "public",
  url: "http://localhost/websocket",
  origin: null,
  ip: null,
  userAgent: null,
  protocol: null,
};

export interface Opened<T extends FakeTransport = FakeTransport> {
  connection: Connection;
  client: WebSocketClient;
  transport: T;
}

/** Opens a connection as a runtime does, `mode` being what its upgrade was made under. */
export function open(
  controller: WebSocketController,
  { mode = "public", identity = null }: { mode?: Handshake["mode"]; identity?: AuthenticationState | null } = {},
): Opened {
  return openOn(new FakeTransport(), controller, { mode, identity });
}

export function openOn<T extends FakeTransport>(
  transport: T,
  controller: WebSocketController,
  { mode = "public", identity = null }: { mode?: Handshake["mode"]; identity?: AuthenticationState | null } = {},
): Opened<T> {
  const connection = controller.open(transport, { ...HANDSHAKE, mode }, identity);
  return { connection, client: connection.client, transport };
}
