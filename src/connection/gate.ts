/** The gate that inbound messages pass: size, rate, order, decoding, identity, then the handlers. */
import { limitsOf } from "./announced-limits.ts";
import { byteLength, exceedsBytes, textOf } from "../protocol/bytes.ts";
import { CloseCode } from "../protocol/close.ts";
import type { Connection } from "./connection.ts";
import { STREAM_TYPES } from "../application/handlers.ts";
import { isPositive } from "../application/option-checks.ts";
import { isAnswer, notAsked } from "../application/questions.ts";
import { OPEN } from "../delivery/transport.ts";
import { questionsOf } from "../application/websocket-client.ts";
import { decode, encode } from "../protocol/protocol.ts";

/** Close reason when more messages wait than `maxPipelined` or `maxPayload` allows. */
export const FLOOD = "Too many messages waiting";

/**
 * Checks the size and rate of an inbound frame, then passes it to {@link pass}, after a wait if an earlier message is not done.
 * Of a view, only its own part of the buffer is read.
 *
 * @param now the time, in ms of the monotonic clock.
 */
export function receive(owner: Connection, data: string | ArrayBuffer | ArrayBufferView, now: number): void {
  const { options: { maxPayload }, rateGate } = owner.host;
  const isText = typeof data === "string";
  if (isText ? exceedsBytes(data, maxPayload) : data.byteLength > maxPayload) {
    return owner.close(CloseCode.MESSAGE_TOO_BIG, "Message too big", "payload");
  }
  const bytes = isText ? byteLength(data) : data.byteLength;
  if (rateGate && !rateGate.accepts(owner, bytes, now, isText ? data : "", handleControl)) return;
  const text = isText ? data : textOf(data);
  if (!owner.pipeline?.isHeld || isAnswered(owner, text)) pass(owner, text);
  else if (!owner.pipeline.push(text)) owner.close(CloseCode.RATE_LIMITED, FLOOD, "rate");
}

/** A message about a running stream that a client does not repeat. */
const CONTROL = /^\{ ?"type": ?"stream\.(?:credit|cancel)"/;

/** Maximum length of a {@link CONTROL} message that is read beyond the rate limit, in characters. */
const MAX_CONTROL = 200;

/**
 * Handles a credit or a cancellation beyond the rate limit: without it, the stream would stop until `streamTimeout`. Returns whether the
 * server was waiting for the message.
 */
function handleControl({ client, host: { handlers, observed } }: Connection, text: string): boolean {
  if (text.length > MAX_CONTROL || !CONTROL.test(text)) return false;
  const decoded = decode(text);
  if (!decoded.ok) return false;
  const { message } = decoded;
  const { type, uid, credit } = message;
  // Checked here, because `control` would also handle another `type` that follows in the text, and answer an invalid credit.
  const isControl = type === "stream.cancel" || type === "stream.credit" && isPositive(credit);
  // Only with a `uid`: a message with an `id` may concern clients of other nodes. The rate gate lets one through in each wait.
  if (!isControl || uid === undefined) return false;
  const isAwaited = handlers.control(client, message, byteLength(text));
  if (isAwaited) observed.observer?.received?.(type, client, message);
  return isAwaited;
}

/** Whether the frame answers an open question, so that it need not wait. */
function isAnswered({ state, client }: Connection, text: string | null): boolean {
  return state === "admitted" && text !== null && !!questionsOf(client)?.isAnsweredBy(text);
}

/** Decodes a message, checks the identity and calls the handlers. @param text `null` if the frame was not text. */
export function pass(owner: Connection, text: string | null): void {
  const settled = handle(owner, text);
  if (settled) owner.hold(settled);
}

/** Handles one message. If it returns a promise, later messages wait for it. The promise never rejects. */
function handle(owner: Connection, text: string | null): Promise<void> | undefined {
  const { client, host, identity } = owner;
  // The timer may be late, or the wall clock may have been set forward.
  if (owner.state === "admitted" && identity.remaining === 0) {
    identity.due();
    // A client that reads too slowly for the answer was closed.
    if (owner.readyState !== OPEN) return undefined;
    // While `revalidate` is running, this message waits before the others.
    if (owner.pipeline?.isHeld) return void owner.pipeline.unshift(text);
  }
  const decoded = decode(text);
  if (decoded.ok) host.observed.observer?.received?.(decoded.message.type, client, decoded.message);
  else host.observed.observer?.received?.(null, client);
  if (!decoded.ok) {
    if (owner.state === "pending") identity.refuseMessage(decoded.error.uid);
    else owner.transmit(decoded.error.toMessage());
    return undefined;
  }
  const { message } = decoded;
  const { type, uid } = message;
  // Refused during a drain, because a client that keeps authenticating would be busy until its end.
  if (type === "auth") return host.handlers.running.refuses(client, message) ? undefined : identity.authenticate(message);
  if (owner.state === "pending") return void identity.refuseMessage(uid);
  // The heartbeat has it from `heard` already. Some transports also match it to their own ping.
  if (type === "pong") return void owner.transport.answered?.(uid);
  if (type === "ping") {
    const channels = host.extension?.positions(client);
    return void owner.transmit(encode({
      type: "pong",
      ...(uid === undefined ? {} : { uid }),
      ...(channels && { channels }),
      ...(message["limits"] === true && { limits: limitsOf(host, client) }),
    }));
  }
  // Also handled while the credentials are expired, because the client does not repeat it after they are renewed. But not a cancel by `id`,
  // which also stops the stream for other connections.
  if (STREAM_TYPES.has(type) && (owner.state !== "expired" || uid !== undefined)) {
    // A credit that the server waits for and a first cancellation do not count against the rate limit.
    if (host.handlers.control(client, message, byteLength(text!))) host.rateGate?.refund(client); // `text` is not `null`, because it was decoded.
    return undefined;
  }
  if (owner.state === "expired") return void identity.refuseMessage(uid);
  if (isAnswer(message)) {
    if (!questionsOf(client)?.answer(message)) owner.transmit(notAsked(message).toMessage());
    return undefined;
  }
  return host.handlers.dispatch(client, message);
}
