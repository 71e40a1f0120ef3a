import { publish } from "./dialogs.ts";
import { create, KeyedList, setText } from "./dom.ts";
import { json, number } from "./format.ts";
import { act, look, may } from "./live.ts";
import type { ChannelDetail, ChannelRow } from "../shown.ts";
import type { View } from "./view.ts";

/** Ticks between two readings of the list. */
const TICKS = 2;

type Position = { readonly epoch: string; readonly offset: number };

/** The channels that are open on any node, with the members and the history of one. */
export function createChannels(): View {
  const search = create("input", {
    ...{ type: "search", id: "channel-search", placeholder: "Name of a channel", autocomplete: "off" },
    input: () => void read(),
  });
  const [count, actions, body] = [
    create("p", { class: "count", role: "status" }),
    create("div", { class: "actions" }),
    create("tbody"),
  ];
  const empty = create("p", { class: "empty" }, "No channel is open.");
  const rows = new KeyedList<ChannelRow>(body, createRow, showRow);
  const panel = new ChannelPanel();
  let [reading, ticks] = [0, 0];

  function createRow({ name }: ChannelRow): HTMLElement {
    const open = create("button", { type: "button", class: "link", click: () => panel.open(name) }, name);
    return create("tr", {}, create("th", { scope: "row" }, open), ...[0, 1, 2, 3].map(() => create("td")));
  }

  const read = async () => {
    const number = ++reading;
    ticks = 0;
    const found = new Map<string, ChannelRow>();
    let total = 0;
    try {
      for await (const { data } of look("channels", { text: search.value })) {
        total = Math.max(total, data.total);
        for (const row of data.rows) found.set(row.name, merge(found.get(row.name), row));
      }
    } catch {
      return; // The connection was lost: the list is read again when it is back.
    }
    if (number !== reading) return;
    const sorted = [...found].sort(([, one], [, other]) => other.subscriptions - one.subscriptions);
    empty.hidden = sorted.length > 0;
    rows.show(sorted);
    setText(count, total > sorted.length ? `${sorted.length} of ${total} channels` : `${sorted.length} channels`);
  };

  return {
    name: "channels",
    title: "Channels",
    element: create(
      "section",
      { "aria-labelledby": "channels-title" },
      create("h2", { id: "channels-title", class: "hidden" }, "Channels"),
      create(
        "div",
        { class: "toolbar" },
        create("label", { for: "channel-search", class: "hidden" }, "Search channels"),
        search,
        count,
        actions,
      ),
      create(
        "div",
        { class: "split" },
        create(
          "div",
          { class: "panel scroll", tabindex: 0, role: "region", "aria-label": "Open channels" },
          create(
            "table",
            {},
            create(
              "thead",
              {},
              create(
                "tr",
                {},
                ...["Channel", "Declared as", "Subscriptions", "Published", "Position"].map((head) =>
                  create("th", { scope: "col" }, head)
                ),
              ),
            ),
            body,
          ),
          empty,
        ),
        panel.element,
      ),
    ),
    tick(isShown) {
      if (isShown && ++ticks >= TICKS) void read();
    },
    open() {
      actions.replaceChildren(
        ...may("publish") ? [create("button", { type: "button", click: () => publish() }, "Publish…")] : [],
      );
      void read();
    },
  };
}

/** A channel that is open on two nodes. */
function merge(one: ChannelRow | undefined, other: ChannelRow): ChannelRow {
  if (!one) return other;
  const isAhead = (one.position?.offset ?? -1) > (other.position?.offset ?? -1);
  return {
    ...other,
    subscriptions: one.subscriptions + other.subscriptions,
    rate: one.rate + other.rate,
    position: isAhead ? one.position : other.position,
  };
}

function showRow(row: HTMLElement, { declared, subscriptions, rate, position }: ChannelRow): void {
  const cells = [declared, number(subscriptions), `${number(rate)} /s`, position ? number(position.offset) : "–"];
  cells.forEach((cell, index) => setText(row.children[index + 1]!, cell)); // After the name, as createRow has it.
}

/** The members and the history of one channel. */
class ChannelPanel {
  readonly element: HTMLElement;
  readonly #content = create("div");
  #name = "";

  constructor() {
    const close = create("button", {
      ...{ type: "button", class: "close", "aria-label": "Close" },
      click: () => this.element.hidden = true,
    }, "×");
    this.element = create("aside", { class: "panel detail", "aria-label": "Channel", hidden: true }, close, this.#content);
  }

  open(name: string): void {
    this.#name = name;
    this.element.hidden = false;
    void this.#read();
  }

  /** @param after the position that the history is read from. @default the latest publications */
  async #read(after?: Position): Promise<void> {
    const name = this.#name;
    let detail: ChannelDetail;
    try {
      if (!may("read")) throw new Error("You are not allowed to read channels.");
      detail = await act("read", { name, ...(after && { after }) }) as ChannelDetail; // As the server answers.
    } catch (error) {
      const text = error instanceof Error ? error.message : String(error);
      return void this.#content.replaceChildren(create("h3", {}, name), create("p", { class: "error" }, text));
    }
    if (name !== this.#name) return;
    this.#content.replaceChildren(
      create("h3", {}, name),
      create(
        "div",
        { class: "buttons" },
        create("button", { type: "button", click: () => void this.#read() }, "Latest"),
        ...may("publish") ? [create("button", { type: "button", click: () => publish(name) }, "Publish…")] : [],
      ),
      ...membersOf(detail),
      ...this.#historyOf(detail, after),
    );
  }

  #historyOf({ history }: ChannelDetail, after: Position | undefined): HTMLElement[] {
    const title = create("h4", {}, "History");
    if (!history) return [title, create("p", { class: "empty" }, "The channel keeps no history.")];
    const { epoch, offset, publications } = history;
    const offsets = publications.map(({ offset }) => offset);
    const step = (text: string, from: number) =>
      create("button", { type: "button", click: () => void this.#read({ epoch, offset: Math.max(0, from) }) }, text);
    const [first, last] = [offsets[0], offsets.at(-1)];
    return [
      title,
      create("p", { class: "soft" }, `Ends at offset ${offset}, epoch ${epoch}`),
      create(
        "div",
        { class: "buttons" },
        first !== undefined && first > 1 && step("Earlier", first - 51),
        last !== undefined && last < offset && step("Later", last),
      ),
      ...publications.length === 0
        ? [create("p", { class: "empty" }, after ? "Nothing is kept after this position." : "Nothing was published.")]
        : [create(
          "ol",
          { class: "publications" },
          ...publications.toReversed().map(({ event, data, offset }) =>
            create(
              "li",
              {},
              create("b", {}, event),
              create("span", { class: "soft" }, ` at ${offset}`),
              create("pre", { tabindex: 0 }, json(data)),
            )
          ),
        )],
    ];
  }
}

function membersOf({ members }: ChannelDetail): HTMLElement[] {
  const title = create("h4", {}, members ? `Members (${members.length})` : "Members");
  if (!members) return [title, create("p", { class: "empty" }, "The channel is declared without presence.")];
  if (members.length === 0) return [title, create("p", { class: "empty" }, "Nobody is a member.")];
  return [title, create("ul", { class: "tags" }, ...members.slice(0, 200).map(({ user }) => create("li", {}, user)))];
}
