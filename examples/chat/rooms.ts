import type { WebSocketController } from "noroshi";
import { Channels } from "noroshi/channels";
import { contract, ROOMS } from "./contract.ts";

/** Declares a channel for each room, and answers `say`. */
export function addRooms(
  controller: WebSocketController<typeof contract>,
): void {
  const channels = new Channels(controller, {
    "room:*": {
      // Clients only read. They write by `say`, where the server fills in the author.
      authorize: ({ action, channel }) =>
        action === "subscribe" &&
        ROOMS.some((room) => channel === `room:${room}`),
      presence: true,
      history: { size: 200, ttl: 24 * 60 * 60_000 },
      snapshot: async ({ history }) => (await history()).publications.map(({ data }) => data),
    },
  });

  controller.handle(
    "say",
    contract.requests.say,
    async ({ client, message }) => {
      const { id = crypto.randomUUID(), room, text } = message;
      const from = client.accountability.user ?? ""; // Every client has a session, and so a user.
      const said = { id, from, text, at: Date.now() };
      await channels.publish(`room:${room}`, "said", said, { id });
    },
  );
}
