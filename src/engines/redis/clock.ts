import * as v from "valibot";
import type { RedisConnection } from "./client.ts";

const Time = v.tuple([v.pipe(v.string(), v.transform(Number)), v.pipe(v.string(), v.transform(Number))]);

/** The server's clock: its time when last read, plus the local time since. */
export class RedisClock {
  readonly #connection: RedisConnection;
  #time = 0;
  #readAt = 0;

  constructor(connection: RedisConnection) {
    this.#connection = connection;
  }

  /** The server's time, in ms. */
  now(): number {
    return this.#time + performance.now() - this.#readAt;
  }

  /** Reads the server's time. Since the reply takes a while, this clock may be slow, but is never fast. */
  async read(): Promise<void> {
    const [seconds, microseconds] = v.parse(Time, await this.#connection.command("TIME"));
    this.#time = seconds * 1_000 + microseconds / 1_000;
    this.#readAt = performance.now();
  }
}
