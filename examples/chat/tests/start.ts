import { serve } from "noroshi/serve";
import { hashPassword } from "../accounts.ts";
import { type ChatOptions, createChat } from "../chat.ts";

const hashes = new Map([
  ["ann", await hashPassword("ann's password")],
  ["ben", await hashPassword("ben's password")],
]);

/** Starts the chat on a free port. */
export async function start(options: Partial<ChatOptions> = {}) {
  const { app, controller } = createChat({
    secret: "a secret of the tests, 32 bytes long",
    findHash: async (user) => hashes.get(user),
    ...options,
  });
  const server = await serve(app, {
    hostname: "127.0.0.1",
    port: 0,
    onListen: false,
    handleSignals: false,
  });
  return {
    url: server.url,
    stop: () => Promise.all([server.close(), controller.close()]),
  };
}

/** Logs in, and returns what the session cookie contains. */
export async function logIn(
  url: string,
  user: string,
  password = `${user}'s password`,
): Promise<string> {
  const response = await fetch(new URL("/login", url), {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ user, password }),
  });
  const [, session] = /^session=([^;]+)/.exec(response.headers.get("set-cookie") ?? "") ?? [];
  if (session === undefined) {
    throw new Error(`Cannot log in: ${response.status}`);
  }
  return session;
}
