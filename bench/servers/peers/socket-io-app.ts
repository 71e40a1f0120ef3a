/** What Socket.IO is measured with: `io.emit`, and the same messages but for its own framing. */
import type { Server } from "socket.io";
import { said } from "../message.ts";
import type { Asked } from "./answers.ts";

export function answer(io: Server): void {
  io.on("connection", (socket) => {
    socket.on("echo", ({ uid, text }: Asked) => socket.emit("echo", { status: "ok", uid, data: text }));
    socket.on("say", ({ seq }: Asked) => io.emit("said", said(seq!)));
  });
}
