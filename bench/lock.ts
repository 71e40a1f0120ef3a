import { spawn } from "node:child_process";
import { once } from "node:events";

/** Waits for a file that others lock too, by flock(1), and returns what lets go of it. An exit lets go of it as well. */
export async function lock(file: string): Promise<() => void> {
  const holder = spawn("flock", [file, "sh", "-c", "echo && exec cat"], { stdio: ["pipe", "pipe", "inherit"] });
  const gone = once(holder, "exit").then(([code]) => {
    throw new Error(`Cannot lock ${file}: flock exited with ${code}`);
  });
  gone.catch(() => {}); // Once it is held, its end is ours.
  await Promise.race([once(holder.stdout, "data"), gone]);
  return () => holder.stdin.end();
}
