/** The project in a Durable Object. */
import { createWebSocketObject, forward } from "../../src/serve/cloudflare.ts";
import { createNoroshi } from "./noroshi-app.ts";

export class Bench extends createWebSocketObject(() => createNoroshi()) {}

export default forward((
  env: {
    BENCH: {
      getByName(name: string): { fetch(request: Request): Promise<Response> };
    };
  },
) => env.BENCH.getByName("main"));
