import { serve } from "noroshi/serve";
import { createChat } from "../src/chat.ts";

export { WebSocket } from "ws"; // Node 20 has none of its own.

/** Starts the chat on a free port. */
export async function start(): Promise<{ url: string; stop(): Promise<void> }> {
  const { app } = createChat();
  const { url, close } = await serve(app, { port: 0, hostname: "127.0.0.1", onListen: false, handleSignals: false });
  return { url, stop: close };
}
