/** The project behind Deno's own server and upgrade. */
import process from "node:process";
import { createNoroshi, STRICT } from "./noroshi-app.ts";

// Only Deno runs this; the cast is for checking it where Deno's types are not installed.
const { Deno } = globalThis as unknown as {
  Deno: {
    serve(options: object, handler: (request: Request) => unknown): void;
  };
};

Deno.serve({
  port: 0,
  hostname: "127.0.0.1",
  onListen: ({ port }: { port: number }) => console.log(`PORT ${port}`),
}, createNoroshi(undefined, process.argv.includes("strict") ? STRICT : undefined).app.fetch);
