import { createClient } from "redis";

/** A connection for the commands of a test, without the 5 s that the library gives each of them: a machine may stand still for longer. */
export async function connectToRedis(port: number): Promise<ReturnType<typeof createClient>> {
  const client = createClient({
    url: `redis://127.0.0.1:${port}`,
    socket: { connectTimeout: 120_000 },
    commandOptions: { timeout: 0 },
  });
  await client.connect();
  return client as ReturnType<typeof createClient>; // Its own modules are none of a test's business.
}
