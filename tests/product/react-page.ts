/** What `react-browser.test.ts` shows in a browser, and renders on a server before. */
import { createElement, Fragment, useEffect, useState } from "react";
import { type BareClient, createClient } from "../../src/client/client.ts";
import { streams } from "../../src/client/streams.ts";
import { useConnectionStatus, usePresence, useStream, useSubscription } from "../../src/client/react.ts";
import { PATIENT } from "../support/patient.ts";

/** The rooms that are shown, by the id of their element; `count` is an answer that comes in parts. */
export type Rooms = Record<string, string>;

// As an application does: where the module is loaded, on a server too, which may have no WebSocket.
const client = createClient("/websocket", { lazy: true, token: "ann", backoff: { base: 50, cap: 200 }, ...PATIENT, streams });

/** What a test finds in the page. */
export interface RoomsPage {
  client: BareClient;
  show(rooms: Rooms): void;
  /** The rooms whose effects have run: their components have subscribed. */
  shown?: Rooms;
  /** The answer that is shown. */
  answer?: { start(payload: { to?: number }): void; stop(): void };
}

const page: RoomsPage = Object.assign(globalThis, { client, show: () => {} });

function Answer({ id }: { id: string }) {
  const { status, items, text, result, error, start, stop } = useStream(client, "count");
  useEffect(() => {
    page.answer = { start, stop };
  }, [start, stop]);
  return createElement("p", { id }, [status, items.length, text, result ?? "-", error?.code ?? "fine"].join(" | "));
}

function Room({ id, channel }: { id: string; channel: string }) {
  const status = useConnectionStatus(client);
  const people = usePresence(client, channel);
  const { state: said, error } = useSubscription(client, channel, {
    initial: [] as unknown[],
    reduce: (said, { event, data }) => event === "init" ? data as unknown[] : [...said, data],
  });
  return createElement(
    "p",
    { id },
    [status, said.join(), people.map(({ user }) => user).join(), error?.code ?? "fine"].join(" | "),
  );
}

/** A page with rooms. */
export function App({ first }: { first: Rooms }) {
  const [rooms, setRooms] = useState(first);
  useEffect(() => {
    page.show = setRooms;
  }, []);
  // Runs after the effects of the components below.
  useEffect(() => {
    page.shown = rooms;
  }, [rooms]);
  return createElement(
    Fragment,
    null,
    ...Object.entries(rooms).map(([id, channel]) =>
      channel === "count" ? createElement(Answer, { key: id, id }) : createElement(Room, { key: id, id, channel })
    ),
  );
}
