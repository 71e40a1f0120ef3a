import { disconnect } from "./dialogs.ts";
import { create } from "./dom.ts";
import { bytes, nodeName, number, time } from "./format.ts";
import { look, may } from "./live.ts";
import { CAUSES } from "./meanings.ts";
import type { ClientDetail, Entry } from "../shown.ts";

/** Ticks between two readings. */
const TICKS = 2;

/** One client: its fields, and its timeline. */
export class ClientPanel {
  readonly element: HTMLElement;
  readonly #content = create("div");
  #shown: { node: string; uid: string; text: string } | undefined;
  #ticks = 0;

  /** @param closed is called when the person has closed it. */
  constructor(closed: () => void) {
    const close = () => {
      this.#shown = undefined;
      this.element.hidden = true;
      closed();
    };
    this.element = create(
      "aside",
      { class: "panel detail", "aria-label": "Client", hidden: true },
      create("button", { type: "button", class: "close", "aria-label": "Close", click: close }, "×"),
      this.#content,
    );
    // Of a dialog Escape closes the dialog only.
    addEventListener("keydown", ({ key }) => {
      if (key === "Escape" && this.#shown && !document.querySelector("dialog")) close();
    });
  }

  async open(node: string, uid: string): Promise<void> {
    this.#shown = { node, uid, text: "" };
    this.element.hidden = false;
    await this.#read();
    this.element.querySelector("button")?.focus();
  }

  async tick(): Promise<void> {
    if (this.#shown && ++this.#ticks % TICKS === 0) await this.#read();
  }

  async #read(): Promise<void> {
    const shown = this.#shown!; // Checked by the callers.
    const { node, uid } = shown;
    let found: ClientDetail | null = null;
    try {
      for await (const { data } of look("client", { node, client: uid })) found = data.client;
    } catch {
      return; // The connection was lost: what is shown stays until it is back.
    }
    const text = JSON.stringify(found);
    if (shown !== this.#shown || text === shown.text) return; // Another client, or nothing new.
    shown.text = text;
    const hasFocus = this.#content.contains(document.activeElement);
    this.#content.replaceChildren(
      ...found ? detailOf(found) : [create("p", { class: "empty" }, "The node does not know this client.")],
    );
    if (hasFocus) this.element.querySelector("button")?.focus(); // The focused button was replaced.
  }
}

function detailOf(client: ClientDetail): (Node | string)[] {
  const { uid, user, role, closed, timeline, forgotten } = client;
  const name = user ?? "an anonymous client";
  return [
    create("h3", {}, user ?? "Anonymous client"),
    ...closed
      ? [
        create(
          "p",
          { class: "why" },
          create("strong", {}, `Closed with ${closed.code}${closed.reason && ` “${closed.reason}”`}: ${closed.cause}. `),
          CAUSES[closed.cause],
        ),
      ]
      : [],
    create("dl", {}, ...factsOf(client).flatMap(([term, value]) => [create("dt", {}, term), create("dd", {}, value)])),
    ...!closed && may("disconnect")
      ? [
        create(
          "div",
          { class: "buttons" },
          create("button", { type: "button", click: () => disconnect(uid, role ? `${name} (${role})` : name) }, "Disconnect…"),
        ),
      ]
      : [],
    create("h4", {}, "Timeline"),
    ...forgotten > 0 ? [create("p", { class: "soft" }, `${number(forgotten)} earlier entries are not kept`)] : [],
    create("ol", { class: "timeline" }, ...timeline.toReversed().map(entryOf)),
  ];
}

function factsOf(client: ClientDetail): [string, string][] {
  const { node, uid, role, ip, url, origin, userAgent, protocol, expires_at, buffered, channels, openedAt } = client;
  const facts: [string, string | null | undefined][] = [
    ["uid", uid],
    ["Role", role],
    ["Address", ip],
    ["Since", openedAt === null ? null : time(openedAt)],
    ["Node", nodeName(node)],
    ["Channels", channels.join(", ")],
    ["Buffered", buffered > 0 ? bytes(buffered) : null],
    ["Credentials", expires_at === null ? null : `until ${time(expires_at * 1_000)}`],
    ["Origin", origin],
    ["URL", url],
    ["Subprotocol", protocol],
    ["User agent", userAgent],
  ];
  return facts.filter((fact): fact is [string, string] => typeof fact[1] === "string" && fact[1] !== "");
}

function entryOf({ kind, text, at, until, count }: Entry): HTMLElement {
  return create(
    "li",
    { "data-kind": kind },
    create("time", { datetime: new Date(at).toISOString() }, time(at)),
    create("span", {}, text, count > 1 && create("b", {}, ` ×${number(count)}`), until > at && ` until ${time(until)}`),
  );
}
