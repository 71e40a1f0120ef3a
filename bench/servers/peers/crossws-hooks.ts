/** What crossws is measured with: one topic, and `publish`, which leaves the publisher out. */
import { defineHooks } from "crossws";
import { type Asked, echo, say } from "./answers.ts";

export const hooks = defineHooks({
  open: (peer) => {
    peer.subscribe("all");
  },
  message: (peer, received) => {
    const message: Asked = received.json();
    if (message.type === "echo") {
      peer.send(echo(message));
      return;
    }
    const text = say(message);
    peer.send(text);
    peer.publish("all", text);
  },
});
