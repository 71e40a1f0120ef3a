/** What the process uses. */
export interface Usage {
  /** Of the monotonic clock, in ms. */
  readonly at: number;
  /** Resident, in bytes. */
  readonly memory: number;
  /** Time of the processor so far, in ms. */
  readonly cpu: number;
}

/** The part of `process` that this file reads, which Bun, Deno and Node have. */
interface Process {
  memoryUsage?(): { rss: number };
  cpuUsage?(): { user: number; system: number };
}

/** Reads what the process uses; `undefined` where the runtime does not say. */
export function readUsage(at: number): Usage | undefined {
  const { process } = globalThis as { process?: Process }; // Of the runtime, or absent.
  if (!process?.memoryUsage || !process.cpuUsage) return undefined;
  try {
    const { user, system } = process.cpuUsage();
    return { at, memory: process.memoryUsage().rss, cpu: (user + system) / 1_000 };
  } catch {
    return undefined; // Deno without the permission.
  }
}
