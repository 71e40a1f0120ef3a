import { KnownPositions } from "../broker/known-positions.ts";

/** What a node remembers of Redis across sessions. A server that has less has lost data. */
export class RedisMemory extends KnownPositions {
  /** The `run_id` of the server last connected to. */
  run = "";
  /** Number of publications to persistent histories, at the last one that this node received or that was acknowledged to it. */
  publications = 0;
}
