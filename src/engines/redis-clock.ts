import * as v from "valibot";
import type { RedisConnection } from "./redis-client.ts";

const Time = v.tuple([v.pipe(v.string(), v.transform(Number)), v.pipe(v.string(), v.transform(Number))]);

/** The server's clock: as it was last looked at, and what has passed here since. */
export class RedisClock {
  readonly #connection: RedisConnection;
  #time = 0;
  #at = 0;

  constructor(connection: RedisConnection) {
    this.#connection = connection;
  }

  /** In ms. */
  now(): number {
    return this.#time + performance.now() - this.#at;
  }

  /** What passes on the way back makes this clock late, never early. */
  async look(): Promise<void> {
    const [seconds, microseconds] = v.parse(Time, await this.#connection.command("TIME"));
    this.#time = seconds * 1_000 + microseconds / 1_000;
    this.#at = performance.now();
  }
}
