import { create, setText } from "./dom.ts";
import { json, nodeName, number, time } from "./format.ts";
import { may, nodes, tap } from "./live.ts";
import type { Tapped } from "../shown.ts";
import type { View } from "./view.ts";

/** Maximum number of messages that are shown. */
const MAX_MESSAGES = 200;

/** Messages of clients as they come in, once somebody has asked for them. */
export function createTap(): View {
  const [list, note, count] = [
    create("ol", { class: "publications" }),
    create("p", { class: "soft" }),
    create("p", { class: "count", role: "status" }),
  ];
  const filter = create("input", { type: "search", id: "tap-filter", placeholder: "Type or user", autocomplete: "off" });
  const error = create("p", { class: "error", role: "alert" });
  let end: (() => void) | undefined;
  let [seen, skipped] = [0, 0];

  const stop = () => {
    end?.();
    end = undefined;
    toggle.setAttribute("aria-pressed", "false");
    setText(toggle, "Start");
  };
  const start = () => {
    error.textContent = "";
    toggle.setAttribute("aria-pressed", "true");
    setText(toggle, "Stop");
    end = tap(({ node, messages, skipped: others }) => {
      seen += messages.length;
      skipped += others;
      const wanted = filter.value.trim().toLowerCase();
      for (const message of messages) {
        if (matches(message, wanted)) list.prepend(itemOf(message, node));
      }
      while (list.childElementCount > MAX_MESSAGES) list.lastElementChild?.remove();
      setText(count, `${number(seen)} seen, ${number(skipped)} left out`);
    }, (reason) => {
      error.textContent = reason.message;
      stop();
    });
  };
  const toggle = create(
    "button",
    { type: "button", class: "primary", "aria-pressed": "false", click: () => end ? stop() : start() },
    "Start",
  );
  return {
    name: "tap",
    title: "Tap",
    element: create(
      "section",
      { "aria-labelledby": "tap-title" },
      create("h2", { id: "tap-title", class: "hidden" }, "Tap"),
      create(
        "div",
        { class: "toolbar" },
        toggle,
        create("label", { for: "tap-filter", class: "hidden" }, "Filter messages"),
        filter,
        create("button", { type: "button", click: () => list.replaceChildren() }, "Clear"),
        count,
      ),
      error,
      create(
        "div",
        { class: "panel" },
        create(
          "p",
          { class: "soft" },
          "Messages that clients send: of each node the first 20 of a second. Values of fields such as password and token are hidden.",
        ),
        note,
        list,
      ),
    ),
    tick(isShown) {
      if (!isShown) return;
      toggle.disabled = !may("tap");
      setText(note, may("tap") ? "" : "You are not allowed to tap.");
    },
  };
}

const matches = ({ type, user }: Tapped, text: string): boolean =>
  text === "" || type.toLowerCase().includes(text) || (user ?? "").toLowerCase().includes(text);

function itemOf({ at, uid, user, type, message }: Tapped, node: string): HTMLElement {
  return create(
    "li",
    {},
    create("time", { datetime: new Date(at).toISOString() }, time(at)),
    " ",
    create("b", {}, type),
    " of ",
    create("a", { href: `#clients/${encodeURIComponent(node)}/${encodeURIComponent(uid)}` }, user ?? "an anonymous client"),
    nodes.size > 1 ? ` on ${nodeName(node)}` : "",
    create("pre", { tabindex: 0 }, json(message)),
  );
}
