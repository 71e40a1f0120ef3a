import { serve } from "@hono/node-server";

// Only Bun and Deno have theirs; the cast is for checking it elsewhere.
const { Bun, Deno } = globalThis as unknown as {
  Bun?: { serve(options: object): { port: number } };
  Deno?: { serve(options: object, handler: (request: Request) => unknown): void };
};

/** Listens as the runtime does at best, and says the port. */
export function listen(fetch: (request: Request) => Response | Promise<Response>): void {
  const options = { port: 0, hostname: "127.0.0.1" };
  const say = ({ port }: { port: number }) => console.log(`PORT ${port}`);
  if (Bun) say(Bun.serve({ ...options, fetch }));
  else if (Deno) Deno.serve({ ...options, onListen: say }, fetch);
  else serve({ ...options, fetch }, say);
}
