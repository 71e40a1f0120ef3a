import { createInbox, type Msg, type NatsConnection } from "@nats-io/nats-core";

/** A message stored in a stream. */
export interface StreamMessage {
  readonly sequence: number;
  readonly subject: string;
  readonly text: string;
  /** When the server stored it, in ms of its clock. */
  readonly time: number;
}

/** Nanoseconds in a millisecond. */
export const NS_PER_MS = 1_000_000;

/** A pull consumer of a stream, and how to reach it. */
export interface PullConsumer {
  readonly connection: NatsConnection;
  /** The prefix of the connection's inboxes: the server may not permit another one. */
  readonly inboxPrefix: string;
  /** Time limit in ms. */
  readonly timeout: number;
  readonly stream: string;
  readonly consumer: string;
}

/** Maximum number of messages for one pull request. */
const BATCH = 100;

/** Estimated bytes of a message in addition to its text. */
const MESSAGE_BYTES = 200;

/** Status of a pull request whose `max_bytes` are too few for the next message. */
const TOO_LARGE = 409;

/** Expiry of a pull request, in ms. Without one, nats-server 2.9 never answers if all pending messages were purged. */
const EXPIRY = 500;

/**
 * Reads the messages of a consumer, in order. It returns fewer than `count` if some are deleted meanwhile.
 *
 * @param count number of messages that the consumer has.
 * @param maxBytes approximate size after which the list ends; it has at least one message.
 */
export async function pullMessages(
  { connection, inboxPrefix, timeout, stream, consumer }: PullConsumer,
  count: number,
  maxBytes: number,
): Promise<StreamMessage[]> {
  if (count === 0) return [];
  const inbox = createInbox(inboxPrefix);
  const messages: StreamMessage[] = [];
  let end!: () => void;
  let fail!: (error: unknown) => void;
  const ended = new Promise<void>((resolve, reject) => {
    end = resolve;
    fail = reject;
  });
  /** Number of messages received before the last request. */
  let before = 0;
  let batch = 0;
  let bytes = 0;
  const isFull = () => messages.length >= count || messages.length > 0 && bytes >= maxBytes;
  /** @param isLarge whether to request only the next message, because it is larger than the bytes that are left. */
  const request = (isLarge = false) => {
    before = messages.length;
    batch = isLarge ? 1 : Math.min(BATCH, count - messages.length);
    const text = JSON.stringify({
      batch,
      ...(!isLarge && maxBytes < Infinity && { max_bytes: Math.ceil(maxBytes - bytes) }),
      no_wait: true,
      expires: EXPIRY * NS_PER_MS,
    });
    connection.publish(`$JS.API.CONSUMER.MSG.NEXT.${stream}.${consumer}`, text, { reply: inbox });
  };
  const subscription = connection.subscribe(inbox, {
    callback: (error, message) => {
      if (error) return fail(error);
      // A repeated request may be answered twice.
      if (isFull()) return;
      const received = toStreamMessage(message);
      // A status message: the request has expired, no message is left, or the next message exceeds `max_bytes`.
      if (!received && message.headers?.code === TOO_LARGE) return bytes < maxBytes / 2 ? request(true) : end();
      if (!received) return messages.length > before && messages.length < count ? request() : end();
      // A message was lost in transit, so skip those after it.
      if (received.delivery !== messages.length + 1) return;
      messages.push(received);
      bytes += received.text.length + MESSAGE_BYTES;
      if (isFull()) end();
      else if (messages.length - before === batch) request();
    },
  });
  // A lost connection ends the read without waiting for the timeout. A callback of `connection.closed()` would keep the messages until then.
  void subscription.closed.then(() => fail(new Error("Cannot read the stream: the connection was closed")));
  const timer = setTimeout(() => fail(new Error("Cannot read the stream: the server does not answer")), timeout);
  // A busy nats-server 2.9 sends no status if a request expires half-way, so request again.
  let seen = 0;
  const repeating = setInterval(() => messages.length === seen ? request() : seen = messages.length, 2 * EXPIRY);
  try {
    request();
    await ended;
    return messages;
  } finally {
    clearTimeout(timer);
    clearInterval(repeating);
    subscription.unsubscribe();
  }
}

/**
 * Reads the position of a message from its reply subject: …, stream, consumer, deliveries, stream sequence, consumer sequence, time,
 * pending. Returns `null` for a status message.
 */
function toStreamMessage(message: Msg): StreamMessage & { readonly delivery: number } | null {
  const words = message.reply?.split(".") ?? [];
  // Newer servers put two more tokens before the stream.
  const [sequence, delivery, time] = words.slice(words.length >= 11 ? 7 : 5);
  if (words[1] !== "ACK" || !/^\d{1,15}$/.test(sequence ?? "")) return null;
  const { subject } = message;
  return {
    sequence: Number(sequence),
    delivery: Number(delivery),
    subject,
    text: message.string(),
    time: Number(time) / NS_PER_MS,
  };
}
