import { readFile as read } from "node:fs/promises";
import { buildClient } from "./build-client.ts";

let client: Promise<string> | undefined;

/** Reads a file of `public/`, and builds `client.js`. Bun, Deno and Node have a disk; the Worker reads the same folder from its static assets. */
export function readFile(name: string): Promise<string> {
  if (name === "client.js") return client ??= buildClient();
  return read(new URL(`./public/${name}`, import.meta.url), "utf8");
}
