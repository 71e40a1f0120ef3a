/** What Linux tells of a process and its children. */
import { readdirSync, readFileSync, writeFileSync } from "node:fs";

/** Of the process and all below it. */
export function tree(pid: number): number[] {
  const pids = [pid];
  for (const task of list(`/proc/${pid}/task`)) {
    for (const child of read(`/proc/${pid}/task/${task}/children`).split(" ")) {
      if (child) pids.push(...tree(Number(child)));
    }
  }
  return pids;
}

/** Those of a program, by its name. */
export function named(pids: readonly number[], program: string): number[] {
  return pids.filter((pid) => read(`/proc/${pid}/comm`).trim() === program);
}

/** CPU time of all their threads, in s: schedstat counts ns, where stat counts ticks of 10 ms. */
export function cpuOf(pids: readonly number[]): number {
  let ns = 0;
  for (const pid of pids) {
    for (const task of list(`/proc/${pid}/task`)) {
      ns += Number(read(`/proc/${pid}/task/${task}/schedstat`).split(" ")[0]);
    }
  }
  return ns / 1e9;
}

/** Resident memory, in kB: now, or its most since `resetPeak`. */
export function memoryOf(pids: readonly number[], what: "VmRSS" | "VmHWM" = "VmRSS"): number {
  let kb = 0;
  for (const pid of pids) {
    kb += Number(read(`/proc/${pid}/status`).match(new RegExp(`${what}:\\s+(\\d+)`))?.[1] ?? 0);
  }
  return kb;
}

/** Has the kernel forget the most memory they had: it sees peaks that sampling would miss. */
export function resetPeak(pids: readonly number[]): void {
  for (const pid of pids) writeFileSync(`/proc/${pid}/clear_refs`, "5");
}

/** How many descriptors a process may hold. */
export function maxDescriptors(): number {
  const hard = read("/proc/self/limits").match(/Max open files\s+\S+\s+(\S+)/)
    ?.[1];
  return hard === "unlimited" ? Infinity : Number(hard ?? 1024);
}

// A thread or process may end between being listed and being read: then it counts nothing.
function read(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return "";
  }
}

function list(path: string): string[] {
  try {
    return readdirSync(path);
  } catch {
    return [];
  }
}
