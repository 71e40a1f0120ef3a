import { create, setText } from "./dom.ts";
import { nodeName, number, time } from "./format.ts";
import { look, nodes } from "./live.ts";
import { REASONS } from "./meanings.ts";
import type { Answers, Incident, StreamRow } from "../shown.ts";
import type { View } from "./view.ts";

/** Ticks between two readings. */
const TICKS = 2;

type Row<About extends "errors" | "refusals" | "streams"> = Answers[About]["rows"][number] & { readonly node: string };

/** A list that is read again and again while it is shown. */
function createList<About extends "errors" | "refusals" | "streams">(
  about: About,
  title: string,
  empty: string,
  parts: {
    timeOf(row: Row<About>): number;
    show(row: Row<About>): (Node | string)[];
  },
): { element: HTMLElement; read(): Promise<void> } {
  const [list, nothing] = [create("ol", { class: "incidents" }), create("p", { class: "empty" }, empty)];
  const heading = create("h3", {}, title);
  let shown = "";
  return {
    element: create("div", { class: "panel" }, heading, nothing, list),
    async read() {
      const rows: Row<About>[] = [];
      try {
        for await (const { node, data } of look(about)) {
          for (const row of data.rows) rows.push({ ...row, node } as Row<About>); // Of the answer to the same question.
        }
      } catch {
        return; // The connection was lost: it is read again when it is back.
      }
      const text = JSON.stringify(rows);
      if (text === shown) return; // A selection and the place of the reader stay.
      shown = text;
      rows.sort((one, other) => parts.timeOf(other) - parts.timeOf(one));
      nothing.hidden = rows.length > 0;
      setText(heading, rows.length > 0 ? `${title} (${number(rows.length)})` : title);
      list.replaceChildren(...rows.map((row) => create("li", {}, ...parts.show(row))));
    },
  };
}

/** A view of lists. */
function createView(name: string, title: string, lists: readonly { element: HTMLElement; read(): Promise<void> }[]): View {
  let ticks = 0;
  const read = () => lists.forEach((list) => void list.read());
  return {
    name,
    title,
    element: create(
      "section",
      { "aria-labelledby": `${name}-title` },
      create("h2", { id: `${name}-title`, class: "hidden" }, title),
      create("div", { class: lists.length > 1 ? "columns" : "" }, ...lists.map(({ element }) => element)),
    ),
    tick(isShown) {
      if (isShown && ++ticks % TICKS === 0) read();
    },
    open: read,
  };
}

const at = (ms: number) => create("time", { datetime: new Date(ms).toISOString() }, time(ms));

/** On which node, if there are several. */
const on = (node: string) => nodes.size > 1 ? create("span", { class: "soft" }, ` on ${nodeName(node)}`) : "";

function linkTo(node: string, uid: string, text: string): HTMLElement {
  return create("a", { href: `#clients/${encodeURIComponent(node)}/${encodeURIComponent(uid)}` }, text);
}

function showIncident({ at: ms, kind, text, code, ip, client: uid, stack, count, node }: Incident & { node: string }) {
  const more = count > 1 ? create("b", {}, ` ×${number(count)}`) : "";
  const from = ip === undefined ? "" : create("span", { class: "soft" }, ` from ${ip}`);
  return [
    create("p", {}, at(ms), " ", create("strong", {}, kind === "error" ? code ?? "Error" : kind), more, from, on(node)),
    create("p", {}, text || (kind === "error" ? "" : REASONS[kind])),
    ...kind !== "error" && text ? [create("p", { class: "soft" }, REASONS[kind])] : [],
    ...uid === undefined ? [] : [create("p", {}, linkTo(node, uid, "The client"))],
    ...stack === undefined ? [] : [create("details", {}, create("summary", {}, "Stack"), create("pre", { tabindex: 0 }, stack))],
  ];
}

/** Errors, and refusals with their reasons. */
export const createErrors = (): View =>
  createView("errors", "Errors", [
    createList("errors", "Errors", "No error has happened.", { timeOf: ({ at }) => at, show: showIncident }),
    createList("refusals", "Refused", "No client was refused.", { timeOf: ({ at }) => at, show: showIncident }),
  ]);

/** Streams that have not ended. */
export const createStreams = (): View =>
  createView("streams", "Streams", [
    createList("streams", "Streams that have not ended", "No stream is open.", {
      timeOf: ({ startedAt }) => startedAt,
      show: ({ type, uid, user, startedAt, node }: StreamRow & { node: string }) => [
        create(
          "p",
          {},
          create("strong", {}, type),
          " to ",
          linkTo(node, uid, user ?? "an anonymous client"),
          " since ",
          at(startedAt),
          on(node),
        ),
      ],
    }),
  ]);
