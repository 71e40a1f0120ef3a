/** Memory and CPU time of the process. */
export interface Usage {
  /** Time of the monotonic clock, in ms. */
  readonly at: number;
  /** Resident memory, in bytes. */
  readonly memory: number;
  /** CPU time so far, in ms. */
  readonly cpu: number;
}

/** The part of `process` that this file reads, which Bun, Deno and Node have. */
interface Process {
  memoryUsage?(): { rss: number };
  cpuUsage?(): { user: number; system: number };
}

/** Reads the memory and CPU time of the process; `undefined` if the runtime does not report them. */
export function readUsage(at: number): Usage | undefined {
  const { process } = globalThis as { process?: Process }; // Of the runtime, or absent.
  if (!process?.memoryUsage || !process.cpuUsage) return undefined;
  try {
    const { user, system } = process.cpuUsage();
    return { at, memory: process.memoryUsage().rss, cpu: (user + system) / 1_000 };
  } catch {
    return undefined; // Deno without permission.
  }
}
