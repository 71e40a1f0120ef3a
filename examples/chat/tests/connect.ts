import { createClient } from "noroshi/client";
import type { contract } from "../contract.ts";
import { logIn } from "./start.ts";

/** A client that has logged in. */
export async function connect(url: string, user: string) {
  const token = await logIn(url, user);
  return createClient<typeof contract>(new URL("/websocket", url), {
    token,
    tokenIn: "protocol",
  });
}
