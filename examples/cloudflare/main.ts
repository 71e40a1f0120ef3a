import { createWebSocketObject, forward } from "../../src/serve/cloudflare.ts";
import { createNewsroom } from "../app.ts";

/** The bindings of `wrangler.jsonc`. */
interface Env {
  NEWSROOM: { getByName(name: string): { fetch(request: Request): Promise<Response> } };
  ASSETS: { fetch(url: string): Promise<Response> };
  JWT_SECRET?: string;
}

// What goes over the wire and is said in the rooms is in the object's SQLite storage, as the histories of channels: it outlives an eviction,
// which an idle object has after some ten seconds. The connections hibernate and stay.
export class Newsroom extends createWebSocketObject(({ ASSETS, JWT_SECRET }: Env) =>
  createNewsroom({
    // The binding looks at the path alone, but wants a whole URL.
    readFile: async (name) => await (await ASSETS.fetch(`https://assets.invalid/${name}`)).text(),
    secret: JWT_SECRET,
  })
) {}

export default forward((env: Env) => env.NEWSROOM.getByName("main"));
