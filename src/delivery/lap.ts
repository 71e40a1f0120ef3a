import { Audience, type Recipient, type TopicGroup } from "./audience.ts";
import type { BroadcastResult } from "./broadcast.ts";
import type { Frame } from "../protocol/frame.ts";

/** Sends before inbound messages are handled again, one client each; also the clients in one slice of an audience. */
export const SLICE = 2_000;

/** A client to send to, by itself. */
export type Target = Pick<Recipient & { send(frame: Frame): boolean }, "send">;

/** A broadcast or publication under way. */
interface Message {
  readonly frame: Frame;
  /** Slices that it has not been sent to. */
  slicesLeft: number;
  sent: number;
  readonly resolve: (result: BroadcastResult) => void;
}

/** Some clients of an audience, as it was when the lap began. */
interface Slice {
  readonly targets: readonly Target[];
  readonly start: number;
  readonly end: number;
  /** The group that the targets were the members of when it had admitted `joined`. */
  readonly group: TopicGroup<Recipient & Target> | undefined;
  readonly joined: number;
}

/**
 * Sends messages to one audience, slice after slice and round again. A message starts at the current slice and is complete after one lap,
 * so messages to the same audience go out together, as one write for each client:
 *
 * ```
 * slice       0    1    2    3    0    1
 * message A   ●────●────●────●            complete after 4 slices
 * message B             ●────●────●────●  joined at slice 2
 * ```
 */
export class Lap {
  readonly #source: unknown;
  readonly #slices: readonly Slice[];
  /** Clients of all slices. */
  readonly #matched: number;
  /** Sent to the current slice. The first `#published` of them have been published to all of its clients at once. */
  #messages: Message[] = [];
  #published = 0;
  /** Start at the next slice. */
  #joining: Message[] = [];
  #slice = 0;
  /** Index of the next target of the current slice. */
  #next = 0;
  #hasBegun = false;

  /** Copies the audience: a broadcast is for the clients at the time of the call, and sending may close or admit some. */
  constructor(source: Iterable<Target>) {
    this.#source = source;
    this.#slices = slicesOf(source);
    this.#matched = matchedOf(this.#slices);
  }

  /** Whether every message is complete. */
  get isDone(): boolean {
    return this.#messages.length === 0;
  }

  /** Whether a message to this source may join: the audience is still the one that was copied. */
  accepts(source: unknown): boolean {
    if (source !== this.#source) return false;
    if (!(source instanceof Audience)) return Array.isArray(source);
    return source.size === this.#matched &&
      this.#slices.every(({ group, joined, targets }) =>
        group?.joined === joined && group.members.size === targets.length && source.groups.includes(group)
      );
  }

  add(frame: Frame, resolve: (result: BroadcastResult) => void): void {
    if (this.#slices.length === 0) return resolve({ matched: 0, sent: 0, dropped: 0 });
    (this.#hasBegun ? this.#joining : this.#messages).push({ frame, slicesLeft: this.#slices.length, sent: 0, resolve });
  }

  /** Sends no more than `budget` times; returns what is left of it. */
  send(budget: number, maxHeldBytes: number): number {
    this.#hasBegun = true;
    let left = budget;
    while (left > 0 && this.#messages.length > 0) {
      const { targets, start, end } = this.#slices[this.#slice]!;
      if (this.#next === start) left -= this.#publish(maxHeldBytes);
      const each = this.#messages.length - this.#published;
      const last = each > 0 ? Math.min(this.#next + Math.max(1, Math.floor(left / each)), end) : end;
      left -= (last - this.#next) * each;
      if (each === 1) sendTo(targets, this.#next, last, this.#messages.at(-1)!);
      else if (each > 1) sendAllTo(targets, this.#next, last, this.#messages.slice(this.#published));
      this.#next = last;
      if (last === end) this.#endSlice();
    }
    return left;
  }

  /** Publishes to the whole slice at once while the group can; returns the number of clients that were sent something. */
  #publish(maxHeldBytes: number): number {
    const { group, joined, start, end } = this.#slices[this.#slice]!;
    if (!group || group.joined !== joined) return 0;
    const messages = this.#messages;
    while (this.#published < messages.length && group.publish(messages[this.#published]!.frame, maxHeldBytes)) {
      messages[this.#published++]!.sent += group.members.size;
    }
    return this.#published > 0 ? end - start : 0;
  }

  /** Moves to the next slice, without the messages that are complete. */
  #endSlice(): void {
    const messages = this.#messages;
    const remaining = messages.filter((message) => --message.slicesLeft > 0);
    const complete = messages.slice(0, messages.length - remaining.length); // A later message is complete later.
    this.#messages = this.#joining.length > 0 ? remaining.concat(this.#joining.splice(0)) : remaining;
    this.#published = 0;
    this.#slice = (this.#slice + 1) % this.#slices.length;
    this.#next = this.#slices[this.#slice]!.start;
    const matched = this.#matched;
    for (const { sent, resolve } of complete) resolve({ matched, sent, dropped: matched - sent });
  }
}

/** One message, the most frequent case: nothing in the loop but the send. */
function sendTo(targets: readonly Target[], start: number, end: number, message: Message): void {
  const { frame } = message;
  let sent = 0;
  for (let at = start; at < end; at++) if (targets[at]!.send(frame)) sent++;
  message.sent += sent;
}

/** All messages to one client, then all to the next: each client's are one write. */
function sendAllTo(targets: readonly Target[], start: number, end: number, messages: readonly Message[]): void {
  for (let at = start; at < end; at++) {
    const target = targets[at]!;
    for (const message of messages) if (target.send(message.frame)) message.sent++;
  }
}

function slicesOf(source: Iterable<Target>): Slice[] {
  if (!(source instanceof Audience)) return cut(Array.isArray(source) ? source : [...source], undefined);
  const groups: readonly TopicGroup<Recipient & Target>[] = source.groups; // An audience of targets, as the source is one.
  return groups.flatMap((group) => cut([...group.members], group));
}

function cut(targets: readonly Target[], group: TopicGroup<Recipient & Target> | undefined): Slice[] {
  const slices: Slice[] = [];
  for (let start = 0; start < targets.length; start += SLICE) {
    slices.push({ targets, start, end: Math.min(start + SLICE, targets.length), group, joined: group?.joined ?? 0 });
  }
  return slices;
}

function matchedOf(slices: readonly Slice[]): number {
  let matched = 0;
  for (const { start, end } of slices) matched += end - start;
  return matched;
}
