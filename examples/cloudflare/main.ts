import { createWebSocketObject, forward } from "../../src/runtimes/cloudflare.ts";
import { createNewsroom } from "../app.ts";

/** The bindings of `wrangler.jsonc`. */
interface Env {
  NEWSROOM: { getByName(name: string): { fetch(request: Request): Promise<Response> } };
  ASSETS: { fetch(url: string): Promise<Response> };
  JWT_SECRET?: string;
}

// What goes over the wire is kept in the object's memory: it is forgotten with an eviction, which an idle object has after some ten
// seconds. What is said in the rooms is in its SQLite storage, as the history of a channel. The connections hibernate and stay.
export class Newsroom extends createWebSocketObject(({ ASSETS, JWT_SECRET }: Env) =>
  createNewsroom({
    // The binding looks at the path alone, but wants a whole URL.
    readFile: async (name) => await (await ASSETS.fetch(`https://assets.invalid/${name}`)).text(),
    secret: JWT_SECRET,
  })
) {}

export default forward((env: Env) => env.NEWSROOM.getByName("main"));
