import { createWebSocketObject, forward } from "noroshi/cloudflare";
import { createChat } from "./chat.ts";

/** The bindings of wrangler.jsonc, and the secret of `npx wrangler secret put JWT_SECRET`. */
interface Env {
  CHAT: { getByName(name: string): { fetch(request: Request): Promise<Response> } };
  JWT_SECRET?: string;
}

export class Chat extends createWebSocketObject((env: Env) => createChat(env.JWT_SECRET)) {}

export default forward((env: Env) => env.CHAT.getByName("main"));
