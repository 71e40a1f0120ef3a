import type { Deadlines, Timed } from "../../base/clock.ts";
import { afterTurn } from "../../base/turn.ts";
import { type CallRelay, callTree, FAN_OUT, type Item, lengthOf, type RelayAnswer, takeCall } from "./shards.ts";

/** What {@link FanOut} needs from its engine. */
export interface FanOutHost {
  /** One start of the home object. */
  readonly run: string;
  readonly deadlines: Deadlines;
  readonly callRelay: CallRelay;
  /** Called with each answer. */
  answered(answer: RelayAnswer): void;
  /** Returns the current state of the changed members. @param changes channel and user, with a line break between them. */
  itemsOf(changes: ReadonlySet<string>): Item[];
  report(error: unknown): void;
}

/** An item and the relays to send it to. Without an item, they read missing publications from the history. */
interface Entry {
  readonly item: Item | null;
  readonly targets: ReadonlySet<string>;
}

/** Maximum characters queued for one branch or late relay. Beyond it the oldest items are dropped, and relays read them later. */
const MAX_QUEUED_LENGTH = 8_000_000;

/** Maximum messages and member changes queued for a late relay. Beyond them the oldest are dropped. */
const [MAX_MESSAGES, MAX_CHANGES] = [1_000, 10_000];

/** Maximum member changes in one call to a late relay: the data of each may be as long as a message. */
const CHANGES_PER_CALL = 100;

/** Shortest and longest pause between two attempts to reach a late relay, in ms. */
const [FIRST_PAUSE, LONGEST_PAUSE] = [500, 60_000];

/** Numbers the calls of a run, so that relays recognize repeated calls. */
class CallNumbers {
  #last = 0;

  next(): number {
    return ++this.#last;
  }
}

/**
 * Sends items to relays over {@link FAN_OUT} branches. Each branch makes one call at a time; items that arrive during a call go together
 * in the next. A relay that fails leaves its branch, so that it delays no other relay: see {@link LateRelay}.
 */
export class FanOut {
  readonly #host: FanOutHost;
  readonly #numbers = new CallNumbers();
  readonly #branches: Branch[];
  readonly #late = new Map<string, LateRelay>();
  /** By relay: its branch. It never changes, so that the relay's items stay in order. */
  readonly #branchOf = new Map<string, Branch>();

  constructor(host: FanOutHost) {
    this.#host = host;
    this.#branches = Array.from({ length: FAN_OUT }, () => new Branch(host, this.#numbers, this.#late));
  }

  /** Whether all relays have received everything. */
  get isIdle(): boolean {
    return this.#late.size === 0 && this.#branches.every(({ isIdle }) => isIdle);
  }

  /** Adds a relay to the branch with the fewest. */
  add(relay: string): void {
    if (this.#branchOf.has(relay)) return;
    const [first, ...others] = this.#branches;
    const branch = others.reduce((least, each) => each.relays.size < least.relays.size ? each : least, first!); // There are some.
    branch.relays.add(relay);
    this.#branchOf.set(relay, branch);
  }

  delete(relay: string): void {
    const branch = this.#branchOf.get(relay);
    if (!branch) return;
    branch.relays.delete(relay);
    this.#branchOf.delete(relay);
    this.#late.get(relay)?.stop();
    this.#late.delete(relay);
  }

  /** Sends an item to these relays. @param item `null`: the relays read missing publications from the history. */
  push(item: Item | null, relays: Iterable<string>): void {
    const targets = new Map<Branch, Set<string>>();
    for (const relay of relays) {
      const branch = this.#branchOf.get(relay);
      if (!branch) continue;
      const some = targets.get(branch);
      if (some) some.add(relay);
      else targets.set(branch, new Set([relay]));
    }
    for (const [branch, some] of targets) branch.push({ item, targets: some });
  }

  stop(): void {
    for (const late of this.#late.values()) late.stop();
    this.#late.clear();
    this.#branchOf.clear();
    for (const { relays } of this.#branches) relays.clear();
  }
}

/** The relays that one call tree reaches, and the items queued for them. */
class Branch {
  /** Current relays. A queued entry or a call under way may name relays that were removed since. */
  readonly relays = new Set<string>();
  readonly #host: FanOutHost;
  readonly #numbers: CallNumbers;
  readonly #late: Map<string, LateRelay>;
  readonly #queue: Entry[] = [];
  #length = 0;
  #isCalling = false;

  constructor(host: FanOutHost, numbers: CallNumbers, late: Map<string, LateRelay>) {
    this.#host = host;
    this.#numbers = numbers;
    this.#late = late;
  }

  get isIdle(): boolean {
    return !this.#isCalling;
  }

  push(entry: Entry): void {
    this.#queue.push(entry);
    this.#length += sizeOf(entry);
    while (this.#length > MAX_QUEUED_LENGTH && this.#queue.length > 1) this.#drop();
    if (this.#isCalling) return;
    this.#isCalling = true;
    // Items that arrive in one turn go in one call.
    afterTurn(() => void this.#callAll());
  }

  #drop(): void {
    const entry = this.#queue.shift()!; // There are two or more.
    this.#length -= sizeOf(entry);
    for (const relay of entry.targets) this.#miss(relay, entry.item);
  }

  async #callAll(): Promise<void> {
    while (this.#queue.length > 0) {
      const taken = takeCall(this.#queue, sizeOf);
      const targets = new Set<string>();
      for (const entry of taken) {
        this.#length -= sizeOf(entry);
        for (const relay of entry.targets) {
          const late = this.#late.get(relay);
          if (late) late.miss(entry.item);
          else if (this.relays.has(relay)) targets.add(relay);
        }
      }
      if (targets.size === 0) continue;
      const items = taken.flatMap(({ item }) => item ?? []);
      const call = { run: this.#host.run, number: this.#numbers.next(), items, isLate: items.length < taken.length };
      const answer = await callTree([...targets], call, this.#host.callRelay);
      this.#host.answered(answer);
      for (const relay of answer.failed) {
        if (!targets.has(relay)) continue;
        for (const { item, targets: of } of taken) if (of.has(relay)) this.#miss(relay, item);
      }
      for (const relay of answer.behind) if (targets.has(relay)) this.#miss(relay, null);
    }
    this.#isCalling = false;
  }

  /** Moves the relay out of the branch until it has received everything. @param item that it has missed. */
  #miss(relay: string, item: Item | null): void {
    if (!this.relays.has(relay)) return;
    (this.#late.get(relay) ?? new LateRelay(relay, this.#host, this.#numbers, this.#late)).miss(item);
  }
}

/**
 * A relay that did not answer. Messages and member changes are queued for it; it reads publications from the history once a call reaches
 * it. It returns to its branch once it has received everything.
 */
class LateRelay implements Timed {
  readonly deadline: number = 0;
  readonly heapIndex: number = -1;
  readonly #relay: string;
  readonly #host: FanOutHost;
  readonly #numbers: CallNumbers;
  readonly #all: Map<string, LateRelay>;
  readonly #messages: Item[] = [];
  /** Channel and user, with a line break between them. */
  readonly #changes = new Set<string>();
  /** Whether the relay has to read missing publications from the history. */
  #hasMissed = true;
  /** Whether orders for the relay were dropped. */
  #hasLostOrders = false;
  #attempts = 0;
  #isStopped = false;

  constructor(relay: string, host: FanOutHost, numbers: CallNumbers, all: Map<string, LateRelay>) {
    this.#relay = relay;
    this.#host = host;
    this.#numbers = numbers;
    this.#all = all;
    all.set(relay, this);
    // Deferred, so that the first call holds everything that is queued in this turn.
    queueMicrotask(() => void this.#callAll());
  }

  miss(item: Item | null): void {
    this.#hasMissed = true;
    if (item?.type === "lost") this.#hasLostOrders = true;
    else if (item?.type === "message") {
      this.#messages.push(item);
      this.#limit();
    } else if (item?.type === "presence") {
      this.#change([...item.joined.map(({ user }) => user), ...item.left].map((user) => `${item.channel}\n${user}`));
    }
  }

  stop(): void {
    this.#isStopped = true;
    this.#host.deadlines.delete(this);
  }

  /** Runs the next attempt. */
  due(): void {
    void this.#callAll();
  }

  async #callAll(): Promise<void> {
    const { run, callRelay, deadlines } = this.#host;
    while ((this.#hasMissed || this.#messages.length + this.#changes.size > 0) && !this.#isStopped) {
      const [isLate, messages] = [this.#hasMissed, takeCall(this.#messages, lengthOf)];
      const changes = new Set([...this.#changes].slice(0, CHANGES_PER_CALL));
      for (const change of changes) this.#changes.delete(change);
      this.#hasMissed = false;
      const lost: Item[] = this.#hasLostOrders ? [{ type: "lost" }] : [];
      this.#hasLostOrders = false;
      const items = [...lost, ...this.#host.itemsOf(changes), ...messages];
      const answer = await callTree([this.#relay], { run, number: this.#numbers.next(), items, isLate }, callRelay);
      this.#host.answered(answer);
      if (answer.failed.length + answer.behind.length === 0) {
        this.#attempts = 0;
        continue;
      }
      this.#hasMissed = true;
      if (answer.failed.length > 0) {
        if (lost.length > 0) this.#hasLostOrders = true;
        this.#messages.unshift(...messages);
        this.#limit();
        this.#change(changes);
      }
      if (this.#isStopped) return;
      if (this.#attempts++ === 1) this.#host.report(new Error(`Cannot reach the relay "${this.#relay}": trying again`));
      // The second attempt follows at once, because a call starts an object that has stopped.
      if (this.#attempts > 1) {
        return deadlines.set(this, Math.min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** (this.#attempts - 2)));
      }
    }
    if (!this.#isStopped) this.#all.delete(this.#relay);
  }

  #change(changes: Iterable<string>): void {
    for (const change of changes) this.#changes.add(change);
    for (const oldest of this.#changes) {
      if (this.#changes.size <= MAX_CHANGES) break;
      this.#changes.delete(oldest);
    }
  }

  /** Drops the oldest messages beyond the limits. If one of them was an order, the relay is sent `lost`. */
  #limit(): void {
    let length = this.#messages.reduce((sum, message) => sum + lengthOf(message), 0);
    while (this.#messages.length > 1 && (this.#messages.length > MAX_MESSAGES || length > MAX_QUEUED_LENGTH)) {
      const dropped = this.#messages.shift()!; // There are two or more.
      length -= lengthOf(dropped);
      if (dropped.type === "message" && dropped.isOrder) this.#hasLostOrders = true;
    }
  }
}

const sizeOf = ({ item }: Entry): number => item ? lengthOf(item) : 0;
