import type { MessageUid } from "../../src/protocol/errors.ts";
import { Deadlines } from "../../src/base/clock.ts";
import type { Frame } from "../../src/protocol/frame.ts";
import { type ClientConnection, WebSocketClient } from "../../src/application/websocket-client.ts";
import { HANDSHAKE } from "./fake-transport.ts";
import { TestClock } from "./test-clock.ts";

/** The connection behind a client, which writes down what the client asks of it. */
export class FakeConnection implements ClientConnection {
  accountability = { user: "ann", role: "editor" };
  expires_at: number | null = null;
  readyState = 1;
  readonly isOverHttp = false;
  bufferedAmount = 0;
  heldBytes = 0;
  unreadBytes = 0;
  isSuspended = false;
  readonly revalidating = undefined;
  readonly socket = { name: "the runtime's socket" };
  readonly sent: string[] = [];
  readonly closes: unknown[][] = [];
  /** The `uid` of each message that was refused. */
  readonly refused: unknown[] = [];
  saves = 0;
  readonly clock = new TestClock();
  readonly host = {
    deadlines: new Deadlines(this.clock, (error) => {
      throw error;
    }),
  };

  /** The messages sent since it was last asked. */
  // deno-lint-ignore no-explicit-any -- a test reads whatever was sent
  take(): any[] {
    return this.sent.splice(0).map((frame) => JSON.parse(frame));
  }

  send({ text }: Frame): boolean {
    this.sent.push(text);
    return true;
  }

  answer(frame: Frame): void {
    this.send(frame);
  }

  step(): boolean {
    return false;
  }

  refuseMessage(uid: MessageUid | undefined): void {
    this.refused.push(uid);
  }

  deferHeartbeat(): void {}

  close(...args: unknown[]): void {
    this.closes.push(args);
  }

  save(): void {
    this.saves++;
  }
}

/** A client and the connection behind it. */
export function createClient(): { client: WebSocketClient; connection: FakeConnection } {
  const connection = new FakeConnection();
  return { connection, client: new WebSocketClient(connection, HANDSHAKE, "client-1") };
}
