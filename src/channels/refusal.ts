import { connectionOf, type WebSocketClient } from "../application/websocket-client.ts";
import { type MessageUid, WebSocketError } from "../protocol/errors.ts";
import { Frame } from "../protocol/frame.ts";

/** What an answer has of its request. */
type Request = { readonly type: string; readonly uid?: MessageUid };

/** Answers a request that had no effect with the error. If `revalidate` is renewing the client's credentials, the answer waits for that. */
export function refuse(client: WebSocketClient, { type, uid }: Request, reason: WebSocketError): void {
  const connection = connectionOf(client);
  const { isSuspended, revalidating } = connection;
  if (isSuspended && revalidating) return void revalidating.then(() => refuse(client, { type, ...withUid(uid) }, reason));
  if (connection.isSuspended) return connection.refuseMessage(uid);
  connection.send(new Frame(messageOf({ type, ...withUid(uid) }, reason), true));
}

/** The error as the answer to the request. Details of the application that JSON cannot represent are left out. */
export const messageOf = ({ type, uid }: Request, { code, message, details }: WebSocketError): string =>
  new WebSocketError(type, code, message, { ...withUid(uid), ...(details && { details }) }).toMessage();

/** The field `uid` of an answer, if its request has one. */
export const withUid = (uid: MessageUid | undefined): { uid?: MessageUid } => uid === undefined ? {} : { uid };

/** @param wait until another request of the kind is allowed, in ms */
export const exceeded = (type: string, wait: number): WebSocketError =>
  new WebSocketError(type, "REQUESTS_EXCEEDED", "Too many requests", { details: { retry_after: wait } });
