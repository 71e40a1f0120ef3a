import type { WebSocketMessage } from "../protocol/protocol.ts";
import { backoffDelay } from "./backoff.ts";
import { disposeBy } from "./dispose.ts";
import { guard } from "./emitter.ts";
import { encode } from "./encode.ts";
import { type ClientError, errorOf, isUnread, retryAfter } from "./error.ts";
import type { ResolvedOptions } from "./options.ts";
import { createTimer } from "./platform.ts";
import { createReading } from "./reading.ts";
import type {
  Member,
  OpenSubscription,
  Position,
  PresenceChange,
  Publication,
  SubscribeOptions,
  SubscriptionInit,
} from "./subscription.ts";

/** Errors after which a subscription is tried again. */
const TRANSIENT = /_UNAVAILABLE$|^INTERNAL_ERROR$|^REQUESTS_EXCEEDED$/;

type Item = SubscriptionInit | Publication;

/** A subscription, with the methods for its collection. */
interface Entry extends OpenSubscription {
  /** Whether the server has answered the last `subscribe`; `undefined` if none was sent on this connection, or it was refused. */
  isLive?: boolean | undefined;
  /** Returns the `subscribe` message with the current position; the `unsubscribe` message if the subscription has ended. */
  text(): string;
  /** Handles a message of the subscription. */
  receive(message: WebSocketMessage): void;
  /** Called with the position of the server. Recovers if publications are missing. */
  reached(at: Position | undefined): void;
  /** Called when the server refuses or ends the subscription. Subscribes again later, or ends with the error. */
  refused(error: ClientError): void;
  /** Ends the subscription; iterators receive the error, if any. */
  end(error?: ClientError): void;
  /** Called when the connection is lost. If the client is closed, an iteration fails, because it would wait forever; callbacks stay. */
  lost(whyClosed: ClientError | undefined): void;
}

/** A client's subscriptions, with their recovery after lost connections, lost messages and slow iterators. */
export interface Subscriptions {
  /** Whether a pong with positions could show that publications are missing. */
  haveHistory(): boolean;
  /** Returns the number of messages of this connection without an answer. */
  unanswered(): number;
  /** @throws {TypeError} for options that JSON cannot encode. */
  add(channel: string, options: SubscribeOptions): OpenSubscription;
  /** Queues all messages without an answer. On a new connection, those are all `subscribe` messages. */
  askAll(): void;
  /** Sends as many queued messages as the server accepts now. */
  flush(): void;
  /** Handles the message if it belongs to a subscription. Returns whether it did. */
  receive(message: WebSocketMessage): boolean;
  /** Called with the positions in a pong. */
  pong(channels: unknown): void;
  /**
   * Called when the connection is lost.
   *
   * @param whyClosed error if the client is closed. Iterations fail with it; subscriptions with callbacks stay.
   */
  lost(whyClosed: ClientError | undefined): void;
  /** Called when the application closes the client. */
  end(): void;
}

/**
 * @param nextUid returns a new unique uid.
 * @param offer sends a text if the server accepts it now. Returns whether it was sent, or refused with an error.
 * @param whyClosed returns why the client is closed; `undefined` if it is not.
 * @param report called with what a callback throws.
 */
export function createSubscriptions(
  options: ResolvedOptions,
  nextUid: () => string,
  offer: (text: string, refused: (error: ClientError) => void, isSubscribe: boolean) => boolean,
  whyClosed: () => ClientError | undefined,
  report: (error: unknown) => void,
): Subscriptions {
  /** By `uid`: the subscriptions, including those that have ended, until the server has answered. */
  const entries = new Map<unknown, Entry>();
  /** Subscriptions with a message to send, in order. */
  const queue = new Set<Entry>();
  /** A copy, because a callback may subscribe and unsubscribe. */
  const all = () => [...entries.values()];

  const flush = () => {
    for (const entry of queue) {
      // A refusal is deferred until `subscribe()` has returned. An `unsubscribe` has the cost of a `subscribe` until it is answered.
      if (!offer(entry.text(), (error) => void Promise.resolve().then(() => entry.refused(error)), true)) return;
      queue.delete(entry);
      entry.isLive ??= false;
    }
  };

  const add = (channel: string, subscribeOptions: SubscribeOptions): OpenSubscription => {
    const { event: only, query, data, presence, recover, buffer, onInit, onEvent, onPresence, onGap, onError } = subscribeOptions;
    const uid = nextUid();
    // Copied here, so that invalid options throw in `subscribe()` instead of later.
    const request = JSON.parse(encode({
      type: "subscribe",
      channel,
      uid,
      event: only, // JSON drops undefined fields.
      query,
      data,
      presence: presence || onPresence ? true : undefined,
    }));
    let position: Position | undefined = recover && JSON.parse(encode(recover));
    const members = new Map<string, Member>();
    /** Whether an `init` has arrived, so that the next one without a recovery means a gap. */
    let hasBegun = !!recover;
    // With callbacks, items are queued only once an iterator exists.
    let keepsItems = !(onInit || onEvent || onPresence);
    /** Whether the queue is full. Publications are discarded until it was read, then recovered from `position`. */
    let isBehind = false;
    const items: Item[] = [];
    /** Whether an iterator exists. A second one would take its items. */
    let hasIterator = false;
    /** Number of consecutive transient errors. Sets the backoff. */
    let failures = 0;
    /** Timer for the next attempt after a transient error. */
    const timer = createTimer(options.clock);

    const ask = () => {
      // Publications that still arrive are dropped, because earlier ones are missing. The answer to this `subscribe` repeats them.
      entry.isLive &&= false;
      queue.add(entry);
      flush();
    };

    /** Handles a closed client, from which nothing arrives. */
    const check = () => {
      const why = whyClosed();
      if (why) entry.lost(why);
    };

    const call = <Args extends unknown[]>(callback: ((...args: Args) => unknown) | undefined, ...args: Args) => {
      if (callback && !reading.hasEnded) guard(() => callback(...args), report);
    };

    const reading = createReading<Item>(() => {
      const value = items.shift();
      if (isBehind && !items.length && !reading.hasEnded) {
        isBehind = false;
        ask();
      }
      return value && { value };
    }, () => entry.unsubscribe());

    const deliver = <Received extends Item>(callback: ((item: Received) => unknown) | undefined, item: Received) => {
      call(callback, item);
      if (keepsItems && !reading.hasEnded) items.push(item);
      reading.serve();
    };

    const begin = ({ data, epoch, offset, recovered }: WebSocketMessage) => {
      entry.isLive = true;
      queue.delete(entry); // A repeated `subscribe` that is still queued is not needed.
      failures = 0;
      // The missed publications follow. Known ones are dropped by their offset.
      if (recovered === true && position) return;
      position = typeof epoch === "string" && typeof offset === "number" ? { epoch, offset } : undefined;
      const isGap = hasBegun;
      hasBegun = true;
      // Queued items are older than the snapshot. The `init` after them marks the gap.
      if (isGap) call(onGap);
      isBehind = false;
      deliver(onInit, { event: "init", data, ...(isGap && { recovered: false }) });
    };

    const publication = (event: string, { data, offset }: WebSocketMessage) => {
      if (isBehind) return;
      const withOffset = typeof offset === "number" ? { offset } : undefined;
      if (position && withOffset && withOffset.offset <= position.offset) return;
      isBehind = items.length >= (buffer || 1_000);
      if (isBehind) return;
      if (position) position = { ...position, ...withOffset };
      deliver(onEvent, { event, data, ...withOffset });
    };

    const changePresence = (event: unknown, changed: unknown) => {
      if (!Array.isArray(changed) || !isChange(event)) return;
      const valid = changed.filter((member): member is Member => typeof member?.user === "string");
      if (event === "init") members.clear();
      for (const member of valid) {
        if (event === "leave") members.delete(member.user);
        else members.set(member.user, member);
      }
      call(onPresence, { event, members: valid, present: entry.present });
    };

    const entry: Entry = {
      channel,
      get position() {
        return position;
      },
      get present() {
        return [...members.values()];
      },
      text: () => JSON.stringify(reading.hasEnded ? { type: "unsubscribe", uid } : { ...request, recover: position }),
      receive(message) {
        const { type, status, event, reason } = message;
        if (isUnread(message)) {
          // The server keeps the previous subscription with this `uid`, if there is one.
          entry.isLive = false;
          queue.add(entry);
        } else if (status === "error") entry.refused(errorOf(message));
        else if (event === "unsubscribe") entry.refused(errorOf({ error: { code: reason, message: "Ended by the server" } }));
        else if (reading.hasEnded) return;
        else if (type === "presence") changePresence(event, message["members"]);
        else if (event === "init") begin(message);
        else if (typeof event === "string" && entry.isLive) publication(event, message);
      },
      refused(error) {
        entry.isLive = undefined;
        if (reading.hasEnded || !TRANSIENT.test(error.code)) return entry.end(error);
        timer(() => {
          // Not if it was sent again meanwhile, on another connection, because a second answer would look like a gap.
          if (entry.isLive === undefined) ask();
        }, retryAfter(error) + backoffDelay(failures++, options));
      },
      reached(at) {
        // With an event filter, offsets are not consecutive.
        if (!at?.epoch || !position || !entry.isLive || isBehind || only) return;
        if (at.epoch !== position.epoch || !(at.offset <= position.offset)) ask();
      },
      end(error) {
        timer();
        entries.delete(uid);
        queue.delete(entry);
        if (error) call(onError, error); // Not after the end.
        reading.end(error);
      },
      lost(whyClosed) {
        entry.isLive = undefined;
        if (reading.hasEnded || whyClosed && keepsItems) return entry.end(whyClosed);
        if (!whyClosed) return;
        timer();
        call(onError, whyClosed);
      },
      unsubscribe() {
        if (reading.hasEnded) return;
        items.length = 0;
        entry.end();
        if (entry.isLive === undefined) return;
        entries.set(uid, entry);
        ask();
      },
      [Symbol.asyncIterator]() {
        if (hasIterator && !reading.hasEnded) throw new TypeError("Cannot iterate twice: subscribe again");
        hasIterator = keepsItems = true;
        check();
        return reading.iterate();
      },
    };
    disposeBy(entry, entry.unsubscribe);
    entries.set(uid, entry);
    ask();
    // Deferred, because an `onError` callback may use the returned subscription.
    void Promise.resolve().then(check);
    return entry;
  };

  return {
    haveHistory: () => all().some(({ position }) => position),
    unanswered: () => all().filter((entry) => entry.isLive === false && !queue.has(entry)).length,
    add,
    askAll() {
      for (const entry of all()) {
        if (entry.isLive) continue;
        queue.delete(entry); // Keeps the order of subscribing.
        queue.add(entry);
      }
      flush();
    },
    flush,
    receive(message) {
      const { type, status, uid } = message;
      const entry = entries.get(uid);
      // A message of an unknown subscription has arrived after `unsubscribe`.
      if (type !== "subscription" && type !== "presence" && !(entry && status === "error")) return false;
      entry?.receive(message);
      return true;
    },
    pong(channels) {
      for (const entry of all()) entry.reached((channels as Record<string, Position> | undefined)?.[entry.channel]);
    },
    lost(whyClosed) {
      queue.clear();
      for (const entry of all()) entry.lost(whyClosed);
    },
    end() {
      for (const entry of all()) entry.end();
    },
  };
}

const isChange = (event: unknown): event is PresenceChange["event"] => /^(init|join|leave)$/.test(event as string);
