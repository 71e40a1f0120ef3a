import { type Clock, Deadlines, systemClock } from "../../src/base/clock.ts";
import type { Engine, EngineHost, EngineStatus, Member, Position, Publication } from "../../src/engines/engine.ts";
import { inTime } from "../support/waiting.ts";

/** One thing an engine has told of the members of a channel. */
export interface Presence {
  readonly channel: string;
  readonly joined: readonly Member[];
  readonly left: readonly string[];
}

/** A gap that an engine has told of. */
export interface Gap {
  readonly channel: string;
  readonly position: Position | undefined;
  /** Publications of the channel that had been told of before. */
  readonly told: number;
}

/** A node that writes down what its engine tells it, and can be waited for. */
export class TestHost implements EngineHost {
  readonly node: string = crypto.randomUUID();
  readonly deadlines: Deadlines;
  readonly gaps: string[] = [];
  readonly presence: Presence[] = [];
  readonly messages: string[] = [];
  /** Of the messages that came late: how late, in ms. */
  readonly ages: number[] = [];
  readonly statuses: EngineStatus[] = [];
  readonly errors: unknown[] = [];
  readonly #gaps: Gap[] = [];
  readonly #publications = new Map<string, Publication[]>();
  readonly #clock: Clock;
  readonly #waiting = new Set<() => void>();
  /** It does nothing any more. */
  isStopped = false;

  constructor(clock: Clock = systemClock) {
    this.#clock = clock;
    const setTimeout = (callback: () => void, delay: number) => clock.setTimeout(() => this.isStopped || callback(), delay);
    this.deadlines = new Deadlines({ ...bound(clock), setTimeout }, (error) => this.report(error));
  }

  /** Lets nothing that the engine waits for come: to the others it is as a process that was killed, or that hangs. */
  stop(): void {
    this.isStopped = true;
  }

  now(): number {
    return this.#clock.now();
  }

  published(channel: string, publication: Publication): void {
    this.publications(channel).push(publication);
    this.#told();
  }

  gap(channel: string, position?: Position): void {
    this.gaps.push(channel);
    this.#gaps.push({ channel, position, told: this.publications(channel).length });
    this.#told();
  }

  present(channel: string, joined: readonly Member[], left: readonly string[]): void {
    this.presence.push({ channel, joined, left });
    this.#told();
  }

  received(message: string, age?: number): void {
    this.messages.push(message);
    if (age !== undefined) this.ages.push(age);
    this.#told();
  }

  status(status: EngineStatus): void {
    this.statuses.push(status);
    this.#told();
  }

  report(error: unknown): void {
    this.errors.push(error);
    this.#told();
  }

  /** What was published to the channel, as it was told. */
  publications(channel: string): Publication[] {
    let publications = this.#publications.get(channel);
    if (!publications) this.#publications.set(channel, publications = []);
    return publications;
  }

  /** Gaps of the channel. */
  gapsOf(channel: string): Gap[] {
    return this.#gaps.filter((gap) => gap.channel === channel);
  }

  /** The data of what was published to the channel, read. */
  data(channel: string): unknown[] {
    return this.publications(channel).map(({ data }) => JSON.parse(data));
  }

  /** Who is in the channel by what was told, and with which data. */
  membersOf(channel: string): Record<string, string | undefined> {
    const members: Record<string, string | undefined> = {};
    for (const { joined, left, channel: told } of this.presence) {
      if (told !== channel) continue;
      for (const user of left) delete members[user];
      for (const { user, data } of joined) members[user] = data;
    }
    return members;
  }

  /** Resolves when the condition holds, which is looked at whenever the engine has told something. Rejects with all that it told if it hangs. */
  async until(condition: () => boolean): Promise<void> {
    if (condition()) return;
    let look = () => {};
    const holds = new Promise<void>((resolve) => {
      look = () => {
        if (!condition()) return;
        this.#waiting.delete(look);
        resolve();
      };
      this.#waiting.add(look);
    });
    try {
      await inTime(condition, () => this.#seen(), holds);
    } finally {
      this.#waiting.delete(look);
    }
  }

  #seen(): object {
    const { statuses, errors, ages, isStopped } = this;
    const published = Object.fromEntries(
      [...this.#publications].map(([channel, all]) => [
        channel,
        `${all.length}, the last ${
          all.slice(-12).map(({ data, position }) => `${data.slice(0, 40)} at ${position?.offset}`).join(", ")
        }`,
      ]),
    );
    return {
      ...{ statuses, isStopped, errors: errors.map(String), gaps: this.#gaps.slice(-12), published },
      ...{ members: this.presence.slice(-12), messages: this.messages.slice(-12), ages: ages.slice(-12) },
    };
  }

  #told(): void {
    for (const look of [...this.#waiting]) look();
  }
}

/** A node of a test. */
export interface TestNode {
  readonly engine: Engine;
  readonly host: TestHost;
  /** Ends it as SIGKILL does: it says nothing to anybody. */
  kill(): void;
}

function bound(clock: Clock): Clock {
  return {
    now: () => clock.now(),
    monotonic: () => clock.monotonic(),
    setTimeout: (callback, delay) => clock.setTimeout(callback, delay),
    clearTimeout: (handle) => clock.clearTimeout(handle),
  };
}
