import { createClient } from "redis";

type Client = ReturnType<typeof createClient>;

/** Never connected. For each new address `createClient` makes a class with all commands, which takes 0.05 s and memory; a duplicate has the same class. */
const origin = createClient();

/** As `createClient({ url })`, for tests that make many. */
export function redisClient(port: number): Client {
  return origin.duplicate({ url: `redis://127.0.0.1:${port}` }) as Client; // Its own modules are none of a test's business.
}

/** A connection for the commands of a test, without the 5 s that the library gives each of them: a machine may stand still for longer. */
export async function connectToRedis(port: number): Promise<Client> {
  const client = origin.duplicate({
    url: `redis://127.0.0.1:${port}`,
    socket: { connectTimeout: 120_000 },
    commandOptions: { timeout: 0 },
  });
  await client.connect();
  return client as Client; // As above.
}
