import { type Backlog, KeptFrames } from "./backlog.ts";
import type { Timed } from "../base/clock.ts";
import type { Member } from "../engines/engine.ts";
import type { ExtensionHost } from "../application/extension.ts";
import { guard } from "../base/guard.ts";
import { afterTurn } from "../base/turn.ts";
import { ChannelFrame } from "./publication-frame.ts";
import { connectionOf, type WebSocketClient } from "../application/websocket-client.ts";

/** Maximum number of members in one `join` or `leave` frame. */
const MAX_MEMBERS = 1_000;

/** Time in ms between a failed attempt to list the members and the next. */
const LIST_PERIOD = 1_000;

/** A subscription that makes its user a member. */
export interface PresenceEntry {
  /** The same object until it leaves: to the engine, a different object means newer data. */
  readonly member: Member;
  /** Order among the entries of the channel on this node; greater is newer. */
  readonly number: number;
}

/** A user on this node, with the subscriptions that make it a member. */
interface LocalMember extends Timed {
  /** Newest last. */
  readonly entries: PresenceEntry[];
  /** The member that was last sent to the engine. */
  joined: Member | undefined;
}

/** Holds the channel open. */
interface Holder {
  enter(): Promise<void> | undefined;
  leave(): void;
}

/** The members of one channel: reports those of this node to the engine, and sends the changes of all nodes to the observers. */
export class Presence {
  readonly #channel: string;
  readonly #grace: number;
  readonly #host: ExtensionHost;
  readonly #holder: Holder;
  readonly #members = new Map<string, LocalMember>();
  readonly #observers = new Set<PresenceObserver>();
  /** The newest {@link PresenceEntry.number}. */
  #newestEntry = 0;
  /** Changes in this turn of the event loop, sent at its end. */
  #changes: { event: "join" | "leave"; member: string }[] = [];

  constructor(channel: string, grace: number, host: ExtensionHost, holder: Holder) {
    this.#channel = channel;
    this.#grace = grace;
    this.#host = host;
    this.#holder = holder;
  }

  /**
   * Adds a subscription of the user. The member has the data of its newest subscription with data.
   *
   * @param data JSON text
   * @param entry the saved order, after hibernation. @default the newest
   */
  enter(user: string, data: string | undefined, entry: number = this.#newestEntry + 1): PresenceEntry {
    this.#newestEntry = Math.max(this.#newestEntry, entry);
    const added = { member: data === undefined ? { user } : { user, data }, number: entry };
    let member = this.#members.get(user);
    if (member) this.#host.deadlines.delete(member);
    else {
      const left = () => this.#remove(user);
      this.#members.set(user, member = { entries: [], joined: undefined, deadline: 0, heapIndex: -1, due: left });
      // Keeps the channel open during the grace period, too. The subscription handles a failure to open it.
      this.#holder.enter()?.catch(() => {});
    }
    // After hibernation, entries are restored in any order.
    const index = member.entries.findLastIndex((each) => each.number < entry) + 1;
    member.entries.splice(index, 0, added);
    this.#join(member);
    return added;
  }

  /** Removes a subscription. The grace period applies only if the client may return. */
  exit(entry: PresenceEntry, mayReturn: boolean): void {
    const { user } = entry.member;
    const member = this.#members.get(user);
    const index = member?.entries.indexOf(entry) ?? -1;
    if (!member || index < 0) return;
    member.entries.splice(index, 1);
    if (member.entries.length > 0) this.#join(member);
    else if (mayReturn && this.#grace > 0) this.#host.deadlines.set(member, this.#grace);
    else this.#remove(user);
  }

  /** Called by the engine with the members that joined and left on all nodes. */
  changed(joined: readonly Member[], left: readonly string[]): void {
    if (this.#observers.size === 0) return;
    if (this.#changes.length === 0) afterTurn(() => this.#flush());
    for (const member of joined) this.#changes.push({ event: "join", member: jsonOf(member) });
    for (const user of left) this.#changes.push({ event: "leave", member: jsonOf({ user }) });
  }

  /** Sends joins and leaves to the client from now on. A client without a current list also needs {@link list}. */
  observe(client: WebSocketClient, backlog: Backlog, ending: string, missed: () => void, isStale: boolean): PresenceObserver {
    const observer = new PresenceObserver(client, backlog, ending, missed, isStale);
    this.#observers.add(observer);
    return observer;
  }

  /** Sends the full list of members. Retries while the engine fails, because the client is waiting for the list. */
  async list(observer: PresenceObserver): Promise<void> {
    const { deadlines, report } = this.#host;
    for (let hasFailed = false; this.#observers.has(observer);) {
      observer.hold();
      try {
        await observer.backlog.run("engine", observer, () => this.#list(observer));
        if (!observer.isHeld) return;
      } catch (error) {
        if (!hasFailed) report(error);
        hasFailed = true;
        await new Promise<void>((due) => deadlines.set({ deadline: 0, heapIndex: -1, due }, LIST_PERIOD));
      }
    }
  }

  /** Sends the list, unless more changes arrived meanwhile than could be kept. */
  async #list(observer: PresenceObserver): Promise<void> {
    if (!this.#observers.has(observer)) return;
    // Drops changes kept so far: the list that is read now includes them.
    observer.hold();
    const members = await this.#host.engine.members(this.#channel);
    if (observer.isFull || !this.#observers.has(observer)) return;
    const list = new ChannelFrame(this.#body("init", members.map(jsonOf)));
    this.#host.rateGate?.spend(observer.client, list.bytes);
    observer.release(list);
  }

  unobserve(observer: PresenceObserver): void {
    this.#observers.delete(observer);
    observer.backlog.withdraw(observer);
    observer.end();
  }

  /** Sends the newest entry with data to the engine, if that changes the member. */
  #join(local: LocalMember): void {
    const { entries, joined } = local;
    const { member } = entries.findLast(({ member }) => member.data !== undefined) ?? entries.at(-1)!; // Never empty.
    if (member === joined || joined && member.data === undefined && joined.data === undefined) return;
    local.joined = member;
    this.#notifyEngine(() => this.#host.engine.join(this.#channel, member));
  }

  #remove(user: string): void {
    this.#members.delete(user);
    this.#notifyEngine(() => this.#host.engine.leave(this.#channel, user));
    this.#holder.leave();
  }

  /** Does not wait: an unavailable engine keeps the change and sends it later. */
  #notifyEngine(call: () => void | Promise<void>): void {
    guard(call, (error) => this.#host.report(error));
  }

  #flush(): void {
    const changes = this.#changes;
    this.#changes = [];
    const observers = [...this.#observers];
    while (changes.length > 0) {
      // Joins and leaves stay in order, because a member may do both in one turn.
      const { event } = changes[0]!;
      const end = changes.findIndex((change) => change.event !== event);
      const members = changes.splice(0, Math.min(end < 0 ? changes.length : end, MAX_MEMBERS)).map(({ member }) => member);
      this.#host.delivery.deliver(new ChannelFrame(this.#body(event, members)), observers, () => {});
    }
  }

  #body(event: string, members: readonly string[]): string {
    return `{"type":"presence","event":"${event}","channel":"${this.#channel}","members":[${members.join(",")}]`;
  }
}

/** A subscription that receives the members of its channel. */
export class PresenceObserver {
  readonly client: WebSocketClient;
  readonly backlog: Backlog;
  readonly #ending: string;
  readonly #missed: () => void;
  /** Changes kept while the list is being read. */
  #kept: KeptFrames | undefined;
  /** Whether a change did not fit into what is kept, so that the list has to be read again. */
  isFull = false;
  /** Whether the client missed a change and needs a new list. */
  isStale: boolean;
  /** Whether nothing may be sent because the client's rights are being checked. It misses the changes meanwhile. */
  isPaused = false;

  constructor(client: WebSocketClient, backlog: Backlog, ending: string, missed: () => void, isStale: boolean) {
    this.client = client;
    this.backlog = backlog;
    this.#ending = ending;
    this.#missed = missed;
    this.isStale = isStale;
  }

  /** Whether it waits for the list of members. */
  get isHeld(): boolean {
    return this.#kept !== undefined;
  }

  send(frame: ChannelFrame): boolean {
    if (this.#kept) {
      this.isFull ||= !this.#kept.push(frame);
      return true;
    }
    const wasSent = !this.isPaused && connectionOf(this.client).send(frame.ending(this.#ending));
    if (!wasSent && !this.isStale) {
      this.isStale = true;
      this.#missed();
    }
    return wasSent;
  }

  hold(): void {
    this.end();
    this.#kept = new KeptFrames(this.backlog);
    this.isFull = this.isStale = false;
  }

  release(list: ChannelFrame): void {
    const kept = this.#kept;
    this.#kept = undefined;
    this.send(list);
    for (let frame = kept?.shift(); frame; frame = kept?.shift()) this.send(frame);
  }

  /** Drops the kept changes. */
  end(): void {
    this.#kept?.clear();
    this.#kept = undefined;
  }
}

const jsonOf = ({ user, data }: Member): string =>
  data === undefined ? `{"user":${JSON.stringify(user)}}` : `{"user":${JSON.stringify(user)},"data":${data}}`;
