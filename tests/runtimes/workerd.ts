import { readdirSync, readFileSync } from "node:fs";
import process from "node:process";

/** Resident memory of the workerd that this process has started, in bytes. */
export function rssOfWorkerd(): number {
  let bytes = 0;
  for (const pid of readdirSync("/proc").filter((name) => /^\d+$/.test(name))) {
    try {
      const status = readFileSync(`/proc/${pid}/status`, "utf8");
      const [, parent] = status.match(/^PPid:\s*(\d+)/m) ?? [];
      const [, rss] = status.match(/^VmRSS:\s*(\d+)/m) ?? [];
      if (Number(parent) === process.pid && /^Name:\s*workerd/m.test(status)) bytes += Number(rss) * 1_024;
    } catch {
      // It has ended meanwhile.
    }
  }
  return bytes;
}
