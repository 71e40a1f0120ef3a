/** What `bench/events.ts` and `bench/streams.ts` share: clients that count items, how they are measured, and the turns of a run. */
import process from "node:process";
import { setTimeout as sleep } from "node:timers/promises";
import { lock } from "./lock.ts";
import { cpuOf, memoryOf } from "./process.ts";

/** Clients that connect at once. */
const AT_ONCE = 50;

/** Times 10 ms until each client must have an item. */
const TRIES = 6_000;

/** Counts the items of a client, and looks at nothing else. */
export class ItemCounter {
  count = 0;
  faults = 0;
  readonly delays: number[] = [];
  #next: number | undefined;

  /** @param first number of the first item. @default any */
  constructor(first?: number) {
    this.#next = first;
  }

  /** Counts the items of a text. Returns where the last one ends, or 0. */
  take(text: string): number {
    const now = performance.timeOrigin + performance.now();
    let from = 0;
    for (;;) {
      const start = text.indexOf('{"n":', from);
      const end = start < 0 ? -1 : text.indexOf('"}', start);
      if (end < 0) return from;
      const number = parseInt(text.slice(start + 5, start + 20), 10);
      if (this.#next !== undefined && number !== this.#next) this.faults++;
      this.#next = number + 1;
      this.count++;
      const at = text.indexOf('"at":', start) + 5;
      this.delays.push(now - parseFloat(text.slice(at, at + 20)));
      from = end;
    }
  }
}

/** A client that receives items. */
export interface ItemReader {
  readonly items: ItemCounter;
  close(): void;
}

/** What readers have measured. */
export interface ItemSample {
  /** In s a million items. */
  cpu: number;
  /** Items a second. */
  rate: number;
  /** Delays in ms. */
  p50: number;
  p99: number;
  /** Resident memory, in MiB. */
  memory: number;
  /** Items that were missing, doubled or out of order. */
  faults: number;
}

/** Connects readers, and measures the server once each has an item. @param name of the server, for an error. */
export async function measureItems(
  name: string,
  pids: readonly number[],
  { count, seconds }: { count: number; seconds: number },
  open: () => Promise<ItemReader>,
): Promise<ItemSample> {
  const readers: ItemReader[] = [];
  try {
    while (readers.length < count) {
      readers.push(...await Promise.all(Array.from({ length: Math.min(AT_ONCE, count - readers.length) }, open)));
    }
    for (let tries = 0; readers.some(({ items }) => items.count === 0); tries++) {
      if (tries === TRIES) throw new Error(`Cannot measure ${name}: a client has no item`);
      await sleep(10);
    }
    await sleep(200 * seconds); // Warms up.
    for (const { items } of readers) items.delays.length = 0;
    const [before, start] = [cpuOf(pids), performance.now()];
    await sleep(1_000 * seconds);
    const [after, end] = [cpuOf(pids), performance.now()];
    const delays = readers.flatMap(({ items }) => items.delays);
    return {
      cpu: (after - before) / delays.length * 1e6,
      rate: delays.length / (end - start) * 1_000,
      p50: percentile(delays, 0.5),
      p99: percentile(delays, 0.99),
      memory: memoryOf(pids) / 1_024,
      faults: readers.reduce((sum, { items }) => sum + items.faults, 0),
    };
  } finally {
    for (const reader of readers) reader.close();
  }
}

/** The samples of each subject. Rounds alternate: what else the machine does meanwhile meets all of them. */
export async function inTurns<Subject, Sample>(
  subjects: readonly Subject[],
  { rounds, lock: file }: { rounds: string; lock?: string | undefined },
  measure: (subject: Subject) => Promise<Sample>,
): Promise<Map<Subject, Sample[]>> {
  const samples = new Map<Subject, Sample[]>(subjects.map((subject) => [subject, []]));
  for (let round = 0; round < Number(rounds); round++) {
    for (const subject of subjects) {
      const release = file === undefined ? () => {} : await lock(file);
      try {
        samples.get(subject)!.push(await measure(subject)); // Set above.
      } finally {
        release();
      }
    }
  }
  return samples;
}

/** Runs the program and ends it: sockets that were cut may linger, and an exit ends the servers too. */
export async function runToEnd(main: () => Promise<void>): Promise<never> {
  for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, () => process.exit(1));
  await main();
  process.exit();
}

export const percentile = (numbers: readonly number[], part: number): number =>
  Float64Array.from(numbers).sort()[Math.floor(numbers.length * part)] ?? NaN;

export const median = (numbers: number[]): number => numbers.sort((a, b) => a - b)[numbers.length >> 1] ?? NaN;
