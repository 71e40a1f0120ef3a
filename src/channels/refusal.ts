import { connectionOf, type WebSocketClient } from "../application/websocket-client.ts";
import { type MessageUid, WebSocketError } from "../protocol/errors.ts";
import { Frame } from "../protocol/frame.ts";

/** Answers a request of the client with the error: once `revalidate` has answered, if it renews expired credentials. */
export function refuse(
  client: WebSocketClient,
  { type, uid }: { type: string; uid?: MessageUid },
  reason: WebSocketError,
): void {
  const connection = connectionOf(client);
  const { code, message, details } = reason;
  const { isSuspended, revalidating } = connection;
  if (isSuspended && revalidating) return void revalidating.then(() => refuse(client, { type, ...withUid(uid) }, reason));
  if (connection.isSuspended) return connection.refuseMessage(uid);
  const error = new WebSocketError(type, code, message, { ...withUid(uid), ...(details && { details }) });
  // Encoded by `toMessage`, which leaves out details of the application that JSON cannot represent.
  connection.send(new Frame(error.toMessage(), true));
}

/** The field `uid` of an answer, if its request has one. */
export const withUid = (uid: MessageUid | undefined): { uid?: MessageUid } => uid === undefined ? {} : { uid };

/** @param wait until another request of the kind is allowed, in ms */
export const exceeded = (type: string, wait: number): WebSocketError =>
  new WebSocketError(type, "REQUESTS_EXCEEDED", "Too many requests", { details: { retry_after: wait } });
