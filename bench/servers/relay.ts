/** What a server without an engine does with a broker: one channel of Redis. */
import { createClient } from "redis";

/** Has every node deliver what any of them sends, this one too. */
export async function relay(url: string, deliver: (text: string) => void): Promise<(text: string) => void> {
  const client = createClient({ url });
  const subscriber = client.duplicate();
  await Promise.all([client.connect(), subscriber.connect()]);
  await subscriber.subscribe("bench", deliver);
  return (text) => void client.publish("bench", text);
}
