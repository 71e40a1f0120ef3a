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
  /** After this one. */
  readonly from: number;
  readonly received: number[];
}

/** What was published at each offset, as far as anybody knows. */
interface Log {
  readonly ids: Map<number, string>;
  /** When each was first heard of, in seconds since the beginning. */
  readonly times: Map<number, string>;
  top: number;
}

/** What all clients together have seen and done. */
export class Checker {
  /** By channel and epoch. */
  readonly #logs = new Map<string, Log>();
  readonly #stretches: Stretch[] = [];
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
    this.#note(channel, epoch, offset, id, "its acknowledgement");
  }

  /** @param follower whose problems are told by this name. */
  follow(channel: string, follower: string): Follower {
    return new Follower(this, channel, follower);
  }

  begin(stretch: Stretch): void {
    this.#stretches.push(stretch);
  }

  received({ channel, follower, epoch }: Stretch, offset: number, id: string): void {
    this.counts.received++;
    this.#note(channel, epoch, offset, id, follower);
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
    const problems = [...this.#problems];
    const sorted = new Map(Array.from(this.#logs, ([key, { ids }]) => [key, Float64Array.from(ids.keys()).sort()]));
    for (const { channel, follower, epoch, from, received } of this.#stretches) {
      const offsets = sorted.get(`${channel} ${epoch}`) ?? new Float64Array();
      const last = received.at(-1) ?? from;
      const seen = new Set(received);
      const missing = [];
      for (let at = above(offsets, from); at < offsets.length && offsets[at]! <= last; at++) {
        if (!seen.has(offsets[at]!)) missing.push(offsets[at]!);
      }
      if (missing.length > 0) {
        const times = this.#logs.get(`${channel} ${epoch}`)?.times;
        const texts = missing.map((offset) => `${offset} (${times?.get(offset)} s)`);
        problems.push(`${follower} was not sent ${texts.join(", ")} of ${channel}, between ${from} and ${last}, in ${epoch}`);
      }
    }
    return problems;
  }

  /** How many histories there were: a channel whose history was lost has begun another one. */
  get histories(): number {
    return this.#logs.size;
  }

  /** The last offset of a channel's history, as far as anybody knows. */
  top(channel: string, epoch: string): number {
    return this.#logs.get(`${channel} ${epoch}`)?.top ?? 0;
  }

  #note(channel: string, epoch: string, offset: number, id: string, source: string): void {
    const key = `${channel} ${epoch}`;
    let log = this.#logs.get(key);
    if (!log) this.#logs.set(key, log = { ids: new Map(), times: new Map(), top: 0 });
    log.top = Math.max(log.top, offset);
    const known = log.ids.get(offset);
    if (known === undefined) {
      log.ids.set(offset, id);
      log.times.set(offset, `${this.seconds}`);
    } else if (known !== id) this.problem(`${channel} has ${known} and ${id} at ${offset}, as ${source} says`);
  }
}

/** Where the first offset above the limit is. */
function above(offsets: Float64Array, limit: number): number {
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
