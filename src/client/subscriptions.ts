import type { WebSocketMessage } from "../protocol/protocol.ts";
import { backoffDelay } from "./backoff.ts";
import { disposeBy } from "./dispose.ts";
import { guard } from "./emitter.ts";
import { encode } from "./encode.ts";
import { type ClientError, errorOf, retryAfter } from "./error.ts";
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

/** What the collection needs from one subscription. */
interface Entry extends OpenSubscription {
  readonly uid: string;
  /** The server has answered the last `subscribe`. `undefined`: it was not asked on this connection, or has refused. */
  isLive?: boolean | undefined;
  /** The `subscribe` message, with the current position. */
  text(): string;
  /** Handles a message of the subscription. */
  receive(message: WebSocketMessage): void;
  /** The server has reached this position: asks for what is missing. */
  reached(position: Position): void;
  /** The server refuses or ends the subscription: it is asked for again later, or ends with the error. */
  refused(error: ClientError): void;
  /** Ends the subscription; iterators receive the error, if any. */
  end(error?: ClientError): void;
  /** The client is closed: an iteration fails, since it would wait forever; callbacks stay. */
  interrupt(error: ClientError): void;
}

/** A client's subscriptions, with their recovery after lost connections, lost messages and slow iterators. */
export interface Subscriptions {
  /** Whether a pong could reveal missed publications. */
  haveHistory(): boolean;
  /** How many `subscribe` messages of this connection are unanswered. */
  unanswered(): number;
  /** @throws {TypeError} for options that JSON cannot encode. */
  add(channel: string, options: SubscribeOptions): OpenSubscription;
  /** Queues all that are not live; on a new connection that is every one. */
  askAll(): void;
  /** Sends as many queued messages as the server accepts now. */
  flush(): void;
  /** Handles the message if it belongs to a subscription. Returns whether it did. */
  receive(message: WebSocketMessage): boolean;
  /** The pong lists the positions the server has reached. */
  pong(channels: unknown): void;
  /** The connection is lost. */
  lost(): void;
  /** The application closes the client. */
  end(): void;
  /** The client is closed: iterations fail, subscriptions with callbacks stay. */
  interrupt(error: ClientError): void;
}

/**
 * @param nextUid returns a new unique uid
 * @param offer sends a text if the server accepts it now. Returns whether it is settled: sent, or refused with an error.
 * @param whyClosed returns why the client is closed; `undefined` if it is not
 * @param report reports what a callback threw
 */
export function createSubscriptions(
  options: ResolvedOptions,
  nextUid: () => string,
  offer: (text: string, refused: (error: ClientError) => void, isSubscribe: boolean) => boolean,
  whyClosed: () => ClientError | undefined,
  report: (error: unknown) => void,
): Subscriptions {
  const entries = new Map<unknown, Entry>();
  /** Queued messages by `uid`, in order: the `subscribe` of a subscription, or, without one, an `unsubscribe`. */
  const queue = new Map<unknown, Entry | undefined>();
  /** A copy: a callback may subscribe and unsubscribe. */
  const all = () => [...entries.values()];

  const flush = () => {
    for (const [uid, entry] of queue) {
      const text = entry ? entry.text() : JSON.stringify({ type: "unsubscribe", uid });
      // Deferred until `subscribe()` has returned.
      if (!offer(text, (error) => void Promise.resolve().then(() => entry?.refused(error)), !!entry)) return;
      queue.delete(uid);
      if (entry) entry.isLive ??= false;
    }
  };

  const add = (channel: string, subscribeOptions: SubscribeOptions): OpenSubscription => {
    const { event: only, query, data, presence, recover, buffer, onInit, onEvent, onPresence, onGap, onError } = subscribeOptions;
    const uid = nextUid();
    // A copy, made here so that invalid options throw in `subscribe()` and not while other messages are sent.
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
    /** An `init` has come, so the next one that is not a recovery marks a gap. */
    let hasBegun = !!recover;
    // With callbacks nobody is expected to iterate, so nothing is queued until somebody does.
    let keepsItems = !(onInit || onEvent || onPresence);
    /** The queue is full: publications are discarded until it has been read, then recovered from `position`. */
    let isBehind = false;
    const items: Item[] = [];
    /** An iterator exists; a second one would steal its items. */
    let hasIterator = false;
    /** Consecutive transient errors; sets the backoff. */
    let failures = 0;
    /** For the next try after a transient error. */
    const timer = createTimer(options.clock);

    const ask = () => {
      // What still arrives is dropped: it follows a hole, and the answer to this `subscribe` repeats it.
      entry.isLive &&= false;
      queue.set(uid, entry);
      flush();
    };

    /** Interrupts the subscription if the client is closed. */
    const check = () => {
      const why = whyClosed();
      if (why) entry.interrupt(why);
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
      failures = 0;
      // The missed publications follow; those already known are dropped by their offset.
      if (recovered === true && position) return;
      position = typeof epoch === "string" && typeof offset === "number" ? { epoch, offset } : undefined;
      const isGap = hasBegun;
      hasBegun = true;
      // Items still queued predate the snapshot; the `init` queued behind them marks the gap.
      if (isGap) call(onGap);
      isBehind = false;
      deliver(onInit, { event: "init", data, ...(isGap && { recovered: false }) });
    };

    const publication = (event: string, { data, offset }: WebSocketMessage) => {
      if (isBehind) return;
      const place = typeof offset === "number" ? { offset } : undefined;
      if (position && place && place.offset <= position.offset) return;
      isBehind = items.length >= (buffer || 1_000);
      if (isBehind) return;
      if (position) position = { ...position, ...place };
      deliver(onEvent, { event, data, ...place });
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
      uid,
      get position() {
        return position;
      },
      get present() {
        return [...members.values()];
      },
      text: () => JSON.stringify({ ...request, recover: position }),
      receive(message) {
        const { type, status, event, reason } = message;
        if (status === "error") entry.refused(errorOf(message));
        else if (event === "unsubscribe") entry.refused(errorOf({ error: { code: reason, message: "Ended by the server" } }));
        else if (type === "presence") changePresence(event, message["members"]);
        else if (event === "init") begin(message);
        else if (typeof event === "string" && entry.isLive) publication(event, message);
      },
      refused(error) {
        entry.isLive = undefined;
        if (error.code === "TOKEN_EXPIRED") return; // Asked for again after the next `auth`.
        if (!TRANSIENT.test(error.code)) return entry.end(error);
        timer(() => {
          if (!entry.isLive) ask();
        }, retryAfter(error) + backoffDelay(failures++, options));
      },
      reached({ epoch, offset }) {
        // With an event filter the offsets have holes.
        if (!position || !entry.isLive || isBehind || only) return;
        if (epoch !== position.epoch || !(offset <= position.offset)) ask();
      },
      end(error) {
        timer();
        entries.delete(uid);
        queue.delete(uid);
        if (error) call(onError, error); // Not after the end.
        reading.end(error);
      },
      interrupt(error) {
        timer();
        if (keepsItems) entry.end(error);
        else call(onError, error);
      },
      unsubscribe() {
        if (reading.hasEnded) return;
        items.length = 0;
        entry.end();
        if (entry.isLive === undefined) return;
        queue.set(uid, undefined);
        flush();
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
    // Deferred: an `onError` callback may use the returned subscription.
    void Promise.resolve().then(check);
    return entry;
  };

  return {
    haveHistory: () => all().some(({ position }) => position),
    unanswered: () => all().filter(({ isLive, uid }) => isLive === false && !queue.has(uid)).length,
    add,
    askAll() {
      for (const entry of all()) {
        if (entry.isLive) continue;
        queue.delete(entry.uid); // Keeps the order of subscribing.
        queue.set(entry.uid, entry);
      }
      flush();
    },
    flush,
    receive(message) {
      const { type, status, uid } = message;
      const entry = entries.get(uid);
      // A message of an unknown subscription is a late one, after `unsubscribe`.
      if (type !== "subscription" && type !== "presence" && !(entry && status === "error")) return false;
      entry?.receive(message);
      return true;
    },
    pong(channels) {
      for (const entry of all()) {
        const at = (channels as Record<string, Position> | undefined)?.[entry.channel];
        if (at?.epoch) entry.reached(at);
      }
    },
    lost() {
      queue.clear();
      for (const entry of all()) entry.isLive = undefined;
    },
    end() {
      for (const entry of all()) entry.end();
    },
    interrupt(error) {
      for (const entry of all()) entry.interrupt(error);
    },
  };
}

const isChange = (event: unknown): event is PresenceChange["event"] => /^(init|join|leave)$/.test(event as string);
