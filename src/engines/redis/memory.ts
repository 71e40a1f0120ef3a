import { KnownPositions } from "../broker/known-positions.ts";

/** What a node keeps across sessions. A server that has less than this has lost data. */
export class RedisMemory extends KnownPositions {
  /** The `run_id` of the server last connected to. */
  run = "";
  /** The highest count of publications to persistent histories that Redis has reported to this node. */
  publications = 0;
}
