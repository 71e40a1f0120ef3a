import { type Backlog, Kept } from "./backlog.ts";
import type { Timed } from "./clock.ts";
import type { Member } from "./engine.ts";
import type { ExtensionHost } from "./extension.ts";
import { guard } from "./guard.ts";
import { afterTurn } from "./turn.ts";
import { ChannelFrame } from "./publication-frame.ts";
import { connectionOf, type WebSocketClient } from "./websocket-client.ts";

/** Members in one frame. */
const MAX_MEMBERS = 1_000;

/** How long after an attempt to name the members has failed the next one is, in ms. */
const LIST_PERIOD = 1_000;

/** A subscription that makes its user a member. */
export interface Attendant {
  /** One object for as long as it is there: an engine knows by it that this is no newer than it was. */
  readonly member: Member;
  /** Its place among those of the channel on this node: a newer one has a greater one. */
  readonly entry: number;
}

/** A user of this node, and what makes it a member. */
interface LocalMember extends Timed {
  /** The newest last. */
  readonly attendants: Attendant[];
  /** Of what the engine knows. */
  joined: Member | undefined;
}

/** Keeps the channel open. */
interface Holder {
  enter(): Promise<void> | undefined;
  leave(): void;
}

/** The members of one channel: those of this node are told to the engine, and the changes of all nodes to who watches. */
export class Presence {
  readonly #channel: string;
  readonly #grace: number;
  readonly #host: ExtensionHost;
  readonly #holder: Holder;
  readonly #members = new Map<string, LocalMember>();
  readonly #watchers = new Set<Watcher>();
  /** The newest {@link Attendant.entry}. */
  #entries = 0;
  /** What has changed in this turn. */
  #changes: { event: "join" | "leave"; member: string }[] = [];

  constructor(channel: string, grace: number, host: ExtensionHost, holder: Holder) {
    this.#channel = channel;
    this.#grace = grace;
    this.#host = host;
    this.#holder = holder;
  }

  /**
   * One more subscription of the user; `data` is JSON text. The member has the data of its newest subscription that has any.
   *
   * @param entry of before, for one that comes back from hibernation
   */
  enter(user: string, data: string | undefined, entry: number = this.#entries + 1): Attendant {
    this.#entries = Math.max(this.#entries, entry);
    const attendant = { member: data === undefined ? { user } : { user, data }, entry };
    let member = this.#members.get(user);
    if (member) this.#host.deadlines.delete(member);
    else {
      const left = () => this.#left(user);
      this.#members.set(user, member = { attendants: [], joined: undefined, deadline: 0, place: -1, due: left });
      // Somebody in its grace is a member of a channel that nobody else may need. What cannot be opened is told to the subscription.
      this.#holder.enter()?.catch(() => {});
    }
    // They come back from hibernation in any order.
    const place = member.attendants.findLastIndex((each) => each.entry < entry) + 1;
    member.attendants.splice(place, 0, attendant);
    this.#join(member);
    return attendant;
  }

  /** One subscription less; the grace is for those who lost their connection. */
  exit(attendant: Attendant, wasLost: boolean): void {
    const { user } = attendant.member;
    const member = this.#members.get(user);
    const place = member?.attendants.indexOf(attendant) ?? -1;
    if (!member || place < 0) return;
    member.attendants.splice(place, 1);
    if (member.attendants.length > 0) this.#join(member);
    else if (wasLost && this.#grace > 0) this.#host.deadlines.set(member, this.#grace);
    else this.#left(user);
  }

  /** The engine tells who came and left on all nodes. */
  changed(joined: readonly Member[], left: readonly string[]): void {
    if (this.#watchers.size === 0) return;
    if (this.#changes.length === 0) afterTurn(() => this.#flush());
    for (const member of joined) this.#changes.push({ event: "join", member: jsonOf(member) });
    for (const user of left) this.#changes.push({ event: "leave", member: jsonOf({ user }) });
  }

  /** Sends the client who joins and leaves. One that does not know the members is to be sent the {@link list}, as one that has missed something. */
  watch(client: WebSocketClient, backlog: Backlog, ending: string, missed: () => void, isStale: boolean): Watcher {
    const watcher = new Watcher(client, backlog, ending, missed, isStale);
    this.#watchers.add(watcher);
    return watcher;
  }

  /** Sends the members anew. Where the engine cannot name them it is asked again: nobody else would tell a client that waits for them. */
  async list(watcher: Watcher): Promise<void> {
    const { deadlines, report } = this.#host;
    for (let hasFailed = false; this.#watchers.has(watcher);) {
      watcher.hold();
      try {
        await watcher.backlog.run("engine", () => this.#list(watcher));
        if (!watcher.isHeld) return;
      } catch (error) {
        if (!hasFailed) report(error);
        hasFailed = true;
        await new Promise<void>((due) => deadlines.set({ deadline: 0, place: -1, due }, LIST_PERIOD));
      }
    }
  }

  /** Sends the members once, unless more has changed meanwhile than is kept. */
  async #list(watcher: Watcher): Promise<void> {
    if (!this.#watchers.has(watcher)) return;
    // What came while others had their turn is on the list.
    watcher.hold();
    const members = await this.#host.engine.members(this.#channel);
    if (watcher.isFull || !this.#watchers.has(watcher)) return;
    const list = new ChannelFrame(this.#body("init", members.map(jsonOf)));
    this.#host.rateGate?.spend(watcher.client, list.bytes);
    watcher.release(list);
  }

  unwatch(watcher: Watcher): void {
    this.#watchers.delete(watcher);
    watcher.end();
  }

  /** Has the engine know the newest that has data. */
  #join(local: LocalMember): void {
    const { attendants, joined } = local;
    const { member } = attendants.findLast(({ member }) => member.data !== undefined) ?? attendants.at(-1)!; // There is one.
    if (member === joined || joined && member.data === undefined && joined.data === undefined) return;
    local.joined = member;
    this.#tell(() => this.#host.engine.join(this.#channel, member));
  }

  #left(user: string): void {
    const member = this.#members.get(user);
    if (!member) return;
    this.#members.delete(user);
    this.#host.deadlines.delete(member);
    this.#tell(() => this.#host.engine.leave(this.#channel, user));
    this.#holder.leave();
  }

  /** The engine keeps what it could not tell and makes up for it when it is back: nobody here waits for it. */
  #tell(call: () => void | Promise<void>): void {
    guard(call, (error) => this.#host.report(error));
  }

  #flush(): void {
    const changes = this.#changes;
    this.#changes = [];
    const watchers = [...this.#watchers];
    while (changes.length > 0) {
      // In the order they happened: who joins and leaves in one turn has left.
      const { event } = changes[0]!;
      const end = changes.findIndex((change) => change.event !== event);
      const members = changes.splice(0, Math.min(end < 0 ? changes.length : end, MAX_MEMBERS)).map(({ member }) => member);
      this.#host.delivery.deliver(new ChannelFrame(this.#body(event, members)), watchers, () => {});
    }
  }

  #body(event: string, members: readonly string[]): string {
    return `{"type":"presence","event":"${event}","channel":"${this.#channel}","members":[${members.join(",")}]`;
  }
}

/** A subscription that is told of the members. */
export class Watcher {
  readonly client: WebSocketClient;
  readonly backlog: Backlog;
  readonly #ending: string;
  readonly #missed: () => void;
  /** Changes that came while the list of members was asked for. */
  #kept: Kept | undefined;
  /** There were more than are kept: the list is asked for again. */
  isFull = false;
  /** It was not sent something: what it knows is out of date. */
  isStale: boolean;

  constructor(client: WebSocketClient, backlog: Backlog, ending: string, missed: () => void, isStale: boolean) {
    this.client = client;
    this.backlog = backlog;
    this.#ending = ending;
    this.#missed = missed;
    this.isStale = isStale;
  }

  /** Whether it waits for the list. */
  get isHeld(): boolean {
    return this.#kept !== undefined;
  }

  send(frame: ChannelFrame): boolean {
    if (this.#kept) {
      this.isFull ||= !this.#kept.push(frame);
      return true;
    }
    const wasSent = connectionOf(this.client).send(frame.ending(this.#ending));
    if (!wasSent) {
      this.isStale = true;
      this.#missed();
    }
    return wasSent;
  }

  hold(): void {
    this.end();
    this.#kept = new Kept(this.backlog);
    this.isFull = this.isStale = false;
  }

  release(list: ChannelFrame): void {
    const kept = this.#kept;
    this.#kept = undefined;
    this.send(list);
    for (let frame = kept?.shift(); frame; frame = kept?.shift()) this.send(frame);
  }

  /** Forgets what it keeps. */
  end(): void {
    this.#kept?.clear();
    this.#kept = undefined;
  }
}

const jsonOf = ({ user, data }: Member): string =>
  data === undefined ? `{"user":${JSON.stringify(user)}}` : `{"user":${JSON.stringify(user)},"data":${data}}`;
