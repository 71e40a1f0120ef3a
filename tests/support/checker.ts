/** Proves of a history what is promised of it: each client was sent it in order, once, and without a gap that it was not told of. */

interface Position {
  epoch: string;
  offset: number;
}

/** What clients receive of a channel. Whatever is in the message is read. */
// deno-lint-ignore no-explicit-any -- a message of a server that is being tested
type Message = any;

/** What one client was sent between two gaps that it was told of. */
interface Stretch {
  readonly channel: string;
  readonly follower: string;
  readonly epoch: string;
  /** After this one; later, after the last one that was reviewed. */
  from: number;
  received: number[];
  /** Of its channel and epoch, once anything is received. */
  log?: Log;
  /** Whether another one has begun. */
  isOver?: boolean;
}

/** What was published at each offset, as far as anybody knows. */
interface Log {
  readonly ids: Map<number, string>;
  /** When each was first heard of, in seconds since the beginning. */
  readonly times: Map<number, number>;
  top: number;
  /** The offsets in order, without those that are new since the last review. */
  sorted: number[];
  fresh: number[];
}

/** What all clients together have seen and done. */
export class Checker {
  /** By channel and epoch. */
  readonly #logs = new Map<string, Log>();
  #stretches: Stretch[] = [];
  readonly #problems: string[] = [];
  /** How much of what there was, for whoever reads that there were no problems. */
  readonly counts = { published: 0, received: 0, begun: 0, recovered: 0, lost: 0 };

  readonly #start = performance.now();

  /** Since the beginning. */
  get seconds(): number {
    return Math.round((performance.now() - this.#start) / 100) / 10;
  }

  /** A publication was acknowledged. */
  published(channel: string, { epoch, offset }: Position, id: string): void {
    this.counts.published++;
    this.#note(this.#logOf(channel, epoch), channel, offset, id, "its acknowledgement");
  }

  /** Whether nothing was wrong so far. {@link problems} may find more. */
  get isSound(): boolean {
    return this.#problems.length === 0;
  }

  /** @param follower whose problems are told by this name. */
  follow(channel: string, follower: string): Follower {
    return new Follower(this, channel, follower);
  }

  begin(stretch: Stretch): void {
    this.#stretches.push(stretch);
  }

  received(stretch: Stretch, offset: number, id: string): void {
    const { channel, follower, epoch } = stretch;
    this.counts.received++;
    this.#note(stretch.log ??= this.#logOf(channel, epoch), channel, offset, id, follower);
  }

  problem(text: string): void {
    this.#problems.push(text);
  }

  /**
   * Somebody was told of these members.
   *
   * @param there who they are to be.
   */
  members(source: string, told: Iterable<string>, there: ReadonlySet<string>): void {
    const known = new Set(told);
    const ghosts = [...known].filter((member) => !there.has(member));
    const missing = [...there].filter((member) => !known.has(member));
    if (ghosts.length > 0) this.problem(`${source} tells of ${ghosts.join(", ")}, who are not there`);
    if (missing.length > 0) this.problem(`${source} does not tell of ${missing.join(", ")}, who are there`);
  }

  /** Everything that was not as promised, once all is quiet. */
  problems(): string[] {
    this.review();
    return [...this.#problems];
  }

  /** Compares what was sent since the last time with what was published. Call it when all is quiet. */
  review(): void {
    for (const log of this.#logs.values()) {
      if (log.fresh.length === 0) continue;
      const isLater = log.sorted.length === 0 || log.fresh.every((offset) => offset > log.sorted.at(-1)!); // There is one.
      const both = isLater
        ? log.fresh.sort((one, other) => one - other)
        : [...log.sorted, ...log.fresh].sort((one, other) => one - other);
      if (isLater) log.sorted.push(...both);
      else log.sorted = both;
      log.fresh = [];
    }
    for (const stretch of this.#stretches) {
      const { channel, follower, epoch, from, received } = stretch;
      const last = received.at(-1);
      if (last === undefined) continue;
      const { sorted, times } = this.#logOf(channel, epoch);
      const seen = new Set(received);
      const missing = [];
      for (let at = above(sorted, from); at < sorted.length && sorted[at]! <= last; at++) {
        if (!seen.has(sorted[at]!)) missing.push(sorted[at]!);
      }
      if (missing.length > 0) {
        const texts = missing.map((offset) => `${offset} (${times.get(offset)} s)`);
        this.problem(`${follower} was not sent ${texts.join(", ")} of ${channel}, between ${from} and ${last}, in ${epoch}`);
      }
      stretch.from = last;
      stretch.received = [];
    }
    this.#stretches = this.#stretches.filter(({ isOver }) => !isOver);
  }

  /** How many histories there were: a channel whose history was lost has begun another one. */
  get histories(): number {
    return this.#logs.size;
  }

  /** The last offset of a channel's history, as far as anybody knows. */
  top(channel: string, epoch: string): number {
    return this.#logs.get(`${channel} ${epoch}`)?.top ?? 0;
  }

  #logOf(channel: string, epoch: string): Log {
    const key = `${channel} ${epoch}`;
    let log = this.#logs.get(key);
    if (!log) this.#logs.set(key, log = { ids: new Map(), times: new Map(), top: 0, sorted: [], fresh: [] });
    return log;
  }

  #note(log: Log, channel: string, offset: number, id: string, source: string): void {
    log.top = Math.max(log.top, offset);
    const known = log.ids.get(offset);
    if (known === undefined) {
      log.ids.set(offset, id);
      log.fresh.push(offset);
      log.times.set(offset, this.seconds);
    } else if (known !== id) this.problem(`${channel} has ${known} and ${id} at ${offset}, as ${source} says`);
  }
}

/** Where the first offset above the limit is. */
function above(offsets: readonly number[], limit: number): number {
  let [low, high] = [0, offsets.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (offsets[middle]! > limit) high = middle;
    else low = middle + 1;
  }
  return low;
}

/** What one client is sent of a channel, over all its connections. */
export class Follower {
  readonly #checker: Checker;
  readonly #channel: string;
  readonly #name: string;
  #stretch: Stretch | undefined;
  #position: Position | undefined;

  constructor(checker: Checker, channel: string, name: string) {
    this.#checker = checker;
    this.#channel = channel;
    this.#name = name;
  }

  /** Where the client is: what it recovers from. */
  get position(): Position | undefined {
    return this.#position;
  }

  /**
   * The answer to a `subscribe`.
   *
   * @param asked what it asked to recover from.
   */
  init({ epoch, offset, recovered }: Message, asked: Position | undefined): void {
    const { counts } = this.#checker;
    if (recovered === true) {
      counts.recovered++;
      if (!asked || asked.epoch !== epoch || asked.offset !== offset) {
        this.#problem(`recovered from ${epoch} ${offset}, not from where it asked`);
      }
      if (this.#position?.offset !== offset) this.#problem(`recovered from ${offset}, where it was not`);
    } else if (recovered === false) counts.lost++;
    else counts.begun++;
    if (asked && recovered === undefined) this.#problem("asked to recover and was not told whether it did");
    this.#position = { epoch, offset };
    if (this.#stretch) this.#stretch.isOver = true;
    this.#stretch = { channel: this.#channel, follower: this.#name, epoch, from: offset, received: [] };
    this.#checker.begin(this.#stretch);
  }

  event({ offset, data }: Message): void {
    const stretch = this.#stretch;
    if (!stretch || !this.#position) return this.#problem("was sent a publication before init");
    if (offset <= this.#position.offset) this.#problem(`was sent ${offset} after ${this.#position.offset}`);
    this.#position = { epoch: stretch.epoch, offset };
    stretch.received.push(offset);
    this.#checker.received(stretch, offset, data.id);
  }

  #problem(text: string): void {
    this.#checker.problem(`${this.#name} ${text}, of ${this.#channel}`);
  }
}
