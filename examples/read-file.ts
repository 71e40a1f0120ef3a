import { readFile as read } from "node:fs/promises";

/** Reads a file of `public/`. Bun, Deno and Node have a disk; the Worker reads the same folder from its static assets. */
export function readFile(name: string): Promise<string> {
  return read(new URL(`./public/${name}`, import.meta.url), "utf8");
}
