import { type Client, createClient } from "noroshi/client";
import type { contract } from "../src/contract.ts";

export type ChatClient = Client<typeof contract>;

/** A client that logs in by name, and again whenever its token has expired. */
export function createChatClient(name: string): ChatClient {
  return createClient<typeof contract>("/websocket", { token: () => logIn(name) });
}

async function logIn(name: string): Promise<string> {
  const response = await fetch("/login", {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ name }),
  });
  const { token, error } = await response.json() as { token?: string; error?: string };
  if (token === undefined) throw new Error(error ?? `The server answered ${response.status}`);
  return token;
}

/** What the page says about the connection. */
export const STATUS = { connecting: "Connecting…", open: "Connected", waiting: "Connection lost, trying again…", closed: "Closed" };
