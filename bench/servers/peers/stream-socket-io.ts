/** Socket.IO, which emits each item: on Node, and on Bun with its engine. It has no backpressure. */
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { Server } from "socket.io";
import { paced } from "../stream-source.ts";

const io = new Server();
io.on("connection", (socket) => {
  socket.on("paced", async () => {
    for await (const item of paced()) {
      if (!socket.connected) return;
      socket.emit("paced", item);
    }
  });
});

// Only Bun has it; the cast is for checking it elsewhere.
const { Bun } = globalThis as unknown as { Bun?: { serve(options: object): { port: number } } };
if (Bun) {
  const { Server: Engine } = await import("@socket.io/bun-engine");
  const engine = new Engine({ path: "/socket.io/" });
  io.bind(engine);
  console.log(`PORT ${Bun.serve({ ...engine.handler(), port: 0, hostname: "127.0.0.1" }).port}`);
} else {
  const server = createServer();
  io.attach(server);
  server.listen(0, "127.0.0.1", () => console.log(`PORT ${(server.address() as AddressInfo).port}`));
}
